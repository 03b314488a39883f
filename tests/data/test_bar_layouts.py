"""Text files of any layout: read right, or refused; never wrong."""

from __future__ import annotations

import csv
import io
import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.data import COLUMNS, bars_sha256, load_bars
from bt_llm.data import _files as files  # type: ignore[attr-defined]
from bt_llm.exceptions import DataError
from tests.data.bar_cases import TWO_BARS, Writer, refused

TIMES = (
    "%Y-%m-%d %H:%M:%S",
    "%Y.%m.%d %H:%M",
    "%Y%m%d %H%M%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %I:%M %p",
    "%s",
    "%s000",
)
HEADERS = (
    ("time", "open", "high", "low", "close", "volume"),
    ("Datum", "Erster", "Hoch", "Tief", "Schlusskurs", "Stuecke"),
    ("日期", "开盘", "最高", "最低", "收盘", "成交量"),
    ("Date", "Open", "High", "Low", "Close/Last", "Vol."),
    None,
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "cp1252")


def walk(count: int, seed: int, *, digits: int) -> pd.DataFrame:
    """A random walk of bars a half-hour apart, over more than twelve days."""
    generator = np.random.default_rng(seed)
    close = np.round(5000 + np.cumsum(generator.normal(0, 5, count)), digits)
    opened = np.round(close + generator.normal(0, 2, count), digits)
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    values = {
        "open": opened,
        "high": np.round(top + generator.exponential(1, count), digits),
        "low": np.round(bottom - generator.exponential(1, count), digits),
        "close": close,
        "volume": generator.integers(1, 10**7, count).astype(float),
    }
    values["high"], values["low"] = np.maximum(values["high"], top), np.minimum(values["low"], bottom)
    return pd.DataFrame(values, index=pd.date_range("2021-01-05", periods=count, freq="7h30min", name="time"))


