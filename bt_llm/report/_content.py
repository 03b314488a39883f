"""What stands in the report of each kind of result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.advice import Advisor, AdvisorConfig, Policy
from bt_llm.backtest import BacktestResult, GateStudy
from bt_llm.exceptions import BtLlmError, DataError, MissingExtraError
from bt_llm.gates import Gate
from bt_llm.report._pictures import fold_strips, histogram, stability
from bt_llm.report._series import Stretch, curves, price
from bt_llm.report._tables import count, metrics_table, number, percent, trades_table
from bt_llm.research import (
    AskedModel,
    Bootstrap,
    GateTest,
    ModelComparison,
    WalkForwardResult,
    interval,
    is_shown,
    judge,
)

__all__ = ["Section", "asked_alike", "configs_of", "folds_text", "gate_of", "sections", "verdicts_of"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page: what kind it is, what stands above it in plain words, and what it shows."""

    kind: str
    title: str
    content: Any = field(default_factory=dict)
    text: str = ""


def gate_of(result: Any) -> Gate | None:
    """Return the gate that asked a model, if that is what gated the run."""
    gate = result.gated.settings.get("params", {}).get("gate") if hasattr(result, "gated") else None
    return gate if isinstance(gate, Gate) else None


def configs_of(result: Any) -> list[AdvisorConfig]:
    """Return how each model of a result was asked; a walk-forward study says so itself."""
    if isinstance(result, ModelComparison):
        gates = [run.settings.get("params", {}).get("gate") for run in result.runs.values()]
        return list(dict.fromkeys(gate.advisor for gate in gates if isinstance(gate, Gate)))
    gate = gate_of(result)
    return [] if gate is None else [gate.advisor]


def verdicts_of(result: Any, bars: pd.DataFrame | None) -> tuple[dict[str, pd.DataFrame], str]:
    """Return each model's answers bar by bar, and why there are none.

    Of a walk-forward study they are those that it traded by, fold by fold; nothing is asked again.
    """
    if isinstance(result, ModelComparison):
        return {name: found.bars for name, found in result.judged.items()}, ""
    if isinstance(result, WalkForwardResult):
        told = result.verdicts
        by_model = {str(name): part.drop(columns="model") for name, part in told.groupby("model", sort=False)}
        return by_model, "" if by_model else "There are no verdicts to draw: no model gated the trades."
    gate = gate_of(result)
    if gate is None or bars is None:
        return {}, "The verdicts are not drawn: there is not one gate on one model for all bars."
    try:
        return {str(gate.advisor.model): judge(bars, gate, horizon=1).bars}, ""
    except BtLlmError as error:
        return {}, f"The verdicts are not drawn: {error}"


def sections(result: Any, bars: pd.DataFrame | None) -> Iterator[Section]:
    """Yield the parts of a result's page, the findings first.

    Parameters
    ----------
    result : GateStudy, GateTest, ModelComparison or WalkForwardResult
        What was found.
    bars : DataFrame, optional
        What it was found on; without it there is no price chart.
    """
    if isinstance(result, GateStudy):
        yield from _run(result)
    elif isinstance(result, GateTest):
        yield from _test(result)
    elif isinstance(result, ModelComparison):
        yield from _compare(result)
    else:
        yield from _walk_forward(result)
    if bars is not None:
        yield from _prices(result, bars)
    if isinstance(result, WalkForwardResult):
        yield from _fold_policies(result)
    else:
        yield from _policies(configs_of(result))
    yield _trades(result)


def _run(study: GateStudy) -> Iterator[Section]:
    yield Section(kind="sentences", title="Findings", content=_study_sentences(study))
    yield _metrics({name: run.metrics for name, run in study.runs.items()})
    yield _equity(study.runs)
    if study.gated.advice is not None:
        yield _advice(study.gated.advice)


def _test(test: GateTest) -> Iterator[Section]:
    yield Section(kind="sentences", title="Findings", content=test.sentences)
    yield _metrics({name: run.metrics for name, run in test.runs.items()})
    for runs in (test.random, test.shifted):
        if runs is not None:
            yield Section(
                kind="histograms",
                title=f"The gate among {runs.n} {runs.kind}",
                text="These gates know nothing. Where it stands among them, luck is enough to "
                "explain it; p is the share of them that did at least as well, the gate itself counted in.",
                content=[histogram(runs, metric) for metric in ("sharpe", "return")],
            )
    yield _equity(test.runs)
    if test.gated.advice is not None:
        yield _advice(test.gated.advice)


