"""Ask for every verdict that a search needs, first and once; the trials then replay, and load no model."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import Advisor, AdvisorConfig, Policy
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.gates import Gate, GateProtocol
from bt_llm.indicators import LLMAdvice
from bt_llm.models import ModelIdentity, Progress
from bt_llm.research.walk_forward._supplies import Supplies
from bt_llm.research.walk_forward._windows import Bars, Window, window_cells
from bt_llm.verdicts import Prior, mean_prior

__all__ = ["Desk", "open_desk"]

Asked = tuple[AdvisorConfig, type[LLMAdvice]]


@contextlib.contextmanager
def open_desk(bars: Bars, windows: Sequence[Window], on_prompts: Progress | None = None) -> Iterator[Desk]:
    """Yield a desk for as long as its trials run.

    Where a configuration stores nothing (cache mode 'off'), its verdicts are kept in a temporary folder for
    that long, since the workers have to read them from somewhere.
    """
    with tempfile.TemporaryDirectory(prefix="bt_llm_", ignore_cleanup_errors=True) as folder:
        yield Desk(bars, windows, folder, on_prompts)


class Desk:
    """Where gates get their verdicts before a search, and the priors that they are calibrated with.

    Parameters
    ----------
    bars : Bars
        All of them.
    windows : sequence of Window
        All train and test windows.
    folder : str
        For the verdicts of configurations that store nothing.
    on_prompts : callable, optional
        Called with (answered, to ask) while a model is asked.
    """

    def __init__(
        self,
        bars: Bars,
        windows: Sequence[Window],
        folder: str,
        on_prompts: Progress | None = None,
    ) -> None:
        self._bars = bars
        self._windows = windows
        self._folder = folder
        self._on_prompts = on_prompts
        self._cells: dict[tuple[Asked, Window], NDArray[np.int64]] = {}
        self._priors: dict[tuple[Asked, Window], Prior | None] = {}
        self._known: dict[Asked, list[int]] = {}

    def ask(self, gates: Iterable[tuple[GateProtocol | None, bool]]) -> None:
        """Ask for every verdict that the gates need in any window.

        Parameters
        ----------
        gates : iterable of (gate, trained)
            And whether it is calibrated on train windows.
        """
        wanted: dict[Asked, bool] = {}
        for gate, trained in gates:
            if isinstance(gate, Gate) and _asks_as_usual(gate):
                grid = gate.advisor.calibration == "grid" and not trained
                asked = self._asked(gate)
                wanted[asked] = wanted.get(asked, False) or grid
        for asked, grid in wanted.items():
            config, _ = asked
            advisor = Advisor(config)
            cells = sorted(range(len(advisor.space)) if grid else self._all_cells(asked))
            advisor.raw_cells(cells, on_progress=self._on_prompts)
            self._known[asked] = cells
            advisor.close()

    def supplies(self) -> Supplies:
        """Return what was asked here, as it goes to workers."""
        return Supplies.of(dict.fromkeys(config for config, _ in self._known))

    def prior(self, gate: GateProtocol | None, window: Window) -> Prior | None:
        """Return the mean of the raw verdicts over the bars of a train window; None if none is valid."""
        if not isinstance(gate, Gate):
            return None
        asked = self._asked(gate)
        if (asked, window) not in self._priors:
            cells = self._window_cells(asked, window)
            verdicts = Advisor(asked[0]).raw_cells(cells[cells >= 0].tolist())
            self._priors[asked, window] = mean_prior(verdicts)
        return self._priors[asked, window]

    def replaying(self, gate: GateProtocol | None) -> GateProtocol | None:
        """Return the gate as trials get it: with what was asked here, and no leave to ask."""
        if not isinstance(gate, Gate) or not _asks_as_usual(gate):
            return gate
        return dataclasses.replace(gate, advisor=self._replaying(gate.advisor))

    def _replaying(self, config: AdvisorConfig) -> AdvisorConfig:
        folder, _ = self._cache(config)
        return dataclasses.replace(config, cache_dir=folder, cache_mode=CacheMode.REPLAY)

    def policy(self, gate: GateProtocol | None) -> tuple[ModelIdentity, Policy] | None:
        """Return who answered a gate, and what was asked here, calibrated as the gate has it.

        None where nothing was asked here. The model is not asked about the cells that are left.
        """
        if not isinstance(gate, Gate) or (cells := self._known.get(self._asked(gate))) is None:
            return None
        advisor = Advisor(self._replaying(gate.advisor))
        return advisor.identity, Policy.of(advisor, cells)

    def _asked(self, gate: Gate) -> Asked:
        """Return what the raw verdicts of a gate depend on."""
        folder, mode = self._cache(gate.advisor)
        config = dataclasses.replace(gate.advisor, cache_dir=folder, cache_mode=mode, calibration="none")
        return config, gate.indicator

    def _cache(self, config: AdvisorConfig) -> tuple[str, CacheMode]:
        cache = VerdictCache(config.cache_dir, config.cache_mode)
        if cache.mode is CacheMode.OFF:
            return self._folder, CacheMode.RECORD
        return str(cache.directory), cache.mode

    def _all_cells(self, asked: Asked) -> set[int]:
        found = (self._window_cells(asked, window) for window in self._windows)
        return {cell for cells in found for cell in np.unique(cells).tolist() if cell >= 0}

    def _window_cells(self, asked: Asked, window: Window) -> NDArray[np.int64]:
        """Return the states of a window, from its own bars alone."""
        if (asked, window) not in self._cells:
            config, indicator = asked
            cut = self._bars.cut(window)
            self._cells[asked, window] = window_cells(indicator, config, cut, window.warm_up)
        return self._cells[asked, window]


def _asks_as_usual(gate: Gate) -> bool:
    """Return whether a gate's indicator asks an advisor; one that overrides `advise` asks whom it likes."""
    return gate.indicator.advise is LLMAdvice.advise
