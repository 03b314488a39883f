"""LLMAdvice: the market state and the model's verdict on it, as the lines of a Backtrader indicator."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import Advisor, Usage
from bt_llm.exceptions import ConfigError, ReplayMiss
from bt_llm.feeds import data_name, feed_of, is_live
from bt_llm.indicators._advice_settings import (
    check_datas,
    check_length,
    checked_config,
    checked_frequency,
)
from bt_llm.indicators._cell_rows import CellRows, with_bar
from bt_llm.indicators._frequency import milliseconds
from bt_llm.indicators._lines import copy_values
from bt_llm.indicators._live import LiveAsker
from bt_llm.indicators._pacing import Pace, Seen
from bt_llm.indicators._state_lines import PERIODS, rsi_line, trend_line, volatility_line
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import LabelSet, Verdict

if TYPE_CHECKING:
    from bt_llm.indicators._bar_times import BarClock

__all__ = ["LLMAdvice"]

_OUTPUTS = ("verdict", "confidence", "bullish", "bearish", "neutral")
_ANSWER = (*_OUTPUTS, "label")
_BUILT_IN = ("trend", "rsi", "volatility")
_MAKERS = ("__init__", "_bind_states", "_make_trend", "_make_rsi", "_make_volatility", "once")


class LLMAdvice(bt.Indicator):
    """The verdict of a local model on each bar's market state, known at the close of that bar.

    Give it a data feed, and optionally a trigger: a second line of the same feed's bars that says where
    to ask (where it is finite and not zero). Settings are passed by keyword.

    Parameters
    ----------
    advisor : AdvisorConfig, optional
        Which model is asked, and how; by default ``AdvisorConfig()``.
    manager : ModelManager, optional
        Whose model is asked instead, such as the one that the strategy's own `generate` calls go to.
    ema : int
        Bars of the EMA whose slope is the trend.
    slope : int
        Bars over which that slope is taken.
    rsi, atr : int
        Bars of Wilder's RSI and ATR.
    median : int
        Bars of the trailing median that ATR% is measured against.
    every, min_minutes, max_age : int, float, int or None
        On which bars the model is asked, in bars and in minutes of bar time, and for how many bars its
        verdict is carried; see `bt_llm.indicators.Frequency`. By default each bar is asked.
    live : {'auto', 'on', 'off'}
        Whether the model is asked in a thread beside the bars: 'auto' does so in a live run, where a feed
        says that it is live. A backtest waits for every answer.
    timeout_s : float
        Seconds for which a live bar waits for its answer.
    min_seconds : float
        Seconds of wall time from one question to the next in a live run; see `LLMThrottler`.
    deadline_s : float
        Seconds after which a question of a live run is given up; until then a late answer is of use.

    Attributes
    ----------
    lines : verdict, confidence, bullish, bearish, neutral, trend, rsi, volatility, age, label
        The verdict is what the most probable label is worth, 1, 0 or -1 by the default labels, and the
        confidence its probability. Both are NaN where there is none; an answer that cannot be read is NaN
        with a confidence of 0. ``bullish``, ``neutral`` and ``bearish`` are the probabilities of all labels
        worth more than, exactly and less than nothing. ``label`` is the label's place among `labels`.
        ``trend`` is ``(EMA[t] - EMA[t-slope]) / (slope * ATR[t])`` (0 where ATR is 0), ``volatility`` is
        ATR as a percentage of the close over its own trailing median (1 where both are 0, NaN where only
        the median is). ``age`` is the number of bars since the one whose state the verdict is on: 0 on the
        bar that was asked, NaN where there is no answer.
    bars : int
        Bars seen since the warm-up was complete.
    asked, carried, unanswered : int
        Of these, bars with an answer of their own, bars with an earlier one, and bars that were asked and
        have none because it did not come in time or failed.
    silent : list of float
        Times, as Backtrader's numbers, of the bars that could have been asked but for a model that has
        nothing to say of them, such as a dated one before its first member.
    usage : Usage
        What answering cost.
    labels : LabelSet
        What the model chooses from.

    Raises
    ------
    ConfigError
        If a setting is passed by position or is out of range, `advisor` is not an AdvisorConfig, a
        feature of the state space has no line or indicator, or the trigger has another clock.
    DataError
        If the first data is no OHLC feed, or has fewer bars than the warm-up needs.

    Notes
    -----
    A state is a pure function of bars up to its own, and a verdict a pure function of the state's cell, so
    lines do not depend on the engine mode, and each distinct cell is asked once. With preloaded data the
    whole line is known before the first order, but bar t's value uses nothing after bar t.

    trend, rsi and volatility are computed and part of the warm-up even if the state space leaves them out;
    only the space's own features must be finite for the model to be asked. A feature of your own gives its
    line by its `indicator`, and a subclass declares it::

        def percent_b(data):
            return bt.ind.BollingerBandsPct(data).pctb

        class BandAdvice(LLMAdvice):
            lines = ("percent_b",)

    To change how cells get their verdicts, override `advise`: it serves every engine mode. A model that
    answers by the bar (``dated:``) is asked about places, see `bt_llm.advice.Advisor.places`, and no override
    of `advise` goes with it unless its class says ``advises_places = True``.

    In a live run the loop is blocked for at most `timeout_s` a bar. A bar whose answer is not there by then
    is missing and stays so; when the answer comes it counts from the next bar on, as an earlier verdict with
    its age, unless that bar has one of its own. What the thread raises is logged, and the bar is missing.
    A backend's GenerationTimeout leaves the bars of that state missing in a backtest too, where every other
    error ends the run. What a missing verdict means for an entry is said by `Gate.on_missing`.

    Examples
    --------
    >>> class Strategy(bt.Strategy):
    ...     def __init__(self):
    ...         self.advice = LLMAdvice(self.data, advisor=AdvisorConfig(model="scripted:trend"))
    ...     def next(self):
    ...         if self.advice.verdict[0] > 0 and not self.position:
    ...             self.buy()
    """

    lines: Any = (*_OUTPUTS, *_BUILT_IN, "age", "label")
    params = (
        ("advisor", None),
        ("manager", None),
        ("ema", 20),
        ("slope", 3),
        ("rsi", 14),
        ("atr", 14),
        ("median", 100),
        ("every", 1),
        ("min_minutes", 0.0),
        ("max_age", None),
        ("live", "auto"),
        ("timeout_s", 5.0),
        ("min_seconds", 0.0),
        ("deadline_s", 120.0),
    )
    plotinfo: ClassVar[Any] = {
        "plotname": "LLM advice",
        "plotyhlines": [-1.0, 0.0, 1.0],
        "plotyticks": [-1.0, 0.0, 1.0],
        "plotymargin": 0.15,
    }
    plotlines: ClassVar[Any] = {
        "verdict": {"drawstyle": "steps-post"},
        **{name: {"_plotskip": True} for name in (*_OUTPUTS[1:], *_BUILT_IN, "age", "label")},
    }
    csv = True
    advises_places: ClassVar[bool] = False
    """Whether `advise` takes what `Advisor.places` gives of a model that answers by the bar."""

    def __init__(self, *misplaced: Any, **unknown: Any) -> None:
        self._trigger = self.datas[1].lines[0] if len(self.datas) > 1 else None
        check_datas(self, misplaced, unknown)
        self.config = checked_config(self)
        self.frequency = checked_frequency(self)
        self.bars = self.asked = self.carried = self.unanswered = 0
        self._by_bar: NDArray[np.bool_] | None = None  # the same bar by bar, of a vectorised run
        self.usage = Usage()
        self._advisor: Advisor | None = None
        self._names = self.config.state_space.names
        self._rows = CellRows(self)
        self._pace: Pace | None = None
        self._before = self._seen = Seen()
        self._last = (0, -1, "")  # length, cell and count of the last bar that next() saw
        self.silent: list[float] = []
        self._clock_utc = self._bar_clock()
        self._bind_states()
        super().__init__()
        check_length(self)

    def advise(self, cells: Sequence[int]) -> list[Verdict]:
        """Return the verdict on each cell of the state space; the one hook a subclass overrides.

        Parameters
        ----------
        cells : sequence of int
            Distinct, and never the same cell twice in a run, unless it was without an answer. In a live run
            this is called in a thread, with one cell at a time.

        Raises
        ------
        GenerationTimeout
            If there is no answer in time; a cell asked alone then has no verdict, several are asked alone.
        """
        return self.advisor.advise_cells(cells, usage=self.usage)

    @property
    def asker(self) -> Advisor | None:
        """Who has been asked; None before."""
        return self._advisor

    @property
    def advisor(self) -> Advisor:
        """Who is asked; made when first needed. It says who answered, what was asked and what came of it."""
        if self._advisor is None:
            self._advisor = Advisor.of(self.config)
        return self._advisor

    @property
    def warm_up_bars(self) -> int:
        """Bars of its data until the first advice, that bar included."""
        return int(self._minperiod)

    @property
    def distinct(self) -> int:
        """Number of distinct cells asked so far; in a live run, of those that were answered."""
        asker = self._pace.asker if self._pace is not None else None
        return len(self._rows) if asker is None else len(asker)

    def _plotlabel(self) -> list[Any]:
        periods = [getattr(self.p, name) for name in PERIODS]
        return [Path(str(self.config.model)).name, *periods]

    # States

    def _bind_states(self) -> None:
        """Bind every feature to an own line: children stand still in vectorised runs, own lines move."""
        self._range = bt.ind.ATR(self.data, period=self.p.atr)
        features = {feature.name: feature for feature in self.config.state_space.features}
        for name in dict.fromkeys((*_BUILT_IN, *self._names)):
            feature = features.get(name)
            if feature is not None and feature.indicator is not None:
                line = feature.indicator(self.data)
            elif name in _BUILT_IN:
                line = getattr(self, f"_make_{name}")()
            else:
                raise ConfigError(f"feature {name!r} has no indicator: expected Feature(..., indicator=...)")
            self._bind(name, line)

    @property
    def hides_states(self) -> bool:
        """Whether all indicators inside of it are its own, so that nobody can see their lines."""
        own = all(getattr(type(self), name) is getattr(LLMAdvice, name) for name in _MAKERS)
        return own and all(one.indicator is None for one in self.config.state_space.features)

    def _bind(self, name: str, line: Any) -> None:
        if name not in self.lines.getlinealiases():
            raise ConfigError(
                f"feature {name!r} has no line in {type(self).__name__}: declare it in a subclass, "
                f"class MyAdvice({type(self).__name__}): lines = ({name!r},), and use that"
            )
        setattr(self.lines, name, line)
        if not getattr(self.plotlines, name)._getkwargs():  # not told how: on a scale of its own
            setattr(self.plotlines, name, self.plotlines.trend)

    def _make_trend(self) -> Any:
        return trend_line(self.data, self._range, ema=self.p.ema, slope=self.p.slope)

    def _make_rsi(self) -> Any:
        return rsi_line(self.data, rsi=self.p.rsi)

    def _make_volatility(self) -> Any:
        return volatility_line(self.data, self._range, median=self.p.median)

    # Verdicts

    def _bar_clock(self) -> BarClock | None:
        """Return what says when bars opened, where the model answers by the bar."""
        if not self.config.by_bar:
            return None
        if type(self).advise is not LLMAdvice.advise and not self.advises_places:
            raise ConfigError(
                f"{type(self).__name__} overrides advise(), which gives verdicts on states, and model "
                f"{self.config.model!r:.80} answers by the bar: expected LLMAdvice, or advises_places = True"
            )
        from bt_llm.indicators._bar_times import BarClock  # which loads pandas

        return BarClock.of(self.data, stamp=None, bar=None, time_zone=None)

    def places(self, columns: Sequence[NDArray[np.float64]], times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what each bar is asked about: its cell, or of a model by the bar its place; -1 is nothing.

        Parameters
        ----------
        columns : sequence of ndarray, shape (n_bars,)
            Values of the state space's features.
        times : ndarray of shape (n_bars,)
            Of the bars, as Backtrader's numbers.
        """
        cells = self.config.state_space.cells(columns)
        clock = self._clock_utc
        if clock is None:
            return cells
        return self.advisor.places(cells, clock.spans(times.tolist()), data_name(feed_of(self.data)))

    def next(self) -> None:
        """Fill one bar; called again for a bar that a replay is still building, it fills it anew."""
        if self._pace is None:
            self._pace = self._make_pace()
        length, last_cell, count = self._last
        cell, again = self._cell(), len(self) == length
        if again:
            if self._pace.asker is not None and cell == last_cell and count in ("asked", "unanswered"):
                return  # once was enough: this bar's answer counts from the next bar if it comes late
            self._count(count, -1)
        else:
            self._before = self._seen
            self.bars += 1
        time = feed_of(self.data).datetime[0]
        try:
            self._seen, bar = self._pace.step(
                self._before, bar=len(self), cell=cell, time_ms=milliseconds(time)
            )
        except ReplayMiss as miss:
            raise with_bar(miss, self.advisor, {cell: time}) from None
        self._count(bar.counts_as, 1)
        self._last = (len(self), cell, bar.counts_as)
        for name, value in zip((*_ANSWER, "age"), (*bar.row, bar.age), strict=True):
            getattr(self.lines, name)[0] = value

    @property
    def vectorised(self) -> bool:
        """Whether it filled all bars before the run."""
        return self._by_bar is not None

    def counts(self, length: int) -> tuple[int, int, int, int]:
        """Return `bars`, `asked`, `carried` and `unanswered` of the first `length` bars of the data.

        They are fewer where a run ended early: a vectorised one has filled all bars before it.
        """
        if self._by_bar is None:
            return self.bars, self.asked, self.carried, self.unanswered
        bars, asked, carried, unanswered = self._by_bar[:, : max(0, length - self._minperiod + 1)].sum(axis=1)
        return int(bars), int(asked), int(carried), int(unanswered)

    def _make_pace(self) -> Pace:
        asker = None
        if self.p.live == "on" or (self.p.live == "auto" and is_live(self.data)):
            asker = LiveAsker(
                lambda cell: self._rows.fresh([cell])[0],
                timeout_s=self.p.timeout_s,
                min_seconds=self.p.min_seconds,
                deadline_s=self.p.deadline_s,
            )
        return Pace(self.frequency, lambda cell: self._rows.of([cell])[0], asker)

    def _count(self, name: str, by: int) -> None:
        if name:
            setattr(self, name, getattr(self, name) + by)

    def _cell(self) -> int:
        """Return the current bar's cell, -1 where the model cannot be asked."""
        if self._trigger is not None and not _fires(np.array([self._trigger[0]]))[0]:
            return -1
        values = [np.array([getattr(self.lines, name)[0]]) for name in self._names]
        time = float(feed_of(self.data).datetime[0])
        place = int(self.places(values, np.array([time]))[0])
        nobody = place < 0 and self._clock_utc is not None and self.config.state_space.cells(values)[0] >= 0
        if nobody and self.silent[-1:] != [time]:
            self.silent.append(time)
        return place

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` covers the first bar too, so that the model is asked one batch."""

    def once(self, start: int, end: int) -> None:
        """Fill all bars: bucket the states, ask for the distinct cells at once, look the rest up."""
        if self.p.live == "on":
            raise ConfigError("live='on' in a vectorised run: expected cerebro.run(runonce=False)")
        first = self._minperiod - 1
        columns = [copy_values(getattr(self.lines, name))[first:end] for name in self._names]
        times = copy_values(feed_of(self.data).lines.datetime)[first:end]
        cells = self.places(columns, times)
        possible = np.ones(len(cells), dtype=bool)
        if self._trigger is not None:
            possible = _fires(copy_values(self._trigger)[first:end])
            cells[~possible] = -1
        if self._clock_utc is not None:
            nobody = possible & (cells < 0) & (self.config.state_space.cells(columns) >= 0)
            self.silent = times[nobody].tolist()
        bars = np.arange(len(cells))
        sources = self.frequency.sources(cells >= 0, times)
        distinct, where = np.unique(np.where(sources >= 0, cells[sources], -1), return_inverse=True)
        try:
            rows = np.array(self._rows.of(distinct.tolist()))[where]
        except ReplayMiss as miss:
            own = np.flatnonzero(sources == bars)[::-1]  # backwards: of bars in one cell, the first stays
            first_times = dict(zip(cells[own].tolist(), times[own].tolist(), strict=True))
            raise with_bar(miss, self.advisor, first_times) from None
        ages = np.where(np.isnan(rows[:, 1]), math.nan, bars - sources)
        for name, column in zip((*_ANSWER, "age"), (*rows.T, ages), strict=True):
            getattr(self.lines, name).array[first:end] = array("d", column.tobytes())
        unanswered = (sources == bars) & np.isnan(ages)
        self._by_bar = np.stack([np.ones(len(bars), dtype=bool), ages == 0, ages > 0, unanswered])
        self.bars, self.asked, self.carried, self.unanswered = self._by_bar.sum(axis=1).tolist()

    @property
    def labels(self) -> LabelSet:
        """Those of the verdicts so far; before the first, those of the advisor's template."""
        return self._rows.labels or PromptTemplate.load(self.config.template_source).choices


def _fires(trigger: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where a trigger asks: finite and not zero."""
    fires: NDArray[np.bool_] = np.isfinite(trigger) & (trigger != 0.0)
    return fires
