"""The attacks of ``make attack``, a few of each; the figures of SECURITY.md are from thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack.interrupts import Stopped
from tests.attack.kills import WRITERS, kill_one
from tests.attack.mutations import KINDS, Kind, attack, tally
from tests.attack.run import BEGIN, END, PAGE, Figure, page_with


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_are_refused_in_a_line_or_read_right(kind: str, tmp_path: Path) -> None:
    counted, failures = tally(attack(kind, tmp_path, 25))
    assert failures == []
    assert sum(counted.values()) == 25
    assert counted["refused"] > 10


@pytest.mark.parametrize(
    ("read", "what"),
    [
        ("lambda file, sound: ''", "read"),
        ("lambda file, sound: 'other verdicts'", "wrong"),
        ("lambda file, sound: 1 / 0", "traceback"),
        ("lambda file, sound: file.write_text('') and '' or ''", "changed"),
        ("lambda file, sound: os.kill(os.getpid(), 9)", "crash"),
    ],
)
def test_what_goes_wrong_is_seen(
    read: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def reader(file: Path, sound: Path) -> str:
        return "" if file.name.startswith("untouched") else eval(read, {"os": os})(file, sound)

    def make(folder: Path) -> Path:
        (folder / "sound.txt").write_text("1 2 3\n4 5 6\n")
        return folder / "sound.txt"

    monkeypatch.setitem(KINDS, "texts", Kind(make, reader))
    counted, _ = tally(attack("texts", tmp_path, 2))
    assert counted == {what: 2}


@pytest.mark.parametrize("kind", WRITERS)
def test_killed_writers_lose_nothing(kind: str, tmp_path: Path) -> None:
    assert [kill_one(kind, tmp_path, seed) for seed in range(2)] == ["", ""]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"code": 0}, "exit code 0"),
        ({"errors": "Traceback (most recent call last):\nerror: interrupted"}, "1 lines of errors"),
        ({"errors": "error: a\nerror: interrupted"}, "2 lines of errors"),
        ({"left": 2}, "2 processes are left"),
        ({"seconds": 2.5}, "took 2.5 s"),
    ],
)
def test_what_is_wrong_with_a_stopped_command_is_seen(changes: dict[str, object], problem: str) -> None:
    clean: dict[str, object] = {"verb": "run", "at_s": 1.0, "code": 130, "seconds": 0.2, "left": 0}
    clean["errors"] = "error: interrupted"
    assert Stopped(**{**clean, **changes}).problem == problem  # type: ignore[arg-type]


def test_the_figures_take_their_place_in_the_page() -> None:
    page = page_with(
        PAGE.read_text(encoding="utf-8"), [Figure("kills", "7", "7 lost nothing", [])], 1.0, 60.0
    )
    assert page.count(BEGIN) == page.count(END) == 1
    assert "| kills | 7 | 7 lost nothing |\n" in page
    assert page.partition(BEGIN)[0] == PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
