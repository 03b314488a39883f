"""What came from a stranger has nothing sent anywhere before the user says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import Pack, Record, VerdictCache, import_pack
from bt_llm.cache._pack_files import write_pack
from bt_llm.cli import _trust as trust_module
from bt_llm.cli import app
from bt_llm.cli._trust import Trusting
from bt_llm.exceptions import BtLlmError, ConfigError, ModelNotFoundError
from bt_llm.models import ModelConfig, ModelKind, ScriptedBackend, _registry
from tests.cache_cases import question, verdict
from tests.engines import walk
from tests.faulty_server import FaultyServer
from tests.walk_forward_cases import cross_file


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def invoke(*arguments: object) -> str:
    """Run a command; an error of ours is raised."""
    outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(outcome.exception, BtLlmError):
        raise outcome.exception
    assert outcome.exit_code in (0, 1), (outcome.output, outcome.exception)
    return outcome.output


def received(tmp_path: Path, *names: str, **provenance: str) -> None:
    """Import a stranger's pack, of one verdict of a model of those names."""
    asked = question()
    texts = {"sha256": asked.model_sha256, "chat_template": "", "bos_token": "", "eos_token": ""}
    model = {"names": sorted(names), "details": {}, **texts}
    record = Record(asked, verdict(0), {"model": "llama-3.2-1b", **provenance})
    write_pack(Pack(records=(record,), models=(model,)), tmp_path / "pack.jsonl")
    import_pack(VerdictCache(), tmp_path / "pack.jsonl")


def test_verify_asks_no_server_that_a_pack_names(tmp_path: Path, server: FaultyServer) -> None:
    received(tmp_path, f"openai:{server.url}?model=m")
    with pytest.raises(ConfigError, match=rf"names {server.url}: .* only with --trust.*nothing was sent"):
        invoke("cache", "verify")
    assert not server.authorizations
    with pytest.raises(BtLlmError):  # it is asked, and is another model
        invoke("cache", "verify", "--trust")
    assert server.authorizations == {None}  # without any key


def test_verify_passes_over_a_name_that_would_choose_a_key(tmp_path: Path, server: FaultyServer) -> None:
    received(tmp_path, f"openai:{server.url}?model=m&key_env=BT_LLM_API_KEY", "gone")
    with pytest.raises(ModelNotFoundError, match="'gone'"):
        invoke("cache", "verify", "--trust")
    assert not server.authorizations


def test_verify_asks_no_server_that_is_said_to_have_answered(server: FaultyServer) -> None:
    asked = question()
    cache = VerdictCache()
    texts = {"sha256": asked.model_sha256, "chat_template": "", "bos_token": "", "eos_token": ""}
    model = {"names": [f"openai:*?sha256={'ab' * 32}"], "details": {}, **texts}
    cache.change_model(asked.model_sha256, lambda known: model)
    cache.put_many([Record(asked, verdict(0), {"server": server.url})])
    with pytest.raises(ConfigError, match="only with --trust"):
        invoke("cache", "verify")
    assert not server.authorizations


def test_verify_finds_a_model_of_this_machine_before_it_asks_about_an_address(
    server: FaultyServer,
) -> None:
    advisor = Advisor(AdvisorConfig(model="scripted:trend"))
    advisor.raw_cells(range(5))
    VerdictCache().change_model(
        advisor.identity.sha256,
        lambda known: {**known, "names": [f"openai:{server.url}?model=m", *known["names"]]},
    )
    assert "scripted:trend" in invoke("cache", "verify")
    assert not server.authorizations


class Elsewhere(ModelKind):
    """A kind of somebody else's that does not say where it sends what it is asked."""

    kind, form = "elsewhere", "elsewhere:URL"
    opened = False

    def open(self, config: ModelConfig) -> ScriptedBackend:
        type(self).opened = True
        return ScriptedBackend(lambda prompt: (0.5, 0.0, 0.5), name=self.name)


def test_a_kind_that_does_not_say_where_it_sends_is_asked_about_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_registry._registered, "elsewhere", Elsewhere)
    received(tmp_path, "elsewhere:http://evil/v1")
    with pytest.raises(ConfigError, match=r"names elsewhere:http://evil/v1: .* only with --trust"):
        invoke("cache", "verify")
    assert not Elsewhere.opened


STUDY = """\
strategy = "cross.py:Cross"
data = "bars.csv"
[gate.advisor]
model = "openai:URL?model=m"
[walk_forward]
train_size = 200
test_size = 100
[grid]
fast = [2, 4]
[compare]
models = ["openai:URL?model=m", "scripted:trend"]
"""


@pytest.mark.parametrize("command", ["walkforward", "compare", "plan --ask"])
def test_a_study_has_nothing_asked(tmp_path: Path, server: FaultyServer, command: str) -> None:
    cross_file(tmp_path)
    walk(400).to_csv(tmp_path / "bars.csv", index_label="time")
    study = tmp_path / "study.toml"
    study.write_text(STUDY.replace("URL", server.url))
    with pytest.raises(ConfigError, match=rf"study .* names {server.url}: .* only with --trust"):
        invoke(*command.split(), study)
    assert not server.authorizations
    assert not (tmp_path / "study-results").exists()
    invoke("plan", study)  # counts, and asks nobody
    assert not server.authorizations


def test_somebody_who_can_be_asked_is(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []
    answers = iter([True, False])
    monkeypatch.setattr(trust_module.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(
        trust_module.typer, "confirm", lambda text, err: bool(questions.append(text)) or next(answers)
    )
    trusting = Trusting("study a.toml", trust=False)
    assert trusting(["http://a:1/v1"])
    assert trusting(["http://a:1/v1"])  # asked once
    with pytest.raises(ConfigError, match=r"names http://b:2/v1; nothing was sent"):
        trusting(["http://b:2/v1", "http://a:1/v1"])
    assert questions == [
        f"study a.toml names http://{host}/v1. Send prompts there?" for host in ("a:1", "b:2")
    ]
