"""Walk-forward research: search on the past, judge by what follows, and count every trial.

- `WalkForward` cuts the bars into folds and runs the study.
- `WalkForwardResult` holds what came of it, `FoldResult` one fold of it, `AskedModel` whom a fold asked.
- `bt_llm.research.ledger` keeps the trials.
"""

from __future__ import annotations

from bt_llm.research.walk_forward._metrics import Metric
from bt_llm.research.walk_forward._models import AskedModel
from bt_llm.research.walk_forward._results import FoldResult, ParameterStability, WalkForwardResult
from bt_llm.research.walk_forward._walk_forward import LEDGER, WalkForward

__all__ = [
    "LEDGER",
    "AskedModel",
    "FoldResult",
    "Metric",
    "ParameterStability",
    "WalkForward",
    "WalkForwardResult",
]
