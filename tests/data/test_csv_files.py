"""CSV: nothing in it is a formula, and numbers are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bt_llm.data import save_csv
from bt_llm.data._csv_files import inert


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_begins_like_a_formula_gets_an_apostrophe(start: str) -> None:
    assert inert(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"
    assert inert(Path(f"{start}x")) == f"'{start}x"


@pytest.mark.parametrize(
    "value", ["a=1", "", "'=1", " =1", -1.5, -3, np.float64(-2.0), np.int64(-2), None, True]
)
def test_all_else_stays(value: object) -> None:
    assert inert(value) is value


def test_a_table_by_hand(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "=name": ["=1+1", "plain", None],
            "mixed": [-0.5, "-0.5", 2],
            "kind": pd.Categorical(["@a", "b", "@a"]),
            "gain": [-1.25, float("nan"), 3.0],
            "time": pd.date_range("2024-01-01", periods=3, freq="h"),
        },
        index=pd.Index(["+x", "y", "z"], name="run"),
    )
    before = frame.copy()
    save_csv(frame, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes().decode() == (
        "run,'=name,mixed,kind,gain,time\n"
        "'+x,'=1+1,-0.5,'@a,-1.25,2024-01-01 00:00:00\n"
        "y,plain,'-0.5,b,,2024-01-01 01:00:00\n"
        "z,,2,'@a,3.0,2024-01-01 02:00:00\n"
    )
    pd.testing.assert_frame_equal(frame, before)
    save_csv(frame[:0], tmp_path / "empty.csv", index=False)
    assert (tmp_path / "empty.csv").read_text() == "'=name,mixed,kind,gain,time\n"


def test_every_table_is_written_by_it(repository: Path) -> None:
    package = repository / "bt_llm"
    writers = [path for path in package.rglob("*.py") if ".to_csv(" in path.read_text(encoding="utf-8")]
    assert writers == [package / "data" / "_csv_files.py"]
