"""From a result to its page, and to its tables."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import markupsafe
import pandas as pd

import bt_llm
from bt_llm.advice import AdvisorConfig, AnalystConfig, Policy
from bt_llm.backtest import BacktestResult, GateStudy, Market, Panel, PanelStudy, PooledRun, Source, Universe
from bt_llm.data import COLUMNS
from bt_llm.exceptions import ConfigError
from bt_llm.gates import NO_ANSWER_DEPENDS_ON, AskingGate, EntryGate, Gate, model_name
from bt_llm.plain_json import plain
from bt_llm.plain_text import printable
from bt_llm.report._content import asked_alike, asked_in, folds_text, gates_in, parts, verdicts_of
from bt_llm.report._policy_page import environment, write_page, write_policy_html
from bt_llm.report._tables import write_tables
from bt_llm.research import (
    Board,
    Explanation,
    GateTest,
    LeakageResult,
    ModelComparison,
    Multiverse,
    PanelComparison,
    PanelTest,
    PanelWalkForwardResult,
    WalkForwardResult,
)
from bt_llm.verdicts import Prior, prior_source

__all__ = ["Reportable", "write_csv", "write_report"]

Reportable: TypeAlias = (
    BacktestResult
    | GateStudy
    | GateTest
    | ModelComparison
    | WalkForwardResult
    | PanelStudy
    | PanelTest
    | PanelComparison
    | PanelWalkForwardResult
    | LeakageResult
    | Board
    | Multiverse
    | Explanation
)
"""What there is a report for."""

_SAME_AS = {"bars sha256": "SHA-256 of the bars"}

_KINDS: tuple[tuple[type[Any], str, str], ...] = (
    (BacktestResult, "one run", "A strategy on these bars, with nothing to compare it with."),
    (GateStudy, "run", "A strategy with its gate, without it, and buy and hold, on the same bars."),
    (GateTest, "test", "Does the gate add anything? Its result among those of gates that know nothing."),
    (ModelComparison, "compare", "One strategy on the same bars, gated by one model after the other."),
    (WalkForwardResult, "walk-forward", "Settings chosen on the past, judged by what followed."),
    (PanelStudy, "run on a panel", "A strategy with its gate, without it, and held, on many symbols."),
    (
        PanelTest,
        "test on a panel",
        "Does the gate add anything, on many symbols?",
    ),
    (
        PanelComparison,
        "compare on a panel",
        "One strategy on many symbols, gated by several models.",
    ),
    (PanelWalkForwardResult, "walk-forward on a panel", "Settings chosen on the past of many symbols."),
    (LeakageResult, "leakage", "Could the model have known? Five probes for what it remembers of a market."),
    (Board, "board", "Many models under one set of tasks, recomputed from their packs."),
    (Multiverse, "multiverse", "One verdict asked for in every way that would have been as good."),
    (Explanation, "explanation", "What a model says of market states, as a rule."),
)


def write_report(
    path: str | os.PathLike[str],
    result: Reportable | Policy,
    *,
    data: Source | Universe | None = None,
    title: str | None = None,
) -> None:
    """Write the report of a result: one HTML file that loads nothing from anywhere.

    Parameters
    ----------
    path : path
        The file; replaced if it is there.
    result : BacktestResult, GateStudy, GateTest, ModelComparison or WalkForwardResult, or the same of a panel
        Or a Policy, an Explanation, a Multiverse, a Board or a LeakageResult: what to report. The page ends
        with the checklists of `bt_llm.research.checklist`.
    data : path, DataFrame, feed, mapping, sequence or Market, optional
        The bars it was found on, for their hash, and of one data for the price chart. A panel says itself
        what its symbols' bars are.
    title : str, optional
        Heading; by default the strategy's name and the kind of result.

    Raises
    ------
    ConfigError
        If `result` is something else, or the file cannot be written.
    DataError
        If the bars cannot be read.

    Notes
    -----
    The policy is drawn as far as the run knew it, and no model is asked for the page: where verdicts are
    calibrated by the grid, a whole space of up to 512 cells. Of a larger one the means over all features but
    two are drawn, and the page says how many cells the prior comes from. A walk-forward result carries its
    verdicts and policies, and its page shows each fold's out-of-sample stretch as the gate was told.
    Everything on the page is escaped, and its content security policy lets no script run but its own and no
    request be made. The same result gives the
    same bytes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from bt_llm import AdvisorConfig, Gate, gate_study
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> bars = load_bars(shipped("eurusd_hourly.csv"))[:300]
    >>> study = gate_study(f"{shipped('sma_cross.py')}:GatedSmaCross", bars, gate)
    >>> with TemporaryDirectory() as folder:
    ...     write_report(f"{folder}/run.html", study, data=bars)
    ...     Path(folder, "run.html").read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    if isinstance(result, Policy):
        rows = [(name, result.panels(calibrated=name == "calibrated")) for name in ("calibrated", "raw")]
        write_policy_html(rows, Path(path), title or f"Policy of {result.model}", " ".join(result.sentences))
        return
    kind, summary = _kind(result)
    is_panel = isinstance(result, Panel | PanelWalkForwardResult)
    market = None if data is None or is_panel else Market.of(data)
    bars = _alone(market)
    laid_out = list(parts(result, bars))
    text = (
        environment()
        .get_template("report.html")
        .render(
            title=title or f"{_strategy(result)}: {kind}",
            summary=summary,
            parts=laid_out,
            charts=_json([part["content"] for part in laid_out if part["kind"] == "chart"]),
            facts=_facts(result, market),
            scripts=[_script(library()), _script(_shipped("templates/report.js"))],
            library_css=markupsafe.Markup(_shipped("vendor/uPlot.min.css")),
        )
    )
    write_page(Path(path), text)


