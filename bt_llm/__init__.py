"""Backtest Backtrader strategies that are gated by a local LLM, reproducibly.

The public names stand in ``__init__.pyi`` and are imported when first used, so that ``import bt_llm`` costs
next to nothing and loads neither llama.cpp nor pandas.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
