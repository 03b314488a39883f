from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bt_llm import AdvisorConfig, Gate, gate_study
from bt_llm.advice import Advisor
from bt_llm.cache import Record, VerdictCache
from bt_llm.cache._pack_files import read_pack
from bt_llm.cache._records import GeneratedText
from bt_llm.cache._rows import seal
from bt_llm.cli._cache import app, hint_at_demo_pack
from bt_llm.cli._reproduce import reproduce
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import (
    BtLlmError,
    CacheCorruptError,
    ConfigError,
    ModelNotFoundError,
    PackError,
    ReplayMiss,
)
from bt_llm.manifest import read_manifest, write_manifest
from bt_llm.verdicts import Verdict
from tests.cache_cases import Model, identity, question, verdict

reproduce_app = typer.Typer()
reproduce_app.command()(reproduce)


def invoke(*arguments: object, to: typer.Typer = app, code: int = 0, typed: str | None = None) -> Any:
    """Run a command, which must end with `code`; an error of ours is raised."""
    outcome = CliRunner().invoke(to, [str(argument) for argument in arguments], input=typed)
    if isinstance(outcome.exception, BtLlmError):
        raise outcome.exception
    assert outcome.exit_code == code, (outcome.output, outcome.exception)
    return outcome


def invoke_json(*arguments: object, **options: Any) -> Any:
    return json.loads(invoke(*arguments, "--format", "json", **options).stdout)


def record_grid(model: str = "scripted:trend", **config: Any) -> list[Record]:
    """Ask a scripted model all 105 states; returns what is stored."""
    advisor = Advisor(AdvisorConfig(model=model, **config))
    advisor.raw_cells(range(len(advisor.space)))
    return list(VerdictCache().records())


