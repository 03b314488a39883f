"""What a command may spend on servers without asking first: ``--budget``, or ``[budget]`` in a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bt_llm.cli._options import Spending
from bt_llm.cli._output import confirmed
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig
    from bt_llm.backtest import Market, Universe
    from bt_llm.research import Plan, Study

__all__ = ["approve", "budget_of", "check_budget", "check_budget_of_states"]


def budget_of(study: Study | None, given: Spending) -> Spending:
    """Return what may be spent: what is given, else the study's."""
    section = None if study is None else study.budget
    if section is None:
        return given
    return Spending(
        budget=section.money if given.budget is None else given.budget,
        price_per_mtok=section.price_per_mtok if given.price_per_mtok is None else given.price_per_mtok,
        yes=given.yes,
    )


def check_budget(configs: Sequence[AdvisorConfig], market: Market | Universe, spending: Spending) -> None:
    """Ask before more is spent than allowed on what the cache does not have; nothing is asked of a model.

    Parameters
    ----------
    configs : sequence of AdvisorConfig
        How the models will be asked. In replay none is.
    market : Market or Universe
        The bars.
    spending : Spending
        Money, and the price of a million tokens; without money nothing is checked.

    Raises
    ------
    ConfigError
        If it may not be spent, or there is nobody to ask.
    """
    from bt_llm.backtest import Universe

    bars = market.bars if isinstance(market, Universe) else sum(map(len, market.values()))
    _check(configs, bars, spending)


def check_budget_of_states(configs: Sequence[AdvisorConfig], spending: Spending) -> None:
    """Ask before more is spent than allowed on every market state; see `check_budget`."""
    _check(configs, max(len(config.state_space) for config in configs), spending)


def _check(configs: Sequence[AdvisorConfig], bars: int, spending: Spending) -> None:
    from bt_llm.models import Rates

    rates = Rates(price_per_mtok=spending.price_per_mtok)
    if spending.budget is None:
        return
    from bt_llm.cache import CacheMode, VerdictCache
    from bt_llm.research import _planning as planning

    asking = [c for c in configs if VerdictCache(c.cache_dir, c.cache_mode).mode is not CacheMode.REPLAY]
    approve(planning.plan(asking, bars=bars, rates=rates), spending)


def approve(made: Plan, spending: Spending) -> None:
    """Ask before more is spent than a budget allows; returns if it may be.

    Parameters
    ----------
    made : Plan
        What will be asked.
    spending : Spending
        Money that may be spent without a question; None for any.

    Raises
    ------
    ConfigError
        If it may not be, or there is nobody to ask.
    """
    problem = "" if spending.budget is None else made.over(spending.budget)
    if not problem or spending.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{problem}; nothing was asked: allow it with --yes, or a larger --budget")
    if not confirmed(f"{problem}. Ask all the same?"):
        raise ConfigError(f"{problem}; nothing was asked")
