"""One strategy on one market: the run, the account, the metrics, and strategies out of files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
