"""Label sets of an outsider's: each is one TOML file, and everything that bt_llm does works with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from typer.testing import CliRunner

from bt_llm import (
    AdvisorConfig,
    Gate,
    NeverOpen,
    Policy,
    PromptTemplate,
    VerdictCache,
    gate_study,
    run_backtest,
)
from bt_llm.advice import Advisor, forget_answers
from bt_llm.cache import export_pack, import_pack, merge_packs
from bt_llm.cli import app
from bt_llm.exceptions import ConfigError, PackError, PromptError
from bt_llm.gates import LONG, SHORT, attach_gate
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.models import ScriptedBackend
from bt_llm.report import write_policy_html
from bt_llm.research import compare_models, gate_test, judge
from bt_llm.verdicts import TREND, Verdict
from tests.engines import QuickAdvice, build, line, run, walk

QUESTION = '''
format = 1
version = 1
answer = "Answer:"
system = "You judge one market state."
user = """
{% for feature in features %}
{{ feature.title }}: {{ feature.label }}
{% endfor %}
"""
'''
GRADES = f"""{QUESTION}
name = "grades"
[[labels]]
name = "strong_buy"
word = "Strong buy"
worth = 2
[[labels]]
name = "buy"
word = "Buy"
worth = 1
[[labels]]
name = "hold"
word = "Hold"
worth = 0
[[labels]]
name = "sell"
word = "Sell"
worth = -1
[[labels]]
name = "strong_sell"
word = "Strong sell"
worth = -2
[[examples]]
state = {{ trend = 0.2 }}
verdict = "strong_buy"
[[examples]]
state = {{ trend = -0.08 }}
verdict = "sell"
"""
SIZES = f"""{QUESTION}
name = "sizes"
labels = [
    {{ name = "full", word = "Full", worth = 1 }},
    {{ name = "half", word = "Half", worth = 0.5 }},
    {{ name = "zero", word = "Zero", worth = 0 }},
]
"""
TEMPLATES = {"grades": GRADES, "sizes": SIZES}
BARS = walk(300)

# The scripted trend follower leans by 1, 1/2, 0, -1/2 and -1; of five labels, at 1, 1/2, 0, -1/2 and -1, each
# weighs 1 / (1 + 4 d^2) at its distance d. So it answers the label at its lean, the trend's own bucket.
GRADE_OF_TREND = {"strong up": 2.0, "up": 1.0, "flat": 0.0, "down": -1.0, "strong down": -2.0}
SIZE_OF_TREND = {"strong up": 1.0, "up": 1.0, "flat": 0.5, "down": 0.0, "strong down": 0.0}
WORTH_OF_TREND = {"grades": GRADE_OF_TREND, "sizes": SIZE_OF_TREND}


@pytest.fixture(params=["grades", "sizes"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path, request.param)


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(TEMPLATES[name], encoding="utf-8")
    return path


def gate_of(template: Any, **settings: Any) -> Gate:
    told = {"model": "scripted:trend", "calibration": "none", **settings}
    return Gate(advisor=AdvisorConfig(template=template, **told), indicator=QuickAdvice)


class Sized(bt.Strategy):
    """Buys ten pieces times what the advice is worth, and sells them three bars later."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)
        self.sizes: list[tuple[int, float]] = []

    def next(self) -> None:
        if self.position:
            if len(self) >= self.sizes[-1][0] + 3:
                self.close()
        elif self.gate.allows_long():
            worth = self.gate.log[-1].verdict  # NaN of a gate that asks no model: full size
            self.sizes.append((len(self), 10 * (1.0 if math.isnan(worth) else worth)))
            self.buy(size=self.sizes[-1][1])


def test_every_bar_shows_what_its_label_is_worth(file: Path) -> None:
    ran = run(Sized, BARS, gate=gate_of(file, cache_mode="off"))
    lines = ("trend", "verdict", "bullish", "neutral", "bearish")
    seen = list(zip(*(line(ran.gate.advice, name)[15:] for name in lines), strict=True))
    for trend, verdict, bullish, neutral, bearish in seen:
        assert verdict == WORTH_OF_TREND[file.stem][TREND.labels[TREND.bucket(trend)]]
        assert bullish + neutral + bearish == pytest.approx(1.0)
        assert file.stem == "grades" or bearish == 0.0
    assert len({row[1] for row in seen}) == len(set(WORTH_OF_TREND[file.stem].values()))
    worths = {size / 10 for _, size in ran.sizes}
    assert worths == ({2.0, 1.0} if file.stem == "grades" else {1.0, 0.5})  # never bought on "zero" or "hold"


