"""What a command may spend on servers without asking first: ``--budget``, or ``[budget]`` in a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bt_llm.advice import AdvisorConfig
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.research import Plan, Study

__all__ = ["BudgetOption", "PriceOption", "YesOption", "approve", "budget_of", "check_budget"]

BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget", min=0.0, help="Money that may be spent on servers without asking; the study's by default."
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option("--price-per-mtok", help="What a server takes for a million tokens, in your money."),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Spend over the budget without asking.")]


def budget_of(
    study: Study | None, budget: float | None, price_per_mtok: float | None
) -> tuple[float | None, float | None]:
    """Return budget and price: those given, else the study's."""
    section = None if study is None else study.budget
    if section is None:
        return budget, price_per_mtok
    return (
        section.money if budget is None else budget,
        section.price_per_mtok if price_per_mtok is None else price_per_mtok,
    )


def check_budget(
    configs: Sequence[AdvisorConfig],
    data: str | Path,
    budget: tuple[float | None, float | None],
    *,
    yes: bool = False,
) -> None:
    """Ask before more is spent than allowed on what the cache does not have; nothing is asked of a model.

    Parameters
    ----------
    configs : sequence of AdvisorConfig
        How the models will be asked. In replay none is.
    data : path
        The bars.
    budget : pair of float or None
        Money, and the price of a million tokens; without money nothing is checked.
    yes : bool
        Take the answer for given.

    Raises
    ------
    ConfigError
        If it may not be spent, or there is nobody to ask.
    """
    money, price_per_mtok = budget
    if money is None:
        return
    from bt_llm.data import load_bars
    from bt_llm.research import _planning as planning

    asking = [c for c in configs if VerdictCache(c.cache_dir, c.cache_mode).mode is not CacheMode.REPLAY]
    rates = planning.Rates(price_per_mtok=price_per_mtok)
    approve(planning.plan(asking, bars=len(load_bars(data)), rates=rates), money, yes=yes)


def approve(made: Plan, budget: float | None, *, yes: bool = False) -> None:
    """Ask before more is spent than a budget allows; returns if it may be.

    Parameters
    ----------
    made : Plan
        What will be asked.
    budget : float, optional
        Money that may be spent without a question; None for any.
    yes : bool
        Take the answer for given.

    Raises
    ------
    ConfigError
        If it may not be, or there is nobody to ask.
    """
    problem = "" if budget is None else made.over(budget)
    if not problem or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{problem}; nothing was asked: allow it with --yes, or a larger --budget")
    if not typer.confirm(f"{problem}. Ask all the same?", err=True):
        raise ConfigError(f"{problem}; nothing was asked")