def _compare(found: ModelComparison) -> Iterator[Section]:
    yield Section(kind="sentences", title="Findings", content=found.sentences)
    yield _metrics({str(name): {str(k): v for k, v in row.items()} for name, row in found.table.iterrows()})
    yield _equity(found.runs)
    names = list(found.scores)
    scores, costs = found.scores.values(), found.costs.values()
    rows = [
        ["right", *(percent(one.accuracy, 0) for one in scores)],
        ["right by the commonest answer", *(percent(one.base_rate, 0) for one in scores)],
        ["Brier score (lower is better)", *(number(one.brier, 3) for one in scores)],
        ["Brier score of a constant", *(number(one.brier_constant, 3) for one in scores)],
        ["market states", *(count(one.prompts) for one in costs)],
        ["model calls", *(count(one.model_calls) for one in costs)],
        ["seconds in the model", *(number(one.model_seconds, 1) for one in costs)],
        ["tokens", *(count(one.tokens) for one in costs)],
        ["memory, MB (estimate)", *(number(one.memory_mb, 0) for one in costs)],
    ]
    yield _table("Models", ["", *names], rows, "How often each was right about what came next, and its cost.")
    for name, score in found.scores.items():
        filled = score.reliability[score.reliability["count"] > 0]
        yield _table(
            f"Confidence of {name}",
            ["stated", "right", "bars"],
            [
                [percent(row["mean_confidence"], 0), percent(row["frequency"], 0), count(row["count"])]
                for _, row in filled.iterrows()
            ],
            "Confidence that can be believed is right as often as it says.",
        )
    for pair in found.pairs:
        first, second = pair.models
        yield _table(
            f"Bars by answer: {first} in rows, {second} in columns",
            ["", *map(str, pair.agreement.columns)],
            [[str(label), *(count(value) for value in row)] for label, row in pair.agreement.iterrows()],
            f"Cohen's kappa is {number(pair.kappa)}: 1 is full agreement, 0 what chance gives.",
        )
        if len(pair.trades):
            yield Section(
                kind="folded",
                title=f"Trades that only one of {first} and {second} made",
                content=trades_table(pair.trades),
            )


def _walk_forward(result: WalkForwardResult) -> Iterator[Section]:
    yield Section(kind="sentences", title="Findings", content=_walk_sentences(result))
    yield _metrics({"in sample (mean of folds)": result.in_sample, "out of sample (joined)": result.metrics})
    yield Section(
        kind="folds",
        title="Folds",
        text=f"Each fold chose by {result.metric} on its in-sample stretch and traded the stretch after it. "
        "Only the latter counts.",
        content=fold_strips(result),
    )
    if result.stability:
        yield Section(
            kind="stability",
            title="Parameter stability",
            text="What each fold chose. A real edge tends to be found with the same settings again.",
            content={"folds": [one.fold.number for one in result.folds], "rows": stability(result)},
        )
    yield _equity({"out of sample": result}, "The out-of-sample stretches joined, with no position between.")


