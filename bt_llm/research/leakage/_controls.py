"""Scripted models that remember or do not: what the probes have to catch, and to clear, on the same bars."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.advice import AdvisorConfig
from bt_llm.models import RememberingScript, ScriptedBackend, what_followed
from bt_llm.plain_json import plain
from bt_llm.research.leakage._asking import Said, ask
from bt_llm.research.leakage._points import LookAhead, Points
from bt_llm.research.leakage._probes import PROBES, Probe, probe

__all__ = ["CONTROLS", "Control", "Drifting", "NameLeaning", "control_backend", "run_controls"]

CONTROLS = {
    "remembers": "reads the answer from a table of dates: six in ten of those up to the cut-off",
    "remembers little": "the same of one date in four",
    "trend": "follows the trend that it is told, whatever the date",
    "random": "answers each prompt at random, dates and names included",
    "leans": "is bullish wherever a date is named, and follows the trend else",
    "drifts": "changes its mind slowly over the years, knowing nothing of them",
}
"""The controls by name, and what each does; the first two remember."""

_DATE = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")


@dataclass(frozen=True, kw_only=True)
class Control:
    """What the probes find in a scripted model whose memory is known.

    Attributes
    ----------
    name : str
        One of `CONTROLS`.
    remembers : bool
        Whether it has to be caught.
    outcomes : dict of str to str
        By probe: caught, cleared or cannot tell.
    """

    name: str
    remembers: bool
    outcomes: dict[str, str]

    @property
    def wrong(self) -> tuple[str, ...]:
        """The probes that could tell and told the wrong thing."""
        wrong = "cleared" if self.remembers else "caught"
        return tuple(name for name, outcome in self.outcomes.items() if outcome == wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = plain(vars(self))
        return {**found, "does": CONTROLS[self.name], "wrong": list(self.wrong)}


class NameLeaning:
    """Bullish wherever a date is named, else a follower of trends: it knows nothing."""

    def __call__(self, prompt: str) -> tuple[float, float, float]:
        """Return the probabilities for a prompt."""
        bullish, neutral, bearish = _by_trend(prompt)
        return (bullish + 0.25, neutral, bearish) if _DATE.search(prompt) else (bullish, neutral, bearish)


class Drifting:
    """Leans to one side for years and then to the other, by the date alone.

    Parameters
    ----------
    seed : int
        Says when.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 77])
        self._phase, self._years = 2.0 * math.pi * rng.random(), rng.uniform(0.4, 3.0)

    def __call__(self, prompt: str) -> tuple[float, float, float]:
        """Return the probabilities for a prompt."""
        bullish, neutral, bearish = _by_trend(prompt)
        dates = _DATE.findall(prompt)
        if not dates:
            return bullish, neutral, bearish
        year, month, day = map(int, dates[-1])
        wave = math.sin(self._phase + 2.0 * math.pi * (year + (month - 1) / 12 + day / 365) / self._years)
        return max(0.0, bullish + 0.15 * wave), neutral, max(0.0, bearish - 0.15 * wave)


def _by_trend(prompt: str) -> tuple[float, float, float]:
    lines = [line for line in prompt.splitlines() if line.startswith("Trend: ")]
    words = lines[-1] if lines else ""
    return (0.45, 0.1, 0.2) if "up" in words else (0.2, 0.1, 0.45) if "down" in words else (0.3, 0.1, 0.3)


def control_backend(name: str, bars: pd.DataFrame, points: Points, *, seed: int = 0) -> ScriptedBackend:
    """Return one of `CONTROLS` as a backend.

    Parameters
    ----------
    name : str
        Which.
    bars : DataFrame
        What one that remembers has read.
    points : Points
        Their horizon and cut-off; without a cut-off it remembers the first two thirds of the bars.
    seed : int
        What it remembers, or says.
    """
    if name.startswith("remembers"):
        until = points.cutoff or points.times[(2 * len(points)) // 3].date()
        share = 0.6 if name == "remembers" else 0.25
        followed = what_followed(bars, points.horizon)
        return ScriptedBackend(
            RememberingScript(followed, until=until, share=share, seed=seed), name=f"{name} {seed}"
        )
    if name == "random":
        return ScriptedBackend(_random(seed), name=f"random {seed}")
    if name == "trend":
        return ScriptedBackend.named("scripted:trend")
    script = NameLeaning() if name == "leans" else Drifting(seed)
    return ScriptedBackend(script, name=f"{name} {seed}")


def _random(seed: int) -> Any:
    def script(prompt: str) -> tuple[float, ...]:
        drawn = np.frombuffer(hashlib.sha256(f"{seed}|{prompt}".encode()).digest()[:12], dtype="<u4")
        weights = 1.0 + drawn.astype(np.float64)
        return tuple((weights / weights.sum()).tolist())

    return script


def asked_control(name: str, bars: pd.DataFrame, points: Points, config: AdvisorConfig, seed: int) -> Said:
    """Return what a control says of the points; nothing is stored."""
    return ask(points, config, seed=seed, backend=control_backend(name, bars, points, seed=seed))


def run_controls(
    bars: pd.DataFrame,
    points: Points,
    looked: LookAhead,
    config: AdvisorConfig,
    *,
    names: tuple[str, ...] = ("remembers", "trend", "random"),
    exchanges: int = 999,
    seed: int = 0,
    alpha: float = 0.01,
) -> tuple[Control, ...]:
    """Return what the probes find in scripted models, on the same bars.

    Parameters
    ----------
    bars : DataFrame
        The market's.
    points, looked : Points, LookAhead
        As of the model that is probed.
    config : AdvisorConfig
        Its state space; the controls answer to the template that ships.
    names : tuple of str
        Which of `CONTROLS`.
    exchanges, seed, alpha
        As in `probe`.
    """
    silent = AdvisorConfig(model="scripted:trend", state_space=config.state_space, cache_mode="off")
    found = []
    for name in names:
        said = asked_control(name, bars, points, silent, seed)
        probes: tuple[Probe, ...] = probe(
            points, said, LookAhead(runs=looked.runs), exchanges=exchanges, seed=seed, alpha=alpha
        )
        outcomes = {one.name: one.outcome for one in probes}
        assert list(outcomes) == list(PROBES)
        found.append(Control(name=name, remembers=name.startswith("remembers"), outcomes=outcomes))
    return tuple(found)
