"""A gate's answers, and its result among those of gates that give them at other times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Market, Section, percent, table_of
from bt_llm.backtest import Source as DataSource
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import (
    LONG,
    SHORT,
    Answers,
    AttachedGate,
    DatedAnswers,
    DatesGate,
    Decision,
    EntryGate,
    ShiftedGate,
    attach_gate,
    attached_gates,
)
from bt_llm.research._moments import Moments
from bt_llm.research._runs import Source, inspect_run
from bt_llm.shown import Told

__all__ = [
    "Evaluate",
    "NullRuns",
    "bar_answers",
    "dated_answers",
    "dated_bars",
    "dated_entries",
    "entry_answers",
    "entry_log",
    "random_runs",
    "rank_sentence",
    "ranks_section",
    "shifted_runs",
]

Log: TypeAlias = list[tuple[float, str, Decision]]
"""Backtrader's numbers of bars, names of datas, and what a gate answered there, oldest first."""

RANKED = ("timing", "sharpe", "return")
"""The metrics that are compared with the nulls'; the first is tested, the others are described."""

Floats: TypeAlias = NDArray[np.float64]

Evaluate: TypeAlias = Callable[[Sequence[EntryGate]], Sequence[Mapping[str, float]]]
"""From gates to the metrics of a backtest with each: ``timing``, the score of `statistics.timing_of`, and
``trades``; of the others in `RANKED` those there are."""

_FEWEST_SHIFTS = 19
"""Shifted gates that have to be comparable for a rank among them."""
_ROUNDING = 1e-9
_ALIKE = 0.1
"""By how much the trades of a comparable gate may differ, as a share."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NullRuns(Told):
    """A gate's result, and those of many null gates in the same strategy on the same bars.

    Parameters
    ----------
    kind : str
        What the null gates are, in the plural, for sentences.
    observed : mapping of str to float
        Metrics of the gate under test.
    nulls : DataFrame
        One row a null gate, one column a metric.

    refused : str
        Why these gates are no yardstick, in which case there is no rank; usually empty.
    tested : str
        The metric whose p-value answers the question; empty where all only describe.
    subject : str
        What is compared with them, in a word.

    Notes
    -----
    An account that never traded has no Sharpe ratio; here it counts as 0, that of cash. A ruined one has none
    either; it counts as the lowest.

    Examples
    --------
    >>> runs = NullRuns(kind="random gates", observed={"return": 0.05, "timing": 1.0},
    ...                 nulls=pd.DataFrame({"return": [0.01, 0.05, 0.02], "timing": [0.2, 1.1, 0.4]}))
    >>> runs.p_value("timing"), runs.share_below("return"), runs.ranked
    (0.5, 0.6666666666666666, ('timing', 'return'))
    """

    kind: str
    observed: Mapping[str, float]
    nulls: pd.DataFrame
    refused: str = ""
    tested: str = ""
    subject: str = "the gate"

    @property
    def ranked(self) -> tuple[str, ...]:
        """The metrics that all have, the one that is tested first."""
        return tuple(name for name in RANKED if name in self.nulls and name in self.observed)

    @property
    def n(self) -> int:
        """Number of null gates."""
        return len(self.nulls)

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return a metric of every null gate, in their order."""
        lost = self.nulls["return"] if "return" in self.nulls else [0.0] * len(self.nulls)
        return np.array([_ranked(*one) for one in zip(self.nulls[metric], lost, strict=True)])

    def seen(self, metric: str) -> float:
        """Return a metric of the gate under test, as it is ranked."""
        return _ranked(self.observed[metric], self.observed.get("return", 0.0))

    def p_value(self, metric: str) -> float:
        """Return ``(1 + #{null >= observed}) / (1 + n)``, one-sided.

        It comes in steps of ``1 / (1 + n)``, the smallest of which is its least value; nulls that equal the
        observed value count against it, as in `bt_llm.statistics.rank_p_value`.
        """
        seen = self.seen(metric)
        # The same trades in another order of sums are off by rounding, and still a tie.
        met = self.values(metric) >= seen - (_ROUNDING * abs(seen) if math.isfinite(seen) else 0.0)
        return (1 + int(np.sum(met))) / (1 + self.n)

    def share_below(self, metric: str) -> float:
        """Return the share of null gates whose metric is below the observed one."""
        return float(np.mean(self.values(metric) < self.seen(metric)))

    def to_dict(self) -> dict[str, Any]:
        """Return the nulls and the ranks for JSON."""
        return {
            "n": self.n,
            "refused": self.refused,
            "p_value": self.p_value(self.tested) if self.n and self.tested in self.ranked else None,
            "share_below": None
            if self.refused or not self.n
            else {metric: self.share_below(metric) for metric in self.ranked},
            "distinct": {metric: len(np.unique(self.values(metric))) for metric in self.ranked},
            "nulls": {metric: self.values(metric).tolist() for metric in self.ranked},
        }


