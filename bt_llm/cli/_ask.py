"""``bt-llm ask``: a model's answer on a headline, on the state of several markets, or on a trade."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bt_llm.cli._groups import group, takes_groups
from bt_llm.cli._options import (
    CacheOption,
    FormatOption,
    LayersOption,
    ModelOption,
    ModeOption,
    ThreadsOption,
)
from bt_llm.cli._output import Format, complain, print_json, show
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.advice import Analysis, AnalystConfig

__all__ = ["app"]

app = typer.Typer(
    name="ask",
    help="Ask a model about a headline, the state of several markets, or a trade.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Values = Annotated[
    list[str], typer.Argument(metavar="NAME=VALUE...", help="Numbers or words; a number is shown as one.")
]


@group("How a model is asked")
class Analyst:
    """Everything of an `AnalystConfig` that a command takes."""

    model: ModelOption = "smollm2"
    template: Annotated[str | None, typer.Option(help="A template's name or file.")] = None
    threads: ThreadsOption = None
    gpu_layers: LayersOption = 0
    cache: CacheOption = None
    cache_mode: ModeOption = None

    def config(self) -> AnalystConfig:
        """Return the configuration that these options give."""
        from bt_llm.advice import AnalystConfig

        return AnalystConfig(
            model=self.model,
            template=self.template,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            cache_dir=self.cache,
            cache_mode=self.cache_mode,
        )


@app.command()
@takes_groups
def news(
    asking: Analyst,
    headline: Annotated[str, typer.Argument(help="The headline, in quotes.")],
    market: Annotated[str, typer.Option(help="Which market a bullish headline lifts.")] = "EUR/USD",
    output: FormatOption = Format.TABLE,
) -> None:
    """Judge a headline: sentiment, confidence, impact on the US dollar, and why.

    Example: bt-llm ask news "ECB halves its bond purchases"
    """
    from bt_llm.advice import NewsAnalyst

    if not headline.strip():
        raise ConfigError(f"headline {headline!r}: expected some words")
    with NewsAnalyst(asking.config(), market=market) as analyst:
        _print(analyst.analyze(headline), output)


@app.command()
@takes_groups
def market(
    asking: Analyst,
    values: Values,
    output: FormatOption = Format.TABLE,
) -> None:
    """Judge the state of several markets: regime, risk level, recommendations.

    Example: bt-llm ask market eurusd.trend=up eurusd.rsi=65 gold.state=rising gold.volatility=low vix=14
    """
    from bt_llm.advice import MarketAnalystAgent

    data: dict[str, Any] = {}
    for name, value in _pairs(values).items():
        asset, dot, feature = name.partition(".")
        if not dot:
            known = data.setdefault(asset, value)
        else:
            known = data.setdefault(asset, {})
            if isinstance(known, dict):
                known[feature] = value
        if isinstance(known, dict) != bool(dot):
            raise ConfigError(f"{name}: {asset} was given both as one value and by features")
    with MarketAnalystAgent(asking.config()) as agent:
        _print(agent.analyze(data), output)


@app.command()
@takes_groups
def trade(
    asking: Analyst,
    symbol: Annotated[str, typer.Argument(help="What is to be traded, such as EUR/USD.")],
    direction: Annotated[str, typer.Argument(help="long or short.")],
    indicators: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Technical indicators.")
    ] = None,
    strength: Annotated[str, typer.Option(help="How strong the signal is: a number or a word.")] = "moderate",
    output: FormatOption = Format.TABLE,
) -> None:
    """Ask whether to take a trade: take, reduce or skip, with risk and reward, conditions and timing.

    Example: bt-llm ask trade EUR/USD long rsi=61 trend=up --strength 0.8
    """
    from bt_llm.advice import TradeAnalyst

    signal = {
        "symbol": symbol,
        "direction": direction,
        "strength": _value(strength),
        "indicators": _pairs(indicators or []),
    }
    with TradeAnalyst(asking.config()) as analyst:
        _print(analyst.analyze(signal), output)


def _pairs(texts: list[str]) -> dict[str, float | str]:
    """Read ``name=value``."""
    values: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in values:
            raise ConfigError(f"{text!r}: expected name=value, such as rsi=61, and each name once")
        values[name] = _value(value, name)
    return values


def _value(text: str, name: str = "strength") -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise ConfigError(f"{name}={text}: expected a finite number, or a word")
    return number


def _print(answer: Analysis, output: Format) -> None:
    """Print an answer; exit code 1 if it cannot be read."""
    values = answer.to_dict()
    if output is Format.JSON:
        print_json(values)
    elif answer.valid:
        table = Table(show_header=False)
        table.add_column("")
        table.add_column("", overflow="fold")
        for name, value in values.items():
            if name not in ("valid", "problem", "cached"):
                shown = "\n".join(value) if isinstance(value, list) else str(value)
                table.add_row(name.replace("_", " "), Text(shown))  # a model's words are no markup
        show(table)
    if not answer.valid:
        complain(f"no readable answer: {answer.problem}; ask again with another model or template")
        raise typer.Exit(1)
