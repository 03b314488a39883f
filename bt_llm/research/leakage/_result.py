"""What the probes for leakage found, and how it is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bt_llm.advice import Usage
from bt_llm.backtest import Section, added_sections, bars_section, sentences_section, table_section
from bt_llm.plain_json import plain
from bt_llm.research._leakage import LeakReport
from bt_llm.research.leakage._controls import CONTROLS, Control
from bt_llm.research.leakage._probes import PROBES, Probe
from bt_llm.research.leakage._synthetic import SyntheticHistories
from bt_llm.shown import Shown

__all__ = ["LeakageResult"]

_SHORT = dict(zip(PROBES, ("future", "identified", "cut-off", "recall", "contrast"), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LeakageResult(Shown):
    """What five probes found of a model on a market.

    Attributes
    ----------
    model : str
        Who answered.
    market : str
        What the model was told that the market is called.
    bars : int
        Bars that were asked about.
    horizon : int
        Bars from a verdict to what it is judged by.
    settings : dict
        Everything else that the figures depend on: hash of the bars, template, reader, seed.
    probes : tuple of Probe
        What each found.
    controls : tuple of Control
        What they find in scripted models on the same bars.
    changed : float
        Share of the bars where market and time change the most probable label.
    answers : DataFrame
        The bars asked about, by time: ``cell``, ``outcome`` (in ATR times the root of the horizon), and the
        expected worths ``masked``, ``named``, ``misdated`` and ``contrasted``, and ``recall``; see
        `bt_llm.research.leakage`.
    strategy : LeakReport or None
        Look-ahead in a strategy beside the model, where one was given.
    synthetic : SyntheticHistories or None
        The strategy's gate on histories that never happened, where that was asked for.
    usage : Usage
        What asking the model took this time.
    notes : tuple of str
        What was assumed of the bars.
    """

    model: str
    market: str
    bars: int
    horizon: int
    settings: dict[str, Any]
    probes: tuple[Probe, ...]
    controls: tuple[Control, ...]
    changed: float
    answers: pd.DataFrame
    strategy: LeakReport | None
    synthetic: SyntheticHistories | None
    usage: Usage
    notes: tuple[str, ...] = ()

    @property
    def caught(self) -> tuple[str, ...]:
        """Titles of the probes that found something."""
        return tuple(probe.title for probe in self.probes if probe.found)

    @property
    def found(self) -> bool | None:
        """Whether anything leaks; None if no probe can tell."""
        if self.caught or (self.strategy is not None and not self.strategy.clean):
            return True
        return None if all(probe.found is None for probe in self.probes) else False

    @property
    def sentence(self) -> str:
        """The finding of all probes in one sentence."""
        told = [probe for probe in self.probes if probe.found is not None]
        unable = [probe.title.lower() for probe in self.probes if probe.found is None]
        rest = f"; cannot tell: {', '.join(unable)}" if unable else ""
        family = f"p-values are adjusted for the {len(told)} probes that can tell (Holm)"
        if self.caught:
            return (
                f"Leakage: {len(self.caught)} of {len(told)} probes caught {self.model} on {self.market}; "
                f"{family}{rest}."
            )
        if self.strategy is not None and not self.strategy.clean:
            return f"Leakage: the strategy looks ahead, though no probe caught {self.model}{rest}."
        if not told:
            return f"Cannot tell whether {self.model} remembers {self.market}: no probe can."
        return (
            f"No leakage found: none of {len(told)} probes caught {self.model} on {self.market}; "
            f"{family}{rest}."
            f"{self._blind()}"
        )

    def _blind(self) -> str:
        """Return what the controls say against a clearance; empty where they were caught."""
        missed = [
            PROBES[name].lower()
            for control in self.controls
            if control.remembers
            for name in control.wrong
            if any(probe.name == name and probe.found is False for probe in self.probes)
        ]
        if not missed:
            return ""
        return (
            " But on these bars a scripted model that remembers is not caught either by "
            f"{', '.join(missed)}: "
            "little is cleared."
        )

    @property
    def sentences(self) -> list[str]:
        """The finding, and one sentence for each probe."""
        found = [self.sentence, *(probe.sentence for probe in self.probes)]
        if self.strategy is not None:
            found.append(f"The strategy: {self.strategy.sentence}")
        return found if self.synthetic is None else [*found, self.synthetic.sentence]

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.notes)
        yield table_section(
            "Probes",
            ["probe", "outcome", "correlation", "p", "adjusted", "smallest", "detectable"],
            [
                [
                    one.title,
                    one.outcome,
                    _shown(one.correlation, "+.2f"),
                    _shown(one.p_value),
                    _shown(one.adjusted),
                    _shown(one.smallest),
                    _shown(one.detectable, ".2f"),
                ]
                for one in self.probes
            ],
            f"{self.bars:,} bars of {self.market}, each judged by its next {self.horizon} bars, by "
            f"{self.usage.distinct:,} prompts; futures are exchanged among bars that the model was "
            "told the same of. "
            "Detectable is a correlation that four of five such probes find.",
        )
        if self.controls:
            yield self._controls_section()
        if self.synthetic is not None:
            yield from self.synthetic.sections()
        yield table_section("What was asked", ["", ""], self._facts(), folded=True)
        yield from added_sections(self)

    def _controls_section(self) -> Section:
        head = ["control", *_SHORT.values()]
        rows = [
            [f"{'remembers' if one.remembers else 'honest'}: {one.name}", *one.outcomes.values()]
            for one in self.controls
        ]
        does = "; ".join(f"{one.name} {CONTROLS[one.name]}" for one in self.controls)
        text = (
            "Scripted models on the same bars: what remembers has to be caught, what is honest to be "
            "cleared. Where "
            f"the first is cleared, a clearance of the model says little. Here {does}."
        )
        return table_section("Controls", head, rows, text)

    def _facts(self) -> list[list[str]]:
        told = [[name.replace("_", " "), str(value)] for name, value in self.settings.items()]
        asked = f"{self.usage.distinct:,} ({self.usage.cache_hits:,} from the cache)"
        return [["model", self.model], ["prompts", asked], *told]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "model": self.model,
                "market": self.market,
                "bars": self.bars,
                "horizon": self.horizon,
                "found": self.found,
                "caught": list(self.caught),
                "sentence": self.sentence,
                "changed": self.changed,
                "settings": self.settings,
                "usage": dataclasses.asdict(self.usage),
                "notes": list(self.notes),
            }
        )
        return {
            **found,
            "probes": [one.to_dict() for one in self.probes],
            "controls": [one.to_dict() for one in self.controls],
            "strategy": None if self.strategy is None else self.strategy.to_dict(),
            "synthetic": None if self.synthetic is None else self.synthetic.to_dict(),
        }


def _shown(value: float, form: str = ".3g") -> str:
    return "-" if value != value else format(value, form)
