"""Trade the regime: follow a trend, fade a range, stay out when it is wild; less size with more risk."""

import math

import backtrader as bt

from bt_llm import attach_gate
from bt_llm.data import shipped
from bt_llm.indicators import MarketRegime
from bt_llm.indicators._regime import REGIMES, RISK_LEVELS

RANGING, TRENDING, VOLATILE = REGIMES.values()
LOW, MEDIUM, HIGH = RISK_LEVELS.values()


class RegimeTrader(bt.Strategy):
    """Enter as the regime says, sized by the risk level; only entries ask the gate.

    Trending: go with the trend. Ranging: buy below `lower` RSI, sell above `upper`. A position is closed when
    the regime that it was made in is over, or turns volatile, or when its reason is gone.

    Parameters
    ----------
    gate : gate or None
        None runs it ungated.
    analyst : AnalystConfig or None
        Who judges the regime; None is the default model.
    vix, oil : path or DataFrame, or None
        Daily bars; None takes those that come with bt_llm.
    trend : float
        Least slope of the trend, in ATR a bar, to follow it.
    lower, upper : float
        RSI, 0 to 100, at which a range is faded.
    shares : tuple of float
        Share of the account's value that an entry takes at low, medium and high risk.
    """

    params = (
        ("gate", None),
        ("analyst", None),
        ("vix", None),
        ("oil", None),
        ("trend", 0.08),
        ("lower", 30.0),
        ("upper", 70.0),
        ("shares", (0.9, 0.45, 0.2)),
    )

    def __init__(self):
        self.state = MarketRegime(
            self.data,
            vix=shipped("vix_daily.csv") if self.p.vix is None else self.p.vix,
            oil=shipped("wti_daily.csv") if self.p.oil is None else self.p.oil,
            analyst=self.p.analyst,
        )
        self.gate = attach_gate(self.p.gate, self)
        self.entered = math.nan  # the regime that the position was made in

    def next(self):
        """Decide at the close; orders fill at the next bar's open."""
        regime, risk = self.state.regime[0], self.state.risk_level[0]
        wanted = self.side(regime)
        held = (self.position.size > 0) - (self.position.size < 0)
        if held and (regime != self.entered or self.over(held)):
            self.close()
            held = 0
        if held or not wanted or math.isnan(risk):
            return
        if self.gate.allows_long() if wanted > 0 else self.gate.allows_short():
            self.entered = regime
            share = self.p.shares[int(risk)]
            size = share * self.broker.getvalue() / self.data.close[0]
            self.buy(size=size) if wanted > 0 else self.sell(size=size)

    def side(self, regime):
        """Return 1 for long, -1 for short, 0 for neither."""
        trend, rsi = self.state.trend[0], self.state.rsi[0]
        if regime == TRENDING:
            return (trend >= self.p.trend) - (trend <= -self.p.trend)
        if regime == RANGING:
            return (rsi <= self.p.lower) - (rsi >= self.p.upper)
        return 0

    def over(self, held):
        """Return whether the reason is gone: the trend has turned, or the middle of the range is reached."""
        if self.entered == TRENDING:
            return held * self.state.trend[0] < 0
        return held * (self.state.rsi[0] - 50.0) >= 0
