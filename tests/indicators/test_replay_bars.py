"""A miss in replay names the bar that needs the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate, LLMAdvice, run_backtest
from bt_llm.advice import Advisor
from bt_llm.cache import VerdictCache
from bt_llm.cache._misses import VerdictMiss
from bt_llm.data import load_bars, shipped
from bt_llm.exceptions import ReplayMiss

CROSS = f"{shipped('sma_cross.py')}:GatedSmaCross"
VECTORISED: dict[str, Any] = {}
BAR_BY_BAR: dict[str, Any] = {"preload": False, "runonce": False}


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return load_bars(shipped("eurusd_hourly.csv")).iloc[:160]


def config(folder: Path, mode: str, **changes: Any) -> AdvisorConfig:
    return AdvisorConfig(model="scripted:trend", cache_dir=folder, cache_mode=mode, **changes)


@pytest.mark.parametrize("mode", [VECTORISED, BAR_BY_BAR])
def test_the_first_bar_of_all_is_named_where_nothing_is_stored(
    bars: pd.DataFrame, tmp_path: Path, mode: dict[str, Any]
) -> None:
    gate = Gate(advisor=config(tmp_path, "replay"))
    with pytest.raises(VerdictMiss) as caught:
        run_backtest(CROSS, bars, gate=gate, **mode)
    first = bars.index[gate.warm_up_bars - 1]
    assert str(caught.value).startswith(f"bar {first:%Y-%m-%d %H:%M:%S}: replay: a verdict is not stored in ")
    assert "state {'volatility':" in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "calibration"), [(VECTORISED, "grid"), (VECTORISED, "none"), (BAR_BY_BAR, "none")]
)
def test_the_first_bar_that_lacks_its_verdict_is_named(
    bars: pd.DataFrame, tmp_path: Path, mode: dict[str, Any], calibration: str
) -> None:
    recorded = config(tmp_path / "whole", "record", calibration=calibration)
    time, key = last_new_state(bars, recorded)
    kept = [record for record in VerdictCache(tmp_path / "whole").records() if record.key != key]
    VerdictCache(tmp_path / "part").put_many(kept)
    replayed = config(tmp_path / "part", "replay", calibration=calibration)
    with pytest.raises(VerdictMiss) as caught:
        run_backtest(CROSS, bars, gate=Gate(advisor=replayed), **mode)
    assert str(caught.value).startswith(f"bar {time:%Y-%m-%d %H:%M:%S}: replay: a verdict is not stored in ")
    assert caught.value.question is not None
    assert caught.value.question.key == key
    assert caught.value.differs == ("prompt",)


def last_new_state(bars: pd.DataFrame, recorded: AdvisorConfig) -> tuple[pd.Timestamp, str]:
    """Return the time of the bar whose state is the last one to come up, and that state's key."""
    asked: list[tuple[int, int]] = []

    class Watched(LLMAdvice):
        def advise(self, cells: Any) -> Any:
            asked.extend((len(self), cell) for cell in cells)
            return super().advise(cells)

    run_backtest(CROSS, bars, gate=Gate(advisor=recorded, indicator=Watched), **BAR_BY_BAR)
    bar, cell = asked[-1]
    assert bar > asked[0][0]
    advisor = Advisor(recorded)
    (prompt,) = advisor.template.prompts(advisor.space, [cell], advisor.identity)
    (key,) = (r.key for r in advisor.cache.records() if r.question.prompt == prompt.chunks)
    return bars.index[bar - 1], key


def test_where_only_the_calibration_lacks_one_no_bar_is_named(bars: pd.DataFrame, tmp_path: Path) -> None:
    run_backtest(CROSS, bars, gate=Gate(advisor=config(tmp_path, "record", calibration="none")))
    with pytest.raises(
        ReplayMiss, match=r"^no bar so far lacks its own verdict, .* grid: replay: 93 of 105 "
    ):
        run_backtest(CROSS, bars, gate=Gate(advisor=config(tmp_path, "replay")))
