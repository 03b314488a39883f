"""What the model says of cells, as rows of an indicator's lines; each cell is asked once in a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import backtrader as bt

from bt_llm import plain_text
from bt_llm.advice import Advisor
from bt_llm.cache import CacheMode
from bt_llm.exceptions import ConfigError, GenerationTimeout, ReplayMiss
from bt_llm.indicators._pacing import NO_ANSWER, Row
from bt_llm.verdicts import LabelSet, Verdict, prior_source

__all__ = ["CellRows", "with_bar"]

_log = plain_text.logger("bt_llm.advice")


class _Advises(Protocol):
    def advise(self, cells: Sequence[int]) -> list[Verdict]: ...


class CellRows:
    """The rows of the cells that were asked about so far.

    Parameters
    ----------
    adviser : LLMAdvice
        Whose `advise` is asked.

    Attributes
    ----------
    labels : LabelSet or None
        Those of the verdicts; None before the first.
    """

    def __init__(self, adviser: _Advises) -> None:
        self.labels: LabelSet | None = None
        self._adviser = adviser
        self._known: dict[int, Row] = {}
        self._timed_out = False

    def __len__(self) -> int:
        """Return the number of cells that were asked about."""
        return len(self._known)

    def of(self, cells: Sequence[int]) -> list[Row]:
        """Return the row of each cell, NaN for -1; ask for those that are not known yet."""
        if new := [cell for cell in cells if cell >= 0 and cell not in self._known]:
            self._known.update(zip(new, self._ask(new), strict=True))
        return [self._known[cell] if cell >= 0 else NO_ANSWER for cell in cells]

    def fresh(self, cells: Sequence[int]) -> list[Row]:
        """Ask about each cell, and return its row; none of them is remembered.

        Raises
        ------
        GenerationTimeout
            If there is no answer in time.
        ConfigError
            If there is not one verdict for each cell, or their labels are not the same.
        """
        verdicts, name = self._adviser.advise(cells), type(self._adviser).__name__
        if len(verdicts) != len(cells):
            raise ConfigError(
                f"{name}.advise gave {len(verdicts)} verdicts for {len(cells)} cells: expected one each"
            )
        for verdict in verdicts:
            self.labels = self.labels or verdict.labels
            if verdict.labels.meaning != self.labels.meaning:
                raise ConfigError(
                    f"{name}.advise gave verdicts on {self.labels.names} and on {verdict.labels.names}: "
                    f"expected one label set in a run"
                )
        return [_row(verdict) for verdict in verdicts]

    def _ask(self, cells: Sequence[int]) -> list[Row]:
        """Ask; a cell whose time runs out when it is asked alone, as bar by bar, has no verdict."""
        try:
            return self.fresh(cells)
        except GenerationTimeout as error:
            if len(cells) > 1:
                return [row for cell in cells for row in self._ask([cell])]
            if not self._timed_out:
                _log.warning("no verdict: %s (later timeouts are counted, not logged)", error)
            self._timed_out = True
            return [NO_ANSWER]


def _row(verdict: Verdict) -> Row:
    sides = verdict.bullish, verdict.bearish, verdict.neutral
    return verdict.worth, verdict.confidence, *sides, verdict.place if verdict.valid else math.nan


def with_bar(miss: ReplayMiss, advisor: Advisor, times: Mapping[int, float]) -> ReplayMiss:
    """Return the miss of the first bar without a stored verdict: the cache knows prompts, not bars.

    `times` has for each asked cell the time of its first bar, as Backtrader's number.
    """
    if advisor.cache.mode is not CacheMode.REPLAY:  # a subclass has its advice from elsewhere
        return miss
    for cell, time in sorted(times.items(), key=lambda item: item[1]):
        try:
            advisor.raw_cells([cell])
        except ReplayMiss as own:
            own.args = (f"bar {bt.num2date(time):%Y-%m-%d %H:%M:%S}: {own}",)
            return own
    whole = len(advisor.config.prior_cells) == len(advisor.space)
    needed = "the whole grid" if whole else prior_source(advisor.space)
    miss.args = (f"no bar so far lacks its own verdict, but the calibration needs {needed}: {miss}",)
    return miss
