"""Whether a gated strategy is better than the ungated one, and than a plain rule: judged together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bt_llm.backtest import Bootstrap, Section, interval
from bt_llm.plain_json import plain
from bt_llm.research._standing import FEWEST_TRADES, differences_section, ends_of, told_apart
from bt_llm.shown import Told
from bt_llm.statistics import PairDifference, StepwiseDifferences

__all__ = ["Against", "against"]

GATED = "gated"
_CALLED = {"ungated": "the ungated strategy", "rule": "the plain rule"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Against(Told):
    """How a gated strategy stands to runs that need no model, all judged together.

    Attributes
    ----------
    sharpe : StepwiseDifferences
        Its Sharpe ratio a year less those of the others: intervals that hold together, and p-values that are
        adjusted for each other.
    returns : StepwiseDifferences
        The same of mean returns a year; descriptive.
    differing : dict of str to int
        Trades that only one of the two made, by the other's name.
    """

    sharpe: StepwiseDifferences
    returns: StepwiseDifferences
    differing: dict[str, int] = field(default_factory=dict)

    def shown(self, one: PairDifference) -> bool:
        """Return whether a pair of `sharpe` differs by more than luck explains, in trades enough to say."""
        return self.sharpe.shown(one) and self._differs(one)

    def _differs(self, one: PairDifference) -> bool:
        return self.differing.get(one.second, FEWEST_TRADES) >= FEWEST_TRADES

    @property
    def sentence(self) -> str:
        """Whether it is better than each, in one sentence."""
        said = "; ".join(self._said(one) for one in self.sharpe.pairs)
        together = {1: "", 2: ", of the two, adjusted"}.get(len(self.sharpe.pairs), ", of all, adjusted")
        return f"In Sharpe ratio{together}, and for whatever reason: gated, it is {said}."

    def _said(self, one: PairDifference) -> str:
        name = _CALLED.get(one.second, one.second)
        if not self._differs(one):
            return (
                f"not to be told from {name}, as fewer than {FEWEST_TRADES} trades differ "
                f"({self.differing[one.second]})"
            )
        found = interval(one, "sharpe") + ("" if math.isnan(one.p_value) else f", p = {one.p_value:.3g}")
        if not self.shown(one):
            return f"not shown to be better or worse than {name}, {found}"
        return f"{'better' if one.estimate > 0.0 else 'worse'} than {name}, {found}"

    def sections(self) -> Iterator[Section]:
        """Yield the differences, with what could have been found."""
        yield differences_section(
            "Better than without the model",
            self.sharpe,
            self.returns,
            "The intervals hold together in 95 of 100 samples, and the p-values are adjusted for each other "
            "(Romano and Wolf). Better for whatever reason: what of it is the choice of when, is the one "
            "question of the test. Could be found: the true difference that would be seen four times in "
            "five. Returns are descriptive.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "comparisons": len(self.sharpe.pairs),
                "sentence": self.sentence,
                "sharpe": [
                    {
                        **ends_of(one),
                        "p_value": one.p_value,
                        "detectable": one.detectable,
                        "shown": self.shown(one),
                        "differing_trades": self.differing.get(one.second),
                    }
                    for one in self.sharpe.pairs
                ],
                "return": [ends_of(one) for one in self.returns.pairs],
            }
        )
        return found


def against(
    returns: Mapping[str, pd.Series[float]],
    bootstrap: Bootstrap,
    trades: Mapping[str, pd.DataFrame] | None = None,
) -> Against:
    """Return how the series ``gated`` stands to each of the others, all drawn together.

    Parameters
    ----------
    returns : mapping of str to Series
        Simple returns a bar by time; of a panel the pooled ones, so that all symbols of a date go together.
    bootstrap : Bootstrap
        How they are resampled.
    trades : mapping of str to DataFrame, optional
        The closed trades of each, as of `BacktestResult.trades`.

    Raises
    ------
    DataError
        If the series are not of the same bars.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> index = pd.date_range("2020-01-01", periods=500)
    >>> names = ["gated", "ungated", "rule"]
    >>> returns = pd.DataFrame(0.01 * rng.standard_normal((500, 3)), index, names)
    >>> found = against(dict(returns.items()), Bootstrap(resamples=199))
    >>> [found.shown(one) for one in found.sharpe.pairs], found.sentence[:33]
    ([False, False], 'In Sharpe ratio, of the two, adju')
    """
    others = [name for name in returns if name != GATED]
    pairs = [(GATED, name) for name in others]
    made = {name: told_apart(frame) for name, frame in (trades or {}).items()}
    return Against(
        sharpe=bootstrap.jointly(returns, pairs),
        returns=bootstrap.jointly(returns, pairs, "return"),
        differing={
            name: len(made[GATED].symmetric_difference(made[name])) for name in others if name in made
        },
    )
