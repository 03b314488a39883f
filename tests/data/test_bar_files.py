"""Files: what they are packed in, how large they may be, and what is no file of bars."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bt_llm.data import bars_sha256, load_bars, load_many
from bt_llm.exceptions import MissingExtraError
from tests.data.bar_cases import TWO_BARS, Writer, days, refused


def zipped(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_csv", ".csv"), text)
    return out.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zip": lambda data: zipped(bars_csv=data.decode()),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz", "bars"])
def test_packed_files_are_known_by_their_bytes(write: Writer, kind: str, name: str) -> None:
    assert load_bars(write(PACKED[kind](TWO_BARS.encode()), name))["close"].to_list() == [11, 12.5]


@pytest.mark.parametrize("kind", PACKED)
def test_damaged_packed_files_are_refused(write: Writer, kind: str) -> None:
    data = PACKED[kind](TWO_BARS.encode() * 50)
    assert f"expected a whole {kind} file" in refused(write(data[: len(data) // 2]))


@pytest.mark.parametrize("kind", PACKED)
def test_what_unpacks_to_more_than_the_limit_is_refused(write: Writer, kind: str) -> None:
    bomb = write(PACKED[kind](TWO_BARS.encode() + b"\n" * (3 << 20)))
    assert "over 1 MB unpacked: expected no more; give max_megabytes" in refused(bomb, max_megabytes=1)
    assert load_bars(bomb, max_megabytes=4)["close"].to_list() == [11, 12.5]


def test_a_plain_file_over_the_limit_is_refused(write: Writer) -> None:
    assert "over 1 MB: expected no more" in refused(write(TWO_BARS + "\n" * (1 << 20)), max_megabytes=1)


def test_a_zip_holds_one_file(write: Writer) -> None:
    assert "a zip of 2 files, 'a.csv', 'b.csv'" in refused(write(zipped(a_csv="x", b_csv="y")))
    workbook = zipped(**{"[Content_Types].xml": "", "xl/workbook.xml": ""})
    assert "an Excel workbook: save it as CSV" in refused(write(workbook, "bars.xlsx"))


@pytest.mark.parametrize(
    ("magic", "kind"),
    [
        (b"\x89HDF\r\n", "HDF5"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
        (b"\x80\x04\x95", "a pickle"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x28\xb5\x2f\xfd", "zstandard"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_files_are_refused_by_name(write: Writer, magic: bytes, kind: str) -> None:
    assert f"{kind}: expected a CSV, JSON, parquet or feather file" in refused(write(magic + b"12345678"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_devices_and_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is a device or a pipe" in refused(tmp_path / "pipe")
    assert "it is a device or a pipe" in refused(os.devnull)
    assert "it is a folder" in refused(tmp_path)


def test_a_quote_that_never_closes_is_refused_soon(write: Writer) -> None:
    assert "line" in refused(write(TWO_BARS + '2024-01-04,"1' + "0,1\n" * 6_000_000))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_columnar_files_are_read(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "Open": [10.0, 11.0],
            "High": [12.0, 13.0],
            "Low": [9.0, 10.0],
            "Close": [11.0, 12.5],
            "Volume": [100, 200],
        },
        index=pd.DatetimeIndex(days("2024-01-02", "2024-01-03"), tz="America/New_York", name="Date"),
    )
    path = tmp_path / f"bars.{kind}"
    getattr(frame, f"to_{kind}")(path)
    bars = load_bars(path)
    assert bars_sha256(bars) == bars_sha256(load_bars(frame))
    assert bars.attrs["source"]["zone"] == "America/New_York"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"not a whole {kind} file" in refused(path)


def test_a_parquet_file_of_several_instruments(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "bars.parquet"
    pd.DataFrame(
        {"date": days("2024-01-02", "2024-01-02"), "symbol": ["A", "B"], "close": [1.0, 2.0]}
    ).to_parquet(path)
    assert {name: bars["close"].to_list() for name, bars in load_many(path).items()} == {
        "A": [1.0],
        "B": [2.0],
    }


def test_a_columnar_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "bars.parquet"
    pd.DataFrame(
        {"close": [1.0] * 300_000}, index=pd.date_range("2000-01-01", periods=300_000, freq="min")
    ).to_parquet(path)
    assert path.stat().st_size < 4 << 20
    assert "over 2 MB unpacked" in refused(path, max_megabytes=2)


def test_a_missing_extra_is_named(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.feather", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[parquet\]'"):
        load_bars(write(b"PAR1" + b"\0" * 20, "bars.parquet"))


@pytest.mark.parametrize("ticker_first", [False, True])
def test_a_frame_of_several_tickers_is_read_by_symbol(ticker_first: bool) -> None:
    names = [(name, ticker) for name in ("Close", "High", "Low", "Open") for ticker in ("A", "B")]
    columns = pd.MultiIndex.from_tuples([name[::-1] if ticker_first else name for name in names])
    frame = pd.DataFrame([[11, 21, 12, 22, 9, 19, 10, 20]], index=days("2024-01-02"), columns=columns)
    assert load_bars(frame, symbol="B").iloc[0].to_list() == [20, 22, 19, 21, 0]
    found = load_many(frame)
    assert list(found) == ["A", "B"]
    assert found["A"].iloc[0].to_list() == [10, 12, 9, 11, 0]


def test_a_source_without_instruments_is_one_without_a_name(write: Writer) -> None:
    assert [(name, len(bars)) for name, bars in load_many(write(TWO_BARS)).items()] == [("", 2)]


def test_a_stated_symbol_is_the_only_one_of_many() -> None:
    day = "2024-01-02"
    frame = pd.DataFrame({"ticker": ["A", "B"], "date": [day, day], "close": [1.0, 2.0]})
    found = load_many(frame, symbol="B")
    assert {name: bars["close"].to_list() for name, bars in found.items()} == {"B": [2.0]}
