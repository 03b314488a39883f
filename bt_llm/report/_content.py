"""From the sections of a result to the parts of its page: charts, pictures, prices and policies."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.advice import AdvisorConfig, Asked, Policy
from bt_llm.backtest import BacktestResult, Panel, Section
from bt_llm.gates import AskingGate, Gate
from bt_llm.report._curve import specification_curve
from bt_llm.report._pictures import cost_curve, fold_strips, forest, histogram, stability
from bt_llm.report._series import Stretch, curves, price
from bt_llm.report._tear_sheet import kept_out_sections, tear_sheet, trades_listed, with_figures
from bt_llm.research import (
    AskedModel,
    LeakageResult,
    ModelComparison,
    PanelWalkForwardResult,
    WalkForwardResult,
    checklist_sections,
)

__all__ = ["asked_alike", "asked_in", "folds_text", "gates_in", "parts", "policy_section", "verdicts_of"]


def runs_asked(result: Any) -> list[BacktestResult]:
    """Return the runs of a result in which a model was asked, the one that matters first."""
    if isinstance(result, WalkForwardResult | LeakageResult):
        return []
    if isinstance(result, Panel | PanelWalkForwardResult):
        return [run for one in result.symbols.values() for run in runs_asked(one)]
    alone = isinstance(result, ModelComparison | BacktestResult)
    runs = result.runs.values() if alone else [result.gated]
    return [run for run in runs if run is not None and run.asked]


def asked_in(result: Any) -> list[Asked]:
    """Return who answered the runs of a result, each once; a walk-forward study says so itself."""
    found: dict[Any, Asked] = {}
    for run in runs_asked(result):
        for one in run.asked:
            found.setdefault((one.identity.sha256, one.config), one)
    return list(found.values())


def gates_in(result: Any) -> list[AskingGate]:
    """Return the gates that asked a model in the runs of a result."""
    gates = [run.settings["params"].get("gate") for run in runs_asked(result)]
    return [gate for gate in gates if isinstance(gate, AskingGate)]


def verdicts_of(result: Any) -> tuple[dict[str, pd.DataFrame], str]:
    """Return each model's answers bar by bar, as the runs were told them, and why there are none."""
    if isinstance(result, Panel | PanelWalkForwardResult):
        found: dict[str, pd.DataFrame] = {}
        for symbol, one in result.symbols.items():
            found |= {f"{name}, {symbol}": frame for name, frame in verdicts_of(one)[0].items()}
        return found, "" if found else "The verdicts are not there: there is not one model's answer a bar."
    if isinstance(result, ModelComparison):
        return {name: found.bars for name, found in result.judged.items()}, ""
    if isinstance(result, WalkForwardResult):
        told = result.verdicts
        by_model = {str(name): part.drop(columns="model") for name, part in told.groupby("model", sort=False)}
        reason = "" if by_model else "There are no verdicts to draw: no model gated the trades bar by bar."
        return by_model, reason
    found = {
        f"{_who(run)}{'' if len(run.verdicts) == 1 else f', {data}'}": frame
        for run in runs_asked(result)
        for data, frame in run.verdicts.items()
    }
    return found, "" if found else "The verdicts are not drawn: there is not one model's answer a bar."


def _who(run: BacktestResult) -> str:
    """Return what to call who answered a run: a family by its own name, which may be a path."""
    gate = run.settings["params"].get("gate")
    if isinstance(gate, Gate) and gate.advisor.by_bar:
        return PurePath(str(gate.advisor.model)).name
    return run.asked[0].identity.name


def parts(result: Any, bars: pd.DataFrame | None) -> Iterator[dict[str, Any]]:
    """Yield the parts of a result's page as the template lays them out, the findings first.

    Parameters
    ----------
    result : Reportable
        What was found.
    bars : DataFrame, optional
        What it was found on; without it there is no price chart.
    """
    has_trades = False
    for section in result.sections():
        if section.kind == "metrics":
            yield drawn(dataclasses.replace(section, table=with_figures(section, result)))
            continue
        yield drawn(section)
        if section.kind == "equity":
            is_study = isinstance(result, WalkForwardResult)
            policies = _fold_policies(result) if is_study else _policies(asked_in(result))
            prices = [] if bars is None else _prices(result, bars)
            yield from map(drawn, [*prices, *tear_sheet(result), *policies])
        elif section.kind == "trades" and section.title.startswith("Trades (") and not has_trades:
            has_trades = True
            yield from map(drawn, kept_out_sections(result))
    yield from map(drawn, checklist_sections(result))


