"""A gate on histories that never happened: a model has nothing to remember of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import BacktestResult, Market, Section, problems_in, refusal, run_backtest, table_section
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat, close_returns, reordered
from bt_llm.exceptions import ConfigError
from bt_llm.gates import EntryGate
from bt_llm.models import Progress
from bt_llm.plain_json import plain
from bt_llm.progress import shows_progress
from bt_llm.research._null_runs import MOST_NULLS, NullRuns
from bt_llm.research._runs import Source
from bt_llm.settings import number, whole
from bt_llm.shown import Shown
from bt_llm.statistics import holm, phase_order, stationary_order

__all__ = ["HISTORIES", "SyntheticHistories", "synthetic_histories", "synthetic_market"]

HISTORIES: dict[str, Callable[..., NDArray[np.int64]]] = {
    "stationary bootstrap": stationary_order,
    "phase-randomised twin": phase_order,
}
"""The kinds of histories: how the bars are ordered anew."""

_KEEPS = {
    "stationary bootstrap": "bars in another order, by blocks: what follows within a block stays",
    "phase-randomised twin": "bars in another order with the same linear autocorrelation",
}


def synthetic_market(market: Market, kind: str, seed: int) -> Market:
    """Return a history that never happened, of the same bars.

    Parameters
    ----------
    market : Market
        Bars of one data, or of several with bars at the same times, which are then ordered alike: what they
        have in common on a bar stays.
    kind : {'stationary bootstrap', 'phase-randomised twin'}
        How.
    seed : int
        Which.

    Raises
    ------
    ConfigError
        If there is no such kind, or the datas have bars at other times.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> market = Market.of(load_bars(shipped("sp500_daily.csv"))[-300:])
    >>> twin = synthetic_market(market, "phase-randomised twin", 1)
    >>> bool(np.isclose(twin.first["close"].iloc[-1], market.first["close"].iloc[-1]))
    True
    """
    if kind not in HISTORIES:
        raise ConfigError(f"kind={kind!r}: expected one of {list(HISTORIES)}")
    if not market.aligned:
        raise ConfigError(f"datas {list(market)} have bars at other times: expected the same in all")
    order = HISTORIES[kind](close_returns(market.first), seed=seed)
    return market.map(lambda _, bars: reordered(bars, order))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SyntheticHistories(Shown):
    """What a gate adds on the real history, among what it adds on histories that never happened.

    Attributes
    ----------
    runs : dict of str to NullRuns
        By kind: Sharpe ratio a year and return of the gated strategy less those of the ungated one.
    adjusted : dict of str to float
        The p-value of the Sharpe ratio by kind, adjusted for both kinds (Holm).
    alpha : float
        Level.
    problems : tuple of str
        What speaks against any conclusion.
    """

    runs: dict[str, NullRuns]
    adjusted: dict[str, float]
    alpha: float
    problems: tuple[str, ...] = ()

    @property
    def smallest(self) -> float:
        """The least p-value that there could have been, before it is adjusted."""
        return 1.0 / (1 + min(one.n for one in self.runs.values()))

    @property
    def cannot_tell(self) -> str:
        """Why nothing can be concluded; empty if something can."""
        if self.problems:
            return "; ".join(self.problems)
        if len(self.runs) * self.smallest > self.alpha:
            return (
                f"with {next(iter(self.runs.values())).n} histories of each kind the smallest adjusted p is "
                f"{len(self.runs) * self.smallest:.3g}, above {self.alpha:g}"
            )
        return ""

    @property
    def found(self) -> bool | None:
        """Whether the real effect is above those of both kinds; None if that cannot be told."""
        return None if self.cannot_tell else all(p <= self.alpha for p in self.adjusted.values())

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        if refused := refusal(self.problems):
            return f"Synthetic histories: {refused[0]}"
        first = next(iter(self.runs.values()))
        places = ", ".join(
            f"above {100 * one.share_below('sharpe'):.0f} % of {one.n} of the {kind} (adjusted p = "
            f"{self.adjusted[kind]:.3g})"
            for kind, one in self.runs.items()
        )
        begin = (
            "Synthetic histories: the gate changes the Sharpe ratio by "
            f"{first.observed['sharpe']:+.2f}, {places}"
        )
        if self.cannot_tell:
            return f"{begin}; cannot tell, {self.cannot_tell}."
        if self.found:
            return (
                f"{begin}: what it adds comes from the order of the real history, from memory or from "
                "structure that "
                "neither kind keeps."
            )
        if any(p <= self.alpha for p in self.adjusted.values()):
            return f"{begin}: the kind that it is not above keeps what it lives on, and needs no memory."
        return f"{begin}: it is not shown to add more than where there is nothing to remember."

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown."""
        rows = []
        for kind, one in self.runs.items():
            values = one.values("sharpe")
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            rows.append(
                [
                    kind,
                    f"{one.observed['sharpe']:+.2f}",
                    f"{low:+.2f}",
                    f"{middle:+.2f}",
                    f"{high:+.2f}",
                    f"{one.p_value('sharpe'):.3g}",
                    f"{self.adjusted[kind]:.3g}",
                    _KEEPS[kind],
                ]
            )
        yield table_section(
            "Synthetic histories",
            ["history", "real", "5 %", "median", "95 %", "p", "adjusted p", "what it keeps"],
            rows,
            "What the gate changes in the Sharpe ratio, a year, on histories that never happened. "
            "The null: it is worth "
            "as much where nobody can remember anything. A p-value counts histories where it adds as "
            "much as on the "
            "real one.",
        )
        for one in self.runs.values():
            if one.n:
                yield Section(kind="histograms", title=f"The gate among {one.n} {one.kind}", content=one)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "histories": {
                kind: {
                    **one.to_dict(),
                    "observed": plain(dict(one.observed)),
                    "adjusted": self.adjusted[kind],
                }
                for kind, one in self.runs.items()
            },
            "smallest_p_value": self.smallest,
            "alpha": self.alpha,
            "found": self.found,
            "cannot_tell": self.cannot_tell,
            "sentence": self.sentence,
        }


