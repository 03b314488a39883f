from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models import SIDES, DecisionBook, DecisionsModel, MadeDecision, word_of

NOON = datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def model(folder: Path, text: str, options: str = "", name: str = "log.csv") -> DecisionsModel:
    (folder / name).write_text(text, encoding="utf-8")
    return DecisionsModel(f"{folder / name}{options and '?' + options}")


def book(*times: datetime.datetime, **how: object) -> DecisionBook:
    rows = tuple(MadeDecision(time, "", "buy", 1.0) for time in times)
    return DecisionBook(name="log.csv", sha256="", rows=rows, **how)  # type: ignore[arg-type]


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    csv = model(
        tmp_path,
        '\ufeffTime, Symbol ,why,decision,probability\n2024-01-05T12:00:00Z,AAPL,"a, b",BUY,0.7\n'
        "2024-01-08T12:00:00+00:00,MSFT,,hold,\n",
    )
    lines = model(
        tmp_path,
        '{"time": "2024-01-05T12:00:00+00:00", "symbol": "AAPL", "decision": "BUY", "probability": 0.7}\n\n'
        '{"time": "2024-01-08T12:00:00Z", "symbol": "MSFT", "decision": "hold", "probability": null}\n',
        name="log.jsonl",
    )
    assert csv.book.rows == lines.book.rows
    assert csv.book.rows[0] == MadeDecision(NOON, "AAPL", "BUY", 0.7)
    assert csv.book.rows[1].probability == 1.0
    assert csv.book.sha256 != lines.book.sha256


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=20, unique=True),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(0, 40),
    st.booleans(),
)
def test_what_counts_at_a_close_was_made_by_then_in_the_bar_or_stands(
    minutes: list[int], start: int, length: int, valid: int, at_close: bool
) -> None:
    minute = datetime.timedelta(minutes=1)
    made = book(*(NOON + m * minute for m in minutes), valid=valid * minute, at_close=at_close)
    line = made.on("x", datetime.UTC)
    for number in range(20):
        opened = NOON + (start + number * length) * minute
        closed = opened + length * minute
        row = line.row_at(opened, closed)
        known = [
            m for m in minutes if (NOON + m * minute <= closed if at_close else NOON + m * minute < closed)
        ]
        if not known:
            assert row == -1
            continue
        newest = NOON + max(known) * minute
        own = newest > opened if at_close else newest >= opened
        if own or closed - newest <= valid * minute:
            assert made.rows[row].time == newest
        else:
            assert row == -1


def test_a_date_is_of_the_bar_of_that_day_in_the_zone_of_the_bars(tmp_path: Path) -> None:
    found = model(tmp_path, "time,symbol,decision\n2024-01-05,AAPL,buy\n").book
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    day = datetime.timedelta(days=1)
    for zone in (datetime.UTC, tokyo):
        opened = datetime.datetime(2024, 1, 5, tzinfo=zone)
        line = found.on("aapl", zone)
        assert [line.row_at(opened + k * day, opened + (k + 1) * day) for k in (-1, 0, 1)] == [-1, 0, -1]


def test_symbols_are_compared_by_their_letters_and_digits(tmp_path: Path) -> None:
    found = model(tmp_path, "time,symbol,decision\n2024-01-05,EUR/USD,buy\n").book
    assert len(found.on("eurusd", datetime.UTC).times) == 1
    assert len(found.on("eurgbp", datetime.UTC).times) == 0
    stated = model(tmp_path, "time,symbol,decision\n2024-01-05,EUR/USD,buy\n", "symbol=EURUSD").book
    assert len(stated.on("data", datetime.UTC).times) == 1


def test_two_decisions_of_one_time_must_be_one(tmp_path: Path) -> None:
    rows = "time,symbol,decision\n2024-01-05,AAPL,buy\n2024-01-05,MSFT,sell\n2024-01-05,AAPL,"
    assert len(model(tmp_path, rows + "buy\n").book.on("AAPL", datetime.UTC).times) == 2
    with pytest.raises(ConfigError, match="rows 1 and 3 decide otherwise on 'AAPL'"):
        model(tmp_path, rows + "sell\n").book.on("AAPL", datetime.UTC)


def test_words_have_sides() -> None:
    words = ("BUY", "Strong_Buy", "overweight", "Hold", "-1", "strong-sell", "1")
    assert [SIDES[word_of(word)] for word in words] == [1, 1, 1, 0, -1, -1, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns"),
        ("a,b\n1,2\n", "columns a, b: expected time and decision"),
        ("time,decision,time\n", "each once"),
        ("time,decision\n", "no decisions"),
        ("time,decision\n2024-01-05\n", "row 1: 1 cells under 2 columns"),
        ("time,decision\nsoon,buy\n", "row 1: time 'soon'"),
        ("time,decision\n1704412800,buy\n", "time '1704412800'"),
        ("time,decision\n2024-01-05,\n", "no decision"),
        ("time,decision\n2024-01-05," + "b" * 201 + "\n", "at most 200"),
        ("time,decision\n2024-01-05,b\x07y\n", "decision 'b.x07y'"),
        ("time,decision,probability\n2024-01-05,buy,1.5\n", "probability '1.5'"),
        ("time,decision,probability\n2024-01-05,buy,nan\n", "probability 'nan'"),
        ("time,decision\n2024-01-05,buy\n2024-01-06T00:00:00Z,buy\n", "some times have an offset"),
        ('time,decision\n2024-01-05,"buy\n', "not CSV"),
        ("time,decision,probabilty\n2024-01-05,buy,0.2\n", "'probabilty' is left alone: did you mean 'prob"),
    ],
)
def test_a_file_without_decisions_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _ = model(tmp_path, text).book
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "an object"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"time": 3, "decision": "buy"}', "time 3"),
        ('{"time": "2024-01-05", "decision": "buy", "probability": 1%s}' % ("0" * 400), "probability 10+:"),
        ('{"time": "2024-01-05", "decision": "buy", "symbols": "a"}', "row 1: 'symbols' is left alone"),
        (
            '{"time": "2024-01-05", "decision": "buy", "decision": "sell"}',
            "row 1: decision stands in it twice",
        ),
    ],
)
def test_a_line_that_is_no_decision_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _ = model(tmp_path, line, name="log.jsonl").book


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"time,decision\n\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 14"):
        _ = DecisionsModel(str(tmp_path / "log.csv")).book
    with pytest.raises(ModelNotFoundError, match="no such file"):
        _ = DecisionsModel(str(tmp_path / "no.csv")).book
    with pytest.raises(ConfigError, match="directory"):
        _ = DecisionsModel(str(tmp_path)).book


@pytest.mark.parametrize(
    "options", ["stamp=open&stamp=close", "x=1", "stamp=mid", "zone=Nowhere", "valid=3", "&"]
)
def test_options_are_checked_when_they_are_given(options: str) -> None:
    with pytest.raises(ConfigError, match="decisions: "):
        DecisionsModel(f"log.csv?{options}")
