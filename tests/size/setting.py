"""A setting that is simulated many times, what is counted in it, and what the counts should be."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import tests.size

__all__ = ["Found", "Goal", "Rate", "Setting", "all_settings", "measure", "rates"]

Found = Mapping[str, bool | None]
"""What one study said, by sentence; None where it said that it cannot tell, or refused."""


@dataclass(frozen=True)
class Goal:
    """Between which shares a sentence should be said; `kind` is what that share is called."""

    kind: str
    least: float = 0.0
    most: float = 1.0

    def __str__(self) -> str:
        low, high = f"{100 * self.least:g}", f"{100 * self.most:g} %"
        if self.least <= 0.0:
            return f"at most {high}"
        return f"at least {low} %" if self.most >= 1.0 else f"{low} to {high}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Parameters
    ----------
    group : str
        Heading of its rows.
    name : str
        What is simulated, in words.
    study : callable
        One study, from its seed.
    goals : mapping of str to Goal
        By sentence; others are counted and have no goal.
    repeats : int
        Studies of the full table.
    control : bool
        Whether something is there to be found: a negative control of the sentences, which a test that never
        says anything would fail.
    """

    group: str
    name: str
    study: Callable[[int], Found]
    goals: Mapping[str, Goal]
    repeats: int = 1000
    control: bool = False


@dataclass(frozen=True)
class Rate:
    """How often a sentence was said in so many studies that could tell."""

    said: int
    told: int
    refused: int

    @property
    def share(self) -> float:
        """Of the studies that could tell; NaN if none could."""
        return self.said / self.told if self.told else math.nan

    @property
    def error(self) -> float:
        """Monte Carlo standard error of the share."""
        if not self.told:
            return math.nan
        share = min(max(self.share, 0.5 / self.told), 1.0 - 0.5 / self.told)
        return math.sqrt(share * (1.0 - share) / self.told)

    def meets(self, goal: Goal, errors: float = 0.0) -> bool:
        """Return whether the share is within a goal, give or take some standard errors."""
        if not self.told:
            return goal.least <= 0.0
        give = errors * self.error
        return goal.least - give <= self.share <= goal.most + give


def measure(setting: Setting, seeds: Iterable[int]) -> list[Found]:
    """Return what the studies of some seeds said."""
    return [setting.study(seed) for seed in seeds]


def rates(found: Sequence[Found]) -> dict[str, Rate]:
    """Return how often each sentence was said."""
    made = {}
    for name in dict.fromkeys(name for one in found for name in one):
        said = [one.get(name) for one in found]
        told = [answer for answer in said if answer is not None]
        made[name] = Rate(sum(told), len(told), len(said) - len(told))
    return made


def all_settings() -> list[Setting]:
    """Return the settings of all modules ``settings_*``, in the order of their names."""
    names = sorted(one.name for one in pkgutil.iter_modules(tests.size.__path__))
    modules = [importlib.import_module(f"tests.size.{n}") for n in names if n.startswith("settings_")]
    return [setting for module in modules for setting in module.SETTINGS]