def test_a_backtest_a_round_trip_and_a_replay_are_the_same(file: Path, tmp_path: Path) -> None:
    gate = gate_of(file)
    recorded = run_backtest(Sized, BARS, gate=gate)
    assert len(recorded.trades) > 10
    assert recorded.advice["model_calls"] == recorded.advice["distinct"] > 0
    labels = PromptTemplate.load(file).choices
    assert list(recorded.advice["verdicts"]) == [*labels.names, "invalid", "not_asked"]
    assert sum(recorded.advice["verdicts"].values()) == len(BARS)
    assert recorded.advice["verdicts"]["invalid"] == 0

    forget_answers()
    cache = VerdictCache()
    for record in cache.records():
        assert record.verdict.labels.names == labels.names
        assert record.verdict.labels.worths == labels.worths
        assert record.question.labels == tuple(f" {word}" for word in labels.words)
    export_pack(cache, tmp_path / "one.jsonl")
    elsewhere = VerdictCache(tmp_path / "elsewhere")
    import_pack(elsewhere, tmp_path / "one.jsonl")
    export_pack(elsewhere, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()

    replaying = gate_of(file, cache_dir=tmp_path / "elsewhere", cache_mode="replay")
    replayed = run_backtest(Sized, BARS, gate=replaying)
    assert replayed.advice["model_calls"] == 0
    assert replayed.equity.equals(recorded.equity)
    assert replayed.trades.equals(recorded.trades)


def test_a_strategy_that_sizes_by_worth_runs_with_every_gate(tmp_path: Path) -> None:
    gate = gate_of(written(tmp_path, "sizes"))
    study = gate_study(Sized, BARS, gate)
    assert len(study.gated.trades) > 10
    assert len(study.ungated.trades) > 10
    open_gate, never = (run(Sized, BARS, gate=one) for one in (gate.baseline(), NeverOpen()))
    assert {size for _, size in open_gate.sizes} == {10.0}
    assert never.sizes == []


def test_grades_gate_the_same_sides_as_the_default_labels(tmp_path: Path, repository: Path) -> None:
    strategy = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    graded = run_backtest(strategy, BARS, gate=gate_of(written(tmp_path, "grades")))
    plain = run_backtest(strategy, BARS, gate=gate_of("market"))
    assert graded.advice["gate"] == plain.advice["gate"]
    assert min(graded.advice["gate"]["allowed"], graded.advice["gate"]["blocked"]) > 0
    assert graded.equity.equals(plain.equity)


def test_the_gate_asks_for_the_side_whatever_a_label_is_worth() -> None:
    agree, against = Gate(), Gate(require="not_against")
    for worth in (0.25, 1.0, 7.0):
        assert agree.allows(LONG, worth, 0.5)
        assert agree.allows(SHORT, -worth, 0.5)
        assert not agree.allows(SHORT, worth, 0.5)
        assert not against.allows(SHORT, worth, 0.5)
    assert not agree.allows(LONG, 0.0, 0.5)
    assert against.allows(LONG, 0.0, 0.5)


def test_what_a_label_is_worth_and_called_can_change_without_asking_again(tmp_path: Path) -> None:
    first = run_backtest(Sized, BARS, gate=gate_of(PromptTemplate.parse(SIZES)))
    text = SIZES.replace("worth = 0.5", "worth = 0.2").replace('"half"', '"some"')
    changed = run_backtest(Sized, BARS, gate=gate_of(PromptTemplate.parse(text)))
    assert first.advice["model_calls"] > 0
    assert changed.advice["model_calls"] == 0
    assert changed.advice["verdicts"]["some"] == first.advice["verdicts"]["half"] > 0
    assert not changed.equity.equals(first.equity)


def test_packs_of_other_worths_agree_and_of_other_answers_do_not(tmp_path: Path) -> None:
    template = PromptTemplate.parse(SIZES)
    dearer = PromptTemplate.parse(SIZES.replace("worth = 1", "worth = 9"))
    other = ScriptedBackend(lambda _: (0.2, 0.2, 0.6), name="scripted:trend")
    for name, words, backend in (("a", template, None), ("b", dearer, None), ("c", template, other)):
        cache = VerdictCache(tmp_path / name)
        config = AdvisorConfig(template=words, model="scripted:trend")
        Advisor(config, cache=cache, backend=backend).advise_cells([0])
        export_pack(cache, tmp_path / f"{name}.jsonl")
    packs = {name: tmp_path / f"{name}.jsonl" for name in "abc"}
    merge_packs([packs["a"], packs["b"]], tmp_path / "ab")
    merge_packs([packs["b"], packs["a"]], tmp_path / "ba")
    assert (tmp_path / "ab").read_bytes() == (tmp_path / "ba").read_bytes()
    with pytest.raises(PackError, match="different verdicts for 105 keys"):
        merge_packs([packs["a"], packs["c"]], tmp_path / "ac")


def test_a_manifest_reproduces_a_run_by_a_template_without_a_file(tmp_path: Path, repository: Path) -> None:
    bars = tmp_path / "bars.csv"
    BARS.rename_axis("datetime").to_csv(bars)
    strategy = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    advisor = AdvisorConfig(template=PromptTemplate.parse(GRADES), model="scripted:trend")
    study = gate_study(strategy, bars, Gate(advisor=advisor))
    write_manifest(tmp_path / "run.json", study, strategy=strategy, data=bars)
    told = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["gate"]["advisor"]["template"]
    assert told["text"] == GRADES
    forget_answers()
    again = reproduce(read_manifest(tmp_path / "run.json"))
    assert [str(difference) for difference in again.differences] == []
    assert again.identical


def test_one_run_has_one_label_set_in_whatever_words() -> None:
    class Own(QuickAdvice):
        other: Verdict

        def advise(self, cells: Any) -> list[Verdict]:
            return [*super().advise(cells)[:-1], self.other]

    def judged(other: Verdict) -> Any:
        kind = type("OwnNow", (Own,), {"other": other})
        words = 'name = "x"\nlabels = { bullish = "Up", neutral = "Flat", bearish = "Down" }'
        template = PromptTemplate.parse(QUESTION + words)
        told = AdvisorConfig(model="scripted:trend", cache_mode="off", template=template)
        return build(lambda s: kind(s.data, advisor=told), BARS)

    assert judged(Verdict(bullish=0.6, neutral=0.2, bearish=0.2)).labels.is_default
    sizes = PromptTemplate.parse(SIZES).choices
    with pytest.raises(ConfigError, match="expected one label set in a run"):
        judged(Verdict(labels=sizes, full=1.0, half=0.0, zero=0.0))


# The policy, and its page.


def policy_of(template: Any, **settings: Any) -> Policy:
    told = {"model": "scripted:trend", "calibration": "none", "cache_mode": "off", **settings}
    return Policy.of(Advisor(AdvisorConfig(template=template, **told)))


def test_a_policy_counts_its_labels_and_draws_what_they_are_worth(tmp_path: Path) -> None:
    policy = policy_of(written(tmp_path, "grades"))
    # 105 states, 21 of each trend
    assert policy.counts() == {**dict.fromkeys(policy.labels.names, 21), "invalid": 0}
    # a strong up-trend weighs the grades 1, 1/2, 1/5, 1/10, 1/17, an up-trend 1/2, 1, 1/2, 1/5, 1/10
    strong = (2 + 1 / 2 - 1 / 10 - 2 / 17) / (1 + 1 / 2 + 1 / 5 + 1 / 10 + 1 / 17)
    plain = (2 / 2 + 1 - 1 / 5 - 2 / 10) / (1 / 2 + 1 + 1 / 2 + 1 / 5 + 1 / 10)
    assert policy.bias()[0, 0].tolist() == pytest.approx([-strong, -plain, 0, plain, strong])
    assert policy.measure == "expected worth of the verdict"
    rows = [(policy.model, policy.panels())]
    write_policy_html(rows, tmp_path / "policy.html", f"Policy: {policy.measure}", "Summary", scale=2.0)
    page = (tmp_path / "policy.html").read_text(encoding="utf-8")
    assert "expected worth" in page
    assert f"+{round(100 * strong)}" in page


def test_policies_of_one_label_set_are_compared_and_others_refused(tmp_path: Path) -> None:
    grades, sizes = (policy_of(written(tmp_path, name)) for name in TEMPLATES)
    against = policy_of(written(tmp_path, "grades"), model="scripted:contrarian")
    compared = grades.compare(against)
    assert compared.agreement == pytest.approx(1 / 5)  # flat alone; each label is given as often by both
    assert compared.kappa == pytest.approx(0.0)
    with pytest.raises(ConfigError, match="on two label sets"):
        grades.compare(sizes)


@pytest.mark.parametrize("ending", ["html", "png"])
def test_the_command_draws_it(file: Path, tmp_path: Path, ending: str) -> None:
    plot = tmp_path / f"policy.{ending}"
    told = ["policy", "--model", "scripted:trend", "--template", str(file), "--plot", str(plot)]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    counts = "21 strong_buy, 21 buy, 21 hold, 21 sell, 21 strong_sell, 0 invalid"
    assert (counts if file.stem == "grades" else "0 invalid") in said
    assert plot.stat().st_size > 0


# Everything else.


def test_json_answers_have_the_words_of_the_labels(file: Path) -> None:
    config = AdvisorConfig(template=file, model="scripted:bullish", reader="json", cache_mode="off")
    [verdict] = Advisor(config).advise_cells([0])
    labels = PromptTemplate.load(file).choices
    assert verdict.answer == labels.names[0]
    assert verdict.reason == "scripted"
    confidence = {3: 80, 5: 48}[len(labels)]  # of five, 100 * 0.9 / (1 + 1/2 + 1/5 + 1/10 + 1/17)
    share = 1 / len(labels)
    assert verdict.confidence == pytest.approx(share + (1 - share) * confidence / 100)


def test_grades_are_judged_by_their_sides(tmp_path: Path) -> None:
    told = {"cache_mode": "off"}
    graded = judge(BARS, gate_of(written(tmp_path, "grades"), **told), horizon=3).bars
    plain = judge(BARS, gate_of("market", **told), horizon=3).bars
    assert graded["right"].equals(plain["right"])
    assert np.sign(graded["worth"]).equals(plain["worth"])
    assert set(graded["answer"]) == set(PromptTemplate.parse(GRADES).choices.names)


def test_models_are_compared_and_tested_on_grades(tmp_path: Path, repository: Path) -> None:
    strategy = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    path = written(tmp_path, "grades")
    gates = {name: gate_of(path, model=f"scripted:{name}") for name in ("trend", "contrarian")}
    configs = {name: gate.advisor for name, gate in gates.items()}
    found = compare_models(strategy, BARS, configs, gate=gates["trend"], resamples=200)
    names = PromptTemplate.parse(GRADES).choices.names
    assert list(found.pairs[0].agreement.columns) == [*names, "invalid"]
    assert found.pairs[0].agreement.loc["hold", "hold"] > 0
    tested = gate_test(strategy, BARS, gates["trend"], n=20, shifts=20, resamples=200, n_jobs=1)
    assert list(tested.runs["gated"].advice["verdicts"])[:5] == list(names)


def test_a_run_and_its_page_know_the_labels(file: Path, tmp_path: Path, repository: Path) -> None:
    bars, page = tmp_path / "bars.csv", tmp_path / "page.html"
    BARS.rename_axis("datetime").to_csv(bars)
    strategy = f"{repository / 'strategies' / 'sma_cross.py'}:GatedSmaCross"
    told = ["run", "-s", strategy, "-d", str(bars), "--model", "scripted:trend", "--template", str(file)]
    done = CliRunner().invoke(app, [*told, "--report", str(page)])
    assert done.exit_code == 0, done.output
    for name in PromptTemplate.load(file).choices.names:
        shown = name.replace("_", " ")
        assert shown in done.output.replace("_", " ")
        assert shown in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("worth = 1 }", 'worth = "1" }'), "sizes: label 'full': worth '1': expected a finite number"),
        (('"Full"', '"Half"'), "sizes: labels with words .* expected two or more, all different"),
        (('name = "half", ', ""), "sizes: labels .* expected a list of tables of name, word and worth"),
    ],
)
def test_a_wrong_label_set_says_what_is_wrong(edit: tuple[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        PromptTemplate.parse(SIZES.replace(*edit), "sizes")


def test_a_table_of_words_is_for_the_default_labels_alone() -> None:
    text = QUESTION + 'name = "x"\nlabels = { up = "Up", down = "Down" }'
    with pytest.raises(PromptError, match=r"\[\[labels\]\] with name, word and worth of each"):
        PromptTemplate.parse(text)
