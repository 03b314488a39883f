"""The analyzer that keeps an account, as the broker that ran tells it."""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt
import numpy as np

from bt_llm.backtest._account import Account, Fill, SentOrder, Trade
from bt_llm.backtest._valuation import Valuation
from bt_llm.indicators import require_bars
from bt_llm.progress import Progress, current

__all__ = ["AccountAnalyzer"]

_OFTEN = 0x3FF
"""Of so many bars, less one, one is told of."""


class AccountAnalyzer(bt.Analyzer):
    """Keeps an `Account`, and ends the run at the bar of its ruin.

    Parameters
    ----------
    first : float, optional
        Backtrader's number of the first bar that counts. By default the first that ``next`` is called at, or,
        of a strategy that joins, at which one of its datas has warmed up.
    joins : bool
        Whether the strategy trades datas before all of them have warmed up.
    settles : bool
        Whether what is open at the end is closed at the last close of its data, at the broker's costs.
    """

    params = (("first", None), ("joins", False), ("settles", False))

    def start(self) -> None:
        """Begin with nothing; see how the run has to go."""
        require_bars(self.strategy, joins=self.p.joins or self.p.first is not None)
        self.account = Account(cash=float(self.strategy.broker.startingcash))
        self._begun = False
        self._broker, self._clock = self.strategy.broker, self.strategy.lines.datetime
        self._first = self.p.first
        self._told, self._seen = current("bars"), 0
        datas = enumerate(self.strategy.datas)
        # With exactbars=1 a line that nobody looks back on is empty once there are no more bars.
        self._forgets = self.p.settles and self.strategy.cerebro.p.exactbars == 1
        self._last = dict[Any, tuple[float, float]]()  # close and time of a data's last bar
        self._names = {data: str(getattr(data, "_name", "") or f"data{number}") for number, data in datas}

    def prenext(self) -> None:
        """Count the bar if it counts, and note ruin wherever it comes."""
        self._note(self._begun or (self.p.joins and self._one_is_warm()))

    def next(self) -> None:
        """Count the bar."""
        self._note(True)

    # Of one data in the lean loop, which says when the broker has turned instead of calling `next`

    def follows(self, data: Any) -> bool:
        """Return whether the account of one preloaded data can be worked out from the broker's turns."""
        times, closes = (np.array(line.array) for line in (data.lines.datetime, data.lines.close))
        if type(self) is not AccountAnalyzer or not np.isfinite(closes).all() or (np.diff(times) < 0.0).any():
            return False
        warm = self.strategy._minperiods[0] - 1
        self._begins = warm if self._first is None else int(np.searchsorted(times, self._first))
        self._valuation = Valuation(self._broker, data)
        return True

    def turn(self, bar: int) -> bool:
        """Note at a bar's close that the broker has turned; return whether to `check` from now on."""
        return self._valuation.turn(bar)

    def check(self, now: float) -> None:
        """Note ruin."""
        value = self._broker.getvalue()
        if value <= 0.0 and self.account.ruined is None:
            self.account.ruined, self.account.ruin_value = now, value
            self.strategy.cerebro.runstop()

    def pass_by(self, bar: int) -> int:
        """Begin if it is time, and tell how far it is; return the bar to do so again."""
        self._begun, self._seen = bar >= self._begins, bar + 1
        often = _OFTEN + 1
        if self._told is not None and not self._seen % often:
            self._told(self._seen, self.strategy.data.buflen())
        later = bar + often - self._seen % often
        return later if self._begun else min(later, self._begins)

    def finish(self, bars: int) -> None:
        """Work out the account at the closes of the first bars."""
        self._seen = bars
        if (first := self._begins) >= bars:
            return
        values, held = self._valuation.values(bars)
        times = self.strategy.data.lines.datetime.array
        self.account.numbers.extend(times[first:bars])
        self.account.equity.frombytes(values[first:].tobytes())
        self.account.held += int(np.count_nonzero(held[first:]))

    def _one_is_warm(self) -> bool:
        strategy = self.strategy
        return any(
            len(data) >= needed for data, needed in zip(strategy.datas, strategy._minperiods, strict=True)
        )

    def _note(self, counts: bool) -> None:
        account, clock = self.account, self._clock
        if self._forgets:
            self._last = {data: _bar_of(data) for data in self._names if len(data)}
        now, value = clock.array[clock._idx], self._broker.getvalue()
        if self._told is not None:
            self._tell(self._told)
        self._begun = counts if self._first is None else now >= self._first
        if self._begun:
            account.numbers.append(now)
            account.equity.append(value)
            for position in self._broker.positions.values():
                if position.size:
                    account.held += 1
                    break
        if value <= 0.0 and account.ruined is None:
            account.ruined, account.ruin_value = now, value
            self.strategy.cerebro.runstop()

    def _tell(self, told: Progress) -> None:
        """Tell how many bars are done, now and then."""
        self._seen += 1
        if not self._seen & _OFTEN:
            told(self._seen, max(self._seen, max(data.buflen() for data in self.strategy.datas)))

    def notify_order(self, order: Any) -> None:
        """Keep the order, what became of it, and its fills."""
        sent = self.account.orders.get(order.ref)
        if sent is None:
            sent = self.account.orders[order.ref] = SentOrder(
                time=order.created.dt,
                data=self._names[order.data],
                side=1 if order.isbuy() else -1,
                size=abs(order.created.size),
                kind=order.getordername(),
                # Strategies learn of an order a bar later; with `quicknotify`, in the bar's own `next`.
                early=not self._begun and self.strategy._minperstatus > 0,
            )
        sent.status = order.getstatusname()
        sent.vetoed = sent.vetoed or bool(order.info.get("vetoed"))
        if sent.refused:
            sent.reason = self._reason(order)
        for bit in order.executed.iterpending():
            self.account.fills.append(
                Fill(
                    time=bit.dt,
                    data=sent.data,
                    size=bit.size,
                    price=bit.price,
                    commission=bit.closedcomm + bit.openedcomm,
                )
            )
        mult = self.strategy.broker.getcommissioninfo(order.data).p.mult
        sent.traded = abs(order.executed.size * order.executed.price) * mult

    def _reason(self, order: Any) -> str:
        if order.status != order.Margin:
            return order.info.get("reason") or f"{order.getordername()} order rejected by the broker"
        broker, size, price = self.strategy.broker, order.created.size, order.created.price
        cost = broker.getcommissioninfo(order.data).getoperationcost(size, price)
        return f"{size:g} at {price:g} cost {cost:,.2f}, and the cash was {broker.getcash():,.2f}"

    def notify_trade(self, trade: Any) -> None:
        """Keep a closed trade."""
        if trade.isclosed:
            self._keep(trade, trade.dtclose, trade.barlen, trade.pnl, trade.pnlcomm)

    def _keep(self, trade: Any, closed: float, bars: int, pnl: float, pnlcomm: float) -> None:
        self.account.trades.append(
            Trade(
                opened=trade.dtopen,
                closed=closed,
                direction=1 if trade.long else -1,
                bars=bars,
                pnl=pnl,
                pnlcomm=pnlcomm,
                data=self._names[trade.data],
            )
        )

    def stop(self) -> None:
        """Close what is still open, if that was asked for."""
        account = self.account
        if self._told is not None:
            self._told(self._seen, self._seen)
        if not self.p.settles or account.ruined is not None or not account.numbers:
            return
        open_ones = [(data, position) for data, position in self._broker.positions.items() if position.size]
        for data, position in open_ones:
            account.equity[-1] -= self._settle(data, position.size)
        account.held -= bool(open_ones)  # at the last close there is no position any more

    def _settle(self, data: Any, size: float) -> float:
        """Close a position at its data's last close; return what that cost, the value at that close given."""
        close, now = self._last[data] if self._forgets else _bar_of(data)
        broker, terms = self._broker, self._broker.getcommissioninfo(data)
        slip = close * (broker.p.slip_perc or 0.0) or (broker.p.slip_fixed or 0.0)
        price = close - math.copysign(slip, size)
        commission = float(terms.getcommission(size, price))
        # Of the cash already; as Backtrader's own broker does, what closes bears it.
        interest = float(broker.d_credit.get(data, 0.0)) if broker.p.int2pnl else 0.0
        costs = {"price": price, "commission": commission + interest}
        fill = Fill(time=now, data=self._names[data], size=-size, **costs)
        self.account.fills.append(fill)
        self.account.settled.append(fill)
        self.account.settled_value += abs(size * price) * terms.p.mult
        for trade in (one for kept in self.strategy._trades[data].values() for one in kept if one.isopen):
            pnl = trade.pnl + float(terms.profitandloss(trade.size, trade.price, price))
            paid = trade.commission + float(terms.getcommission(trade.size, price)) + interest
            self._keep(trade, now, len(data) - trade.baropen, pnl, pnl - paid)
            interest = 0.0
        return commission + abs(size) * slip * float(terms.p.mult)


def _bar_of(data: Any) -> tuple[float, float]:
    """Return a data's close, and the number of its time."""
    return float(data.close[0]), float(data.datetime[0])
