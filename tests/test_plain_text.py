"""What strangers write never reaches a terminal, a log or a page as anything but text."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.table import Table

from bt_llm import exceptions, plain_text
from bt_llm.cli._output import Console
from bt_llm.data import load_bars
from bt_llm.plain_text import printable
from bt_llm.report._page import _json
from bt_llm.report._policy_page import write_page

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\x08\r\u202egpj.exe\u2066\udc80"
OBEYED = set(EVIL) - set("]0;owned[2J31mgpj.exe")


def assert_shown(text: str) -> None:
    assert "owned" in text
    assert not OBEYED & set(text)


def test_pictures_are_as_long_as_what_they_stand_for() -> None:
    assert len(printable(EVIL)) == len(EVIL)
    assert printable("é\t一\n👩‍🔬") == "é\t一\n👩‍🔬"
    assert printable("".join(map(chr, range(32)))) == "".join(
        "\t" if code == 9 else "\n" if code == 10 else chr(0x2400 + code) for code in range(32)
    )


@pytest.mark.parametrize("name", exceptions.__all__)
def test_messages_of_errors_are_printable(name: str) -> None:
    assert_shown(str(getattr(exceptions, name)(f"no model {EVIL}")))


def test_logs_are_printable(caplog: pytest.LogCaptureFixture) -> None:
    plain_text.logger("bt_llm.test").warning("no model %s", EVIL)
    plain_text.logger("bt_llm.test").warning("%d", 1)
    assert_shown(caplog.text)
    assert [record.message for record in caplog.records][1] == "1"
    assert len(logging.getLogger("bt_llm.test").filters) == 1


def test_a_terminal_gets_the_styles_of_the_console_and_the_pictures_of_the_text() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="standard", width=80)
    table = Table("name")
    table.add_row(f"[bold]{EVIL}[/]")
    console.print(table)
    console.print(EVIL, markup=False, highlight=False)
    text = written.getvalue()
    assert "\x1b[1m" in text
    assert_shown(text.replace("\x1b[1m", "").replace("\x1b[0m", ""))


def test_a_page_shows_it_too(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", f"<p>{EVIL}</p>\n")
    assert_shown((tmp_path / "page.html").read_text(encoding="utf-8"))
    charts = _json([{"names": [EVIL], EVIL: 1.0}])
    assert_shown(json.loads(charts)[0]["names"][0] + next(iter(json.loads(charts)[0].keys() - {"names"})))


def test_what_a_file_of_bars_says_is_shown(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(f"time,open,high,low,close{EVIL[:-1]}\n1,2,3,4,5\n", encoding="utf-8")
    with pytest.raises(exceptions.DataError) as refusal:
        load_bars(tmp_path / "b.csv")
    assert not OBEYED & set(str(refusal.value))
