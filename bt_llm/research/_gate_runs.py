"""What a strategy does with each of many gates: replayed where that is exact, else run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from bt_llm.backtest import Backtest, Market, strategy_class
from bt_llm.exceptions import StrategyFailed
from bt_llm.gates import EntryGate
from bt_llm.models import Progress
from bt_llm.plain_text import counted
from bt_llm.research._episodes import Learner
from bt_llm.research._kept_runs import KeptRuns, Measured
from bt_llm.research._replayed import Figures
from bt_llm.research._runs import Source, runs_of
from bt_llm.research._sightings import Unfit
from bt_llm.research._timing import TimingOf
from bt_llm.statistics import Question, Replay

__all__ = ["FEWEST", "GateRuns", "HowRun"]

T = TypeVar("T", bound=Measured)
Floats: TypeAlias = NDArray[np.float64]

Run: TypeAlias = Callable[[Sequence[EntryGate]], Generator[T, None, None]]
"""Runs gates in Backtrader, one after the other, and yields what is measured of each."""

FEWEST = 24
"""Gates below which learning would cost more than it saves."""

_AGREE = 1e-9
_AT_ONCE = 500
"""Gates that are replayed together; then it is told how far all are."""


@dataclass(frozen=True, kw_only=True)
class HowRun:
    """How many gates' figures were found, and how good that is.

    Attributes
    ----------
    replayed, ran : int
        Gates whose figures were put together from the strategy's episodes, and those that Backtrader ran.
    episodes : int
        How many different ones those were.
    checked : int
        Replayed gates that Backtrader ran too.
    largest_difference : float or None
        Between the two, over all metrics and the timing; of one above 1, relative to it. None if none was
        checked.
    reason : str
        Why gates were not replayed; empty if they were.
    """

    replayed: int = 0
    ran: int = 0
    episodes: int = 0
    checked: int = 0
    largest_difference: float | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What was done, for people; empty where no gate was run this way."""
        if not self.replayed:
            them = "it" if self.ran == 1 else f"all {self.ran:,} of them"
            return f"Backtrader ran {them}: {self.reason}." if self.ran else ""
        was = "was" if self.replayed == 1 else "were"
        said = f"{self.replayed:,} {was} replayed from {counted(self.episodes, 'episode')} of the strategy"
        if self.ran:
            said += f", and Backtrader ran {self.ran:,}"
        if self.largest_difference is not None:
            said += f"; as a check Backtrader ran {self.checked:,} of the replayed ones too: the largest "
            said += f"difference is {self.largest_difference:.0e}"
        return f"{said}."

    def plus(self, other: HowRun) -> HowRun:
        """Return both together; the reason is the first that there is."""
        known = [one.largest_difference for one in (self, other) if one.largest_difference is not None]
        return HowRun(
            replayed=self.replayed + other.replayed,
            ran=self.ran + other.ran,
            episodes=self.episodes + other.episodes,
            checked=self.checked + other.checked,
            largest_difference=max(known, default=None),
            reason=self.reason or other.reason,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


class GateRuns:
    """Gives the metrics of a strategy with each of many gates; see `run_many`.

    Gates that know their answers (`EntryGate.known_answers`) are replayed from the strategy's episodes where
    it has such: metrics and the timing are Backtrader's to 1e-9. That is never taken on trust. Runs that the
    episodes are learnt in must agree with each other, and some gates of each call are run in Backtrader as
    well; if one differs, all gates are run there.

    Parameters
    ----------
    strategy : type or str
        As in `run_backtest`.
    market : Market
        What it trades.
    episodes : bool
        Whether to replay where that is exact; else Backtrader runs all.
    n_jobs : int, optional
        Processes for gates that are run.
    total : int
        Gates in all calls, for progress.
    on_progress : callable, optional
        Called with (gates done, gates in all).
    timing : TimingOf, optional
        Measures the timing of each too.
    kept : KeptRuns, optional
        Where gates that were run are looked for, and kept.
    place : str
        What tells these runs apart from others that are kept there, such as the symbol.
    **settings
        Other arguments of `run_backtest`.

    Attributes
    ----------
    how : HowRun
        Of the calls so far.
    withdrawn : bool
        Whether what an earlier call replayed does not stand, since a later one found a difference.
    """

    def __init__(
        self,
        strategy: Source,
        market: Market,
        *,
        episodes: bool = True,
        n_jobs: int | None = None,
        total: int = 0,
        on_progress: Progress | None = None,
        timing: TimingOf | None = None,
        kept: KeptRuns | None = None,
        place: str = "",
        **settings: Any,
    ) -> None:
        self._strategy = strategy_class(strategy)
        self._market, self._n_jobs, self._settings = market, n_jobs, settings
        self._backtest = Backtest.of(self._strategy, market, **settings)
        self._on_progress, self._done, self._total = on_progress, 0, total
        self._learners: dict[int, Learner] = {}
        self.how = HowRun()
        self.withdrawn = False
        self._timing = timing
        self._kept, self._place = kept, place
        self._reason = "" if episodes else "not asked for"

    def __call__(self, gates: Sequence[EntryGate]) -> list[dict[str, float]]:
        """Return the metrics of each gate, in their order."""
        return self._found(gates, self._figures, self._metrics, _difference)

    def equities(self, gates: Sequence[EntryGate]) -> list[Floats]:
        """Return the account's value at each bar that counts, with each gate, in their order."""
        return self._found(gates, _equities_of, self._equities, _largest_apart)

    @property
    def episodes(self) -> frozenset[Question]:
        """The entries of the strategy that gates were replayed from."""
        learners = self._learners.values() if self.how.replayed else ()
        return frozenset(question for learner in learners for question in learner.book.known)

    def _found(
        self,
        gates: Sequence[EntryGate],
        replayed: Callable[[Learner, Replay], list[T | None]],
        run: Run[T],
        apart: Callable[[T | None, T], float],
    ) -> list[T]:
        """Return what is measured of each gate: of its replay, or of a run where a reason speaks against it.

        A reason is one of ours, or an error of the strategy in runs that are not as it expects. Other errors
        are nobody's reason.
        """
        before, done = self.how, self._done
        if not self._reason:
            try:
                found: list[T] = []
                for start in range(0, len(gates), _AT_ONCE):
                    part = gates[start : start + _AT_ONCE]
                    found += self._replay(part, replayed, run, apart)
                    self._done += len(part)
                    self._progress(0)
                return found
            except (Unfit, StrategyFailed) as error:
                self._reason = str(error)
                self.withdrawn = self.withdrawn or before.replayed > 0
                self.how, self._done = HowRun() if before.replayed else before, done
        found = self._ran(gates, run, self._kept)
        self.how = self.how.plus(HowRun(ran=len(gates), reason=self._reason))
        self._done += len(gates)
        return found

    def _replay(
        self,
        gates: Sequence[EntryGate],
        replayed: Callable[[Learner, Replay], list[T | None]],
        run: Run[T],
        apart: Callable[[T | None, T], float],
    ) -> list[T]:
        warm_ups = {gate.warm_up_bars for gate in gates}
        if len(gates) < FEWEST and not self._learners:
            raise Unfit(f"fewer than {FEWEST} on one market are not replayed")
        if len(warm_ups) != 1:
            raise Unfit("they warm up in different times")
        learner = self._learner(warm_ups.pop())
        found = replayed(learner, learner.replay(gates))
        there = [number for number, measured in enumerate(found) if measured is not None]
        checked = sorted({there[0], there[-1]}) if there else []
        running = sorted({*range(len(gates))} - {*there} | {*checked})
        # Those that are run to check others alone cost little.
        kept = self._kept if len(running) > len(checked) else None
        ran = dict(zip(running, self._ran([gates[number] for number in running], run, kept), strict=True))
        largest = max((apart(found[number], ran[number]) for number in checked), default=0.0)
        if largest > _AGREE:
            raise Unfit(f"a gate that was run differs by {largest:.1e}")
        done = HowRun(
            replayed=len(there),
            ran=len(gates) - len(there),
            checked=len(checked),
            largest_difference=largest if checked else None,
            episodes=len(learner.book.known) - self.how.episodes,
        )
        self.how = self.how.plus(done)
        # Not what was run to check it: how gates are shared out among processes shall not show.
        return [ran[number] if measured is None else measured for number, measured in enumerate(found)]

    def _learner(self, warm_up: int) -> Learner:
        if warm_up not in self._learners:
            self._learners[warm_up] = Learner(self._backtest, warm_up)
        return self._learners[warm_up]

    def _figures(self, learner: Learner, found: Replay) -> list[dict[str, float] | None]:
        slippage = self._backtest.setup.slippage
        ungated = None if self._timing is None else self._timing.ungated
        return Figures(self._market, learner.first, slippage=slippage, ungated=ungated).of(found)

    def _ran(self, gates: Sequence[EntryGate], run: Run[T], kept: KeptRuns | None) -> list[T]:
        """Return what is measured of each gate in Backtrader: what is kept of it, or what a run gives."""
        what = run.__name__
        found: dict[int, T] = {} if kept is None else kept.found(self._place, what, gates)
        missing = [number for number in range(len(gates)) if number not in found]
        with contextlib.closing(run([gates[number] for number in missing])) as running:
            for number, measured in zip(missing, running, strict=True):
                found[number] = measured
                if kept is not None:
                    kept.add(self._place, what, gates[number], measured)
                self._progress(len(found))
        if kept is not None:
            kept.settle()
        return [found[number] for number in range(len(gates))]

    def _metrics(self, gates: Sequence[EntryGate]) -> Generator[dict[str, float], None, None]:
        return runs_of(
            self._strategy, self._market, gates, n_jobs=self._n_jobs, measure=self._timing, **self._settings
        )

    def _equities(self, gates: Sequence[EntryGate]) -> Generator[Floats, None, None]:
        for gate in gates:
            result, _ = self._backtest.run(gate, "")
            yield np.array(result.equity, dtype=np.float64)

    def _progress(self, done: int) -> None:
        if self._on_progress is not None:
            self._on_progress(self._done + done, self._total)


def _difference(one: Mapping[str, float] | None, other: Mapping[str, float]) -> float:
    """Return the largest difference of two sets of metrics; of those above 1, relative to them."""
    found = [0.0]
    for name, true in other.items():
        mine = math.nan if one is None else one[name]
        if math.isnan(mine) or math.isnan(true):
            found.append(0.0 if math.isnan(mine) and math.isnan(true) else math.inf)
        elif mine != true:
            found.append(abs(mine - true) / max(1.0, abs(true)))
    return max(found)


def _equities_of(learner: Learner, found: Replay) -> list[Floats | None]:
    """Return the value of each account at each bar that counts; None where that is not known."""
    values = found.equities(0, len(found))[:, learner.first :]
    known = found.told & (values > 0.0).all(axis=1)
    return [value if told else None for value, told in zip(values, known.tolist(), strict=True)]


def _largest_apart(one: Floats | None, other: Floats) -> float:
    """Return the largest difference of two accounts' values, as a share of these."""
    if one is None or len(one) != len(other):
        return math.inf
    return float(np.max(np.abs(one - other) / np.abs(other)))
