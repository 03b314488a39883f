"""What a stranger gives the public names by mistake: one line that names it, of the project's own errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

import bt_llm
from bt_llm.backtest import Market, Universe
from bt_llm.cache import VerdictCache
from bt_llm.data import Headlines, load_bars, shipped
from bt_llm.exceptions import BtLlmError
from bt_llm.indicators import LLMNews, MarketRegime, MarketStateLines
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.models import LlamaModel, ModelManager, batch_analyze
from bt_llm.prompts import PromptTemplate
from bt_llm.report import plot_result, result_html, write_csv, write_report
from bt_llm.research import leakage_probes
from bt_llm.verdicts import Feature, Label, LabelSet, Prior, StateSpace, Verdict

WRONG = (3, -1, math.nan, {"x": 1}, object())
"""What is no text, no list, and none of ours."""

ADVISOR = bt_llm.AdvisorConfig(model="scripted:trend", cache_mode="off")
GATE = bt_llm.Gate(advisor=ADVISOR)
STRATEGY = f"{shipped('sma_cross.py')}:GatedSmaCross"
BARS = load_bars(shipped("eurusd_hourly.csv"))[:200]


MODELS = ["scripted:trend", "scripted:contrarian"]
SIZES = {"train_size": 60, "test_size": 30}


class Echo:
    def generate(self, prompt: str) -> str:
        return prompt


def asked(**settings: Any) -> bt_llm.AdvisorConfig:
    return bt_llm.AdvisorConfig(**{"model": "scripted:trend", **settings})


def feature(**settings: Any) -> Feature:
    return Feature(**{"name": "x", "edges": (0, 1), "labels": ("a", "b", "c"), **settings})


def template(**settings: Any) -> PromptTemplate:
    return PromptTemplate(**{"name": "x", "version": 1, "user": "x", **settings})


def run(**settings: Any) -> bt_llm.BacktestResult:
    return bt_llm.run_backtest(STRATEGY, BARS, **settings)


def walked(**settings: Any) -> bt_llm.WalkForwardResult:
    given = {"strategy": STRATEGY, "data": BARS, "gate": GATE, **settings}
    return bt_llm.WalkForward(train_size=60, test_size=30).run(**given)


def with_indicator(kind: type[bt.Indicator], **settings: Any) -> bt_llm.BacktestResult:
    class Strategy(bt.Strategy):
        def __init__(self) -> None:
            self.lines_of_it = kind(self.data, **settings)

    return bt_llm.run_backtest(Strategy, BARS)


def named(name: Any) -> dict[Any, str]:
    return dict(zip([1 if isinstance(name, dict) else name, "b"], MODELS, strict=True))


def policy() -> bt_llm.Policy:
    return bt_llm.Policy.of(bt_llm.Advisor(ADVISOR))


Call = Callable[[Any], Any]

CALLS: dict[str, tuple[str, Call]] = {
    "AdvisorConfig.model": ("model=", lambda x: asked(model=x)),
    "AdvisorConfig.fallbacks": ("fallbacks=", lambda x: asked(fallbacks=x)),
    "AdvisorConfig.fallbacks[0]": ("fallbacks=", lambda x: asked(fallbacks=[x])),
    "AdvisorConfig.template": ("template=", lambda x: asked(template=x)),
    "AdvisorConfig.cache_dir": ("cache_dir=", lambda x: asked(cache_dir=x)),
    "AdvisorConfig.state_space": ("state_space=", lambda x: asked(state_space=x)),
    "AdvisorConfig.supplied": ("supplied=", lambda x: asked(supplied=x)),
    "AnalystConfig.model": ("model=", lambda x: bt_llm.AnalystConfig(model=x)),
    "Advisor.config": ("config=", bt_llm.Advisor),
    "Advisor.of": ("config=", bt_llm.Advisor.of),
    "Advisor.cache": ("cache=", lambda x: bt_llm.Advisor(ADVISOR, cache=x)),
    "Advisor.template": ("template=", lambda x: bt_llm.Advisor(ADVISOR, template=x)),
    "Policy.of": ("advisor=", bt_llm.Policy.of),
    "Policy.of.cells": ("cells=", lambda x: bt_llm.Policy.of(bt_llm.Advisor(ADVISOR), x)),
    "VerdictCache": ("directory=", VerdictCache),
    "Feature.name": ("name=", lambda x: feature(name=x)),
    "Feature.title": ("title=", lambda x: feature(title=x)),
    "Feature.edges": ("edges=", lambda x: feature(edges=x)),
    "Feature.labels": ("labels=", lambda x: feature(labels=x)),
    "Feature.labels[0]": ("label=", lambda x: feature(labels=(x, "b", "c"))),
    "Feature.indicator": ("indicator=", lambda x: feature(indicator=x)),
    "StateSpace.features": ("features=", lambda x: StateSpace(features=x)),
    "StateSpace.features[0]": ("features=", lambda x: StateSpace(features=(x,))),
    "LabelSet": ("labels=", LabelSet),
    "LabelSet[0]": ("labels=", lambda x: LabelSet([x, Label(name="a", word="A", worth=1)])),
    "Verdict.labels": ("labels=", lambda x: Verdict(labels=x)),
    "Verdict.probabilities": ("probabilities=", lambda x: Verdict(probabilities=x)),
    "Prior.labels": ("labels=", lambda x: Prior(labels=x)),
    "PromptTemplate.system": ("system=", lambda x: template(system=x)),
    "PromptTemplate.labels": ("labels=", lambda x: template(labels=x)),
    "PromptTemplate.examples": ("examples=", lambda x: template(examples=x)),
    "ModelManager.config": ("config=", lambda x: ModelManager("smollm2", config=x)),
    "ModelManager.fallback_paths": ("fallback_paths=", lambda x: ModelManager("smollm2", fallback_paths=x)),
    "LlamaModel": ("config=", LlamaModel),
    "batch_analyze.model": ("model=", lambda x: batch_analyze(x, ["a"])),
    "batch_analyze.prompts": ("prompts=", lambda x: batch_analyze(Echo(), x)),
    "RuleGate.advisor": ("advisor=", lambda x: bt_llm.RuleGate(advisor=x)),
    "FunctionGate.advisor": ("advisor=", lambda x: bt_llm.FunctionGate(function=max, advisor=x)),
    "TradeAdviceGate.state_space": ("state_space=", lambda x: bt_llm.TradeAdviceGate(state_space=x)),
    "TradeAdviceGate.symbol": ("symbol=", lambda x: bt_llm.TradeAdviceGate(symbol=x)),
    "NewsGate.headlines": ("headlines=", lambda x: bt_llm.NewsGate(headlines=x)),
    "NewsGate.market": ("market=", lambda x: bt_llm.NewsGate(headlines=Headlines(()), market=x)),
    "gated": ("strategy=", bt_llm.gated),
    "compare_models.models": ("models=", lambda x: bt_llm.compare_models(STRATEGY, BARS, x)),
    "compare_models.models[0]": ("models=", lambda x: bt_llm.compare_models(STRATEGY, BARS, [x, "a"])),
    "compare_models.names": ("name of a model=", lambda x: bt_llm.compare_models(STRATEGY, BARS, named(x))),
    "compare_models.gate": ("gate=", lambda x: bt_llm.compare_models(STRATEGY, BARS, MODELS, gate=x)),
    "compare_models.format": ("format=", lambda x: bt_llm.compare_models(STRATEGY, BARS, MODELS, format=x)),
    "multiverse.gate": ("gate=", lambda x: bt_llm.multiverse(gate=x)),
    "multiverse.models": ("models=", lambda x: bt_llm.multiverse(gate=GATE, models=x)),
    "multiverse.models[0]": ("models=", lambda x: bt_llm.multiverse(gate=GATE, models=[x])),
    "multiverse.templates": ("templates=", lambda x: bt_llm.multiverse(gate=GATE, templates=x)),
    "multiverse.calibrations": ("calibrations=", lambda x: bt_llm.multiverse(gate=GATE, calibrations=x)),
    "multiverse.label_orders": ("label_orders=", lambda x: bt_llm.multiverse(gate=GATE, label_orders=x)),
    "gate_test.strata": ("strata=", lambda x: bt_llm.gate_test(STRATEGY, BARS, GATE, strata=x)),
    "gate_test.episodes": ("episodes=", lambda x: bt_llm.gate_test(STRATEGY, BARS, GATE, episodes=x)),
    "gate_test.gate": ("gate=", lambda x: bt_llm.gate_test(STRATEGY, BARS, x)),
    "panel_test.gate": ("gate=", lambda x: bt_llm.panel_test(STRATEGY, {"a": BARS}, x)),
    "leakage_probes.gate": ("gate=", lambda x: leakage_probes(BARS, x)),
    "leakage_probes.controls": ("controls=", lambda x: leakage_probes(BARS, GATE, controls=x)),
    "WalkForward.expand_train": ("expand_train=", lambda x: bt_llm.WalkForward(**SIZES, expand_train=x)),
    "WalkForward.reduce_test": ("reduce_test=", lambda x: bt_llm.WalkForward(**SIZES, reduce_test=x)),
    "gate_test.strategy": ("strategy=", lambda x: bt_llm.gate_test(x, BARS, GATE)),
    "gate_test.output": ("output=", lambda x: bt_llm.gate_test(STRATEGY, BARS, GATE, output=x)),
    "Headlines": ("items=", Headlines),
    "Headlines[0]": ("items=", lambda x: Headlines((x,))),
    "load_bars.format": ("format=", lambda x: load_bars(BARS, x)),
    "Market.of.lines": ("lines=", lambda x: Market.of(BARS, lines=x)),
    "Universe.of.lines": ("lines=", lambda x: Universe.of({"a": BARS}, lines=x)),
    "LLMNews.market": ("market=", lambda x: with_indicator(LLMNews, market=x)),
    "MarketRegime.state_space": ("state_space=", lambda x: with_indicator(MarketRegime, state_space=x)),
    "LLMSizer.base": ("base=", lambda x: run(sizer=(bt_llm.LLMSizer, {"base": x}))),
    "run_backtest.exactbars": ("exactbars=", lambda x: run(exactbars=x if x != -1 else "x")),
    "run_backtest.name": ("name=", lambda x: run(name=x)),
    "gate_study.gate": ("gate=", lambda x: bt_llm.gate_study(STRATEGY, BARS, x)),
    "WalkForward.run.strategy": ("strategy=", lambda x: walked(strategy=x)),
    "WalkForward.run.grid[0]": ("name of a parameter=", lambda x: walked(grid=_keyed(x))),
    "WalkForward.run.constraints": ("constraints=", lambda x: walked(constraints=x)),
    "WalkForward.run.output": ("output=", lambda x: walked(output=x)),
    "explain": ("policy=", bt_llm.explain),
    "explain.visits": ("visits=", lambda x: bt_llm.explain(policy(), visits=x)),
    "training_cutoff": ("model=", bt_llm.training_cutoff),
    "read_manifest": ("path=", read_manifest),
    "reproduce": ("manifest=", reproduce),
    "write_manifest": ("outcome=", lambda x: write_manifest("run.json", x, strategy=STRATEGY, data=BARS)),
    "write_report.path": ("path=", lambda x: write_report(x, policy())),
    "write_report.title": ("title=", lambda x: write_report("page.html", policy(), title=x)),
    "write_csv.folder": ("folder=", lambda x: write_csv(x, run())),
    "plot_result.path": ("path=", lambda x: plot_result(policy(), x)),
    "result_html": ("no result", result_html),
}
"""How each is given something, and how the message begins to name it."""


def _keyed(name: Any) -> dict[Any, list[int]]:
    return {3 if isinstance(name, dict) else name: [1, 2]}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_one_line_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    says, call = CALLS[name]
    for wrong in WRONG:
        with pytest.raises(BtLlmError) as told:
            call(wrong)
        message = str(told.value)
        assert says in message, wrong
        assert "\n" not in message
        assert "expected" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [3, math.nan, "x", object()])
def test_what_is_no_mapping_is_named(wrong: Any) -> None:
    for says, call in (
        ("cerebro=", lambda: bt_llm.Setup(cerebro=wrong)),
        ("weights=", lambda: Universe.of({"a": BARS}, weights=wrong)),
        ("grid=", lambda: walked(grid=wrong)),
        ("params=", lambda: walked(params=wrong)),
        ("base_params=", lambda: run(sizer=(bt_llm.LLMSizer, {"base_params": wrong}))),
    ):
        with pytest.raises(bt_llm.ConfigError, match=f"^{says}.*: expected a mapping"):
            call()


@pytest.mark.parametrize("period", ["ema", "slope", "rsi", "atr", "median"])
def test_no_period_looks_ahead(period: str) -> None:
    for wrong in (-1, 0, None, 2.0):
        with pytest.raises(bt_llm.ConfigError, match=rf"{period}={wrong}: expected a whole number of bars"):
            with_indicator(MarketStateLines, **{period: wrong})
        if period != "median":
            with pytest.raises(bt_llm.ConfigError, match=rf"{period}={wrong}: expected a whole number"):
                with_indicator(MarketRegime, **{period: wrong})


def test_numbers_of_runs_that_no_machine_could_work_off_are_refused() -> None:
    for name, most in (("n", "20,000"), ("resamples", "100,000")):
        with pytest.raises(bt_llm.ConfigError, match=f"^{name}=99999999: expected a whole number.* {most}$"):
            bt_llm.gate_test(STRATEGY, BARS, GATE, **{name: 99_999_999})
    with pytest.raises(bt_llm.ConfigError, match=r"^n=99999999"):
        bt_llm.panel_test(STRATEGY, {"a": BARS}, GATE, n=99_999_999)
    with pytest.raises(bt_llm.ConfigError, match=r"^n=99999999"):
        bt_llm.multiverse(gate=GATE, n=99_999_999)


class NeverRun(bt.Strategy):
    def __init__(self) -> None:
        raise AssertionError("was run")


@pytest.mark.parametrize("wrong", [{"resamples": 5}, {"block_length": 0}, {"block_length": 2.5}])
def test_what_the_bootstrap_needs_is_checked_before_any_run(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    for call in (
        lambda: bt_llm.gate_test(NeverRun, BARS, GATE, **wrong),
        lambda: bt_llm.panel_test(NeverRun, {"a": BARS}, GATE, **wrong),
        lambda: bt_llm.compare_models(NeverRun, BARS, MODELS, gate=GATE, **wrong),
        lambda: bt_llm.compare_on_panel(NeverRun, {"a": BARS}, MODELS, gate=GATE, **wrong),
        lambda: bt_llm.before_after_cutoff(NeverRun, BARS, GATE, cutoff="2017-01-05", **wrong),
        lambda: bt_llm.identified_probe(NeverRun, BARS, GATE, "EUR/USD", **wrong),
    ):
        with pytest.raises(bt_llm.ConfigError, match=f"^{name}=.*: expected a whole number"):
            call()


def test_more_processes_than_any_machine_has_are_refused() -> None:
    with pytest.raises(bt_llm.ConfigError, match=r"^n_jobs=1000000000: .* of processes up to 10,000"):
        walked(n_jobs=10**9)


def test_what_is_no_mapping_is_no_empty_one() -> None:
    for wrong in ("", 0, [], (), False):
        for name in ("grid", "params"):
            with pytest.raises(bt_llm.ConfigError, match=f"^{name}=.*: expected a mapping"):
                walked(**{name: wrong})


def test_a_list_of_one_text_is_no_text() -> None:
    with pytest.raises(bt_llm.ConfigError, match="fallbacks='smollm2': expected a list of models"):
        asked(fallbacks="smollm2")
    assert asked(fallbacks=(name for name in ["a", Path("b")])).fallbacks == ("a", "b")
