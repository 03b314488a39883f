"""``bt-llm policy``: what a model believes over the whole state space, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bt_llm.cli._budget import check_budget_of_states
from bt_llm.cli._doubts import say_doubts
from bt_llm.cli._groups import takes_groups
from bt_llm.cli._options import Asking, FormatOption, Spending
from bt_llm.cli._output import Format, print_json, progress_bar, say, show
from bt_llm.cli._places import picture_or_page_to_write
from bt_llm.exceptions import ConfigError

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig, Panel, Policy, PolicyComparison

__all__ = ["policy"]


@takes_groups
def policy(
    asking: Asking,
    spending: Spending,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model; give it twice to compare two. Default: smollm2."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Write the heat maps to this file: PNG, SVG, PDF or HTML.",
            callback=picture_or_page_to_write,
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Draw the verdicts on every state: bullish minus bearish probability, or expected worth, in hundredths.

    Of a dated family there is a policy for each member, and how it drifts from one to the next.

    Example: bt-llm policy --model smollm2 --plot policy.png

    Example: bt-llm policy --model "dated:2019-12-31=scripted:trend,2020-12-31=scripted:random:7"
    """
    models = model or ["smollm2"]
    if len(models) > 2:
        raise ConfigError(f"--model was given {len(models)} times: expected once, or twice to compare")
    configs = [asking.config(model=name) for name in models]
    say_doubts(configs)
    check_budget_of_states(configs, spending)
    dated = any(config.by_bar for config in configs)
    if dated and len(models) > 1:
        raise ConfigError("--model names a dated family beside another model: expected the family alone")
    from bt_llm.advice import drift_of, member_configs

    found = [_policy(one) for config in configs for one in member_configs(config)]
    drift = drift_of(found) if dated else []
    rows, summary = _dated_rows(found, drift) if dated else _rows(found)
    if output is Format.JSON and dated:
        print_json({"policies": [p.to_dict() for p in found], "drift": [one.to_dict() for one in drift]})
    elif output is Format.JSON:
        comparison = found[0].compare(found[1]) if len(found) == 2 else None
        compared = (
            {"agreement": comparison.agreement, "kappa": number_or_none(comparison.kappa)}
            if comparison
            else None
        )
        print_json({"policies": [p.to_dict() for p in found], "comparison": compared})
    else:
        for name, panels in rows:
            show(_heat_map(name, panels, _scale(panels)))
        say(summary)
    if plot is not None:
        _write(plot, rows, summary, found[0].measure)
        say(f"heat maps: {plot}")


def number_or_none(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if value != value else value


def _policy(config: AdvisorConfig) -> Policy:
    from bt_llm.advice import Advisor, Policy, telling

    with Advisor(config) as advisor, progress_bar(f"asking {config.model}") as update, telling(update):
        return Policy.of(advisor)


def _rows(found: list[Policy]) -> tuple[list[tuple[str, list[Panel]]], str]:
    """Return the pictures and the sentence below them."""
    from bt_llm.backtest import number, percent

    rows = []
    for one in found:
        rows.append((f"{one.model}, raw", one.panels(calibrated=False)))
        rows.append((f"{one.model}, calibrated", one.panels()))
    if len(found) == 1:
        counts = ", ".join(f"{count} {name}" for name, count in found[0].counts().items())
        summary = f"Calibrated verdicts over {len(found[0].space):,} states: {counts}."
        return rows, " ".join([summary, *filter(None, [found[0].prior_note]), *_masses(found)])
    comparison = found[0].compare(found[1])
    rows.append((f"{found[0].model} minus {found[1].model}, calibrated", comparison.panels()))
    return rows, (
        f"The two models give the same verdict on {percent(comparison.agreement, 0)} of the states "
        f"(Cohen's kappa {number(comparison.kappa)}). {' '.join(_masses(found))}"
    ).rstrip()


def _dated_rows(
    found: list[Policy], drift: Sequence[PolicyComparison]
) -> tuple[list[tuple[str, list[Panel]]], str]:
    """Return a picture of each member, one of what changed to the next, and the sentences below them."""
    from bt_llm.backtest import number, percent

    rows = [(f"{one.model}, calibrated", one.panels()) for one in found]
    rows += [(f"{one.models[0]} minus {one.models[1]}, calibrated", one.panels()) for one in drift]
    said = [
        f"From {one.models[1]} to {one.models[0]} {percent(1.0 - one.agreement, 0)} of the states change "
        f"their verdict (Cohen's kappa {number(one.kappa)})."
        for one in drift
    ]
    return rows, " ".join([*said, *_masses(found)])


def _masses(found: list[Policy]) -> list[str]:
    """Return a sentence of each model whose reader knows it, on the probability that its labels hold."""
    return [f"Of {one.model}'s probability the labels hold {one.masses}." for one in found if one.masses]


def _scale(panels: list[Panel]) -> float:
    """Return the value of the strongest colour: the largest there is, so that small leanings show."""
    import numpy as np

    largest = max(
        (float(np.nanmax(np.abs(p.values))) for p in panels if not np.isnan(p.values).all()), default=0.0
    )
    return largest or 1.0


def _write(path: Path, rows: list[tuple[str, list[Panel]]], summary: str, measure: str) -> None:
    title = f"Policy: {measure}, in hundredths"
    scale = max(_scale(panels) for _, panels in rows)
    if path.suffix.lower() in (".html", ".htm"):
        from bt_llm.report import write_policy_html

        write_policy_html(rows, path, title, summary, scale)
    else:
        from bt_llm.report import plot_panels

        plot_panels(rows, path, title, scale, measure)


def _heat_map(name: str, panels: list[Panel], scale: float) -> Group:
    """Return a policy's panels side by side as coloured cells, narrow enough for 80 columns."""
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_row(*(_grid(panel, scale, labelled=i == 0) for i, panel in enumerate(panels)))
    first = panels[0]
    legend = Text(f"{first.column_title}, left to right: {', '.join(first.column_labels)}", style="dim")
    return Group(Text(name, style="bold"), line, legend, Text())


def _grid(panel: Panel, scale: float, *, labelled: bool) -> Table:
    grid = Table.grid(padding=0)
    grid.title, grid.title_style = panel.title, "dim"
    grid.title_justify = "right" if labelled else "left"
    if labelled:
        grid.add_column(no_wrap=True, style="dim")
    for _ in panel.column_labels:
        grid.add_column(no_wrap=True)
    for label, values in zip(panel.row_labels, panel.values.tolist(), strict=True):
        head = [f"{panel.row_title} {label} "] if labelled else []
        grid.add_row(*head, *(_cell(value, scale) for value in values))
    return grid


def _cell(value: float, scale: float) -> Text:
    from bt_llm.advice import signed
    from bt_llm.report import shade

    red, green, blue = shade(value, scale)
    ink = "white" if red + green + blue < 380 else "black"
    return Text(f"{signed(value):>4}", style=f"{ink} on rgb({red},{green},{blue})")