def written(
    bars: pd.DataFrame,
    *,
    delimiter: str,
    decimal: str,
    group: str,
    names: tuple[str, ...] | None,
    time: str,
    digits: int,
) -> str:
    """Bars as text in one layout."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    if names is not None:
        writer.writerow(names)
    swap = str.maketrans({",": group, ".": decimal})
    for stamp, *values in bars.itertuples():
        seconds = str(int(stamp.timestamp()))
        text = stamp.strftime(time.replace("%s", "@")).replace("@", seconds)
        writer.writerow(
            [text, *(f"{value:,.{digits}f}".translate(swap) for value in values[:4]), int(values[4])]
        )
    return out.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    delimiter=st.sampled_from(",;\t|"),
    signs=st.sampled_from([(".", ""), (",", ""), (".", ","), (",", "."), (",", " "), (".", "'")]),
    names=st.sampled_from(HEADERS),
    time=st.sampled_from(TIMES),
    encoding=st.sampled_from(ENCODINGS),
    digits=st.integers(0, 5),
    count=st.integers(1, 60),
    order=st.sampled_from(["up", "down"]),
)
def test_any_layout_is_read_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    delimiter: str,
    signs: tuple[str, str],
    names: tuple[str, ...] | None,
    time: str,
    encoding: str,
    digits: int,
    count: int,
    order: str,
) -> None:
    bars = walk(count, count + digits, digits=digits)
    if order == "down":
        bars = bars[::-1]
    text = written(
        bars, delimiter=delimiter, decimal=signs[0], group=signs[1], names=names, time=time, digits=digits
    )
    path = tmp_path_factory.mktemp("layout") / "bars.csv"
    path.write_bytes(text.encode(encoding, "replace"))
    try:
        found = load_bars(path)
    except DataError as error:
        found, said = None, str(error)
    if found is None:
        proved = digits not in (0, 3) and count > 40 and (encoding != "cp1252" or names != HEADERS[2])
        assert not proved, f"{said}\n{text[:200]}"
        return
    exact = bars.sort_index().set_axis(pd.DatetimeIndex(found.index)).round(digits)
    np.testing.assert_array_equal(found.to_numpy(), exact.to_numpy())
    kept = "s" if "%S" in time or "%s" in time else "min"
    assert list(found.index) == list(bars.sort_index().index.floor(kept))


@pytest.mark.parametrize("size", [40, 64, 97, 1 << 10])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_where_a_block_ends_is_no_matter(
    write: Writer, monkeypatch: pytest.MonkeyPatch, size: int, delimiter: str
) -> None:
    bars = walk(50, 1, digits=2)
    text = written(
        bars, delimiter=delimiter, decimal=".", group=",", names=HEADERS[0], time=TIMES[0], digits=2
    )
    path = write(text)
    whole = bars_sha256(load_bars(path))
    monkeypatch.setattr(files, "BLOCK", size)
    assert bars_sha256(load_bars(path)) == whole


def test_what_comes_late_in_a_file_still_decides(write: Writer) -> None:
    early = "".join(f"0{1 + i % 9}/0{1 + i // 9 % 9}/{1900 + i // 81},1.5,1.5,1.5,1.5\n" for i in range(6000))
    header = "Date,Open,High,Low,Close\n"
    assert "day_first=True or False" in refused(write(header + early))
    late = "".join(f"02/0{day}/2020,3,3,3,3\n" for day in range(1, 9))
    bars = load_bars(write(header + early + "01/28/2020,2,2,2,2\n" + late))
    assert bars.index[-9] == pd.Timestamp("2020-01-28")
    assert bars.attrs["source"]["assumed"] == [
        "dates are month first: none of the dates allows another order"
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(write: Writer, newline: str) -> None:
    assert load_bars(write(TWO_BARS.replace("\n", newline)))["close"].to_list() == [11, 12.5]


def test_a_last_delimiter_in_every_row_is_no_column(write: Writer) -> None:
    assert load_bars(write(TWO_BARS.replace("100\n", "100,\n").replace("200\n", "200,\n")))[
        "volume"
    ].to_list() == [100, 200]


def test_lines_that_are_no_bars_are_said(write: Writer) -> None:
    text = f"# made by hand\nA B C,,,,,\n\n{TWO_BARS},,,,,\n\nSource: a vendor,,,,,\nTotal of 2 bars\n"
    bars = load_bars(write(text))
    assert bars["close"].to_list() == [11, 12.5]
    assert bars.attrs["source"]["assumed"] == [
        "lines above the header that are no bars: '# made by hand', 'A B C'",
        "lines at the end that are no bars: 'Source: a vendor', 'Total of 2 bars'",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("soon,10,12,9,11,100", "line 4: time 'soon'"),
        ("2024-01-04,10,12,9,11", "line 4 has 5 fields: expected 6"),
        ("2024-01-04,10,12,9,11,100,7", "line 4 has 7 fields: expected 6"),
        ("2024-01-04,1,010,12,9,11,100", "line 4 has 7 fields: expected 6"),
        ("2024-01-04 09:30:61,10,12,9,11,100", "line 4: time '2024-01-04 09:30:61'"),
        ("now,10,12,9,11,100", "line 4: time 'now'"),
    ],
)
def test_a_line_that_is_neither_is_refused(write: Writer, line: str, why: str) -> None:
    assert why in refused(write(f"{TWO_BARS}{line}\n2024-01-05,10,12,9,11,100\n"))


def test_a_truncated_line_is_refused_not_shortened(write: Writer) -> None:
    assert "line 3 has 4 fields" in refused(write(TWO_BARS[: TWO_BARS.rindex(",12.5")]))


def test_text_that_bytes_prove(write: Writer) -> None:
    rows = "日期,开盘,最高,最低,收盘\n2024-01-02,10,12,9,11\n"
    assert load_bars(write(rows.encode("gb18030"))).attrs["source"]["assumed"] == ["text in gb18030"]
    german = "Datum;Eröffnung;Höchst;Tief;Schluss\n02.01.2024;10;12;9;11\n"
    assert load_bars(write(german.encode("cp1252"))).iloc[0].to_list() == [10, 12, 9, 11, 0]
    russian = "Дата;Откр.;Макс.;Мин.;Цена\n02.01.2024;10;12;9;11\n"
    assert load_bars(write(russian.encode("cp1251"))).index[0] == pd.Timestamp("2024-01-02")
    japanese = "日付,始値,高値,安値,終値,出来高\n2024-01-02,10,12,9,11,5\n"
    assert load_bars(write(japanese.encode("cp932"))).iloc[0].to_list() == [10, 12, 9, 11, 5]
    named = (
        TWO_BARS.replace("volume\n", "volume,name\n")
        .replace("100\n", "100,Société\n")
        .replace("200\n", "200,Société\n")
    )
    assert load_bars(write(named.encode("latin-1")))["close"].to_list() == [11, 12.5]


def test_shuffled_columns_of_every_header_come_back(write: Writer) -> None:
    bars = walk(30, 3, digits=2)
    for names, delimiter in itertools.product(filter(None, HEADERS), ",;"):
        places = random.Random(0).sample(range(6), 6)
        rows = csv.reader(
            written(
                bars, delimiter=";", decimal=".", group="", names=names, time=TIMES[0], digits=2
            ).splitlines(),
            delimiter=";",
        )
        text = "\n".join(delimiter.join(row[place] for place in places) for row in rows)
        found = load_bars(write(text))
        assert bars_sha256(found) == bars_sha256(load_bars(bars)), names


def test_the_columns_of_a_file_without_a_header_are_proved(write: Writer) -> None:
    coinbase = "1615507200,10.25,11.25,10.5,11,7\n1615507260,10.75,11.5,11,11.25,8\n"
    assert load_bars(write(coinbase)).iloc[0].to_list() == [10.5, 11.25, 10.25, 11, 7]
    either = "1615507200,10,12,10,12,7\n1615507260,11,13,11,13,8\n"
    assert "whose order could be" in refused(write(either))
    assert "4 columns without names" in refused(write("2024-01-02,1,2,3\n"))
    assert load_bars(write("2024-01-02,7.5\n2024-01-03,7\n"))["close"].to_list() == [7.5, 7]


def test_columns_that_are_stated_go_first(write: Writer) -> None:
    path = write("when,Open,High,Low,Last,Settle,Traded\n2024-01-02,1,3,1,2,2.5,7\n")
    found = load_bars(path, columns={"close": "Settle", "volume": "Traded", "time": "when"})
    assert found.iloc[0].to_list() == [1, 3, 1, 2.5, 7]
    assert "no column 'X' for close" in refused(path, columns={"close": "X"})


def test_two_columns_that_say_the_same_time_are_one(write: Writer) -> None:
    found = load_bars(
        write("unix,date,close\n1615507200,2021-03-12 00:00:00,1\n1615510800,2021-03-12 01:00:00,2\n")
    )
    assert list(found.index) == [pd.Timestamp("2021-03-12"), pd.Timestamp("2021-03-12 01:00")]


def test_a_large_file_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    bars = walk(60_000, 5, digits=7)
    path = tmp_path / "bars.csv"
    bars.to_csv(path)
    found = load_bars(path)
    plain = pd.read_csv(path, index_col="time", parse_dates=["time"])
    np.testing.assert_array_equal(found.to_numpy(), plain[list(COLUMNS)].to_numpy())
    assert found.index.equals(pd.DatetimeIndex(plain.index).as_unit("ns"))
