"""A manifest that a stranger wrote is run again without asking, reading or writing where it says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import CacheMode, VerdictCache, import_pack, only_replaying
from bt_llm.cli import app
from bt_llm.data import shipped
from bt_llm.exceptions import BtLlmError, ConfigError, ReplayMiss
from bt_llm.manifest import RunManifest, read_manifest, reproduce
from bt_llm.prompts import PromptTemplate
from tests.faulty_server import FaultyServer
from tests.manifest.test_manifest import STRATEGY, Place

OWN_ADVISOR = """
from bt_llm import AdvisorConfig, Gate


class Asks(Crosser):
    def __init__(self):
        super().__init__()
        config = AdvisorConfig(model="MODEL", cache_dir="FOLDER", cache_mode="record")
        self.own = Gate(advisor=config).attach(self)
"""


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def made_again(manifest: RunManifest, place: Place) -> bool:
    """Whether it is reproduced; an error of ours says no too."""
    try:
        return reproduce(manifest, cache_dir=place.cache).identical
    except BtLlmError:
        return False


GATES = {
    "an analyst's": lambda model, folder: {
        "type": "bt_llm.gates:TradeAdviceGate",
        "analyst": {
            "type": "bt_llm.advice:AnalystConfig",
            "model": model,
            "cache_dir": folder,
            "cache_mode": "record",
            "template": {"file": "trade", "name": "trade", "version": 1, "sha256": "TEMPLATE"},
        },
    },
    "a name of a model": lambda model, folder: {"type": "bt_llm.gates:TradeAdviceGate", "analyst": model},
    "an advisor's": lambda model, folder: {
        "type": "bt_llm.gates:Gate",
        "advisor": {
            "type": "bt_llm.advice:AdvisorConfig",
            "model": model,
            "cache_dir": folder,
            "cache_mode": "record",
            "template": {"file": "market", "name": "market", "version": 1, "sha256": "TEMPLATE"},
        },
    },
}


@pytest.mark.parametrize("kind", GATES)
def test_whoever_is_asked_replays(place: Place, server: FaultyServer, tmp_path: Path, kind: str) -> None:
    chosen, model = tmp_path / "chosen_by_the_sender", f"openai:{server.url}?model=m"
    gate = GATES[kind](model, str(chosen))
    for described in gate.values():
        if isinstance(described, dict):
            described["template"]["sha256"] = PromptTemplate.load(described["template"]["file"]).sha256

    def evil(document: dict[str, Any]) -> None:
        document.update(gate=gate, models=[], verdicts={})

    assert not made_again(place.edit(evil), place)
    assert not server.authorizations
    assert not chosen.exists()


def test_an_advisor_of_the_strategys_own_replays_from_the_readers_folder(
    place: Place, server: FaultyServer, tmp_path: Path
) -> None:
    chosen, file = tmp_path / "chosen_by_the_sender", place.folder / "mine.py"
    own = OWN_ADVISOR.replace("MODEL", f"openai:{server.url}?model=m").replace("FOLDER", str(chosen))
    file.write_text(STRATEGY + own)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = place.edit(lambda d: d["strategy"].update(name="Asks", sha256=digest))
    assert not made_again(manifest, place)
    assert not server.authorizations
    assert not chosen.exists()


def test_every_cache_replays_from_one_folder_for_a_while(tmp_path: Path) -> None:
    with only_replaying(tmp_path / "a"):
        cache = VerdictCache(tmp_path / "b", "record")
        assert (cache.directory, cache.mode) == (tmp_path / "a", CacheMode.REPLAY)
        config = AdvisorConfig(model="scripted:trend", cache_dir=tmp_path / "b", cache_mode="refresh")
        with pytest.raises(ReplayMiss):
            Advisor(config).raw_cells([0])
    assert VerdictCache(tmp_path / "b", "record").directory == tmp_path / "b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place_of", ["data", "strategy"])
@pytest.mark.parametrize("how", ["../secret", "absolute", "link"])
def test_files_outside_of_the_folders_that_were_named_are_not_read(
    place: Place, tmp_path: Path, place_of: str, how: str
) -> None:
    name = {"data": "bars.csv", "strategy": "mine.py"}[place_of]
    secret = tmp_path / "secret"
    secret.mkdir()
    (place.folder / name).rename(secret / name)
    stored = {"../secret": f"../secret/{name}", "absolute": str(secret / name), "link": name}[how]
    if how == "link":
        (place.folder / name).symlink_to(secret / name)
    manifest = place.edit(lambda d: d[place_of].update(file=stored))
    with pytest.raises(ConfigError, match=rf"the {place_of} .* is outside of .*--folder.*--{place_of}"):
        reproduce(manifest, cache_dir=place.cache)
    assert reproduce(manifest, cache_dir=place.cache, folders=[secret]).identical
    assert reproduce(manifest, cache_dir=place.cache, **{place_of: secret / name}).identical


def test_a_template_outside_is_not_read(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("format = 1")

    def outside(document: dict[str, Any]) -> None:
        document["gate"]["advisor"]["template"]["file"] = "../other.toml"

    with pytest.raises(ConfigError, match=r"the prompt template '../other.toml' of the manifest is outs"):
        reproduce(place.edit(outside), cache_dir=place.cache)


@pytest.mark.parametrize("stored", ["a\0b", "/dev/zero", "/dev/stdin", "here.pipe", "x" * 5000, "."])
def test_what_is_no_file_is_not_opened(place: Place, stored: str) -> None:
    os.mkfifo(place.folder / "here.pipe")
    manifest = place.edit(lambda d: d["data"].update(file=stored))
    with pytest.raises(ConfigError, match="of the manifest is"):
        reproduce(manifest, cache_dir=place.cache)


def test_what_code_is_run_is_said_before_it_runs(place: Place) -> None:
    ran = place.folder / "ran"
    code = f"from helper import X\nopen({str(ran)!r}, 'w').close()\n{STRATEGY}"
    (place.folder / "mine.py").write_text(code)
    (place.folder / "helper.py").write_text("X = 1\n")
    digests = {
        name: hashlib.sha256((place.folder / name).read_bytes()).hexdigest()
        for name in ("mine.py", "helper.py")
    }
    place.edit(
        lambda d: d["strategy"].update(
            sha256=digests["mine.py"], neighbours={"helper.py": digests["helper.py"]}
        )
    )
    said: list[tuple[str, str, bool]] = []
    found = reproduce(
        read_manifest(place.run),
        cache_dir=place.cache,
        on_code=lambda path, sha256: said.append((path.name, sha256, ran.exists())),
    )
    assert found.identical
    assert said == [(name, digest, False) for name, digest in digests.items()]
    assert ran.exists()
    ran.unlink()
    said.clear()
    place.edit(lambda d: d["strategy"].update(sha256="ab" * 32))
    refused = reproduce(
        read_manifest(place.run),
        cache_dir=place.cache,
        on_code=lambda path, sha256: said.append((path.name, sha256, True)),
    )
    assert not refused.identical
    assert not said
    assert not ran.exists()


def test_the_command_prints_it(tmp_path: Path) -> None:
    import_pack(VerdictCache(), shipped("demo_pack.jsonl"))
    outcome = CliRunner().invoke(app, ["reproduce", str(shipped("demo_run.json"))])
    digest = hashlib.sha256(shipped("sma_cross.py").read_bytes()).hexdigest()
    lines = outcome.stderr.replace("\n", "")
    assert f"sma_cross.py, SHA-256 {digest}" in lines
    assert "not compared: the builds that answered" in lines
    assert outcome.stdout == "identical\n"
    as_json = CliRunner().invoke(app, ["reproduce", str(shipped("demo_run.json")), "--format", "json"])
    assert json.loads(as_json.stdout)["not_compared"]
