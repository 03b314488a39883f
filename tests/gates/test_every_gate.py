"""Every gate that asks a model fits everywhere: backtests, tests, comparisons, searches, manifests, pages."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import pytest

from bt_llm import AdvisorConfig, Gate, NewsGate, TradeAdviceGate, WalkForward, gate_study, run_backtest
from bt_llm.advice import AnalystConfig, forget_answers
from bt_llm.backtest import load_strategy
from bt_llm.cache import CacheMode, VerdictCache, export_pack, import_pack
from bt_llm.data import Headlines, shipped
from bt_llm.exceptions import ConfigError, ModelError
from bt_llm.gates import AskingGate, attach_gate
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.manifest._encoding import Decoder
from bt_llm.models import ScriptedBackend
from bt_llm.report import write_report
from bt_llm.research import compare_models, gate_test, judge
from bt_llm.research.walk_forward import _search
from bt_llm.research.walk_forward._supplies import Supplies
from tests.analyst_cases import NEWS, TRADE
from tests.engines import QuickAdvice, walk
from tests.walk_forward_cases import cross_file

BARS = walk(330, seed=3)
SPLIT = WalkForward(train_size=160, test_size=60)
MODEL = "scripted:trend"


def answer(prompt: str, schema: Mapping[str, Any]) -> str:
    """What the model says: of trades by the strength of the signal, of news by what shares do."""
    if "decision" in schema["properties"]:
        strength = prompt.rpartition("Signal strength: ")[2].partition("\n")[0]
        decision = {"strong": "take", "moderate": "reduce", "weak": "skip"}[strength]
        return json.dumps({**TRADE, "decision": decision})
    line = next(row for row in reversed(prompt.splitlines()) if "shares" in row)
    if "noise" in line:
        return "no idea"
    return json.dumps({**NEWS, "sentiment": "Bearish" if "fall" in line else "Bullish"})


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have scripted models answer analysts in this process, and collect what they are asked."""
    prompts: list[str] = []

    def answering(self: ScriptedBackend, prompt: str, schema: Mapping[str, Any]) -> str:
        prompts.append(prompt)
        return answer(prompt, schema)

    monkeypatch.setattr(ScriptedBackend, "_verdict_json", answering)
    forget_answers()
    yield prompts
    forget_answers()


def news(**changes: Any) -> NewsGate:
    """A gate on a headline every tenth day; every third cannot be read."""
    start = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
    words = ("rise", "fall", "noise")
    items = [
        (start + dt.timedelta(days=day), f"shares {words[day // 10 % 3]} {day}") for day in range(0, 330, 10)
    ]
    return NewsGate(headlines=Headlines.of(items), **{"analyst": AnalystConfig(model=MODEL), **changes})


def trade(**changes: Any) -> TradeAdviceGate:
    return TradeAdviceGate(**{"analyst": AnalystConfig(model=MODEL), **changes})


def advice(**changes: Any) -> Gate:
    return Gate(**{"advisor": AdvisorConfig(model=MODEL), "indicator": QuickAdvice, **changes})


ANALYSTS = pytest.mark.parametrize("make", [news, trade])
ALL = pytest.mark.parametrize("make", [advice, news, trade])
Make = Callable[..., Any]


@pytest.fixture
def cross(tmp_path: Path) -> str:
    return cross_file(tmp_path)


