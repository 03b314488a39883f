"""What is no file, or too much of one, is refused at once by whatever reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bt_llm.cache._pack_files import read_pack
from bt_llm.data import Headlines, load_bars
from bt_llm.exceptions import BtLlmError
from bt_llm.files import read_bytes, read_text
from bt_llm.gates._description import file_sha256_of
from bt_llm.manifest import read_manifest
from bt_llm.models import DatedFamily, file_sha256, read_facts
from bt_llm.prompts import PromptTemplate
from bt_llm.research import BoardTasks, load_study
from bt_llm.sources._files import read_source

READERS: dict[str, Callable[[Path], Any]] = {
    "pack": read_pack,
    "manifest": read_manifest,
    "study": load_study,
    "template": PromptTemplate.load,
    "bars": load_bars,
    "headlines": Headlines.load,
    "header": read_facts,
    "hash of a model": file_sha256,
    "hash of a gate's file": lambda path: file_sha256_of("gate", path),
}


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.toml")
    return folder / "pipe.toml"


TRAPS: dict[str, Callable[[Path], Path]] = {
    "a pipe that nobody writes to": pipe,
    "a device without an end": lambda folder: Path("/dev/zero"),
    "a path with a null byte": lambda folder: folder / "a\0.toml",
    "a folder": lambda folder: folder,
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_in_one_line(reader: str, trap: str, tmp_path: Path) -> None:
    with pytest.raises(BtLlmError) as refusal:
        READERS[reader](TRAPS[trap](tmp_path))
    assert "\n" not in str(refusal.value)


TABLES: dict[str, Callable[[Path], Any]] = {
    "study": load_study,
    "template": PromptTemplate.load,
    "family": DatedFamily.read,
    "board": lambda path: BoardTasks.read(path.rename(path.parent / "tasks.toml").parent),
}


@pytest.mark.parametrize("reader", TABLES)
def test_a_mark_at_the_beginning_of_a_table_is_no_mistake_in_it(reader: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("format = 7\n", encoding="utf-8-sig")
    with pytest.raises(BtLlmError, match=r"format (= )?7"):
        TABLES[reader](tmp_path / "a.toml")


def test_source_code_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is no file but a device, a pipe or a socket"):
        read_source(pipe(tmp_path))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_file_is_read_up_to_its_bound_which_a_user_can_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a\r\n" * 400_000)
    assert len(read_bytes(file, 2)) == 1_200_000
    assert len(read_text(file, 2)) == 800_000
    with pytest.raises(OSError, match=r"it is over 1 MB; set BT_LLM_MAX_MB to read more of what you trust"):
        read_bytes(file, 1)
    monkeypatch.setenv("BT_LLM_MAX_MB", "2")
    assert len(read_bytes(file, 1)) == 1_200_000
