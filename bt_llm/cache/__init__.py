"""The record of what was asked: verdicts on disk by content, and the packs that carry them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
