"""Every command of ``bt-llm``, under its name."""

from __future__ import annotations

import typer

from bt_llm.cli import _ask as ask
from bt_llm.cli import _backtests as backtests
from bt_llm.cli import _cache as cache
from bt_llm.cli import _data as data
from bt_llm.cli import _doctor as doctor
from bt_llm.cli import _explain as explain
from bt_llm.cli import _models as models
from bt_llm.cli import _multiverse as multiverse
from bt_llm.cli import _plan as plan
from bt_llm.cli import _policy as policy
from bt_llm.cli import _reproduce as reproduce
from bt_llm.cli import _research as research
from bt_llm.cli import _walkforward as walkforward

__all__ = ["app"]

app = typer.Typer(
    name="bt-llm",
    help="Backtest Backtrader strategies that are gated by a local LLM.",
    epilog="Start with: bt-llm demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(backtests.demo)
app.command()(backtests.run)
app.command("test")(research.run_test)
app.command()(research.compare)
app.command()(walkforward.walkforward)
app.command()(plan.plan)
app.command()(data.data)
app.command()(policy.policy)
app.command()(explain.explain)
app.command()(multiverse.multiverse)
app.command()(reproduce.reproduce)
app.add_typer(ask.app, name="ask")
app.add_typer(cache.app)
app.add_typer(models.app)
app.command()(doctor.doctor)
