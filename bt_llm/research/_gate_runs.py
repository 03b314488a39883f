"""What a strategy does with each of many gates: replayed where that is exact, else run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bt_llm.backtest import Backtest, Market, load_strategy
from bt_llm.exceptions import BtLlmError
from bt_llm.gates import EntryGate
from bt_llm.models import Progress
from bt_llm.research._episodes import Learner
from bt_llm.research._runs import Source, run_many
from bt_llm.research._sightings import Unfit
from bt_llm.research._timing import TimingOf
from bt_llm.statistics import EpisodeWalk

__all__ = ["GateRuns", "HowRun"]

_FEWEST = 24
"""Gates below which learning would cost more than it saves."""

_AGREE = 1e-9


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
            return f"Backtrader ran all {self.ran} of them: {self.reason}." if self.ran else ""
        said = f"{self.replayed} were replayed from {self.episodes} episodes of the strategy"
        if self.ran:
            said += f", and Backtrader ran {self.ran}"
        if self.largest_difference is not None:
            said += f"; it ran {self.checked} of the others too: they differ by {self.largest_difference:.0e}"
        return f"{said}."

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
        **settings: Any,
    ) -> None:
        self._strategy = load_strategy(strategy) if isinstance(strategy, str) else strategy
        self._market, self._n_jobs, self._settings = market, n_jobs, settings
        self._on_progress, self._done, self._total = on_progress, 0, total
        self._learners: dict[int, Learner] = {}
        self.how = HowRun()
        self.withdrawn = False
        self._timing = timing
        self._reason = "" if episodes else "not asked for"

    def __call__(self, gates: Sequence[EntryGate]) -> list[dict[str, float]]:
        """Return the metrics of each gate, in their order."""
        found = self._replayed(gates) if not self._reason else None
        if found is None:
            found = self._run(gates)
            self._count(ran=len(gates), reason=self._reason)
        self._done += len(gates)
        return found

    def _replayed(self, gates: Sequence[EntryGate]) -> list[dict[str, float]] | None:
        try:
            return self._replay(gates)
        except BtLlmError as error:
            self._reason = str(error)
            if self.how.replayed:
                self.withdrawn = True
                self.how = HowRun()
            return None

    def _replay(self, gates: Sequence[EntryGate]) -> list[dict[str, float]]:
        name, times = next((name, bars.numbers) for name, bars in self._market.bars.items())
        answers = [gate.known_answers(name, times) for gate in gates]
        warm_ups = {gate.warm_up_bars for gate in gates}
        if len(gates) < _FEWEST and not self._learners:
            raise Unfit(f"they are fewer than {_FEWEST}")
        if len(warm_ups) != 1 or any(answer is None for answer in answers):
            raise Unfit("their answers are not known before")
        learner = self._learner(warm_ups.pop())
        walks = [EpisodeWalk(answer) for answer in answers if answer is not None]
        learner.learn(walks)
        found = [learner.figures(walk, self._timing) for walk in walks]
        there = [number for number, metrics in enumerate(found) if metrics is not None]
        checked = sorted({there[0], there[-1]}) if there else []
        running = sorted({*range(len(gates))} - {*there} | {*checked})
        ran = dict(zip(running, self._run([gates[number] for number in running]), strict=True))
        largest = max((_difference(found[number], ran[number]) for number in checked), default=0.0)
        if largest > _AGREE:
            raise Unfit(f"a gate that was run differs by {largest:.1e}")
        self._count(
            replayed=len(there),
            ran=len(gates) - len(there),
            checked=len(checked),
            largest_difference=largest if checked else None,
            episodes=len(learner.book.known) - self.how.episodes,
        )
        return [ran.get(number) or found[number] or {} for number in range(len(gates))]

    def _learner(self, warm_up: int) -> Learner:
        if warm_up not in self._learners:
            backtest = Backtest.of(self._strategy, self._market, **self._settings)
            self._learners[warm_up] = Learner(backtest, warm_up)
        return self._learners[warm_up]

    def _run(self, gates: Sequence[EntryGate]) -> list[dict[str, float]]:
        return run_many(
            self._strategy,
            self._market,
            gates,
            n_jobs=self._n_jobs,
            on_progress=self._progress,
            measure=self._timing,
            **self._settings,
        )

    def _progress(self, done: int, _: int) -> None:
        if self._on_progress is not None:
            self._on_progress(self._done + done, self._total)

    def _count(self, *, reason: str = "", **counted: Any) -> None:
        before = asdict(self.how)
        both = [before["largest_difference"], counted.pop("largest_difference", None)]
        known = [one for one in both if one is not None]
        added = {name: before[name] + number for name, number in counted.items()}
        self.how = HowRun(
            **{
                **before,
                **added,
                "largest_difference": max(known) if known else None,
                "reason": reason or self.how.reason,
            }
        )


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
