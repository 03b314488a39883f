"""What lets a strategy's exposure in: the advice gate, news and trade gates, and the nulls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
