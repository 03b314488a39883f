"""`identical` is said of what was compared: what a manifest claims falsely, or leaves out, is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bt_llm import AdvisorConfig
from bt_llm.advice import Advisor, AnalystConfig
from bt_llm.cache import VerdictCache, import_pack
from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import TradeAdviceGate
from bt_llm.manifest import read_manifest, reproduce
from bt_llm.prompts import PromptTemplate
from tests.faulty_server import FaultyServer
from tests.manifest.test_manifest import Place


def differences(place: Place) -> list[str]:
    found = reproduce(read_manifest(place.run), cache_dir=place.cache)
    assert found.identical == (not found.differences)
    assert bool(found.compared) == found.identical
    return list(map(str, found.differences))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (
            lambda d: d.update(verdicts={}),
            "claim: it leaves out 105 of the 105 verdicts",
        ),
        (lambda d: d["verdicts"].pop(max(d["verdicts"])), "claim: it leaves out 1 of the 105 verdicts"),
        (lambda d: d["runs"]["gated"].update(metrics={}), "claim: gated: it leaves out the metrics "),
        (
            lambda d: d["runs"]["ungated"]["metrics"].pop("sharpe"),
            "ungated: it leaves out the metrics s",
        ),
        (lambda d: d["runs"]["gated"]["metrics"].update(alpha=None), "metrics that the run has not, 'alpha'"),
        (lambda d: d.update(models=[]), "claim: it leaves out the model "),
        (lambda d: d["models"][0].update(name="gpt-5"), "'gpt-5': it is scripted:trend"),
        (
            lambda d: d["models"].append({**d["models"][0], "sha256": "ab" * 32}),
            "which answered nothing",
        ),
        (lambda d: d["data"].update(bars=7), "claim: data 'bars': bars is 260, it says 7"),
        (
            lambda d: d["data"].update(first="1999-01-01"),
            "first is 2017-04-19T09:00:00, it says '1999",
        ),
        (lambda d: d["data"].update(last="2030-01-01"), "it says '2030-01-01'"),
        (lambda d: d["gate"]["advisor"].update(model_sha256="ab" * 32), "which answered nothing"),
        (lambda d: d["gate"]["advisor"].update(chat_template_sha256="ab" * 32), "its gate says another"),
        (lambda d: d["gate"]["advisor"]["template"].update(version=9), "version is 1, it says 9"),
        (
            lambda d: d["gate"]["advisor"]["template"].update(name="other"),
            "name is 'market', it says 'oth",
        ),
        (lambda d: d["versions"].pop("numpy"), "claim: it leaves out the versions of numpy"),
    ],
)
def test_what_is_left_out_or_false_is_named(place: Place, change: Change, claim: str) -> None:
    place.edit(change)
    found = differences(place)
    assert any(claim in line for line in found), found


def test_all_of_it_is_named_at_once(place: Place) -> None:
    def bare(document: dict[str, Any]) -> None:
        document.update(verdicts={}, models=[])
        document["data"]["bars"] = 7

    place.edit(bare)
    found = differences(place)
    assert [line.partition(":")[0] for line in found] == ["claim"] * 3


def test_a_name_and_a_gate_that_agree_on_what_is_false_are_named(place: Place) -> None:
    def renamed(document: dict[str, Any]) -> None:
        document["models"][0]["name"] = "gpt-5"
        document["gate"]["advisor"].update(model="gpt-5", model_sha256=document["models"][0]["sha256"])

    place.edit(renamed)
    assert sum("gpt-5" in line for line in differences(place)) == 2


def test_a_template_in_the_manifest_is_what_it_says(place: Place) -> None:
    text = PromptTemplate.load("market").text.replace("version = 1", "version = 3")
    place.record(place.gate(template=PromptTemplate.parse(text, "mine")))
    assert differences(place) == []
    place.edit(lambda d: d["gate"]["advisor"]["template"].update(version=1))
    assert any("version is 3, it says 1" in line for line in differences(place))
    place.edit(lambda d: d["gate"]["advisor"]["template"].update(version=3, sha256="ab" * 32))
    assert any("template's SHA-256" in line for line in differences(place))


def test_verdicts_of_other_runs_of_this_process_are_not_missed(place: Place) -> None:
    """The run needs some states; others, that this process has replayed before, are none of its claims."""
    shutil.rmtree(place.cache)
    place.record(place.gate(calibration="none"))
    assert len(read_manifest(place.run).verdicts) < 105
    whole = AdvisorConfig(model="scripted:trend", cache_dir=place.cache, calibration="none")
    Advisor(whole).raw_cells(range(105))
    replaying = AdvisorConfig(
        model="scripted:trend", cache_dir=place.cache, calibration="none", cache_mode="replay"
    )
    Advisor(replaying).raw_cells(range(105))
    assert differences(place) == []


def test_a_gate_that_asks_an_analyst_is_written_down_and_reproduced(place: Place) -> None:
    gate = TradeAdviceGate(analyst=AnalystConfig(model="scripted:trend", cache_dir=place.cache))
    manifest = place.record(gate)
    assert manifest.verdicts
    assert str(place.cache) not in manifest.text
    assert differences(place) == []
    place.edit(lambda d: d.update(verdicts={}))
    assert any("leaves out" in line for line in differences(place))


@pytest.mark.parametrize("pin", ["", f"&sha256={'ab' * 32}"])
def test_a_run_that_servers_answered_is_reproduced_without_them(place: Place, pin: str) -> None:
    with FaultyServer() as server:
        model = f"openai:{server.url}?connections=2{pin}"
        manifest = place.record(place.gate(model=model, calibration="none"))
    assert manifest.models[0].name in ("v1", f"openai:*?sha256={'ab' * 32}")
    assert differences(place) == []


def test_a_manifest_names_who_answered_and_not_who_was_asked_first(place: Place) -> None:
    shutil.rmtree(place.cache)
    manifest = place.record(place.gate(model="none.gguf", fallbacks=("scripted:trend",)))
    assert [model.name for model in manifest.models] == ["scripted:trend"]
    assert differences(place) == []


def test_settings_that_are_left_out_are_named(place: Place) -> None:
    place.edit(lambda d: (d["gate"].pop("require"), d["gate"]["advisor"].pop("identify")))
    found = reproduce(read_manifest(place.run), cache_dir=place.cache)
    assert found.identical
    assert sorted(found.defaults) == ["gate.advisor.identify", "gate.require"]


def test_the_shipped_run_claims_nothing_false(tmp_path: Path) -> None:
    import_pack(VerdictCache(tmp_path / "c"), shipped("demo_pack.jsonl"))
    found = reproduce(read_manifest(shipped("demo_run.json")), cache_dir=tmp_path / "c")
    assert found.identical
    assert found.compared == (
        "bars, code and templates; 105 verdicts; "
        "3 runs with 220 trades, 27 metrics and the equity of each bar"
    )
    assert found.defaults == ()
    assert found.not_compared == ("the builds that answered", "the versions it was recorded under")


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "bt_llm run", "format": 1, "format": 1}',
        '{"kind": "bt_llm run", "format": 1, "broker": {"cash": 1e400}}',
        '{"kind": "bt_llm run", "format": 1, "broker": {"cash": -1e400}}',
    ],
)
def test_a_name_given_twice_and_a_number_without_end_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"not a run manifest: .*(twice|too large for a number)"):
        read_manifest(tmp_path / "run.json")


def test_a_name_given_twice_in_a_whole_manifest_is_refused(place: Place) -> None:
    text = place.run.read_text()
    place.run.write_text(text.replace('"bars":', '"bars": 7, "bars":', 1))
    with pytest.raises(ConfigError, match="'bars' stands in an object twice"):
        read_manifest(place.run)
    place.run.write_text(text.replace('"commission":2e-05', '"commission":2e-05,"commission":1'))
    with pytest.raises(ConfigError, match="'commission' stands in an object twice"):
        read_manifest(place.run)
    assert json.loads(text)["broker"]["commission"] == 2e-05