def _metrics(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    return Section(kind="table", title="Results", content=metrics_table(runs))


def _equity(runs: Mapping[str, BacktestResult | WalkForwardResult], text: str = "") -> Section:
    found = curves({name.replace("_", " "): run.equity for name, run in runs.items()})
    if found["drawn"] < found["bars"]:
        text += (
            f" {found['drawn']:,} of {found['bars']:,} points are drawn, the highs and lows of every stretch "
            "among them; the tables are from all."
        )
    return Section(kind="chart", title="Equity and drawdown", text=text.strip(), content=found)


def _table(title: str, head: list[str], rows: list[list[str]], text: str = "") -> Section:
    return Section(kind="table", title=title, text=text, content={"head": head, "rows": rows, "note": ""})


def _advice(advice: Mapping[str, Any]) -> Section:
    verdicts, forward = advice["verdicts"], advice["forward"]
    rows = [
        [
            name.replace("_", " "),
            count(verdicts[name]),
            percent(forward[name]["mean"], 3) if name in forward else "-",
            percent(forward[name]["hit_rate"], 0) if name in forward else "-",
        ]
        for name in ("bullish", "neutral", "bearish", "invalid", "not_asked")
    ]
    gate = advice["gate"]
    text = (
        f"{gate['allowed']} entries were allowed and {gate['blocked']} blocked. {advice['asked']:,} of "
        f"{advice['bars']:,} bars were asked about, {advice['distinct']} distinct states among them. "
        f"The forward return is that of the next {_bars(advice['horizon'])}."
    )
    return _table("Verdicts", ["verdict", "bars", "mean forward return", "hit rate"], rows, text)


def _bars(number_of: int) -> str:
    return "bar" if number_of == 1 else f"{number_of} bars"


def _prices(result: Any, bars: pd.DataFrame) -> Iterator[Section]:
    verdicts, reason = verdicts_of(result, bars)
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
        drawn = [("Price, verdicts and trades", next(iter(verdicts.values()), None), result.gated.trades)]
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
        yield _heat(models[0].policy, "raw", f" ({folds_text(numbers)})", calibrated=False)
        for model in models:
            if model.advisor.calibration != "none":
                yield _heat(model.policy, "calibrated", f" ({folds_text(model.folds)})", calibrated=True)


def asked_alike(result: WalkForwardResult) -> list[list[AskedModel]]:
    """Return the models of a study, those together whose raw verdicts are the same."""
    found: dict[tuple[str, AdvisorConfig], list[AskedModel]] = {}
    for model in result.models:
        raw = dataclasses.replace(model.advisor, calibration="none")
        found.setdefault((model.sha256, raw), []).append(model)
    return list(found.values())


def _policies(configs: Sequence[AdvisorConfig]) -> Iterator[Section]:
    for config in configs:
        try:
            advisor = Advisor(config)
            policy = Policy.of(advisor)
        except BtLlmError as error:
            title = f"Policy of {config.model}"
            yield Section(kind="sentences", title=title, content=[f"It cannot be drawn: {error}"])
            continue
        yield _heat(policy, "raw", "", calibrated=False)
        yield _heat(policy, "calibrated", "", calibrated=True)


def _heat(policy: Policy, name: str, where: str, *, calibrated: bool) -> Section:
    panels = policy.panels(calibrated=calibrated)
    values = np.concatenate([panel.values.ravel() for panel in panels])
    known = np.abs(values[np.isfinite(values)])
    text = "Bullish minus bearish probability of every market state, in hundredths."
    if len(known) < len(values):
        text += " Grey: no valid verdict, or not asked because no bar was in that state."
    return Section(
        kind="policy",
        title=f"Policy of {policy.model}, {name}{where}",
        text=text,
        content={"panels": panels, "scale": float(known.max(initial=0.0)) or 1.0},
    )


def _trades(result: Any) -> Section:
    if isinstance(result, ModelComparison):
        marked = [run.trades.assign(model=name) for name, run in result.runs.items() if len(run.trades)]
        trades = pd.concat(marked, ignore_index=True) if marked else next(iter(result.runs.values())).trades
        trades = trades.sort_values("opened", kind="stable")
    else:
        trades = result.trades if isinstance(result, WalkForwardResult) else result.gated.trades
    return Section(kind="folded", title=f"Trades ({len(trades):,})", content=trades_table(trades))


def _study_sentences(study: GateStudy) -> list[str]:
    gated, ungated, held = study.gated, study.ungated, study.buy_and_hold
    found = [
        f"Gated, the strategy made {percent(gated.metrics['return'])} in "
        f"{count(gated.metrics['trades'])} trades; ungated {percent(ungated.metrics['return'])} in "
        f"{count(ungated.metrics['trades'])}; buying and holding {percent(held.metrics['return'])}."
    ]
    try:
        bootstrap = Bootstrap(resamples=1000)
        for statistic, name in (("return", "mean return a year"), ("sharpe", "Sharpe ratio")):
            change = bootstrap.difference(gated.returns, ungated.returns, statistic)
            shown = "a difference" if is_shown(change) else "not distinguishable from chance"
            found.append(f"Gated less ungated, {name}: {interval(change, statistic)}: {shown}.")
    except (DataError, MissingExtraError) as error:
        found.append(f"No interval for the gate's effect: {error}")
    found.append("Whether gates that know nothing do as well is another question: see bt-llm test.")
    return found


def _walk_sentences(result: WalkForwardResult) -> list[str]:
    metrics, pbo = result.metrics, result.overfitting
    found = [
        f"Out of sample, {len(result.folds)} folds made {percent(metrics['return'])} in "
        f"{count(metrics['trades'])} trades, with a Sharpe ratio of {number(metrics['sharpe'])}; in sample "
        f"it was {number(result.in_sample['sharpe'])} on average.",
        f"Walk-forward efficiency, the share of the in-sample return a year that was left out of sample, is "
        f"{percent(result.efficiency, 0)}: above about 50 % is a good sign, near 0 or below is a search that "
        "fitted noise."
        if result.efficiency == result.efficiency
        else "Walk-forward efficiency has no meaning here: in sample, the chosen settings earned nothing.",
        f"The true Sharpe ratio is above 0 with probability {percent(result.probabilistic_sharpe, 0)}, "
        f"if this was the only study ever run on these bars; as the best of all {result.n_trials} "
        f"configurations tried it is {percent(result.deflated_sharpe, 0)} (deflated Sharpe ratio). The truth "
        "lies between the two; below 95 % it is not distinguishable from luck.",
    ]
    if pbo is not None:
        found.append(
            f"In {percent(pbo.pbo, 0)} of the ways to halve the bars, what was best in one half was below "
            "the median in the other (probability of backtest overfitting): 50 % is what chance gives."
        )
    return found
