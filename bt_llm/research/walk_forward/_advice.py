"""Ask for every answer that a search needs, first and once; the trials then replay, and load no model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import Advisor, AdvisorConfig, AnalystConfig, Policy
from bt_llm.backtest import Market, Window
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Asker, AskingGate, EntryGate, Gate
from bt_llm.indicators import LLMAdvice
from bt_llm.models import ModelIdentity, Progress
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.research.walk_forward._windows import ask_every_bar, window_cells
from bt_llm.verdicts import Prior, mean_prior
from bt_llm.writing import temporary_folder

__all__ = ["Desk", "answers_folder", "open_desk"]

Asked = tuple[AdvisorConfig, type[LLMAdvice]]
C = TypeVar("C", bound=AdvisorConfig | AnalystConfig)


@contextlib.contextmanager
def open_desk(
    market: Market, windows: Sequence[Window], on_prompts: Progress | None = None
) -> Iterator[Desk]:
    """Yield a desk for as long as its trials run."""
    with answers_folder() as folder:
        yield Desk(market, windows, folder, on_prompts)


@contextlib.contextmanager
def answers_folder() -> Iterator[Callable[[], Path]]:
    """Yield what makes the folder of desks, once, that lasts as long as their trials run.

    Where a configuration stores nothing (cache mode 'off'), its answers are kept there for that long, since
    the workers have to read them from somewhere.
    """
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda: stack.enter_context(temporary_folder()))


class Desk:
    """Where gates get their answers before a search, and the priors that they are calibrated with.

    Parameters
    ----------
    market : Market
        All of it.
    windows : sequence of Window
        All train and test windows.
    folder : callable
        Makes a folder, once, for the answers of configurations that store nothing.
    on_prompts : callable, optional
        Called with (answered, to ask) while a model is asked.
    """

    def __init__(
        self,
        market: Market,
        windows: Sequence[Window],
        folder: Callable[[], Path],
        on_prompts: Progress | None = None,
    ) -> None:
        self._market = market
        self._windows = windows
        self._folder = folder
        self._on_prompts = on_prompts
        self._cells: dict[tuple[Asked, Window], NDArray[np.int64]] = {}
        self._priors: dict[tuple[Asked, Window], Prior | None] = {}
        self._known: dict[Asked, list[int]] = {}
        self._advisors: dict[Asked, Advisor] = {}
        self._answered: dict[Hashable, tuple[AskingGate, Asker]] = {}

    def ask(self, gates: Iterable[tuple[EntryGate | None, bool]]) -> None:
        """Ask for everything that the gates may need in any window.

        A gate that asks about trades is asked about both sides at every bar: which of them a strategy wants
        depends on the combination, and on the answers.

        Parameters
        ----------
        gates : iterable of (gate, trained)
            And whether it is calibrated on train windows.
        """
        wanted: dict[Asked, bool] = {}
        sure: list[tuple[Gate, Asked]] = []
        others: list[AskingGate] = []
        for gate, trained in gates:
            if isinstance(gate, Gate) and _asks_as_usual(gate):
                grid = gate.advisor.calibration == "grid" and not trained
                if trained and gate.advisor.by_bar:
                    raise ConfigError(
                        f"calibration='train' with model {str(gate.advisor.model)!r:.80}: whoever answers "
                        "test bars may not have answered a train bar; expected 'grid' or 'none'"
                    )
                asked = self._asked(gate)
                wanted[asked] = wanted.get(asked, False) or grid
                sure.append((gate.with_config(asked[0]), asked))
            elif isinstance(gate, AskingGate) and not isinstance(gate, Gate):
                others.append(gate.with_config(self._recording(gate.config)))
        for asked, grid in wanted.items():
            self._ask_states(asked, grid)
        for raw, asked in sure:
            self._answered[raw.source] = raw, self._advisor(asked)
        for gate in dict.fromkeys(gate.without_rule() for gate in others):
            asker = gate.asker()
            self._answered[gate.source] = gate, asker
            for window in self._windows:
                ask_every_bar(gate, self._market.cut(window))
            asker.close()

    def _ask_states(self, asked: Asked, grid: bool) -> None:
        with self._advisor(asked) as advisor:
            cells = self._all_cells(asked)
            cells = advisor.with_prior(cells) if grid else sorted(cells)
            advisor.raw_cells(cells, on_progress=self._on_prompts)
            self._known[asked] = cells

    def _advisor(self, asked: Asked) -> Advisor:
        """Return who is asked: one with the words that it read, for the whole search."""
        if asked not in self._advisors:
            self._advisors[asked] = Advisor.of(asked[0])
        return self._advisors[asked]

    def supplies(self) -> Supplies:
        """Return what was asked here, as it goes to workers."""
        return Supplies.of(self._answered.values())

    def prior(self, gate: EntryGate | None, window: Window) -> Prior | None:
        """Return the mean of the raw verdicts over the bars of a train window; None if none is valid."""
        if not isinstance(gate, Gate):
            return None
        asked = self._asked(gate)
        if (asked, window) not in self._priors:
            cells = self._window_cells(asked, window)
            verdicts = self._advisor(asked).raw_cells(cells[cells >= 0].tolist())
            self._priors[asked, window] = mean_prior(verdicts)
        return self._priors[asked, window]

    def replaying(self, gate: EntryGate | None) -> EntryGate | None:
        """Return the gate as trials get it: with what was asked here, and no leave to ask."""
        if not isinstance(gate, AskingGate) or (isinstance(gate, Gate) and not _asks_as_usual(gate)):
            return gate
        recording = self._recording(gate.config)
        return gate.with_config(dataclasses.replace(recording, cache_mode=CacheMode.REPLAY))

    def policies(self, gate: EntryGate | None) -> list[tuple[ModelIdentity, Policy]]:
        """Return who answered a gate, and what was asked here, calibrated as the gate has it.

        One of a model, and one of each member of a family; none where nothing was asked here. Nobody is asked
        about the cells that are left.
        """
        if not isinstance(gate, Gate) or (cells := self._known.get(self._asked(gate))) is None:
            return []
        recording = self._recording(gate.advisor)
        advisor = Advisor.of(dataclasses.replace(recording, cache_mode=CacheMode.REPLAY))
        return [(one.identity, Policy.of(one, own)) for one, own in advisor.split(cells)]

    def _asked(self, gate: Gate) -> Asked:
        """Return what the raw verdicts of a gate depend on."""
        return dataclasses.replace(self._recording(gate.advisor), calibration="none"), gate.indicator

    def _recording(self, config: C) -> C:
        """Return a configuration whose answers are kept where trials can read them."""
        cache = VerdictCache(config.cache_dir, config.cache_mode)
        if cache.mode is CacheMode.OFF:
            return dataclasses.replace(config, cache_dir=str(self._folder()), cache_mode=CacheMode.RECORD)
        return dataclasses.replace(config, cache_dir=str(cache.directory), cache_mode=cache.mode)

    def _all_cells(self, asked: Asked) -> Collection[int]:
        config, indicator = asked
        every = (window_cells(indicator, config, self._market, one, warming=True) for one in self._windows)
        return {cell for cells in every for cell in np.unique(cells).tolist() if cell >= 0}

    def _window_cells(self, asked: Asked, window: Window) -> NDArray[np.int64]:
        """Return the states of a window, from its own bars alone."""
        if (asked, window) not in self._cells:
            config, indicator = asked
            self._cells[asked, window] = window_cells(indicator, config, self._market, window)
        return self._cells[asked, window]


def _asks_as_usual(gate: Gate) -> bool:
    """Return whether a gate's indicator asks an advisor; one that overrides `advise` asks whom it likes."""
    return gate.indicator.advise is LLMAdvice.advise