def drawn(section: Section) -> dict[str, Any]:
    """Return a section with what its picture is made of, in place of what it shows."""
    part = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    if section.kind == "equity":
        curve = curves({name.replace("_", " "): equity for name, equity in section.content.items()})
        part["text"] += _thinned(curve)
        part |= {"kind": "chart", "content": curve, "text": part["text"].strip()}
    elif section.kind == "histograms":
        part["content"] = [histogram(section.content, metric) for metric in section.content.ranked]
    elif section.kind == "trades":
        part["table"] = trades_listed(section.content)
        part["content"] = None
    elif section.kind == "metrics":
        part["content"] = None
    elif section.kind == "costs":
        part["content"] = cost_curve(section.content)
    elif section.kind == "forest":
        part["content"] = forest(section.content)
    elif section.kind == "folds":
        part["content"] = fold_strips(section.content)
    elif section.kind == "curve":
        part["content"] = specification_curve(section.content)
    elif section.kind == "stability":
        part["content"] = stability(**section.content)
    elif section.kind == "image":
        part["content"] = base64.b64encode(section.content).decode()
    return part


def _thinned(curve: Mapping[str, Any]) -> str:
    """Return what is to be said where not every bar is drawn."""
    if curve["drawn"] == curve["bars"]:
        return ""
    return (
        f" {curve['drawn']:,} of {curve['bars']:,} points are drawn, the highs and lows of every stretch "
        "among them; the tables are from all."
    )


def _prices(result: Any, bars: pd.DataFrame) -> Iterator[Section]:
    verdicts, reason = verdicts_of(result)
    drawn: list[tuple[str, pd.DataFrame | None, pd.DataFrame]]
    text, stretches = "Bands: what the model said at each close.", []
    if isinstance(result, ModelComparison):
        drawn = [
            (f"Price, verdicts and trades of {n}", f, result.runs[n].trades) for n, f in verdicts.items()
        ]
    elif isinstance(result, WalkForwardResult):
        told = pd.concat(verdicts.values()).sort_index(kind="stable") if verdicts else None
        drawn = [("Price, verdicts and trades", told, result.trades)]
        stretches = _stretches(result)
        text = (
            "Bands: what the gate that a fold chose was told at each close of its out-of-sample stretch. "
            "A dashed line begins a stretch; before the first there is nothing out of sample."
        )
    else:
        gated = result if isinstance(result, BacktestResult) else result.gated
        drawn = [("Price, verdicts and trades", next(iter(verdicts.values()), None), gated.trades)]
    for title, frame, trades in drawn:
        content = price(bars, frame, trades, stretches)
        said = f"{text} Triangles: entries; crosses: exits."
        said = said if frame is not None else f"Triangles: entries; crosses: exits. {reason}"
        if content["drawn"] < content["bars"]:
            said += f" {content['bars']:,} bars are joined into {content['drawn']:,}."
        yield Section(kind="chart", title=title, text=said, content=content)


def _stretches(result: WalkForwardResult) -> list[Stretch]:
    """Return the out-of-sample stretches: first and last bar, and what to call each."""
    names = {number_of: f", {model.name}" for model in result.models for number_of in model.folds}
    folds = [one.fold for one in result.folds]
    return [(f.test_start, f.test_end, f"fold {f.number}{names.get(f.number, '')}") for f in folds]