def _shipped(name: str) -> str:
    return resources.files("bt_llm").joinpath("report", name).read_text(encoding="utf-8")


def library() -> str:
    """Return the script that draws the charts, with its license in place of an address."""
    script, license = _shipped("vendor/uPlot.iife.min.js"), _shipped("vendor/uPlot.LICENSE")
    return f"/* uPlot 1.6.32\n\n{license.strip()}\n*/\n{script.partition('*/')[2].strip()}"


def _script(text: str) -> dict[str, markupsafe.Markup]:
    """Return a script, and the hash by which the page's policy lets it run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": markupsafe.Markup(text), "hash": markupsafe.Markup(f"sha256-{digest}")}


def write_csv(
    folder: str | os.PathLike[str], result: Reportable, *, data: Source | Universe | None = None
) -> list[Path]:
    """Write the trades of a result, and with its bars the verdicts, as CSV.

    Parameters
    ----------
    folder : path
        Gets ``trades.csv`` with a column ``run``, and where models judged bars ``verdicts.csv`` with a column
        ``model``. Of a multiverse also ``specifications.csv``, its table. Of a panel also ``symbols.csv``,
        the figures of each symbol's runs, and ``returns.csv``,
        the pooled return of each bar in each run. Text that a spreadsheet would run as a formula gets an
        apostrophe before it.
    result, data
        As in `write_report`.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        If `result` is something else, or a file cannot be written.
    """
    _kind(result)
    if isinstance(result, Board):
        raise ConfigError("tables of a Board: there are none; its JSON has every figure")
    if isinstance(result, LeakageResult):
        return write_tables(folder, {}, {result.model: result.answers.copy()})
    verdicts, _ = verdicts_of(result)
    if isinstance(result, WalkForwardResult):
        return write_tables(folder, {"out_of_sample": result.trades}, verdicts)
    trades = {name: run.trades for name, run in result.runs.items()}
    if isinstance(result, Explanation):
        raise ConfigError(
            "tables of an explanation: write its cells with export, to a file that ends in .csv"
        )
    if isinstance(result, Multiverse):
        return write_tables(folder, trades, verdicts, {"specifications": {"multiverse": result.table}})
    if not isinstance(result, Panel | PanelWalkForwardResult):
        return write_tables(folder, trades, verdicts)
    symbols = {name: _symbols_table(run) for name, run in result.runs.items()}
    returns = {name: run.returns.rename_axis("time").to_frame() for name, run in result.runs.items()}
    return write_tables(folder, trades, verdicts, {"symbols": symbols, "returns": returns})


def _symbols_table(run: PooledRun[Any]) -> pd.DataFrame:
    """Return the figures of each symbol of a pooled run."""
    metrics = {symbol: one.metrics for symbol, one in run.symbols.items()}
    return pd.DataFrame(metrics).T.rename_axis("symbol")


def _alone(market: Market | None) -> pd.DataFrame | None:
    """Return the bars of a market of one data; those of several have no one price."""
    return market.first[list(COLUMNS)] if market is not None and len(market) == 1 else None


def _kind(result: object) -> tuple[str, str]:
    for kind, name, summary in _KINDS:
        if isinstance(result, kind):
            return name, summary
    names = ", ".join(kind.__name__ for kind, *_ in _KINDS)
    raise ConfigError(f"report of a {type(result).__name__}: expected one of {names}")


def _first_of(result: Reportable) -> Reportable:
    """Return the result of a panel's first symbol, which stands for all; another result itself."""
    symbols: dict[str, Any] = getattr(result, "symbols", {})
    found: Reportable = next(iter(symbols.values()), result)
    return found


