"""Files that llama.cpp would end the process over, files in parts, and names that are nearly a file's."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import PoolingType

import tests.models.architectures as architectures
from bt_llm.exceptions import ModelFileError, ModelNotFoundError
from bt_llm.models import (
    LlamaModel,
    ModelConfig,
    Prompt,
    file_sha256,
    find_model,
    identify,
    kind_of,
    list_models,
    read_facts,
)
from bt_llm.models._files import file_stamp
from bt_llm.models.llama import _trial as trial
from bt_llm.models.llama._trial_child import REFUSED, main
from tests.models.architectures import write_full, write_model

UP = [Prompt(("Up or down? ", "It goes"))]


def score(path: Path) -> tuple[float, ...]:
    model = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    ((one,),) = model.score(UP, [" up", " down"])
    model.close()
    return one.logprobs


# -- what is no language model


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"causal_attention": False}, "an encoder or a diffusion model \\(llama\\)"),
        ({"pooling_type": PoolingType.LAST}, "an embedding model \\(llama\\): it has no next word to say"),
    ],
)
def test_what_says_no_next_word_is_refused_before_llama_cpp_sees_it(
    tmp_path: Path, extra: dict[str, object], words: str
) -> None:
    path = write_full(tmp_path / "m.gguf", "llama", **extra)
    for read in (read_facts, identify, score):
        with pytest.raises(ModelFileError, match=words):
            read(path)


def test_an_encoder_is_known_by_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, layers, options = architectures.ARCHITECTURES["llama"]
    monkeypatch.setitem(architectures.ARCHITECTURES, "bert", ("bert", layers, options))
    with pytest.raises(ModelFileError, match=r"an encoder or a diffusion model \(bert\)"):
        read_facts(write_full(tmp_path / "bge.gguf", "bert"))


@pytest.fixture
def doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with one token twice."""
    tokens = architectures.byte_tokens()
    monkeypatch.setattr(architectures, "byte_tokens", lambda: [*tokens[:-1], tokens[33]])
    return write_full(tmp_path / "doubled.gguf", "llama")


def test_a_doubled_token_is_named(doubled: Path) -> None:
    with pytest.raises(ModelFileError, match="token 255 of its vocabulary, '!', is there twice"):
        score(doubled)


# -- the first load in a process of its own


