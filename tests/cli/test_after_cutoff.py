"""Only the bars after a model's training data: run, test, compare, study files and manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bt_llm.advice import AdvisorConfig
from bt_llm.cli._bar_options import BarsRead
from bt_llm.data import BarFormat, load_bars, shipped
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.research import load_study
from tests.cli_cases import Cli, one_line
from tests.engines import walk
from tests.walk_forward_cases import cross_file

SMA = f"{shipped('sma_cross.py')}:GatedSmaCross"
SP500 = str(shipped("sp500_daily.csv"))
TREND = ("-m", "scripted:trend")


def test_a_run_of_later_bars_is_reproduced_from_its_manifest(cli: Cli, tmp_path: Path) -> None:
    manifest = str(tmp_path / "run.json")
    asked = ("run", "-s", SMA, "-d", SP500, *TREND, "--after", "2016-12-30", "--manifest", manifest)
    told = json.loads(cli(*asked, "--format", "json").out)
    assert json.loads(Path(manifest).read_text(encoding="utf-8"))["data"]["format"] == {"after": "2016-12-30"}
    whole = json.loads(cli(*asked[:5], *TREND, "--format", "json").out)
    assert told["runs"]["gated"]["trades"] < whole["runs"]["gated"]["trades"]
    again = cli("reproduce", manifest)
    assert again.code == 0
    assert "identical" in again.out


@pytest.mark.parametrize("command", ["run", "test", "compare"])
def test_every_command_leaves_out_what_a_model_may_have_read(cli: Cli, command: str) -> None:
    models = ("-m", "smollm2", *TREND) if command == "compare" else ("-m", "smollm2")
    asked = (command, "-s", SMA, "-d", SP500)
    error = one_line(cli(*asked, *models, "--after-cutoff"))
    # Its makers state no cut-off: the day of the release counts, and the shipped bars end before it.
    assert "no bar after 2024-11-01: they go from 1999-01-04" in error
    told = cli(*asked, *models, "--after-cutoff").err
    assert "only bars after 2024-11-01: SmolLM2: no cut-off stated, released by 2024-11-01" in told
    scripted = (*TREND, "-m", "scripted:contrarian") if command == "compare" else TREND
    assert "a scripted one has no cut-off" in one_line(cli(*asked, *scripted, "--after-cutoff"))
    both = one_line(cli(*asked, *models, "--after-cutoff", "--after", "2016-12-30"))
    assert "--after 2016-12-30 beside --after-cutoff: expected one of them" in both
    wrong = one_line(cli(*asked, *models, "--after", "soon"))
    assert "after='soon': expected a day, such as '2023-12-31'" in wrong


def test_the_day_is_that_of_the_models() -> None:
    read = BarsRead(after_cutoff=True)
    asked = [AdvisorConfig(model=name) for name in ("llama-3.2-1b.gguf", "gemma-3-1b-it.gguf")]
    assert read.unseen_by(*asked).format() == BarFormat(after="2024-08-31")
    assert read.unseen_by(asked[0]).format() == BarFormat(after="2023-12-31")
    assert BarsRead().unseen_by(asked[0]).format() is None
    with pytest.raises(ConfigError, match="--after-cutoff where no model is asked"):
        read.format()


def test_a_study_says_it_too(tmp_path: Path) -> None:
    cross_file(tmp_path)
    bars = walk(300).set_axis(pd.date_range("2024-02-01", periods=300))
    bars.to_csv(tmp_path / "bars.csv", index_label="time")
    text = (
        'strategy = "cross.py:Cross"\ndata = "bars.csv"\n[bars]\nafter_cutoff = true\n'
        '[gate]\nadvisor.model = "llama-3.2-1b.gguf"\n[grid]\n'
        'gate.advisor.model = ["llama-3.2-1b.gguf", "gemma-3-1b-it.gguf"]\n'
    )
    study = tmp_path / "one.toml"
    study.write_text(text, encoding="utf-8")
    assert str(load_study(study).market.index[0].date()) == "2024-09-01"
    study.write_text(text.replace("after_cutoff = true", 'after = "2024-06-30"'), encoding="utf-8")
    assert str(load_study(study).market.index[0].date()) == "2024-07-01"
    study.write_text(text.replace("[gate]", 'after = "2024-06-30"\n[gate]'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"beside bars\.after_cutoff: expected one of them"):
        _ = load_study(study).market


def test_later_bars_are_checked_and_said() -> None:
    bars = load_bars(SP500, after="2016-12-30")
    assert str(bars.index[0].date()) == "2017-01-03"
    assert bars.attrs["repairs"][-1].startswith("only bars after 2016-12-30: 4,5")
    with pytest.raises(DataError, match=r"no bar after 2030-01-01: .*\(on the command line: --after\)"):
        load_bars(SP500, after="2030-01-01")
