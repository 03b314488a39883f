"""What a gate says it is: equal gates say the same, others something else, wherever files are."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from bt_llm import AdvisorConfig, Gate, NewsGate, RandomGate, RuleGate, TradeAdviceGate
from bt_llm.advice import AnalystConfig
from bt_llm.cache import CacheMode
from bt_llm.data import Headlines
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AlwaysOpen, Answers, AttachedGate, Describer, EntryGate, NeverOpen, content_sha256
from bt_llm.models import ScriptedBackend
from bt_llm.verdicts import Prior, StateSpace
from tests.engines import QuickAdvice

NEWS = Headlines.of([("2017-10-26T13:45:00+02:00", "ECB halves its bond purchases")])
TEMPLATES = Path(__file__).parents[2] / "bt_llm" / "prompts" / "templates"


def describe(value: Any) -> Any:
    return Describer().describe("value", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, [2.5, None]), [1, {"list": [2.5, None]}]),
        (math.inf, {"float": "inf"}),
        ({"b": 1, 2: True}, {"mapping": [["b", 1], [2, True]]}),
        ({3, 1, 2}, {"set": [1, 2, 3]}),
        (b"\x00\xff", {"bytes": "00ff"}),
        (CacheMode.REPLAY, {"name": "bt_llm.cache:CacheMode", "member": "REPLAY"}),
        (bt.ind.SMA, {"name": "backtrader.indicators.sma:SMA"}),
        (len, {"name": "builtins:len"}),
        (AlwaysOpen(warm_up=3), {"type": "bt_llm.gates:AlwaysOpen", "warm_up": 3}),
        (
            NEWS,
            {
                "type": "bt_llm.data:Headlines",
                "items": [
                    {
                        "type": "bt_llm.data:Headline",
                        "time": {"time": "2017-10-26T11:45:00+00:00"},
                        "text": "ECB halves its bond purchases",
                    }
                ],
            },
        ),
    ],
)
def test_values_by_hand(value: Any, expected: Any) -> None:
    assert describe(value) == expected
    json.dumps(expected, allow_nan=False)


def test_scalars_of_numpy_are_those_of_python() -> None:
    found = describe((np.int64(3), np.float32(0.5), np.bool_(False)))
    assert found == [3, 0.5, False]
    assert [type(one) for one in found] == [int, float, bool]


def test_code_that_is_not_ours_has_the_hash_of_its_source() -> None:
    found = describe(QuickAdvice)
    assert found["name"] == "tests.engines:QuickAdvice"
    assert len(found["source"]) == 64


def test_a_gate_by_hand() -> None:
    sha256 = hashlib.sha256(b"bt_llm scripted:trend").hexdigest()
    found = Gate(advisor=AdvisorConfig(model="scripted:trend", n_threads=3), min_confidence=0.25).describe()
    assert found.pop("type") == "bt_llm.gates:Gate"
    assert found.pop("indicator") == {"name": "bt_llm.indicators:LLMAdvice"}
    asked = found.pop("advisor")
    assert found == {"min_confidence": 0.25, "require": "agree", "on_missing": "block"}
    assert asked.pop("state_space") == describe(StateSpace())
    template = asked.pop("template")
    assert (template["file"], template["name"], template["version"]) == ("market", "market", 1)
    assert asked == {
        "type": "bt_llm.advice:AdvisorConfig",
        "reader": "logprobs",
        "calibration": "grid",
        "numerics": "canonical",
        "identify": "",
        "min_label_mass": 0.05,
        "model": "scripted:trend",
        "model_sha256": sha256,
        "chat_template_sha256": ScriptedBackend.named("scripted:trend").identity.chat_template_sha256,
    }


def one_of_each() -> list[EntryGate]:
    advisor, analyst = AdvisorConfig(model="scripted:trend"), AnalystConfig(model="scripted:trend")
    answers = Answers(long=b"\x01\x00", short=b"", per="entry")
    return [
        AlwaysOpen(),
        AlwaysOpen(warm_up=1),
        NeverOpen(),
        Gate(advisor=advisor),
        Gate(advisor=advisor, require="not_against"),
        Gate(advisor=advisor, indicator=QuickAdvice),
        Gate(advisor=dataclasses.replace(advisor, model="scripted:random")),
        Gate(advisor=dataclasses.replace(advisor, reader="json")),
        Gate(advisor=dataclasses.replace(advisor, identify="EUR/USD")),
        Gate(
            advisor=dataclasses.replace(advisor, calibration=Prior(bullish=0.5, neutral=0.25, bearish=0.25))
        ),
        NewsGate(headlines=NEWS, analyst=analyst),
        NewsGate(headlines=Headlines(()), analyst=analyst),
        NewsGate(headlines=NEWS, analyst=analyst, market="gold"),
        NewsGate(headlines=NEWS, analyst=analyst, latency=0),
        NewsGate(headlines=NEWS, analyst=dataclasses.replace(analyst, max_tokens=50)),
        TradeAdviceGate(analyst=analyst),
        TradeAdviceGate(analyst=analyst, reduced=0.25),
        RuleGate(advisor=advisor),
        RandomGate(answers=answers),
        RandomGate(answers=answers, seed=1),
    ]


def test_gates_that_differ_say_something_else() -> None:
    hashes = [content_sha256(gate.describe()) for gate in one_of_each()]
    assert len(set(hashes)) == len(hashes)
    assert hashes == [content_sha256(gate.describe()) for gate in one_of_each()]


@pytest.mark.parametrize("kind", ["advice", "news", "trade"])
def test_where_and_how_fast_changes_nothing(kind: str, tmp_path: Path) -> None:
    own = TEMPLATES / {"advice": "market.toml", "news": "news.toml", "trade": "trade.toml"}[kind]
    words = tmp_path / "mine.toml"
    words.write_bytes(own.read_bytes())

    def described(**changes: Any) -> str:
        gate: EntryGate
        if kind == "advice":
            gate = Gate(advisor=AdvisorConfig(model="scripted:trend", **changes))
        elif kind == "news":
            gate = NewsGate(headlines=NEWS, analyst=AnalystConfig(model="scripted:trend", **changes))
        else:
            gate = TradeAdviceGate(analyst=AnalystConfig(model="scripted:trend", **changes))
        return content_sha256(gate.describe())

    usual = described()
    places = {
        "cache_dir": tmp_path,
        "cache_mode": "off",
        "n_threads": 2,
        "n_gpu_layers": 1,
        "template": words,
    }
    for name, value in places.items():
        assert described(**{name: value}) == usual, name
    other = tmp_path / "other.toml"
    other.write_text(own.read_text(encoding="utf-8").replace("You are", "You were"), encoding="utf-8")
    assert described(template=other) != usual


def test_a_model_is_its_bytes_whatever_it_is_called() -> None:
    one, two = ({"model": name, "model_sha256": "ab", "reader": "json"} for name in ("a", "/home/me/b"))
    assert content_sha256(one) == content_sha256(two)
    assert content_sha256({"model": "a"}) != content_sha256({"model": "b"})
    assert content_sha256({**one, "model_sha256": "cd"}) != content_sha256(one)


def test_a_file_is_its_content_wherever_it_is(tmp_path: Path) -> None:
    for name, text in (("a.csv", "1"), ("b.csv", "1"), ("c.csv", "2")):
        (tmp_path / name).write_text(text)
    one, two, three = (content_sha256(describe(tmp_path / name)) for name in ("a.csv", "b.csv", "c.csv"))
    assert one == two != three
    with pytest.raises(ConfigError, match=r"^value: file .*absent.csv' cannot be read \(No such file"):
        describe(tmp_path / "absent.csv")


def test_the_order_of_a_mapping_is_kept_and_counts_for_nothing() -> None:
    one, two = describe({"a": 1, "b": 2}), describe({"b": 2, "a": 1})
    assert one != two
    assert content_sha256(one) == content_sha256(two)


def test_what_cannot_be_described_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^value\[1\]=<object .* of type object cannot be written down"):
        describe((1, object()))


def test_a_gate_of_ones_own_is_described_by_its_fields() -> None:
    found = Mine(level=np.float64(0.5)).describe()
    assert found["type"] == "tests.gates.test_description:Mine"
    assert len(found["source"]) == 64
    assert found["level"] == 0.5

    class Plain(Mine):
        describe = EntryGate.describe

    assert Plain(level=1.0).describe()["level"] == 1.0
    with pytest.raises(ConfigError, match="gate Bare cannot be described: make it a frozen dataclass"):
        Bare().describe()


@dataclasses.dataclass(frozen=True)
class Mine(EntryGate):
    level: float
    warm_up_bars = 1

    def attach(self, strategy: Any, data: Any = None) -> AttachedGate:
        return AlwaysOpen().attach(strategy, data)


class Bare(EntryGate):
    warm_up_bars = 1

    def attach(self, strategy: Any, data: Any = None) -> AttachedGate:
        return AlwaysOpen().attach(strategy, data)


def test_a_field_may_not_hide_the_type() -> None:
    @dataclasses.dataclass(frozen=True)
    class Hiding:
        source: str = "x"

    with pytest.raises(ConfigError, match="Hiding has a field 'source'"):
        describe(Hiding())


def test_headlines_are_dated_in_utc_whatever_zone_they_came_in() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    same = Headlines.of([(dt.datetime(2017, 10, 26, 13, 45, tzinfo=zone), "ECB halves its bond purchases")])
    assert describe(same) == describe(NEWS)
