"""The data that comes with bt_llm."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from bt_llm.data import _shipped, load_bars, shipped
from bt_llm.exceptions import DataError
from tests.data.bar_cases import ONLY_CLOSE

FILES = {  # rows, first and last time, and the last close, all read off the files
    "eurusd_hourly.csv": (5000, "2017-04-19 09:00", "2018-02-07 15:00", 1.22904),
    "sp500_daily.csv": (5031, "1999-01-04", "2018-12-31", 2506.850098),
    "vix_daily.csv": (1259, "2014-01-03", "2019-01-03", 25.45),
    "wti_daily.csv": (8321, "1986-01-02", "2019-01-03", 46.92),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_what_its_readme_says(repository: Path, name: str) -> None:
    rows, first, last, close = FILES[name]
    path = repository / "data" / name
    bars = load_bars(path)
    assert len(bars) == rows
    assert (bars.index[0], bars.index[-1]) == (pd.Timestamp(first), pd.Timestamp(last))
    assert bars["close"].iloc[-1] == close
    assert bars.attrs["repairs"] == (
        [] if "volume" in path.read_text(encoding="utf-8").splitlines()[0] else ONLY_CLOSE
    )
    readme = (repository / "data" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in readme
    assert f"{rows:,}" in readme


def test_what_the_package_carries_comes_before_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, data = tmp_path / "demo", tmp_path / "data"
    for folder, names in ((demo, ["a.csv"]), (data, ["a.csv", "b.csv", "make.py"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")
    monkeypatch.setattr(_shipped, "_PLACES", ((demo, "*.csv"), (data, "*.csv")))
    assert shipped("a.csv") == demo / "a.csv"
    assert shipped("b.csv") == data / "b.csv"
    for name in ("make.py", "../data/a.csv", "", "."):
        with pytest.raises(DataError, match=re.escape(f"no file named {name!r}")):
            shipped(name)
    with pytest.raises(DataError, match=r"expected one of 'a\.csv', 'b\.csv'$"):
        shipped("prices")


def test_the_files_of_the_repository_are_found_and_near_names_suggested() -> None:
    for name in FILES:
        assert load_bars(shipped(name)).attrs["repairs"] in ([], ONLY_CLOSE)
    with pytest.raises(DataError, match=r"expected one of 'eurusd_hourly\.csv'"):
        shipped("eurusd_houry.csv")


@pytest.fixture
def make_data(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data", repository / "data" / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_data"] = module
    spec.loader.exec_module(module)
    del sys.modules["make_data"]
    return module


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of the two names, with two rows a file, that cannot be imported."""
    root = tmp_path / "packages"
    quotes = "Date,Open,High,Low,Close,Adj Close,Volume\n1/4/1999,10,12.50,9,11.100000,11,100\n"
    for name, text in {
        "backtesting/test/EURUSD.csv": ",Open,High,Low,Close,Volume\n2017-04-19 09:00:00,1.10,1.2,1,1.1,7\n",
        "arch/data/sp500/sp500.csv.gz": quotes,
        "arch/data/vix/vix.csv.gz": "Date,vix\n1/3/2014,13.76\n1/20/2014,.\n",
        "arch/data/wti/wti.csv.gz": "Date,DCOILWTICO\n1/1/1986,.\n12/31/1986,17.90\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for name in ("arch", "backtesting"):
        (root / name / "__init__.py").write_text("raise ImportError('must not be imported')")
        monkeypatch.delitem(sys.modules, name, raising=False)  # a module that is loaded is found as it was
    monkeypatch.syspath_prepend(str(root))
    return root


def test_make_data_copies_numbers_and_drops_days_without_a_price(
    make_data: ModuleType, packages: Path, tmp_path: Path
) -> None:
    assert make_data.main(["--folder", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == {
        "eurusd_hourly.csv": b"time,open,high,low,close,volume\n2017-04-19 09:00:00,1.10,1.2,1,1.1,7\n",
        "sp500_daily.csv": b"time,open,high,low,close,volume\n1999-01-04,10,12.50,9,11.100000,100\n",
        "vix_daily.csv": b"time,close\n2014-01-03,13.76\n",
        "wti_daily.csv": b"time,close\n1986-12-31,17.90\n",
    }


def test_make_data_checks(
    make_data: ModuleType, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["--check", "--folder", str(tmp_path)]
    assert make_data.main(check) == 1
    assert "vix_daily.csv: missing" in capsys.readouterr().err
    make_data.main(["--folder", str(tmp_path)])
    assert make_data.main(check) == 0
    (tmp_path / "vix_daily.csv").write_bytes(b"time,close\n2014-01-03,13.77\n")
    capsys.readouterr()
    assert make_data.main(check) == 1
    assert capsys.readouterr().err == "vix_daily.csv: different\n"
    assert (tmp_path / "vix_daily.csv").read_bytes() == b"time,close\n2014-01-03,13.77\n"


def test_make_data_refuses_a_source_that_changed(
    make_data: ModuleType, packages: Path, tmp_path: Path
) -> None:
    eurusd = packages / "backtesting" / "test" / "EURUSD.csv"
    eurusd.write_text(",Open,High,Low,Close,Volume\n2017-04-19 09:00:00,1,1,1,1,1e3\n")
    with pytest.raises(SystemExit, match="the source has changed"):
        make_data.main(["--folder", str(tmp_path)])
    eurusd.unlink()
    with pytest.raises(SystemExit, match=re.escape("no test/EURUSD.csv in the installed backtesting")):
        make_data.main(["--folder", str(tmp_path)])


def test_make_data_names_the_package_to_install(
    make_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps backtesting"):
        make_data.main(["--check"])


def test_neither_backtrader_nor_a_model_is_loaded() -> None:
    code = "import sys, bt_llm.data; print(sorted({'backtrader', 'llama_cpp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
