"""What makes a run no ground for a conclusion, in one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import backtrader as bt

from bt_llm.backtest._account import order_counts
from bt_llm.backtest._engine import Ran
from bt_llm.backtest._market import Market
from bt_llm.feeds import data_name, feed_of
from bt_llm.gates import AttachedAdviceGate, EntryGate, attached_gates, order_gate_of
from bt_llm.indicators import find_advice
from bt_llm.plain_text import counted

__all__ = ["problems_of", "silences"]


def problems_of(
    ran: Ran, market: Market, gate: EntryGate | None, advice: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Return what speaks against concluding anything from a run; usually nothing.

    Parameters
    ----------
    ran : Ran
        The run.
    market : Market
        What it traded.
    gate : gate or None
        What it was gated by.
    advice : mapping, optional
        What its advice showed, as `LLMAnalyzer` counts it.

    Returns
    -------
    tuple of str
        Whether the account was ruined, the strategy ended its run or changed its cash itself, the broker
        refused orders, orders came before the warm-up was over;
        whether the gate, or its model, was never asked, every answer was invalid, and no verdict reached its
        ``min_confidence``; and how many bars were before the first member of a dated family.
    """
    found = [*_of_account(ran, market)]
    if gate is not None:
        found += [*_of_gate(ran.strategy), *_of_answers(advice or {})]
        found += [problem for problem, _ in silences(ran, market) if problem]
    return tuple(found)


def silences(ran: Ran, market: Market) -> Iterator[tuple[str, str]]:
    """Yield a problem and a note, either may be empty, on measured bars that a model by the bar left out."""
    first = ran.account.numbers[0] if ran.account.numbers else math.inf
    for advice in find_advice(ran.strategy):
        if advice.config.by_bar:
            bars = sum(time >= first for time in advice.silent)
            where = f"{data_name(feed_of(advice))}: " if len(market) > 1 else ""
            problem, note = advice.advisor.silence(bars)
            yield where * bool(problem) + problem, where * bool(note) + note


def _of_account(ran: Ran, market: Market) -> Iterator[str]:
    account = ran.account
    if account.ruined is not None:
        when = market.times([account.ruined])[0]
        worth = f"{account.ruin_value:,.2f}"
        yield f"the account was ruined at {when}: it was worth {worth}, and the run ended there"
    elif ran.strategy.cerebro._event_stop and account.numbers and account.numbers[-1] < market.numbers[-1]:
        yield (
            f"{type(ran.strategy).__name__} ended its run itself (runstop) at "
            f"{market.times(account.numbers[-1:])[0]}: what comes after is not in its figures"
        )
    if any(ran.deposits):
        yield (
            f"{type(ran.strategy).__name__} changed its cash itself (add_cash or setcash), by "
            f"{sum(ran.deposits):+,.2f} in all: no return, ratio or drawdown of the account tells what "
            "trading earned"
        )
    orders = order_counts(account, market)
    if orders["refused"]:
        yield (
            f"the broker refused {orders['refused']} of {counted(orders['submitted'], 'order')}, the first "
            f"at {orders['first_refused']}: {orders['reason']}"
        )
    early = [order for order in account.orders.values() if order.early and not order.vetoed]
    if early:
        yield (
            f"{counted(len(early), 'order')} came before the warm-up was over, the first at "
            f"{market.times([early[0].time])[0]}"
        )


def _of_gate(strategy: bt.Strategy) -> Iterator[str]:
    attached, name = attached_gates(strategy), type(strategy).__name__
    if not any(one.log for one in attached):
        itself = "" if order_gate_of(strategy) is not None else ", or does not call allows_long()"
        yield f"the gate was never asked: {name} made no entry{itself}"
    for one in attached:
        if not isinstance(one, AttachedAdviceGate):
            continue
        said = [decision.confidence for decision in one.log if not math.isnan(decision.confidence)]
        if said and max(said) < one.gate.min_confidence:
            yield (
                f"no verdict that {name} asked for reached min_confidence={one.gate.min_confidence:g}: the "
                f"highest was {max(said):.3f}"
            )


def _of_answers(advice: Mapping[str, Any]) -> Iterator[str]:
    if questions := advice.get("questions"):
        invalid, missing = questions["invalid"], questions["missing"]
        if invalid and not questions["answers"]:
            yield f"every answer was invalid: to {invalid} of {counted(invalid, 'question')}"
        elif not questions["asked"] and not missing and any(advice["gate"].values()):
            yield "the model was asked nothing: there was nothing to ask about, such as a headline on a bar"
    verdicts, masses = advice.get("verdicts", {}), advice.get("label_mass")
    invalid = verdicts.get("invalid", 0)
    if invalid and not any(bars for name, bars in verdicts.items() if name not in ("invalid", "not_asked")):
        why = ""
        if masses and masses["most"] < masses["floor"]:
            why = (
                f"; the labels hold at most {masses['most']:.2g} of the probability, less than "
                f"min_label_mass={masses['floor']:g}"
            )
        yield f"every answer was invalid: on {invalid} of {counted(invalid, 'bar')}{why}"