def _ranked(value: float, gained: float) -> float:
    if math.isnan(value):
        return -math.inf if gained <= -1.0 else 0.0
    return float(value)


_NAMES = {"timing": "timing", "sharpe": "Sharpe ratio", "return": "return"}


def ranks_section(nulls: NullRuns, how: str) -> Section:
    """Return what is shown of a gate among null gates."""
    rows = [[_NAMES[metric], percent(nulls.share_below(metric), 0)] for metric in nulls.ranked]
    text = "These gates know nothing. Where it stands among them, luck is enough to explain it."
    if nulls.tested in nulls.ranked:
        text += (
            f" Its {_NAMES[nulls.tested]} is tested: p = {nulls.p_value(nulls.tested):.3g}, the share of them"
            " that did at least as well, the gate itself counted in. The other figures describe."
        )
    return Section(
        kind="histograms",
        title=f"The gate among {nulls.n} {nulls.kind}",
        text=f"{text} {how}".rstrip(),
        table=table_of(["", "above"], rows),
        content=nulls,
    )


def rank_sentence(runs: NullRuns) -> str:
    """Return where the gate stands among null gates, as a description."""
    if runs.refused:
        return f"Among {runs.kind} it has no rank: {runs.refused}."
    shares = ", ".join(
        f"{_NAMES[metric]} above {100 * runs.share_below(metric):.0f} %" for metric in runs.ranked
    )
    return f"Among {runs.n} {runs.kind}: {shares}."


_RANDOM = "random gates with the same answers at other times"
_ALIKE_MARKETS = ", in markets as volatile"
_SHIFTED = "gates with the same verdicts at other bars"


def entry_log(strategy: Source, data: DataSource, gate: EntryGate, **settings: Any) -> Log:
    """Return what a gate answers to a strategy's entries, by running the strategy once.

    Of a strategy with gates on several datas they are in the order of time, whichever data they are for.

    Raises
    ------
    DataError
        If the strategy asks for no entry.
    """
    market = Market.of(data)
    name, log = _asked_of(strategy, market, gate, **settings)
    if not log:
        raise DataError(
            f"{name} asked its gate for no entry in {len(market.index)} bars: there is nothing to test"
        )
    return log


def _asked_of(strategy: Source, market: Market, gate: EntryGate, **settings: Any) -> tuple[str, Log]:
    """Return a strategy's name, and what a gate answers to its entries; empty if it asks for none."""
    _, ran = inspect_run(strategy, market, gate=gate, **settings)
    log = [
        (_time_of(told, one, market), str(one.data._name), told)
        for one in attached_gates(ran)
        for told in one.log
    ]
    return type(ran).__name__, sorted(log, key=lambda one: one[0])


def entry_answers(strategy: Source, data: DataSource, gate: EntryGate, **settings: Any) -> Answers:
    """Return the answers of `entry_log`, each side on its own."""
    log = entry_log(strategy, data, gate, **settings)
    return Answers.of_log((told for _, _, told in log), warm_up=gate.warm_up_bars)


def dated_entries(log: Log) -> tuple[DatedAnswers, ...]:
    """Return the answers of a log by data, side and time."""
    return DatedAnswers.of((name, told.side, time, told.allowed) for time, name, told in log)


def dated_answers(
    strategy: Source, market: Market, gate: EntryGate, **settings: Any
) -> tuple[DatedAnswers, ...]:
    """Return what a gate answers to a strategy's entries, by running it once; empty if it asks for none."""
    return dated_entries(_asked_of(strategy, market, gate, **settings)[1])


def dated_bars(answers: Answers, market: Market) -> tuple[DatedAnswers, ...]:
    """Return answers per bar by data, side and time; see `bar_answers`."""
    ((name, bars),) = market.bars.items()
    times = bars.numbers[max(1, answers.warm_up) - 1 :].astype("<f8").tobytes()
    return tuple(
        DatedAnswers(data=name, side=side, times=times, allowed=answers.of_side(side))
        for side in (LONG, SHORT)
    )


def _time_of(decision: Decision, gate: AttachedGate, market: Market) -> float:
    """Return Backtrader's number of the bar that a decision was made at; resampled datas keep their own."""
    bars = market.bars.get(gate.data._name)
    times = gate.data.lines.datetime.array if bars is None else bars.numbers
    return float(times[decision.bar - 1])


