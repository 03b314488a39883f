"""Verdicts, news, regimes and states as Backtrader's lines; how often and how late a model is asked."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
