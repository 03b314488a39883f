"""The recipes of docs/bars.md, run as they stand on small samples in the sources' own forms; the install."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

DOCS = Path(__file__).parent.parent / "docs" / "bars.md"


def recipe(words: str) -> str:
    """Return the imports of the page, and the code that follows some of its words."""
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert text.count(words) == 1
    (code,) = re.findall(r"```python\n(.*?)```", text[text.index(words) :], flags=re.S)[:1]
    return f"{blocks[0]}{code}"


def run(words: str, **names: Any) -> dict[str, Any]:
    exec(recipe(words), names)
    return names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cboe(folder: Path) -> None:
    (folder / "VIX_History.csv").write_text(
        "DATE,OPEN,HIGH,LOW,CLOSE\n"
        "01/30/2018,14.660000,15.420000,14.270000,14.790000\n"
        "01/31/2018,14.070000,14.440000,13.370000,13.540000\n"
        "02/01/2018,13.810000,14.160000,13.160000,13.470000\n"
    )
    vix = run("**CBOE's file of the VIX**")["vix"]
    assert [vix.known(date(2018, *day)).tolist() for day in ((1, 31), (2, 1), (2, 2))] == [
        [14.79],
        [13.54],
        [13.47],
    ]


def test_fred(folder: Path) -> None:
    (folder / "VIXCLS.csv").write_text(
        "observation_date,VIXCLS\n2018-01-12,10.16\n2018-01-15,\n2018-01-16,11.66\n"
    )
    found = run("**A series of FRED's**")
    assert found["bars"]["close"].to_list() == [10.16, 11.66]
    assert any("2018-01-15" in repair for repair in found["bars"].attrs["repairs"])
    assert found["vix"].known(date(2018, 1, 16)).tolist() == [10.16]


def test_yfinance() -> None:
    days = pd.DatetimeIndex(["2024-01-09", "2024-01-10"], tz="Australia/Sydney", name="Date")
    prices = ["Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product([prices, ["BHP.AX"]], names=["Price", "Ticker"])
    frame = pd.DataFrame([[49.0, 50.0, 48.0, 48.5, 7], [49.5, 50.5, 49.0, 49.0, 8]], days, columns)
    asked = SimpleNamespace(download=lambda name, period: frame)
    bars = run("**A frame of yfinance's**", yfinance=asked)["bars"]
    assert bars.loc["2024-01-10"].to_list() == [49.0, 50.5, 49.0, 49.5, 8.0]
    assert bars.attrs["source"]["zone"] == "Australia/Sydney"


def test_ccxt() -> None:
    rows = [
        [1704067200000, 42283.58, 42554.57, 42261.02, 42475.23, 1271.68],
        [1704070800000, *[42475.23] * 5],
    ]
    exchange = SimpleNamespace(fetch_ohlcv=lambda symbol, timeframe: rows)
    bars = run("**A list of ccxt's**", exchange=exchange)["bars"]
    assert list(map(str, bars.index)) == ["2024-01-01 00:00:00", "2024-01-01 01:00:00"]
    assert bars.iloc[0].to_list() == rows[0][1:]
    assert bars.attrs["source"]["zone"] == "UTC"


def test_backtrader(folder: Path) -> None:
    (folder / "mine.csv").write_text(
        "date,open,high,low,close,volume\n02-01-24,10,12,9,11,5\n03-01-24,11,13,10,12,6\n"
    )
    bars = run("**A feed of Backtrader's**")["bars"]
    assert bars.loc["2024-01-03"].to_list() == [11.0, 13.0, 10.0, 12.0, 6.0]


def test_what_an_install_without_a_compiler_needs_is_all_but_llama() -> None:
    text = DOCS.with_name("install.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pip install (backtrader .*)$", text, flags=re.M)
    project = tomllib.loads((DOCS.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.split(r"[><=\[]", one)[0] for one in project["dependencies"]]
    assert sorted(line.split()) == sorted(set(needed) - {"llama-cpp-python"})
    assert f"bt_llm-{project['version']}-py3-none-any.whl" in text
