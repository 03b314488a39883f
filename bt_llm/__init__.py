"""Backtest Backtrader strategies that are gated by a local LLM, reproducibly.

The public names are imported when first used, so that ``import bt_llm`` costs next to nothing and loads
neither llama.cpp nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bt_llm.advisor import Advisor as Advisor
    from bt_llm.advisor import AdvisorConfig as AdvisorConfig
    from bt_llm.analysts import AnalystConfig as AnalystConfig
    from bt_llm.analysts import Headlines as Headlines
    from bt_llm.analysts import MarketAnalystAgent as MarketAnalystAgent
    from bt_llm.analysts import NewsAnalyst as NewsAnalyst
    from bt_llm.analysts import TradeAnalyst as TradeAnalyst
    from bt_llm.analysts import analyze_market_state as analyze_market_state
    from bt_llm.analysts import analyze_news_sentiment as analyze_news_sentiment
    from bt_llm.analysts import get_trading_advice as get_trading_advice
    from bt_llm.analyzers import LLMAnalyzer as LLMAnalyzer
    from bt_llm.backends.llama import LlamaModel as LlamaModel
    from bt_llm.backtest import BacktestResult as BacktestResult
    from bt_llm.backtest import GateStudy as GateStudy
    from bt_llm.backtest import gate_study as gate_study
    from bt_llm.backtest import run_backtest as run_backtest
    from bt_llm.cache import CacheMode as CacheMode
    from bt_llm.cache import VerdictCache as VerdictCache
    from bt_llm.config import ModelConfig as ModelConfig
    from bt_llm.exceptions import BtLlmError as BtLlmError
    from bt_llm.exceptions import ClusterError as ClusterError
    from bt_llm.gates import AlwaysOpen as AlwaysOpen
    from bt_llm.gates import Gate as Gate
    from bt_llm.gates import NeverOpen as NeverOpen
    from bt_llm.gates import attach_gate as attach_gate
    from bt_llm.indicators import LLMAdvice as LLMAdvice
    from bt_llm.manager import ModelManager as ModelManager
    from bt_llm.manager import batch_analyze as batch_analyze
    from bt_llm.news import LLMNews as LLMNews
    from bt_llm.news_gate import NewsGate as NewsGate
    from bt_llm.nulls import RandomGate as RandomGate
    from bt_llm.nulls import RuleGate as RuleGate
    from bt_llm.nulls import ShiftedGate as ShiftedGate
    from bt_llm.observers import LLMMarks as LLMMarks
    from bt_llm.policy import Policy as Policy
    from bt_llm.prompts import PromptTemplate as PromptTemplate
    from bt_llm.regime import MarketRegime as MarketRegime
    from bt_llm.research.cluster import dask_cluster as dask_cluster
    from bt_llm.research.comparison import ModelComparison as ModelComparison
    from bt_llm.research.comparison import compare_models as compare_models
    from bt_llm.research.cutoffs import before_after_cutoff as before_after_cutoff
    from bt_llm.research.cutoffs import training_cutoff as training_cutoff
    from bt_llm.research.identified import identified_probe as identified_probe
    from bt_llm.research.leakage import LeakReport as LeakReport
    from bt_llm.research.leakage import perturbation_check as perturbation_check
    from bt_llm.research.significance import GateTest as GateTest
    from bt_llm.research.significance import gate_test as gate_test
    from bt_llm.research.walk_forward import WalkForward as WalkForward
    from bt_llm.research.walk_forward import WalkForwardResult as WalkForwardResult
    from bt_llm.sizers import LLMSizer as LLMSizer
    from bt_llm.state import Feature as Feature
    from bt_llm.state import MarketState as MarketState
    from bt_llm.state import StateSpace as StateSpace
    from bt_llm.throttle import LLMThrottler as LLMThrottler
    from bt_llm.trade_gate import TradeAdviceGate as TradeAdviceGate
    from bt_llm.verdict import Action as Action
    from bt_llm.verdict import Verdict as Verdict

__version__ = "0.1.0"

_HOMES = {
    "advisor": ("Advisor", "AdvisorConfig"),
    "analysts": (
        "AnalystConfig",
        "Headlines",
        "MarketAnalystAgent",
        "NewsAnalyst",
        "TradeAnalyst",
        "analyze_market_state",
        "analyze_news_sentiment",
        "get_trading_advice",
    ),
    "analyzers": ("LLMAnalyzer",),
    "backends.llama": ("LlamaModel",),
    "backtest": ("BacktestResult", "GateStudy", "gate_study", "run_backtest"),
    "cache": ("CacheMode", "VerdictCache"),
    "config": ("ModelConfig",),
    "exceptions": (
        "BtLlmError",
        "CacheCorruptError",
        "CacheError",
        "ClusterError",
        "ConfigError",
        "DataError",
        "GenerationTimeout",
        "InsufficientMemoryError",
        "MissingExtraError",
        "ModelError",
        "ModelFileError",
        "ModelNotFoundError",
        "ModelNotLoadedError",
        "PackError",
        "PromptError",
        "ReplayMiss",
        "StrategyError",
    ),
    "gates": ("AlwaysOpen", "Gate", "NeverOpen", "attach_gate"),
    "indicators": ("LLMAdvice",),
    "manager": ("ModelManager", "batch_analyze"),
    "news": ("LLMNews",),
    "news_gate": ("NewsGate",),
    "nulls": ("RandomGate", "RuleGate", "ShiftedGate"),
    "observers": ("LLMMarks",),
    "policy": ("Policy",),
    "prompts": ("PromptTemplate",),
    "regime": ("MarketRegime",),
    "research.cluster": ("dask_cluster",),
    "research.comparison": ("ModelComparison", "compare_models"),
    "research.cutoffs": ("before_after_cutoff", "training_cutoff"),
    "research.identified": ("identified_probe",),
    "research.leakage": ("LeakReport", "perturbation_check"),
    "research.significance": ("GateTest", "gate_test"),
    "research.walk_forward": ("WalkForward", "WalkForwardResult"),
    "sizers": ("LLMSizer",),
    "state": ("Feature", "MarketState", "StateSpace"),
    "throttle": ("LLMThrottler",),
    "trade_gate": ("TradeAdviceGate",),
    "verdict": ("Action", "Verdict"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bt_llm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bt_llm.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names before any is imported."""
    return sorted({*globals(), *_MODULE_OF})
