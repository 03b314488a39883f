"""The bar of long work: when it is drawn, that it moves and goes away, and how it is turned off."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

from bt_llm import progress
from bt_llm.progress import current, part, partly, quiet, show_progress, shows_progress, telling, told, within


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    written = Terminal()
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(progress, "_APART", -1.0)
    monkeypatch.delenv("BT_LLM_PROGRESS", raising=False)
    yield written
    show_progress()


@shows_progress("steps")
def work(steps: int, on_progress: Any = None) -> int:
    for done in range(steps + 1):
        if on_progress is not None:
            on_progress(done, steps)
    return steps


@shows_progress("symbols")
def nested() -> None:
    outer, inner = current("symbols"), told()
    assert outer is not None
    assert inner is not None
    outer(1, 4)
    inner(1, 2)
    work(2)


def test_a_bar_is_drawn_moves_and_goes_away(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        assert work(4) == 4
    lines = [line.strip() for line in terminal.getvalue().split("\r")]
    assert [line.partition(",")[0] for line in lines[1:5]] == [
        "." * 20 + " steps 0 of 4",
        "#####" + "." * 15 + " steps 1 of 4",
        "#" * 10 + "." * 10 + " steps 2 of 4",
        "#" * 15 + "....." + " steps 3 of 4",
    ]
    assert lines[-1] == ""
    assert current("steps") is None


def test_what_is_within_something_moves_its_bar(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        nested()
    assert "######" in terminal.getvalue()  # one of four, and half of the second
    assert "symbols 1 of 4, asking 1 of 2," in terminal.getvalue()
    assert "steps" not in terminal.getvalue()  # the outermost has the bar


def test_short_work_draws_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    with contextlib.redirect_stderr(terminal):
        work(4)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("how", ["switch", "environment", "worker", "telling", "own"])
def test_it_can_be_turned_off_and_leaves_who_is_told_alone(
    how: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    with contextlib.redirect_stderr(terminal):
        if how == "switch":
            show_progress(False)
            work(2)
        elif how == "environment":
            monkeypatch.setenv("BT_LLM_PROGRESS", "off")
            work(2)
        elif how == "worker":
            with quiet():
                work(2)
        elif how == "telling":
            with telling(lambda done, total: seen.append((done, total))):
                work(2)
                tell = told()
                assert tell is not None
                tell(1, 3)
            assert seen == [(1, 3)]
        else:
            work(2, on_progress=lambda done, total: seen.append((done, total)))
            assert seen == [(0, 2), (1, 2), (2, 2)]
    assert terminal.getvalue() == ""


def test_where_nobody_looks_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    work(3)
    assert capsys.readouterr() == ("", "")


def test_a_part_of_a_batch_is_told_and_never_goes_back_or_ends() -> None:
    seen: list[tuple[int, int]] = []
    answered: list[int] = []
    part(0.5)  # nobody listens
    with partly(lambda done, total: seen.append((done, total)), answered, 100):
        part(0.25)
        answered += range(60)
        part(0.5)
        part(1.0)
    assert seen == [(25, 100), (60, 100), (99, 100)]


def test_within_a_piece_it_is_told_how_far_that_is_but_not_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    now = [0.0]
    monkeypatch.setattr("bt_llm.progress.time.monotonic", lambda: now[0])
    assert within() is None  # nobody listens
    with partly(lambda done, _: seen.append(done), [], 100):
        part(0.25, until=0.75)
        tell = within()
        assert tell is not None
        for now[0], fraction in ((0.1, 0.1), (0.6, 0.25), (0.7, 0.3), (1.2, 0.5), (1.3, 0.6)):
            tell(fraction)
        part(0.75)
        for now[0] in (1.9, 2.5):
            tell(0.5)  # of nothing: still there
        part(0.5)
    assert seen == [25, 37, 50, 75, 75, 75, 75]
