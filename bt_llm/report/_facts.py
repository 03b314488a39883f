"""Where the numbers of a result come from: who was asked, what of, with which settings and packages."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import bt_llm
from bt_llm.advice import AdvisorConfig, AnalystConfig
from bt_llm.backtest import BacktestResult, Market, Panel
from bt_llm.gates import NO_ANSWER_DEPENDS_ON, AskingGate, EntryGate, Gate, model_name
from bt_llm.report._content import asked_alike, asked_in, folds_text, gates_in
from bt_llm.research import (
    Board,
    Explanation,
    LeakageResult,
    Multiverse,
    PanelWalkForwardResult,
    WalkForwardResult,
)
from bt_llm.verdicts import Prior, prior_source

__all__ = [
    "Facts",
    "bars_sha256_of",
    "facts_of_board",
    "facts_of_folds",
    "facts_of_leakage",
    "facts_of_panel",
    "facts_of_panel_folds",
    "facts_of_policies",
    "facts_of_runs",
    "strategy_of",
]

Facts: TypeAlias = list[tuple[str, str]]
"""Names and values."""

_HASH = "SHA-256 of the bars"
_SAME_AS = {"bars sha256": _HASH}


def _run_of(result: Any) -> BacktestResult:
    """Return the first run of a result; of a panel, that of its first symbol."""
    first = next(iter(getattr(result, "symbols", {}).values()), result)
    run: BacktestResult = next(iter(first.runs.values()))
    return run


def bars_sha256_of(result: Any) -> str | None:
    """Return the hash of the one market that a result was found on, where it says it."""
    if isinstance(result, WalkForwardResult | LeakageResult):
        found: str | None = result.settings.get("bars_sha256", result.settings.get(_HASH))
        return found
    return _run_of(result).market.get("sha256") if getattr(result, "runs", None) else None


def strategy_of(result: Any) -> str:
    return _run_of(result).strategy


def _facts(first: Facts, market: Market | None, settings: Mapping[str, Any]) -> Facts:
    """Return what is said of a result first, then of its bars, settings and packages."""
    found = [*first, *_bars_facts(market)]
    said = [(name.replace("_", " "), str(value)) for name, value in settings.items()]
    found += [(name, value) for name, value in said if (_SAME_AS.get(name, name), value) not in found]
    packages = ("backtrader", "numpy", "pandas", "llama-cpp-python")
    found += [("bt_llm", bt_llm.__version__), ("python", platform.python_version())]
    return found + [(name, importlib.metadata.version(name)) for name in packages]


def _bars_facts(market: Market | None) -> Facts:
    found: Facts = []
    for name, bars in {} if market is None else market.bars.items():
        found.append(("data", name if bars.file is None else Path(bars.file).name))
        found.append(("bars", f"{len(bars):,}, {bars.frame.index[0]} to {bars.frame.index[-1]}"))
        found.append((_HASH, bars.sha256))
    return found


def _run_settings(result: Any) -> dict[str, Any]:
    settings = dict(_run_of(result).settings)
    params = {name: value for name, value in settings.pop("params", {}).items() if name != "gate"}
    return {
        **settings,
        "parameters": ", ".join(f"{k}={v}" for k, v in params.items()) or "the strategy's own",
    }


def _asked_facts(result: Any) -> Facts:
    """Return the rules of the gates of a result, and who answered them."""
    found = [("gate", rule) for rule in dict.fromkeys(map(_rule, gates_in(result)))]
    for one in asked_in(result):
        found += [("model", one.identity.name), ("SHA-256 of the model", one.identity.sha256)]
        found.append(("asked by", _how(one.config)))
        found += _prior_facts(one.config)
        found.append(
            ("prompt template", f"{one.template.name} {one.template.version}, {one.template.sha256}")
        )
    return found


def facts_of_runs(result: Any, market: Market | None) -> Facts:
    return _facts([("strategy", strategy_of(result)), *_asked_facts(result)], market, _run_settings(result))


def facts_of_panel(result: Any, market: Market | None) -> Facts:
    first = [("strategy", strategy_of(result)), *_asked_facts(result), *_symbol_facts(result)]
    return _facts(first, market, _run_settings(result))


def facts_of_folds(result: WalkForwardResult, market: Market | None) -> Facts:
    return _facts([("strategy", result.name), *_fold_facts(result)], market, result.settings)


def facts_of_panel_folds(result: PanelWalkForwardResult, market: Market | None) -> Facts:
    asked = {symbol: _fold_facts(one) for symbol, one in result.symbols.items()}
    once = next(iter(asked.values()))
    if any(facts != once for facts in asked.values()):
        once = [(f"{name} of {symbol}", value) for symbol, facts in asked.items() for name, value in facts]
    first = [("strategy", next(iter(result.symbols.values())).name), *once, *_symbol_facts(result)]
    return _facts(first, market, result.settings)


def facts_of_leakage(result: LeakageResult, market: Market | None) -> Facts:
    return _facts([], market, result.settings)


def facts_of_policies(result: Multiverse | Explanation, market: Market | None) -> Facts:
    if result.runs:
        return facts_of_runs(result, market)
    return _facts([("model", result.model)], market, {})


def facts_of_board(result: Board, market: Market | None) -> Facts:
    return [("bt_llm", bt_llm.__version__), *(("task", name) for name in result.tasks)]


def _fold_facts(result: WalkForwardResult) -> Facts:
    """Return which models a study asked and how, and the rules of its gates, with the folds of each."""
    found: Facts = []
    for models in asked_alike(result):
        advisor = models[0].advisor
        found += [("model", models[0].name), ("SHA-256 of the model", models[0].sha256)]
        found.append(("asked by", _how(advisor, "calibration")))
        for model in models:
            found.append(("calibrated by", f"{_prior(model.advisor)} in {folds_text(model.folds)}"))
            found += _prior_facts(model.advisor)
    rules: dict[str, list[int]] = {}
    for one in result.folds:
        if isinstance(one.gate, AskingGate) and not isinstance(one.gate, Gate):
            found += [fact for fact in _analyst_facts(one.gate) if fact not in found]
        if one.gate is not None:
            rules.setdefault(_rule(one.gate), []).append(one.fold.number)
    return found + [("gate", f"{rule} in {folds_text(numbers)}") for rule, numbers in rules.items()]


def _analyst_facts(gate: AskingGate) -> Facts:
    asked = gate.describe()[gate.config_name]
    sha256 = [("SHA-256 of the model", asked["model_sha256"])] if "model_sha256" in asked else []
    return [("model", model_name(gate.config)), *sha256, ("asked by", _how(gate.config))]


def _how(config: AdvisorConfig | AnalystConfig, *left_out: str) -> str:
    """Return how a model was asked, without folders of this machine."""
    names = [f.name for f in dataclasses.fields(config) if f.name not in (*NO_ANSWER_DEPENDS_ON, *left_out)]
    told = {name: getattr(config, name) for name in names} | {"model": model_name(config)}
    if isinstance(config.template, str):
        told["template"] = Path(config.template).name
    return ", ".join(f"{name}={value!r}" for name, value in told.items())


def _prior_facts(config: AdvisorConfig | AnalystConfig) -> Facts:
    if not isinstance(config, AdvisorConfig) or not config.prior_note:
        return []
    return [("prior", f"the mean over {prior_source(config.state_space)}")]


def _prior(config: AdvisorConfig) -> str:
    prior = config.calibration
    if not isinstance(prior, Prior):
        return str(prior)
    return f"a prior of {', '.join(f'{p:.4f} {name}' for name, p in prior.to_dict().items())}"


def _rule(gate: EntryGate) -> str:
    """Return what a gate does with its verdicts; who gives them stands elsewhere."""
    described = gate.describe()
    left_out = {"type", "source", gate.config_name if isinstance(gate, AskingGate) else ""}
    said = ", ".join(f"{name}={_short(value)}" for name, value in described.items() if name not in left_out)
    return f"{_short(described)}: {said}" if said else _short(described)


def _short(value: Any) -> str:
    """Return a described value in a word; a class or a value with fields by its name."""
    if not isinstance(value, dict):
        return repr(value)
    name = str(value.get("name", value.get("type", "..."))).rpartition(":")[2]
    return f"{name} of {len(value['items'])}" if "items" in value else name


def _symbol_facts(result: Panel[Any] | PanelWalkForwardResult) -> Facts:
    """Return what a panel is of: its symbols, their weights and bars."""
    found = [("symbols", f"{len(result.symbols):,}, {len(result.left_out):,} left out")]
    for name, one in result.symbols.items():
        if isinstance(one, WalkForwardResult):
            bars = one.settings["bars_sha256"]
        else:
            bars = next(iter(one.runs.values())).market["sha256"]
        found.append((f"symbol {name}", f"weight {result.weights[name]:g}, SHA-256 of the bars {bars}"))
    return found
