"""Files are there whole or not at all, and no folder outlives its process for long."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from bt_llm.writing import is_of_ours, refuse_others, temporary_folder, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    write_whole(file, "one\n")
    file.chmod(0o640)
    write_whole(file, b"two\r\n")
    assert file.read_bytes() == b"two\r\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    write_whole(file, "one\n")

    def full(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, "two\n")
    assert file.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [file]


def test_two_threads_that_write_the_same_file_write_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, others = tmp_path / "a.csv", []

    def meanwhile(handle: int) -> None:
        if not others:
            others.append(threading.Thread(target=write_whole, args=(file, "two\n")))
            others[0].start()
            others[0].join()
            assert file.read_text() == "two\n"

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(file, "one\n")
    assert file.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "a.csv")
    write_whole(tmp_path / "link.csv", "one\n")
    assert (tmp_path / "there" / "a.csv").read_text() == "one\n"
    assert (tmp_path / "link.csv").is_symlink()
    write_whole(os.devnull, "one\n")
    assert not Path(os.devnull).is_file()


WRITES = """
import sys, time
from bt_llm.writing import is_of_ours, refuse_others, temporary_folder, write_whole
with temporary_folder() as folder:
    (folder / "inside").touch()
    print(folder, flush=True)
    while True:
        for text in ("a", "b"):
            write_whole(sys.argv[1], text * 300_000)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_kill_leaves_a_whole_file_and_the_next_process_removes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert (folder / "inside").exists()
        assert not file.exists() or file.read_text() in ("a" * 300_000, "b" * 300_000)
    write_whole(file, "whole")
    with temporary_folder() as own:
        assert own.parent == tmp_path
        assert sorted(tmp_path.iterdir()) == sorted([file, own])
    assert list(tmp_path.iterdir()) == [file]


def test_the_folder_of_a_process_that_runs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [tmp_path / f"bt_llm_{os.getppid()}_x", tmp_path / "bt_llm_notes", tmp_path / "other"]
    for other in others:
        other.mkdir()
    with temporary_folder():
        assert all(other.exists() for other in others)


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b"", True),
        (b"<!DOCTYPE html><p>", True),
        (b'{"about":[],"kind":"bt_llm pack"}', True),
        (gzip.compress(b'{"kind":"bt_llm pack"}', mtime=0), True),
        (b"run,opened,closed\n", True),
        (b"opened at nine,closed\n", False),
        (b"time,open,high,low,close,volume\n", False),
        (b"a,cell,b\n", False),
        (b'{"kind":"another"}', False),
        (b"\x1f\x8bnot gzip", False),
    ],
)
def test_only_what_is_of_ours_may_be_written_over(tmp_path: Path, content: bytes, ours: bool) -> None:
    path, free = tmp_path / "file", tmp_path / "free"
    path.write_bytes(content)
    assert is_of_ours(path) == ours
    if ours:
        refuse_others(free, path)
    else:
        with pytest.raises(FileExistsError, match="a file is there that bt_llm has not written"):
            refuse_others(free, path)
    assert path.read_bytes() == content