def test_what_ends_the_process_that_loads_it_is_an_error_here(
    doubled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "check_vocabulary", lambda path: None)
    with pytest.raises(ModelFileError, match=r"llama\.cpp ends the process that loads it \(GGML_ASSERT\("):
        score(doubled)
    with pytest.raises(ModelFileError, match="ends the process"):
        score(doubled)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the child processes; what other tests have tried is forgotten."""
    run, commands = subprocess.run, list[list[str]]()

    def counting(command, **options):
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(trial.subprocess, "run", counting)
    monkeypatch.setattr(trial, "_tried", set())
    return commands


def test_a_content_is_tried_once(
    tmp_path: Path, children: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "m.gguf", "llama")
    first = score(path)
    assert score(path) == first
    assert [command[-2:] for command in children] == [[str(path), "0"]]
    monkeypatch.setattr(trial, "_tried", set())  # as another process has it
    assert score(path) == first
    assert len(children) == 1, "the cache folder remembers"
    os.utime(path)
    score(path)
    assert len(children) == 2, "the file may be another one now"


def test_a_copy_of_a_file_whose_hash_is_known_counts_as_tried(
    tmp_path: Path, children: list[list[str]]
) -> None:
    path = write_model(tmp_path / "m.gguf", "llama")
    for one in (path, Path(shutil.copy(path, tmp_path / "copy.gguf"))):
        model = LlamaModel(ModelConfig(model_path=one, n_threads=1))
        assert model.identity.sha256
        list(model.score(UP, [" up", " down"]))
        model.close()
    assert len(children) == 1


@pytest.mark.model
def test_the_packaged_model_and_known_hashes_need_no_trial(
    smollm2_path: Path, children: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.try_load(smollm2_path, file_stamp(smollm2_path))
    path = write_full(tmp_path / "m.gguf", "llama")
    monkeypatch.setattr(trial, "_KNOWN", {file_sha256(path)})
    trial.try_load(path, file_stamp(path), file=trial.IdentifiedFile.of(path))
    assert children == []


def test_the_child_says_whether_llama_cpp_takes_a_file(tmp_path: Path) -> None:
    assert main(str(write_model(tmp_path / "m.gguf", "lfm2")), "0") == 0
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    assert main(str(broken), "0") == REFUSED


def test_where_no_process_can_be_started_the_file_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(trial, "_tried", set())
    monkeypatch.setattr(trial.subprocess, "run", refused)
    assert len(score(write_model(tmp_path / "m.gguf", "llama"))) == 2
    assert "could not be tried in a process of its own: no more processes" in caplog.text


# -- parts


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_full(tmp_path / "m.gguf", "llama", tensors_a_part=12)


def test_a_model_in_parts_is_its_first_part(split: Path, tmp_path: Path) -> None:
    assert split.name == "m-00001-of-00003.gguf"
    whole = write_full(tmp_path / "whole.gguf", "llama")
    assert score(split) == score(whole)
    facts, one = read_facts(split), read_facts(whole)
    assert (facts.parameters, facts.n_vocab, facts.kv_width) == (one.parameters, one.n_vocab, one.kv_width)
    assert facts.file_bytes == sum(part.stat().st_size for part in tmp_path.glob("m-*.gguf"))
    assert identify(split).name == "m"
    assert abs(facts.weight_bytes - one.weight_bytes) < 1000, "but for padding"


def test_the_hash_is_that_of_all_parts_and_so_is_the_stamp(split: Path, tmp_path: Path) -> None:
    import hashlib

    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    assert file_sha256(split) == hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    before = file_stamp(split)
    assert file_stamp(split) == before
    os.utime(parts[2])
    assert file_stamp(split) != before


def test_a_missing_or_another_part_is_named(split: Path) -> None:
    second = split.with_name("m-00002-of-00003.gguf")
    with pytest.raises(ModelFileError, match=r"is part 2 of 3: expected the first, m-00001-of-00003\.gguf"):
        score(second)
    second.unlink()
    with pytest.raises(ModelFileError, match=r"one of 3 parts, and m-00002-of-00003\.gguf is not beside it"):
        score(split)


def test_a_renamed_part_is_refused(split: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="one of 3 parts by its header, and one of 1 by its name"):
        read_facts(Path(shutil.copy(split, tmp_path / "renamed.gguf")))


# -- names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put empty files into the models folder."""
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(tmp_path))

    def put(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_bytes(b"GGUF")

    return put


@pytest.mark.parametrize("name", ["llama-3.2-1b", "Llama-3.2-1B", "models/llama-3.2-1b.gguf"])
def test_a_name_finds_the_one_file_of_that_model_and_says_so(
    folder: Callable[..., None], name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bt_llm.models import _files

    monkeypatch.setattr(_files, "_told", set())
    folder(
        "Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Llama-3.2-3B-Instruct-Q4_K_M.gguf", "llama-3.2-1b-trader.gguf"
    )
    with caplog.at_level(logging.WARNING, logger="bt_llm.models"):
        assert find_model(name).name == "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
        find_model(name)
    assert caplog.text.count("taking Llama-3.2-1B-Instruct-Q4_K_M.gguf, the only file of that model") == 1
    assert kind_of(name).address.endswith("Llama-3.2-1B-Instruct-Q4_K_M.gguf")


def test_of_several_none_is_taken_and_an_exact_name_is(folder: Callable[..., None]) -> None:
    folder("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Llama-3.2-1B-Instruct-Q8_0.gguf")
    with pytest.raises(ModelNotFoundError, match=r"near names: .*Llama-3\.2-1B-Instruct-Q4_K_M"):
        find_model("llama-3.2-1b")
    folder("llama-3.2-1b.gguf")
    assert find_model("llama-3.2-1b").name == "llama-3.2-1b.gguf"


def test_parts_are_listed_once_under_the_models_name(folder: Callable[..., None]) -> None:
    folder("big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "small.gguf")
    assert {name: path.name for name, path in list_models().items() if name != "smollm2"} == {
        "big": "big-00001-of-00002.gguf",
        "small": "small.gguf",
    }
    assert find_model("big").name == "big-00001-of-00002.gguf"