def replace_verdict(record: Record, other: Verdict) -> None:
    VerdictCache().put_many([Record(record.question, other, record.provenance)], overwrite=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The manifest of a run with a scripted model, whose verdicts are in the cache."""
    strategy, bars = (
        f"{shipped('sma_cross.py')}:GatedSmaCross",
        load_bars(shipped("eurusd_hourly.csv")).iloc[:260],
    )
    data = tmp_path / "bars.csv"
    bars.to_csv(data)
    study = gate_study(strategy, data, Gate(advisor=AdvisorConfig(model="scripted:trend")))
    write_manifest(tmp_path / "run.json", study, strategy=strategy, data=data)
    return tmp_path / "run.json"


def test_path_is_where_the_cache_is(tmp_path: Path) -> None:
    assert invoke("path").stdout == f"{tmp_path / 'cache'}\n"
    assert invoke("path", "--cache", tmp_path / "other").stdout == f"{tmp_path / 'other'}\n"


def test_stats_count_by_model(tmp_path: Path) -> None:
    empty = invoke_json("stats")
    assert (empty["verdicts"], empty["models"]) == (0, [])
    record_grid()
    record_grid("scripted:contrarian")
    found = invoke_json("stats")
    assert found["verdicts"] == 210
    assert found["directory"] == str(tmp_path / "cache")
    assert {model["names"][0]: model["verdicts"] for model in found["models"]} == {
        "scripted:trend": 105,
        "scripted:contrarian": 105,
    }
    assert "210 verdicts" in invoke("stats").stdout


def test_list_shows_states_and_actions() -> None:
    record_grid()
    record_grid("scripted:bullish")
    found = invoke_json("list", "--model", "scripted:bullish", "--limit", 1000)
    assert found["stored"] == len(found["verdicts"]) == 105
    assert {row["action"] for row in found["verdicts"]} == {"bullish"}
    assert {round(row["confidence"], 6) for row in found["verdicts"]} == {0.8}
    assert found["verdicts"] == sorted(found["verdicts"], key=lambda row: row["key"])
    prompts = {row["prompt"] for row in found["verdicts"]}
    assert "Volatility: low, RSI: 45 to 55, Trend: flat" in prompts
    assert len(prompts) == 105
    outcome = invoke("list", "--limit", 2)
    assert len(outcome.stdout.strip().splitlines()) >= 3
    assert "2 of 210" in outcome.stderr


def test_show_takes_any_unique_start_of_a_key() -> None:
    records = record_grid()
    record = records[0]
    for digits in (64, 12, 6):
        found = invoke_json("show", record.key[:digits])
        assert found["key"] == record.key
        assert found["question"]["prompt"] == list(record.question.prompt)
        assert found["verdict"] == record.verdict.to_dict()
        assert found["provenance"]["backend"] == "scripted"
    shown = invoke("show", record.key[:8].upper()).stdout
    assert repr(record.verdict.bullish) in shown
    for text in ("Volatility:", "scripted:trend", "written", "logprobs"):
        assert text in shown
    with pytest.raises(ConfigError, match=r"105 keys begin with '', such as .*: give more digits"):
        invoke("show", "")
    with pytest.raises(ConfigError, match="no key begins with 'xyz'"):
        invoke("show", "xyz")


def test_texts_are_shown_as_texts() -> None:
    asked = question(reader="text", labels=(), sampling={"seed": 0})
    text = GeneratedText(text="[bold]Buy[/]", finished=True)
    VerdictCache().put_many([Record(asked, text), Record(question(), Verdict.invalid("no"))])
    rows = {row["action"]: row for row in invoke_json("list")["verdicts"]}
    assert set(rows) == {"text", "invalid"}
    assert rows["text"]["confidence"] is None
    assert "[bold]Buy[/]" in invoke("show", asked.key).stdout
    assert "invalid" in invoke("show", question().key).stdout
    assert "text" in invoke("list").stdout


def test_a_model_that_is_not_there_is_named() -> None:
    record_grid()
    with pytest.raises(ConfigError, match=r"no model 'llama' in .*: it has scripted:trend"):
        invoke("list", "--model", "llama")
    cache = VerdictCache()
    for sha256 in ("ab" * 32, "cd" * 32):
        cache.put_model(identity(sha256=sha256))
    with pytest.raises(ConfigError, match=r"2 models are named 'small' \(abab.*, cdcd.*\)"):
        invoke("list", "--model", "small")
    assert invoke_json("list", "--model", "abababab")["stored"] == 0


def test_export_of_a_run_is_exactly_its_verdicts(run: Path, tmp_path: Path) -> None:
    record_grid("scripted:contrarian")
    manifest, file = read_manifest(run), tmp_path / "pack.jsonl"
    found = invoke_json("export", "--run", run, file)
    pack = read_pack(file)
    assert {record.key for record in pack.records} == set(manifest.verdicts)
    assert found == {
        "file": str(file),
        "sha256": pack.sha256,
        "verdicts": 105,
        "models": 1,
        "bytes": file.stat().st_size,
    }
    assert pack.about[0]["template"]["name"] == "market"
    assert len(pack.about[0]["state_space"]["features"]) == 3


def test_export_of_a_run_refuses_other_verdicts(run: Path, tmp_path: Path) -> None:
    record = next(VerdictCache().records())
    replace_verdict(record, Verdict(bullish=0.5, neutral=0.25, bearish=0.25))
    with pytest.raises(PackError, match=f"differ in verdict {record.key[:12]}: nothing is written"):
        invoke("export", "--run", run, tmp_path / "pack.jsonl")
    assert not (tmp_path / "pack.jsonl").exists()


def test_export_of_a_model_and_of_all(tmp_path: Path) -> None:
    file = tmp_path / "pack.jsonl"
    with pytest.raises(PackError, match="no verdicts to export"):
        invoke("export", file)
    record_grid()
    record_grid("scripted:contrarian")
    assert invoke_json("export", file, "--model", "scripted:trend")["verdicts"] == 105
    assert invoke_json("export", file)["verdicts"] == 210
    assert "210 verdicts" in invoke("export", file).stderr
    assert invoke("export", file, "--run", file, "--model", "x", code=2).stdout == ""


def test_import_says_what_it_did_and_refuses_a_conflict(tmp_path: Path) -> None:
    file, other = tmp_path / "pack.jsonl", tmp_path / "other"
    records = record_grid()
    invoke("export", file)
    assert invoke_json("import", file, "--cache", other)["added"] == 105
    assert invoke_json("import", file, "--cache", other)["unchanged"] == 105
    assert "105 unchanged" in invoke("import", file).stderr
    mine = Verdict(bullish=0.5, neutral=0.25, bearish=0.25)
    replace_verdict(records[3], mine)
    with pytest.raises(PackError, match="different verdicts for 1 keys"):
        invoke("import", file)
    assert invoke_json("import", file, "--on-conflict", "ours")["kept"] == 1
    assert VerdictCache().get_many([records[3].key])[records[3].key].verdict == mine
    assert invoke_json("import", file, "--on-conflict", "theirs")["replaced"] == 1
    assert VerdictCache().get_many([records[3].key])[records[3].key].verdict == records[3].verdict
    assert invoke("import", file, "--on-conflict", "mine", code=2)


def test_merge_does_not_depend_on_the_order(tmp_path: Path) -> None:
    files = []
    for model in ("scripted:trend", "scripted:contrarian"):
        record_grid(model)
        files.append(tmp_path / f"{model.split(':')[1]}.jsonl")
        invoke("export", files[-1], "--model", model)
    found = invoke_json("merge", *files, "--out", tmp_path / "one.jsonl")
    invoke("merge", *reversed(files), "-o", tmp_path / "other.jsonl")
    assert found["verdicts"] == 210
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_verify_finds_nothing_where_nothing_changed() -> None:
    record_grid()
    record_grid(reader="json")
    found = invoke_json("verify", "--sample", 1000)["models"]
    assert [(one["model"], one["asked"], one["same"]) for one in found] == [("scripted:trend", 210, 210)]
    assert (found[0]["largest"], found[0]["flipped"], found[0]["not_asked"]) == (0.0, [], 0)


def test_verify_reports_the_largest_drift_and_fails_on_a_flip() -> None:
    records = [record for record in record_grid() if record.verdict.action.name == "BULLISH"]
    bullish, neutral, bearish = records[0].verdict.probabilities
    replace_verdict(records[0], Verdict(bullish=bullish - 0.01, neutral=neutral + 0.01, bearish=bearish))
    drifted = invoke_json("verify", "--sample", 1000)["models"][0]
    assert drifted["same"] == 104
    assert drifted["largest"] == pytest.approx(0.01)
    assert drifted["flipped"] == []
    replace_verdict(records[1], Verdict(bullish=bearish, neutral=neutral, bearish=bullish))
    flipped = invoke_json("verify", "--sample", 1000, code=1)["models"][0]
    assert flipped["flipped"] == [{"key": records[1].key, "stored": "bearish", "now": "bullish"}]
    assert records[1].key[:12] in invoke("verify", "--sample", 1000, code=1).stdout
    replace_verdict(records[1], Verdict.invalid("cut off"))
    assert invoke_json("verify", "--sample", 1000, code=1)["models"][0]["largest"] == 1.0
    assert VerdictCache().get_many([records[1].key])[records[1].key].verdict.valid is False


def test_verify_takes_the_same_sample_for_the_same_seed() -> None:
    records = record_grid()
    other = Verdict(bullish=0.3, neutral=0.3, bearish=0.4)
    VerdictCache().put_many([Record(r.question, other) for r in records[:50]], overwrite=True)
    same = [
        invoke_json("verify", "--sample", 20, "--seed", seed, code=1)["models"][0]["same"]
        for seed in (0, 0, 1, 2)
    ]
    assert same[0] == same[1]
    assert len(set(same)) > 1


def test_verify_says_what_it_cannot_ask() -> None:
    with pytest.raises(ConfigError, match="no verdicts to verify"):
        invoke("verify")
    record_grid()
    cache = VerdictCache()
    sha256 = next(cache.records()).question.model_sha256
    text = question(model_sha256=sha256, reader="text", labels=())
    old = question(model_sha256=sha256, reader="json", sampling={"schema_sha256": "old"})
    cache.put_many([Record(text, GeneratedText(text="a", finished=True)), Record(old, verdict(0))])
    assert invoke_json("verify", "--sample", 1000)["models"][0]["not_asked"] == 2


def test_verify_needs_the_very_model() -> None:
    cache = VerdictCache()
    cache.put_model(identity(name="scripted:trend"))  # the name is known, but its hash is another
    cache.fetch([question()], Model())
    with pytest.raises(ModelNotFoundError, match=r"no model file 'scripted:trend' with SHA-256 abab"):
        invoke("verify")
    cache.put_model(identity(name="gone"))
    with pytest.raises(ModelNotFoundError, match="'gone' or 'scripted:trend'"):
        invoke("verify")


def test_verify_refuses_a_damaged_cache(tmp_path: Path) -> None:
    record_grid()
    file = tmp_path / "cache" / "cache.db"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CacheCorruptError):
        invoke("verify")


@pytest.mark.model
def test_verify_of_the_committed_pack_flips_nothing(repository: Path) -> None:
    invoke("import", repository / "data" / "demo_pack.jsonl")
    found = invoke_json("verify", "--sample", 4)["models"][0]
    assert (found["asked"], found["flipped"]) == (4, [])
    assert found["largest"] < 0.02


def test_repair_keeps_what_is_sound_and_says_what_is_lost(tmp_path: Path) -> None:
    records = record_grid()
    assert "105 verdicts, all of them sound; nothing was changed" in invoke("repair").output
    file = tmp_path / "cache" / "cache.db"
    digest = seal(records[7].key, records[7].body)[:80].encode()
    data = file.read_bytes()
    assert data.count(digest) == 1
    file.write_bytes(data.replace(digest, digest[:-1] + b"!"))
    outcome = invoke("repair").output.replace("\n", "")
    assert "104 verdicts and" in outcome
    assert f"1 lost ({records[7].key[:12]})" in outcome
    assert "cache.db.damaged-1" in outcome
    assert len(list(VerdictCache().records())) == 104
    again = invoke_json("repair")
    assert (again["verdicts"], again["lost"], again["damaged"]) == (104, [], None)


def test_prune_asks_first() -> None:
    record_grid()
    record_grid("scripted:contrarian")
    for typed in ("n\n", ""):
        outcome = invoke("prune", "--model", "scripted:trend", code=1, typed=typed)
        assert "Delete 105 verdicts of scripted:trend" in outcome.output
    assert VerdictCache().stats().verdicts == 210
    invoke("prune", "--model", "scripted:trend", typed="y\n")
    assert VerdictCache().stats().verdicts == 105
    assert invoke_json("prune", "--model", "scripted:contrarian", "--yes")["deleted"] == 105
    assert VerdictCache().stats().verdicts == 0
    with pytest.raises(ConfigError, match="it has none"):
        invoke("prune", "--model", "scripted:trend", "--yes")


def test_prune_of_a_model_without_a_name() -> None:
    VerdictCache().fetch([question()], Model())
    assert invoke_json("prune", "--model", "abababab", "--yes")["deleted"] == 1


def test_reproduce_says_identical_or_what_differs(run: Path, tmp_path: Path) -> None:
    pack, empty = tmp_path / "pack.jsonl", tmp_path / "empty"
    invoke("export", "--run", run, pack)
    assert invoke(run, to=reproduce_app).stdout == "identical\n"
    assert invoke(run, "--pack", pack, "--cache", empty, to=reproduce_app).stdout == "identical\n"
    assert not empty.exists()
    missing = invoke(run, "--cache", empty, to=reproduce_app, code=1).stdout
    assert missing.startswith(f"verdict: 105 of 105 are not stored in {empty}")
    document = json.loads(run.read_text())
    document["versions"]["pandas"] = "1"
    run.write_text(json.dumps(document))
    assert "under other versions: pandas" in invoke(run, to=reproduce_app).stderr
    document["runs"]["gated"]["trades"].pop()
    run.write_text(json.dumps(document))
    found = invoke_json(run, to=reproduce_app, code=1)
    assert found["identical"] is False
    assert [one["what"] for one in found["differences"]] == ["version", "trade"]


def test_the_demo_names_its_pack_where_verdicts_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with hint_at_demo_pack():
        pass
    assert capsys.readouterr().err == ""
    for error in (ReplayMiss("not stored"), ModelNotFoundError("no model file")):
        with pytest.raises(type(error)), hint_at_demo_pack():
            raise error
        assert "demo_pack.jsonl" in capsys.readouterr().err.replace("\n", "")
