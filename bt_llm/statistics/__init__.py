"""Statistics that tell an edge from luck, each with the source of its formula.

- Figures of one account: `sharpe_ratio`, `sortino_ratio`, `max_drawdown`, `calmar_ratio`.
- A Sharpe ratio against its own sampling error and the number of trials:
  `probabilistic_sharpe_ratio`, `expected_max_sharpe`, `deflated_sharpe_ratio`,
  `min_track_record_length`, all of which take returns or their `ReturnMoments`.
- A search: `probability_of_backtest_overfitting`.
- Two strategies on the same bars, and one among random ones: `paired_bootstrap`, `rank_p_value`.
- Two models' verdicts, and one's confidence: `agreement_matrix`, `cohens_kappa`, `mcnemar`,
  `brier_score`, `reliability_table`.

Returns are simple returns per bar and the risk-free rate is zero. A value that is not finite is
refused with `DataError`, never dropped. Only `paired_bootstrap` needs more than numpy and pandas:
``arch``, from ``pip install 'bt-llm[research]'``.
"""

from __future__ import annotations

from bt_llm.statistics.agreement import (
    McNemarMethod,
    agreement_matrix,
    brier_score,
    cohens_kappa,
    mcnemar,
    reliability_table,
)
from bt_llm.statistics.overfitting import OverfittingResult, Statistic, probability_of_backtest_overfitting
from bt_llm.statistics.performance import calmar_ratio, max_drawdown, sharpe_ratio, sortino_ratio
from bt_llm.statistics.resampling import BootstrapResult, paired_bootstrap, rank_p_value
from bt_llm.statistics.selection import (
    ReturnMoments,
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
)

__all__ = [
    "BootstrapResult",
    "McNemarMethod",
    "OverfittingResult",
    "ReturnMoments",
    "Statistic",
    "agreement_matrix",
    "brier_score",
    "calmar_ratio",
    "cohens_kappa",
    "deflated_sharpe_ratio",
    "expected_max_sharpe",
    "max_drawdown",
    "mcnemar",
    "min_track_record_length",
    "paired_bootstrap",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "rank_p_value",
    "reliability_table",
    "sharpe_ratio",
    "sortino_ratio",
]