def folds_text(numbers: Sequence[int]) -> str:
    """Return the numbers of folds in words.

    Examples
    --------
    >>> folds_text([3]), folds_text([1, 2, 3, 5])
    ('fold 3', 'folds 1 to 3, 5')
    """
    runs: list[list[int]] = []
    for number_of in numbers:
        if runs and number_of == runs[-1][-1] + 1:
            runs[-1].append(number_of)
        else:
            runs.append([number_of])
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"{'fold' if len(numbers) == 1 else 'folds'} {', '.join(parts)}"


def _fold_policies(result: WalkForwardResult) -> Iterator[Section]:
    """Yield the policies that folds traded with; the raw one once for each way of asking a model."""
    for models in asked_alike(result):
        numbers = sorted(number for model in models for number in model.folds)
        raw = [number for model in models if model.advisor.calibration == "none" for number in model.folds]
        yield _heat(models[0].policy, "raw", f" ({folds_text(numbers)})", trades=bool(raw))
        for model in models:
            if model.advisor.calibration != "none":
                yield _heat(model.policy, "calibrated", f" ({folds_text(model.folds)})", trades=True)


def asked_alike(result: WalkForwardResult) -> list[list[AskedModel]]:
    """Return the models of a study, those together whose raw verdicts are the same."""
    found: dict[tuple[str, AdvisorConfig], list[AskedModel]] = {}
    for model in result.models:
        raw = dataclasses.replace(model.advisor, calibration="none")
        found.setdefault((model.sha256, raw), []).append(model)
    return list(found.values())


def _policies(asked: Sequence[Asked]) -> Iterator[Section]:
    for one in asked:
        if isinstance(one.config, AdvisorConfig) and not one.config.by_bar:
            policy, is_raw = one.policy(), one.config.calibration == "none"
            for name in ("raw", "calibrated") if is_raw else ("calibrated", "raw"):
                yield _heat(policy, name, "", trades=is_raw == (name == "raw"))


def _states_drawn(policy: Policy) -> str:
    count = len(policy.space)
    if count == sum(panel.values.size for panel in policy.panels()):
        return "of every market state"
    return f"mean of those of {count:,} market states that were asked about"


def policy_section(policy: Policy) -> Section:
    """Return the picture of a policy's calibrated verdicts."""
    return _heat(policy, "calibrated", "", trades=policy.prior_cells > 0)


def _heat(policy: Policy, name: str, where: str, *, trades: bool) -> Section:
    calibrated = name == "calibrated"
    panels = policy.panels(calibrated=calibrated)
    values = np.concatenate([panel.values.ravel() for panel in panels])
    known = np.abs(values[np.isfinite(values)])
    said, glyphs = policy.answer_panels(calibrated=calibrated), _glyphs(policy)
    text = "The verdicts that trade. " if trades else "For comparison: these verdicts do not trade. "
    if said:
        text += f"{', '.join(f'{glyph} {label}' for label, glyph in glyphs.items())}. "
    text += f"{policy.measure.capitalize()}, {_states_drawn(policy)}, in hundredths."
    if calibrated and policy.prior_note:
        text += f" {policy.prior_note}"
    if len(known) < len(values):
        text += " Grey: no valid verdict, or not asked because no bar was in that state."
    if policy.masses:
        text += f" The labels hold {policy.masses} of the probability."
    marks = [[[(label, glyphs.get(label, "")) for label in row] for row in panel.tolist()] for panel in said]
    return Section(
        kind="policy",
        title=f"Policy of {policy.model}, {name}{where}",
        text=text,
        content={
            "panels": panels,
            "marks": marks or [[] for _ in panels],
            "scale": float(known.max(initial=0.0)) or 1.0,
        },
    )


def _glyphs(policy: Policy) -> dict[str, str]:
    """Return a sign for each label: which way it points, doubled for the strongest of several that way."""
    worths = dict(zip(policy.labels.names, policy.labels.worths, strict=True))
    found = {}
    for name, worth in worths.items():
        sign = "\u25b2" if worth > 0.0 else "\u25bc" if worth < 0.0 else "\u25cf"
        alike = {abs(other) for other in worths.values() if other * worth > 0.0}
        found[name] = sign * 2 if len(alike) > 1 and abs(worth) == max(alike) else sign
    return found