@shows_progress("histories")
def synthetic_histories(
    strategy: Source,
    data: DataSource,
    gate: EntryGate,
    *,
    n: int = 99,
    seed: int = 0,
    alpha: float = 0.05,
    format: BarFormat | None = None,
    on_progress: Progress | None = None,
    **settings: Any,
) -> SyntheticHistories:
    """Run a gate on the real history and on histories that never happened, and say where the real one lies.

    Parameters
    ----------
    strategy, data
        As in `run_backtest`.
    gate : gate
        Whose effect it is. A verdict is a function of the market's state, so the model is asked at most once
        for each.
    n : int
        Histories of each kind; each is two backtests.
    seed : int
        Which.
    alpha : float
        Level.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    on_progress : callable, optional
        Called with (histories done, in all).
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If a setting is out of range, or several datas have bars at other times.
    DataError
        If the bars cannot be used.

    Notes
    -----
    The null is that what the gate adds to the Sharpe ratio is a draw from its distribution on the synthetic
    histories. The stationary bootstrap keeps what follows a bar within a block, and so most of what the state
    is made of; the phase-randomised twin keeps linear autocorrelation alone. A gate that lives on volatility
    clusters is above the twins and needs no memory for it: only what is above both kinds is called found.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> bars = load_bars(shipped("sp500_daily.csv"))[-400:]
    >>> found = synthetic_histories(f"{shipped('sma_cross.py')}:GatedSmaCross", bars, gate, n=3)
    >>> found.smallest, found.found
    (0.25, None)
    """
    n, seed = whole("n", n, 1, MOST_NULLS), whole("seed", seed, 0)
    alpha = number("alpha", alpha, 0, 0.5, above=0.0)
    market = Market.of(data, format=format)

    def effect(history: Market) -> tuple[dict[str, float], dict[str, BacktestResult]]:
        runs = {
            "gated": run_backtest(strategy, history, gate=gate, **settings),
            "ungated": run_backtest(strategy, history, gate=gate.baseline(), **settings),
        }
        gated, ungated = (run.metrics for run in runs.values())
        return {name: _known(gated[name]) - _known(ungated[name]) for name in ("sharpe", "return")}, runs

    observed, real = effect(market)
    done, drawn = 0, {}
    for place, kind in enumerate(HISTORIES):
        found = []
        for own in np.random.default_rng([seed, place]).integers(2**63, size=n).tolist():
            found.append(effect(synthetic_market(market, kind, own))[0])
            done += 1
            if on_progress is not None:
                on_progress(done, n * len(HISTORIES))
        drawn[kind] = NullRuns(
            kind=f"histories by the {kind}", observed=observed, nulls=pd.DataFrame(found), tested="sharpe"
        )
    return SyntheticHistories(
        runs=drawn,
        adjusted=holm({kind: one.p_value("sharpe") for kind, one in drawn.items()}),
        alpha=alpha,
        problems=problems_in(real),
    )


def _known(value: float) -> float:
    """Return a metric; an account that never traded has no Sharpe ratio, and counts as cash."""
    return value if np.isfinite(value) else 0.0
