"""The five probes: each asks in its own way whether verdicts know what came, beyond what could be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.equality import nan_equal
from bt_llm.plain_json import plain
from bt_llm.research.leakage._asking import Said
from bt_llm.research.leakage._points import FEWEST, LookAhead, Points
from bt_llm.statistics import Exchange, exchange_test, holm

__all__ = ["PROBES", "Probe", "probe"]

PROBES = {
    "future": "Perturbed future",
    "identified": "Masked against identified",
    "cutoff": "Before and after the cut-off",
    "recall": "Date-only recall",
    "contrast": "Contrast",
}
"""The probes by name, and what they are called."""

_STILL = {
    "future": "the verdict is the same on all bars that looked alike, whatever came",
    "identified": "told the right time or a wrong one, it says the same",
    "cutoff": "the verdict is the same on all bars that looked alike",
    "recall": "no verdict moves with that",
    "contrast": "between bars that looked alike that changes nothing",
}
_CAUGHT = {
    "future": "but of bars that looked alike the verdicts follow the future that really came",
    "identified": "and told the right time it is right more than told a wrong one",
    "cutoff": "and its verdicts follow what came more before than after",
    "recall": "and the more it does, the more its verdicts follow what came",
    "contrast": "and what is lost by it is what followed the market",
}
_CLEARED = {
    "future": "and of bars that looked alike the verdicts follow the real future no more than exchanged ones",
    "identified": "but told the right time it is right no more than told a wrong one",
    "cutoff": "and its verdicts follow what came no more before than after",
    "recall": "and how far it does says nothing about how right the verdicts are",
    "contrast": "and nothing is lost by it that followed the market",
}
"""What follows what a probe has noted: where nothing varies, and where something is found or not."""


@nan_equal
@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one probe found.

    Attributes
    ----------
    name : str
        One of `PROBES`.
    correlation : float
        Of what it looks at and what came, among bars that looked alike; NaN where that never varies.
    p_value, adjusted : float
        One-sided; `adjusted` for all probes that could tell (Holm). NaN where it cannot tell.
    smallest : float
        The least `p_value` that these bars could have given.
    detectable : float
        The correlation that would have been found in four of five such probes, were it the only one that
        finds anything; NaN where it is not known.
    bars, moving : int
        Bars that have another one to compare with; of these, where what it looks at varies.
    alpha : float
        Level at which `adjusted` is found.
    reason : str
        Why it cannot tell; empty if it can.
    exact : str
        A change of the past by the future, which is proof and has no p-value; else empty.
    noted : str
        What else it saw, for its sentence.
    """

    name: str
    correlation: float
    p_value: float
    adjusted: float
    smallest: float
    detectable: float
    bars: int
    moving: int
    alpha: float = 0.01
    reason: str = ""
    exact: str = ""
    noted: str = ""

    @property
    def title(self) -> str:
        """What it is called."""
        return PROBES[self.name]

    @property
    def found(self) -> bool | None:
        """Whether it caught something; None if it cannot tell."""
        if self.exact:
            return True
        return None if self.reason else self.adjusted <= self.alpha

    @property
    def outcome(self) -> str:
        """The finding in a word: caught, cleared or cannot tell."""
        return {True: "caught", False: "cleared", None: "cannot tell"}[self.found]

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        if self.exact:
            return (
                f"{self.title}: {self.exact} when only later bars were changed, so what the model is "
                "told looks "
                "ahead."
            )
        if self.reason:
            return f"{self.title}: cannot tell, {self.reason}."
        return f"{self.title}: {self._said()}."

    def _said(self) -> str:
        if not self.moving:
            return f"{self.noted}, and {_STILL[self.name]}: there is nothing that it could remember by"
        numbers = f"correlation {self.correlation:+.2f}, p = {self.p_value:.3g}, adjusted {self.adjusted:.3g}"
        if self.found:
            return f"{self.noted}, {_CAUGHT[self.name]} ({numbers})"
        could = f"; {self.detectable:.2f} would have been found 4 times in 5" if self.detectable > 0 else ""
        return f"{self.noted}, {_CLEARED[self.name]} ({numbers}{could})"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(vars(self))
        return {
            **found,
            "title": self.title,
            "found": self.found,
            "outcome": self.outcome,
            "sentence": self.sentence,
        }