class _AskEveryBar(bt.Strategy):  # type: ignore[misc]
    """Ask a gate for both sides at every bar, and trade nothing."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)
        self.long = bytearray()
        self.short = bytearray()

    def next(self) -> None:
        self.long.append(self.gate.decide(LONG).allowed)
        self.short.append(self.gate.decide(SHORT).allowed)


def bar_answers(data: DataSource, gate: EntryGate) -> Answers:
    """Return what a gate would answer to either side at every bar from the end of its warm-up on.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one data.
    gate : gate
        Asked at every bar; its answers must not depend on what a strategy does.
    """
    market = Market.of(data)
    bars = market.alone("asking a gate at every bar")
    result, ran = inspect_run(_AskEveryBar, market, gate=gate)  # with its name, which decisions go by
    warm_up = len(bars) - len(result.equity) + 1
    return Answers(long=bytes(ran.long), short=bytes(ran.short), per="bar", warm_up=warm_up)


MOST_NULLS = 20_000
"""More of them cost gigabytes and hours, and make no p-value smaller that matters."""


def random_runs(
    answers: tuple[DatedAnswers, ...],
    observed: Mapping[str, float],
    evaluate: Evaluate,
    *,
    moments: Moments,
    block: int,
    n: int,
    seed: int = 0,
    warm_up: int = 0,
    strata: bool = True,
) -> NullRuns:
    """Return a result among those of gates that give the same answers at other times.

    Stretches of time change places, those in which the market moves as much only among each other. So a gate
    keeps how long its answers last, what it answers to both sides at once, and how it depends on volatility;
    what it loses is what its answers have to do with what comes next.

    Parameters
    ----------
    answers : tuple of DatedAnswers
        Of the gate under test; see `dated_entries` and `dated_bars`.
    observed : mapping of str to float
        Metrics of the gate under test.
    evaluate : callable
        Gives the metrics of each random gate.
    moments : Moments
        The times that change places.
    block : int
        How many of them stay together; see `block_length`.
    n, seed : int
        How many, and where chance comes from.
    warm_up : int
        Bars until the first answer.
    strata : bool
        Whether the market's volatility counts.
    """
    drawn = moments.drawn(block, seed=seed, strata=strata)

    def gate(number: int) -> EntryGate:
        dates, others = drawn(number)
        return DatesGate(answers=answers, dates=dates, others=others, warm_up=warm_up)

    gates = _Drawn(gate, range(n))
    kind = _RANDOM + (_ALIKE_MARKETS if strata else "")
    return NullRuns(kind=kind, observed=observed, nulls=_frame(evaluate(gates)), tested=RANKED[0])


def shifted_runs(answers: Answers, observed: Mapping[str, float], evaluate: Evaluate, *, n: int) -> NullRuns:
    """Return a result among those of the same answers shifted, evenly over the bars.

    A gate that depends on prices passes other entries at other bars than its own, and more or fewer of them:
    what is compared then is how much was traded. So only shifted gates count that make as many trades, give
    or take a tenth; with fewer than 19 of them there is no rank.

    Parameters
    ----------
    answers : Answers
        Of the gate under test, per bar; see `bar_answers`.
    observed, evaluate, n
        As in `random_runs`; ``trades`` are among the metrics.
    """
    found = _frame(evaluate(_shifted_gates(answers, n)))
    if "trades" not in found:
        raise ConfigError(
            f"evaluate gave {list(found)}: expected trades among them, to compare shifted gates"
        )
    trades = float(observed["trades"])
    alike = found[np.abs(found["trades"] - trades) <= max(1.0, _ALIKE * trades)]
    refused = ""
    if len(alike) < min(n, _FEWEST_SHIFTS):
        low, high = int(found["trades"].min()), int(found["trades"].max())
        made = f"{low} to {high}" if low < high else f"{low} each"
        refused = (
            f"{f'only {len(alike)}' if len(alike) else 'none'} of {n} {_SHIFTED} make about as many trades "
            f"as the gate's {trades:.0f} (they make {made}), and at least {min(n, _FEWEST_SHIFTS)} are needed"
        )
    return NullRuns(kind=_SHIFTED, observed=observed, nulls=alike.reset_index(drop=True), refused=refused)


def _shifted_gates(answers: Answers, n: int) -> list[EntryGate]:
    length = len(answers.long)
    if n >= length:
        raise ConfigError(f"shifts={n!r}: {length} bars have only {length - 1} other places")
    return [ShiftedGate(answers=answers, bars=round(length * (number + 1) / (n + 1))) for number in range(n)]


class _Drawn(Sequence[EntryGate]):
    """Gates that are drawn when they are looked at: thousands of them are gigabytes, and take minutes."""

    def __init__(self, gate: Callable[[int], EntryGate], numbers: range) -> None:
        self._gate, self._numbers = gate, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> EntryGate: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[EntryGate]: ...

    def __getitem__(self, at: int | slice) -> EntryGate | Sequence[EntryGate]:
        if isinstance(at, slice):
            return [self._gate(number) for number in self._numbers[at]]
        return self._gate(self._numbers[at])


def _frame(found: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    return pd.DataFrame([dict(metrics) for metrics in found])