class TestCounts:
    def test_news_by_hand(self, cross: str) -> None:
        result = run_backtest(cross, BARS, gate=news())
        assert result.advice is not None
        asked = result.advice["questions"]
        # 33 headlines, of which every third is noise.
        assert {k: asked[k] for k in ("asked", "answers", "invalid", "missing")} == {
            "asked": 33, "answers": 22, "invalid": 11, "missing": 0,
        }  # fmt: skip
        assert (asked["model_calls"], asked["cache_hits"]) == (33, 0)
        forget_answers()
        again = run_backtest(cross, BARS, gate=news()).advice
        assert again is not None
        assert (again["questions"]["model_calls"], again["questions"]["cache_hits"]) == (0, 33)
        assert json.loads(json.dumps(again, allow_nan=False)) == again

    def test_trades_are_those_that_the_strategy_wanted(self, cross: str, asked: list[str]) -> None:
        result = run_backtest(cross, BARS, gate=trade())
        assert result.advice is not None
        questions, gate = result.advice["questions"], result.advice["gate"]
        assert questions["asked"] == questions["answers"] == questions["model_calls"] == len(asked)
        assert 0 < questions["asked"] <= gate["allowed"] + gate["blocked"]
        assert (questions["invalid"], questions["missing"]) == (0, gate["missing"])
        assert list(result.advice["datas"]) == ["data"]

    def test_a_gate_that_asks_no_analyst_has_none(self, cross: str) -> None:
        result = run_backtest(cross, BARS, gate=advice())
        assert result.advice is not None
        assert result.advice["questions"] is None
        assert run_backtest(cross, BARS, gate=advice().baseline()).advice is None


class TestTests:
    @ALL
    def test_against_gates_that_know_nothing(self, cross: str, make: Make) -> None:
        found = gate_test(cross, BARS, make(), n=9, shifts=3, resamples=49)
        assert found.random.n == 9
        assert (found.rule is None) == (make is not advice)
        assert len(found.entries.long) > 3

    @ANALYSTS
    def test_models_are_compared_by_what_they_let_in(self, cross: str, make: Make) -> None:
        models = {"one": "scripted:trend", "two": "scripted:contrarian"}
        found = compare_models(cross, BARS, models, gate=make(), resamples=49, block_length=5)
        (pair,) = found.pairs
        assert pair.agreed == 1.0  # both give the answers above
        assert found.costs["one"].prompts == found.costs["two"].prompts > 0
        assert np.isnan(found.scores["one"].brier)
        json.dumps(found.to_dict(), allow_nan=False)
        with pytest.raises(ConfigError, match="expected a name or a AnalystConfig, which a"):
            compare_models(cross, BARS, {"one": AdvisorConfig(), "two": "scripted:trend"}, gate=make())

    def test_what_a_gate_lets_in_is_its_answer(self) -> None:
        bars = judge(BARS, trade(), horizon=1).bars
        Both.seen.clear()
        run_backtest(Both, BARS, gate=trade())
        names = {(True, False): "bullish", (False, True): "bearish"}
        expected = [names.get(seen, "neutral") for seen in Both.seen]
        assert expected == bars["answer"].tolist()
        assert len({*expected}) > 1


class Both(bt.Strategy):
    """Ask about both sides at every bar."""

    seen: ClassVar[list[tuple[bool, bool]]] = []
    params = (("gate", None),)

    def __init__(self) -> None:
        self.gate = attach_gate(self.p.gate, self)

    def next(self) -> None:
        self.seen.append((self.gate.allows_long(), self.gate.allows_short()))