def _strategy(result: Reportable) -> str:
    if isinstance(result, Board):
        return ", ".join(result.tasks)
    one = _first_of(result)
    if isinstance(one, WalkForwardResult):
        return one.name
    if isinstance(one, LeakageResult):
        return f"{one.model} on {one.market}"
    if isinstance(one, Multiverse | Explanation) and not one.runs:
        return one.model
    run: BacktestResult = next(iter(one.runs.values()))  # type: ignore[assignment, union-attr]
    return run.strategy


def _json(charts: Sequence[Any]) -> markupsafe.Markup:
    """Return JSON that can stand in a script element: <, >, & and ' are written as escapes."""
    return jinja2.utils.htmlsafe_json_dumps(
        _shown(plain(list(charts))), separators=(",", ":"), allow_nan=False
    )


def _shown(value: Any) -> Any:
    """Return JSON values with all text in them printable."""
    if isinstance(value, dict):
        return {printable(name): _shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _facts(result: Reportable, market: Market | None) -> list[tuple[str, str]]:
    """Return where the numbers come from, as names and values."""
    if isinstance(result, Board):
        return [("bt_llm", bt_llm.__version__), *(("task", name) for name in result.tasks)]
    is_policy = isinstance(result, Multiverse | Explanation) and not result.runs
    found = [("model" if is_policy else "strategy", _strategy(result))]
    if isinstance(result, LeakageResult):
        found = []
    if isinstance(result, WalkForwardResult):
        found += _fold_facts(result)
    found += [("gate", rule) for rule in dict.fromkeys(map(_rule, gates_in(result)))]
    for one in asked_in(result):
        found += [("model", one.identity.name), ("SHA-256 of the model", one.identity.sha256)]
        found.append(("asked by", _how(one.config)))
        found += _prior_facts(one.config)
        found.append(
            ("prompt template", f"{one.template.name} {one.template.version}, {one.template.sha256}")
        )
    if isinstance(result, Panel | PanelWalkForwardResult):
        found += _symbol_facts(result)
    for name, bars in {} if market is None else market.bars.items():
        found.append(("data", name if bars.file is None else Path(bars.file).name))
        found.append(("bars", f"{len(bars):,}, {bars.frame.index[0]} to {bars.frame.index[-1]}"))
        found.append(("SHA-256 of the bars", bars.sha256))
    said = [(name.replace("_", " "), str(value)) for name, value in _settings(result).items()]
    found += [(name, value) for name, value in said if (_SAME_AS.get(name, name), value) not in found]
    packages = ("backtrader", "numpy", "pandas", "llama-cpp-python")
    found += [("bt_llm", bt_llm.__version__), ("python", platform.python_version())]
    return found + [(name, importlib.metadata.version(name)) for name in packages]


def _fold_facts(result: WalkForwardResult) -> list[tuple[str, str]]:
    """Return which models a study asked and how, and the rules of its gates, with the folds of each."""
    found: list[tuple[str, str]] = []
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


def _analyst_facts(gate: AskingGate) -> list[tuple[str, str]]:
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


def _prior_facts(config: AdvisorConfig | AnalystConfig) -> list[tuple[str, str]]:
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


def _symbol_facts(result: Panel[Any] | PanelWalkForwardResult) -> list[tuple[str, str]]:
    """Return what a panel is of: its symbols, their weights and bars."""
    found = [("symbols", f"{len(result.symbols):,}, {len(result.left_out):,} left out")]
    for name, one in result.symbols.items():
        if isinstance(one, WalkForwardResult):
            bars = one.settings["bars_sha256"]
        else:
            bars = next(iter(one.runs.values())).market["sha256"]
        found.append((f"symbol {name}", f"weight {result.weights[name]:g}, SHA-256 of the bars {bars}"))
    return found


def _settings(result: Reportable) -> dict[str, Any]:
    if isinstance(result, Board):
        return {}
    if isinstance(result, WalkForwardResult | PanelWalkForwardResult | LeakageResult):
        return result.settings
    if isinstance(result, Multiverse | Explanation) and not result.runs:
        return {}
    run: BacktestResult = next(iter(_first_of(result).runs.values()))  # type: ignore[union-attr, assignment]
    settings = dict(run.settings)
    params = {name: value for name, value in settings.pop("params", {}).items() if name != "gate"}
    return {
        **settings,
        "parameters": ", ".join(f"{k}={v}" for k, v in params.items()) or "the strategy's own",
    }