def probe(
    points: Points,
    said: Said,
    looked: LookAhead,
    *,
    exchanges: int = 999,
    seed: int = 0,
    alpha: float = 0.01,
) -> tuple[Probe, ...]:
    """Return what the five probes find in a model's answers.

    Parameters
    ----------
    points, said, looked
        The bars, the answers on them, and whether states look ahead.
    exchanges : int
        Exchanges of outcomes that are drawn.
    seed : int
        Where chance comes from.
    alpha : float
        Level at which findings are called so, all probes together.
    """
    valid, sides = said.valid, points.before
    came, cells, named = points.outcome[valid], points.cells[valid], said.named[valid]
    reason = ""
    if int(valid.sum()) < FEWEST:
        reason = f"only {int(valid.sum())} of {len(points)} bars have answers that could be read"
    level = alpha / len(PROBES)
    told: dict[str, Any] = {"n": exchanges, "seed": seed, "alpha": level}
    tests: dict[str, Exchange] = {}
    if not reason:
        weights = {
            "future": named,
            "identified": named - said.misdated[valid],
            "recall": named * said.recall[valid],
            "contrast": named - said.contrasted[valid],
        }
        tests = exchange_test(weights, came, cells, **told)
    reasons = dict.fromkeys(PROBES, reason)
    counts = [int(np.count_nonzero(sides[valid] == side)) for side in (True, False)]
    if not reason:
        reasons["cutoff"] = _no_cutoff(points, counts)
        if not reasons["cutoff"]:
            side = sides[valid]
            weight = named * np.where(side, 1.0 / counts[0], -1.0 / counts[1])
            tests |= exchange_test({"cutoff": weight}, came, 2 * cells + side, **told)
        reasons |= {name: _too_few(test, alpha) for name, test in tests.items()}
    adjusted = holm({name: test.p_value for name, test in tests.items() if not reasons[name]})
    moved, lost = (_mean(row) for row in (said.recall, np.abs(said.named - said.contrasted)))
    noted = {
        "future": f"no state changes when later bars do ({looked.runs} histories)",
        "identified": f"market and time change the most probable word on {100 * said.changed:.0f} % "
        "of the bars",
        "cutoff": ""
        if points.cutoff is None
        else f"up to {points.cutoff} {counts[0]} bars were asked about and after it {counts[1]}",
        "recall": f"the time alone moves the answer by {moved:.2f} of 1",
        "contrast": f"taking out what market and time alone say moves the verdict by {lost:.2f}",
    }
    return tuple(
        _probe(
            name,
            tests.get(name),
            adjusted.get(name, math.nan),
            alpha,
            reasons[name],
            looked,
            noted.get(name, ""),
        )
        for name in PROBES
    )


def _probe(
    name: str,
    test: Exchange | None,
    adjusted: float,
    alpha: float,
    reason: str,
    looked: LookAhead,
    noted: str,
) -> Probe:
    told = test is not None and not reason
    return Probe(
        name=name,
        correlation=test.correlation if test is not None else math.nan,
        p_value=test.p_value if test is not None and told else math.nan,
        adjusted=adjusted,
        smallest=test.smallest if test is not None else 1.0,
        detectable=test.detectable if test is not None else math.nan,
        bars=test.n if test is not None else 0,
        moving=test.moving if test is not None else 0,
        alpha=alpha,
        reason=reason,
        exact=looked.changed if name == "future" else "",
        noted=noted,
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what is there."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _no_cutoff(points: Points, counts: list[int]) -> str:
    if points.cutoff is None:
        return points.why_no_cutoff or "no cut-off is known"
    if min(counts) < FEWEST:
        return (
            f"the bars go from {points.times[0].date()} to {points.times[-1].date()}, {counts[0]} of "
            "those asked "
            f"about up to the cut-off {points.cutoff} and {counts[1]} after it: at least {FEWEST} of "
            "each are needed"
        )
    return ""


def _too_few(test: Exchange, alpha: float) -> str:
    """Return why no outcome could have found anything; a weight that never moves has found that."""
    if test.n < FEWEST:
        return f"only {test.n} bars have another one that looked alike: at least {FEWEST} are needed"
    least = alpha / len(PROBES)
    if test.moving and test.smallest > least:
        return f"no outcome could have given p below {least:g}: the smallest is {test.smallest:.3g}"
    return ""
