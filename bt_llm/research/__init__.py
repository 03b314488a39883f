"""Does the model add anything: tests, comparisons, walk-forward, leakage, and the ledger of trials."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
