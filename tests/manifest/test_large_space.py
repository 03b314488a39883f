"""A run over a state space of many cells, written down, packed, and run again from its pack alone."""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner

from bt_llm.advice import AdvisorConfig, forget_answers
from bt_llm.backtest import gate_study, load_strategy
from bt_llm.cache import VerdictCache, import_pack
from bt_llm.cli import app
from bt_llm.data import load_bars, shipped
from bt_llm.gates import Gate
from bt_llm.manifest import read_manifest, reproduce, write_manifest
from bt_llm.verdicts import StateSpace, prior_cells
from tests.manifest.test_manifest import STRATEGY

FEATURES = """
from bt_llm.verdicts import Feature, StateSpace


def rate(data):
    return bt.ind.RateOfChange(data, period=5)


RATE = Feature(
    name="percent_b",
    edges=tuple((k - 3) / 500 for k in range(7)),
    labels=tuple("abcdefgh"),
    indicator=rate,
)
"""


def test_a_run_over_many_cells_is_reproduced_from_its_pack(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY + FEATURES)
    load_bars(shipped("eurusd_hourly.csv")).iloc[:260].to_csv(tmp_path / "bars.csv")
    spec = f"{tmp_path / 'mine.py'}:Crosser"
    module = sys.modules[load_strategy(spec).__module__]
    space = StateSpace().with_feature(module.RATE)
    sample = prior_cells(space)
    assert (len(space), len(sample)) == (840, 512)
    config = AdvisorConfig(model="scripted:random", cache_dir=tmp_path / "cache", state_space=space)
    gate = Gate(advisor=config, indicator=module.BandAdvice)
    study = gate_study(spec, tmp_path / "bars.csv", gate)
    manifest = write_manifest(tmp_path / "run.json", study, strategy=spec, data=tmp_path / "bars.csv")
    [asked] = study.gated.asked
    assert set(sample) <= set(asked.verdicts)
    assert 512 < len(manifest.verdicts) == len(asked.verdicts) < 840
    words = ["cache", "export", "--run", str(tmp_path / "run.json"), "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "pack.jsonl")])
    assert done.exit_code == 0, done.output
    import_pack(VerdictCache(tmp_path / "other"), tmp_path / "pack.jsonl")
    assert len(list(VerdictCache(tmp_path / "other").keys())) == len(manifest.verdicts)
    forget_answers()
    again = reproduce(read_manifest(tmp_path / "run.json"), cache_dir=tmp_path / "other")
    assert again.identical, again.differences
