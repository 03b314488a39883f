"""MarketRegime: the regime and the risk of several markets, of bars and of daily series, as lines."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import backtrader as bt
import numpy as np

from bt_llm.advice import AnalystConfig, MarketAnalysis, MarketAnalystAgent, Regime, RiskLevel
from bt_llm.data import DailySeries, Floats
from bt_llm.exceptions import ConfigError
from bt_llm.indicators._bar_times import BarClock
from bt_llm.indicators._lines import copy_values
from bt_llm.indicators._state_lines import check_periods, rsi_line, trend_line
from bt_llm.settings import instance
from bt_llm.verdicts import Feature, StateSpace

__all__ = ["REGIMES", "REGIME_SPACE", "RISK_LEVELS", "MarketRegime"]

REGIMES: Mapping[Regime, float] = {Regime.RANGING: 0.0, Regime.TRENDING: 1.0, Regime.VOLATILE: 2.0}
"""Values of the line ``regime``; NaN where there is none."""

RISK_LEVELS: Mapping[RiskLevel, float] = {RiskLevel.LOW: 0.0, RiskLevel.MEDIUM: 1.0, RiskLevel.HIGH: 2.0}
"""Values of the line ``risk_level``; NaN where there is none."""

REGIME_SPACE = StateSpace(
    features=(
        Feature(
            name="vix",
            title="VIX",
            edges=(12, 16, 20, 30),
            labels=("below 12", "12 to 16", "16 to 20", "20 to 30", "above 30"),
        ),
        Feature(name="oil_volatility", edges=(0.85, 1.2), labels=("low", "normal", "high")),
        Feature(name="oil", edges=(-0.75, 0.75), labels=("falling", "flat", "rising")),
        Feature(name="rsi", title="RSI", edges=(30, 70), labels=("below 30", "30 to 70", "above 70")),
        Feature(name="trend", edges=(-0.08, 0.08), labels=("down", "flat", "up")),
    )
)
"""The default buckets: 405 cells, of which few occur."""


class MarketRegime(bt.Indicator):
    """Regime and risk by a model, from a feed's bars and from daily series of the VIX and of oil.

    A day's value counts from the first bar that opens on a later day, in UTC; never on its own day, which
    is not over. The daily series are joined by time: coupled datas of another frequency would be NaN in
    Backtrader's vectorised runs.

    Parameters
    ----------
    vix, oil : path or DataFrame
        Daily bars, as `load_bars` takes them; they may go on after the feed's last bar.
    analyst : AnalystConfig, optional
        Who judges; by default ``AnalystConfig()``.
    market : str
        What the prompt calls the feed.
    state_space : StateSpace
        Buckets of vix, oil, oil_volatility, rsi and trend, or of some of them.
    ema, slope, atr, rsi : int
        Bars of the feed's trend and RSI, as in `LLMAdvice`.
    stamp, bar, time_zone
        What the bars' times are; as in `LLMNews`.

    Attributes
    ----------
    lines : regime, risk_level, trend, rsi, vix, oil, oil_volatility
        Regime: 0 ranging, 1 trending, 2 volatile. Risk level: 0 low, 1 medium, 2 high. Both NaN where the
        answer cannot be read or a value is missing. ``oil`` and ``oil_volatility`` as in
        `DailySeries.moves`; the last three are those of the last day that was over.

    Raises
    ------
    ConfigError
        If a setting is out of its range, or the length of a bar is not known.
    DataError
        If a daily series cannot be read, or bars overlap.

    Notes
    -----
    A regime is a function of the bucketed state, so lines do not depend on the engine mode and each
    distinct state is asked once. To judge in another way, override `judge`.
    """

    lines: Any = ("regime", "risk_level", "trend", "rsi", "vix", "oil", "oil_volatility")
    params = (
        ("vix", None),
        ("oil", None),
        ("analyst", None),
        ("market", "EUR/USD"),
        ("state_space", REGIME_SPACE),
        ("ema", 20),
        ("slope", 3),
        ("atr", 14),
        ("rsi", 14),
        ("stamp", None),
        ("bar", None),
        ("time_zone", None),
    )
    plotinfo: ClassVar[Any] = {"plotname": "Market regime", "plotyticks": [0.0, 1.0, 2.0]}
    plotlines: ClassVar[Any] = {
        "regime": {"drawstyle": "steps-post"},
        "risk_level": {"drawstyle": "steps-post"},
        **{name: {"_plotskip": True} for name in ("trend", "rsi", "vix", "oil", "oil_volatility")},
    }

    def __init__(self) -> None:
        super().__init__()
        p = self.p
        self.config = p.analyst if p.analyst is not None else AnalystConfig()
        if not isinstance(self.config, AnalystConfig):
            raise ConfigError(f"analyst={p.analyst!r:.60}: expected an AnalystConfig")
        check_periods(self)
        instance("market", p.market, str, "a text, such as 'EUR/USD'")
        instance("state_space", p.state_space, StateSpace, "a StateSpace")
        if unknown := sorted(set(p.state_space.names) - set(REGIME_SPACE.names)):
            raise ConfigError(f"state space has {unknown}: expected features out of {REGIME_SPACE.names}")
        if p.vix is None or p.oil is None:
            raise ConfigError("vix and oil: expected daily bars of both, such as vix='vix_daily.csv'")
        self._daily = (DailySeries.levels(p.vix), DailySeries.moves(p.oil))
        self._clock_utc = BarClock.of(self.data, stamp=p.stamp, bar=p.bar, time_zone=p.time_zone)
        self._analyst: MarketAnalystAgent | None = None
        self._answers: dict[int, tuple[float, float]] = {-1: (np.nan, np.nan)}
        self._seen: tuple[int, float] = (0, 0.0)
        atr = bt.ind.ATR(self.data, period=p.atr)
        self.lines.trend = trend_line(self.data, atr, ema=p.ema, slope=p.slope)
        self.lines.rsi = rsi_line(self.data, rsi=p.rsi)

    @property
    def asker(self) -> MarketAnalystAgent | None:
        """Who has been asked; None before."""
        return self._analyst

    @property
    def analyst(self) -> MarketAnalystAgent:
        """Who is asked; made when first needed."""
        if self._analyst is None:
            self._analyst = MarketAnalystAgent(self.config)
        return self._analyst

    def judge(self, states: Sequence[Mapping[str, Any]]) -> list[MarketAnalysis]:
        """Return the analysis of each state; the one hook a subclass overrides.

        Parameters
        ----------
        states : sequence of mapping
            As `MarketAnalystAgent.analyze` takes them; distinct, and never the same twice in a run.
        """
        return self.analyst.analyze_many(states)

    def describe(self, cell: int) -> dict[str, Any]:
        """Return what the model is told of a cell of the state space."""
        labels = self.p.state_space.describe(cell)
        feed = {name: labels[name] for name in ("trend", "rsi") if name in labels}
        oil = {
            word: labels[name]
            for name, word in (("oil", "state"), ("oil_volatility", "volatility"))
            if name in labels
        }
        vix = {"vix": labels["vix"]} if "vix" in labels else {}
        # The feed's own state last: what many states share is decoded once.
        parts = {**vix, "wti": oil, self.p.market: feed}
        return {name: part for name, part in parts.items() if part}

    def next(self) -> None:
        """Fill one bar; called again for a bar that a replay is still building, it fills it anew."""
        length, before = self._seen
        number = self.data.datetime[0]
        if length and len(self) == length + 1:
            self._clock_utc.check(before, number)
        for name, value in zip(_DAILY, self._known(number), strict=True):
            getattr(self.lines, name)[0] = value
        values = [np.array([getattr(self.lines, name)[0]]) for name in self.p.state_space.names]
        cell = int(self.p.state_space.cells(values)[0])
        self._judge([cell])
        self.lines.regime[0], self.lines.risk_level[0] = self._answers[cell]
        self._seen = (len(self), number)

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` covers the first bar too, so that the model is asked one batch."""

    def once(self, start: int, end: int) -> None:
        """Fill all bars: join the days, bucket the states, ask for the distinct cells at once."""
        first = self._minperiod - 1
        numbers = copy_values(self.data.lines.datetime)[first:end].tolist()
        for before, number in itertools.pairwise(numbers):
            self._clock_utc.check(before, number)
        known = np.array([self._known(number) for number in numbers]).reshape(-1, len(_DAILY))
        for name, column in zip(_DAILY, known.T, strict=True):
            getattr(self.lines, name).array[first:end] = array("d", column.tobytes())
        columns = [copy_values(getattr(self.lines, name))[first:end] for name in self.p.state_space.names]
        cells = self.p.state_space.cells(columns).tolist()
        self._judge(cells)
        for place, name in enumerate(("regime", "risk_level")):
            filled = array("d", [self._answers[cell][place] for cell in cells])
            getattr(self.lines, name).array[first:end] = filled

    def _known(self, number: float) -> Floats:
        """Return vix, oil and oil_volatility as they are known at a bar."""
        day = self._clock_utc.open(number).date()
        return np.concatenate([series.known(day) for series in self._daily])

    def _judge(self, cells: Sequence[int]) -> None:
        new = [cell for cell in dict.fromkeys(cells) if cell not in self._answers]
        if not new:
            return
        analyses = self.judge([self.describe(cell) for cell in new])
        if len(analyses) != len(new):
            raise ConfigError(
                f"{type(self).__name__}.judge gave {len(analyses)} analyses for {len(new)} states: "
                "expected one each"
            )
        for cell, analysis in zip(new, analyses, strict=True):
            regime = REGIMES.get(analysis.regime, np.nan)
            self._answers[cell] = (regime, RISK_LEVELS.get(analysis.risk_level, np.nan))


_DAILY = ("vix", "oil", "oil_volatility")