class TestSearches:
    @ANALYSTS
    def test_two_processes_replay_what_one_asked(self, cross: str, make: Make, asked: list[str]) -> None:
        field = {news: {"gate.min_score": [0.1, 0.5]}, trade: {"gate.reduced": [0.0, 1.0]}}[make]
        grid = {"fast": [2, 4], **field}
        one = SPLIT.run(cross, BARS, gate=make(), grid=grid)
        before = len(asked)
        assert before == len(set(asked)) > 0
        # Workers do not have the answers of this process, and their scripted model answers no analyst.
        two = SPLIT.run(cross, BARS, gate=make(), grid=grid, n_jobs=2)
        assert one.to_dict() == two.to_dict()
        assert len(asked) == before
        assert one.metrics["trades"] > 0

    @ANALYSTS
    @pytest.mark.parametrize("mode", ["record", "off"])
    def test_trials_may_not_ask(
        self, cross: str, make: Make, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs: list[Any] = []
        run_jobs = _search.run_jobs
        monkeypatch.setattr(
            _search, "run_jobs", lambda found, *rest: run_jobs(jobs.extend(found) or found, *rest)
        )
        gate = make(analyst=AnalystConfig(model=MODEL, cache_mode=mode))
        SPLIT.run(cross, BARS, gate=gate, grid={"fast": [2, 4]})
        assert {job.params["gate"].analyst.cache_mode for job in jobs} == {CacheMode.REPLAY}
        assert len(jobs) == 4
        assert (VerdictCache().stats().verdicts > 0) == (mode == "record")

    @ANALYSTS
    def test_how_it_is_asked_can_be_searched(self, cross: str, make: Make) -> None:
        models = ["scripted:trend", "scripted:bullish"]
        grid = {"gate.analyst.model": models, "gate.analyst.max_tokens": [99, 100]}
        few = ["gate.analyst.max_tokens < 100"]
        result = SPLIT.run(cross, BARS, gate=make(), grid=grid, constraints=few)
        assert [one["gate.analyst.model"] for one in result.combinations] == models
        assert result.n_trials == 2
        for name in ("gate.analyst.cache_dir", "gate.analyst", "gate.analyst.reader"):
            with pytest.raises(ConfigError, match=f"'{name}' is no parameter"):
                SPLIT.run(cross, BARS, gate=make(), grid={name: ["x"]})

    @ANALYSTS
    def test_a_worker_needs_neither_model_nor_template_nor_folder(
        self, cross: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = tmp_path / "words.toml"
        name = {news: "news", trade: "trade"}[make]
        own = Path(str(Path(__file__).parents[2] / f"bt_llm/prompts/templates/{name}.toml"))
        words.write_bytes(own.read_bytes())
        recording = AnalystConfig(model=MODEL, template=words, cache_dir=tmp_path / "here")
        gate = make(analyst=recording)
        whole = run_backtest(cross, BARS, gate=gate)
        supplies = Supplies.of([(gate, gate.asker())])
        forget_answers()
        words.unlink()
        monkeypatch.setattr(ScriptedBackend, "named", lambda name: pytest.fail("a model was looked for"))
        there = make(analyst=dataclasses.replace(recording, cache_mode="replay"))
        settled = supplies.settled({"gate": there})["gate"]
        again = run_backtest(cross, BARS, gate=settled)
        assert again.to_dict() == whole.to_dict()

    def test_rules_that_differ_ask_once(self) -> None:
        assert len({news(min_score=s, half_life=h).without_rule() for s in (0.1, 0.2) for h in (2, 3)}) == 1
        assert len({trade(reduced=r).without_rule() for r in (0.1, 0.2)}) == 1
        assert news(latency=0).without_rule() != news(latency=60).without_rule()


class TestManifests:
    @ALL
    def test_a_run_is_made_again_without_a_model(
        self, cross: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        BARS.to_csv(tmp_path / "bars.csv", index_label="time")
        field, kind = ("advisor", AdvisorConfig) if make is advice else ("analyst", AnalystConfig)
        gate = make(**{field: kind(model=MODEL, cache_dir=tmp_path / "someones home")})
        if make is advice:
            gate = dataclasses.replace(gate, indicator=Gate().indicator)
        study = gate_study(cross, tmp_path / "bars.csv", gate)
        run = tmp_path / "run.json"
        written = write_manifest(run, study, strategy=cross, data=tmp_path / "bars.csv")
        assert len(written.verdicts) > 0
        assert [model.name for model in written.models] == [MODEL]
        assert "someones home" not in run.read_text()
        export_pack(VerdictCache(tmp_path / "someones home"), tmp_path / "pack.jsonl", list(written.verdicts))
        import_pack(VerdictCache(tmp_path / "elsewhere"), tmp_path / "pack.jsonl")
        forget_answers()
        for method in ("generate_json", "score"):
            monkeypatch.setattr(ScriptedBackend, method, lambda *_, **__: pytest.fail("a model was asked"))
        assert read_manifest(run) == written
        assert reproduce(read_manifest(run), cache_dir=tmp_path / "elsewhere").identical

    @ANALYSTS
    def test_an_answer_that_is_missing_is_named(self, cross: str, make: Make, tmp_path: Path) -> None:
        study = gate_study(cross, BARS, make())
        written = write_manifest(tmp_path / "run.json", study, strategy=cross, data=BARS)
        found = reproduce(written, data=BARS, cache_dir=tmp_path / "empty")
        assert found.differences[0].what == "verdict"
        assert f"{len(written.verdicts)} of {len(written.verdicts)} are not stored" in str(
            found.differences[0]
        )

    @ANALYSTS
    def test_words_that_changed_are_code(self, cross: str, make: Make, tmp_path: Path) -> None:
        name = {news: "news", trade: "trade"}[make]
        own = Path(__file__).parents[2] / f"bt_llm/prompts/templates/{name}.toml"
        words = tmp_path / "words.toml"
        words.write_bytes(own.read_bytes())
        gate = make(analyst=AnalystConfig(model=MODEL, template=words))
        written = write_manifest(
            tmp_path / "run.json", gate_study(cross, BARS, gate), strategy=cross, data=BARS
        )
        assert reproduce(written, data=BARS).identical
        words.write_text(own.read_text(encoding="utf-8").replace("You are", "You were"), encoding="utf-8")
        (difference,) = reproduce(written, data=BARS).differences
        assert difference.what == "code"
        assert "prompt template 'words.toml'" in difference.message

    def test_what_a_manifest_says_of_where_to_ask_is_not_done(self, cross: str, tmp_path: Path) -> None:
        described = trade().describe()
        described["analyst"] |= {"cache_dir": "/chosen/by/the/sender", "cache_mode": "record"}
        described["analyst"]["template"]["file"] = "trade"
        decoder = Decoder(load_strategy(cross), tmp_path, {}, tmp_path / "mine")
        config = decoder.decode("gate", described).analyst
        assert (config.cache_dir, config.cache_mode) == (str(tmp_path / "mine"), CacheMode.REPLAY)

    def test_an_analyst_outside_a_gate_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(
            "import backtrader as bt\nclass Mine(bt.Strategy):\n    params = (('analyst', None),)\n"
        )
        spec = f"{tmp_path / 'mine.py'}:Mine"
        result = run_backtest(spec, BARS, params={"analyst": AnalystConfig(model=MODEL)})
        with pytest.raises(ConfigError, match="analyst is an AnalystConfig, whose answers would not be in"):
            write_manifest(tmp_path / "run.json", result, strategy=spec, data=BARS)


class TestPages:
    @ANALYSTS
    def test_a_page_says_what_was_asked_of_whom(self, cross: str, make: Make, tmp_path: Path) -> None:
        gate = make(analyst=AnalystConfig(model=MODEL, cache_dir=tmp_path / "someones home"))
        results = {
            "run": gate_study(cross, BARS, gate),
            "walk": SPLIT.run(cross, BARS, gate=gate, grid={"fast": [2, 4]}),
        }
        for name, result in results.items():
            write_report(tmp_path / f"{name}.html", result, data=BARS)
            page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
            assert type(gate).__name__ in page
            assert MODEL in page
            assert "someones home" not in page
        assert "Questions of the gate" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_a_model_that_is_not_here_is_left_out_of_a_description() -> None:
    absent = advice(advisor=AdvisorConfig(model="no-such-model.gguf"))
    with pytest.raises(ModelError):
        _ = absent.asker().identity
    described = absent.describe()["advisor"]
    assert described["model"] == "no-such-model"
    assert "model_sha256" not in described
    assert isinstance(absent, AskingGate)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([("2020-02-01T12:00:00+00:00", "shares noise 1")], "every answer was invalid: to 1 of 1 question"),
        ([("2010-02-01T12:00:00+00:00", "shares rise 1")], "the model was asked nothing: "),
        ([("2020-02-01T12:00:00+00:00", "shares rise 1")], ""),
    ],
    ids=["not to be read", "too early", "good"],
)
def test_news_that_told_the_gate_nothing_are_no_ground_for_a_conclusion(
    items: list[tuple[str, str]], problem: str
) -> None:
    gate = NewsGate(headlines=Headlines.of(items), analyst=AnalystConfig(model=MODEL))
    result = run_backtest(f"{shipped('sma_cross.py')}:GatedSmaCross", BARS, gate=gate)
    assert result.advice is not None
    assert [one for one in result.problems if problem and one.startswith(problem)] == list(result.problems)
    assert bool(result.problems) == bool(problem)
