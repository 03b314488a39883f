"""What is in a verdict's key and what is not, seen from outside: the keys that real runs store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import backtrader as bt
import pandas as pd
import pytest

import bt_llm
from bt_llm import AdvisorConfig, Gate, StateSpace, attach_gate, run_backtest
from bt_llm.advice import Advisor
from bt_llm.cache import VerdictCache
from bt_llm.data import load_bars, shipped
from bt_llm.models import ModelIdentity, ScriptedBackend
from bt_llm.models._scripted import trend_follower
from bt_llm.verdicts import TREND


class Crosser(bt.Strategy):
    """Trades a crossing of the close and its average."""

    params = (("gate", None), ("period", 10))

    def __init__(self):
        self.above = bt.ind.CrossOver(self.data.close, bt.ind.SMA(self.data, period=self.p.period))
        self.gate = attach_gate(self.p.gate, self)

    def next(self):
        if self.position and self.above[0] < 0:
            self.close()
        elif not self.position and self.above[0] > 0 and self.gate.allows_long():
            self.buy()


class Renamed(Crosser):
    """The same strategy under another name."""


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return load_bars(shipped("eurusd_hourly.csv")).iloc[:220]


def keys_of_run(
    folder: Path,
    bars: Any,
    advisor: dict[str, Any] | None = None,
    gate: dict[str, Any] | None = None,
    strategy: type[bt.Strategy] = Crosser,
    **settings: Any,
) -> list[str]:
    """Run with an empty cache; return what is in it afterwards: the keys of the states that occurred."""
    chosen = {"model": "scripted:trend", "calibration": "none", "cache_dir": folder} | (advisor or {})
    config = AdvisorConfig(**chosen)
    run_backtest(strategy, bars, gate=Gate(advisor=config, **(gate or {})), **settings)
    return VerdictCache(folder).keys()


@pytest.fixture(scope="module")
def baseline(bars: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = keys_of_run(tmp_path_factory.mktemp("baseline"), bars)
    assert 10 < len(found) < 105
    return found


STAYS: dict[str, dict[str, Any]] = {
    "cash": {"cash": 123_456.0},
    "commission": {"commission": 0.002},
    "slippage": {"slippage": 0.001},
    "size": {"percent": 10.0},
    "strategy parameters": {"params": {"period": 25}},
    "strategy": {"strategy": Renamed},
    "name of the run": {"name": "another"},
    "engine mode": {"preload": False, "runonce": False},
    "confidence": {"gate": {"min_confidence": 0.5}},
    "gate's rule": {"gate": {"require": "not_against"}},
    "threads": {"advisor": {"n_threads": 3}},
    "GPU layers": {"advisor": {"n_gpu_layers": 7}},
    "template's default written out": {"advisor": {"template": "market"}},
}


@pytest.mark.parametrize("what", STAYS)
def test_what_is_left_out_does_not_change_a_key(
    what: str, bars: pd.DataFrame, baseline: list[str], tmp_path: Path
) -> None:
    assert keys_of_run(tmp_path, bars, **STAYS[what]) == baseline


def test_dates_do_not_change_a_key(bars: pd.DataFrame, baseline: list[str], tmp_path: Path) -> None:
    assert keys_of_run(tmp_path, bars.set_index(bars.index + pd.Timedelta(days=3650))) == baseline


def test_the_price_level_does_not_change_a_key(
    bars: pd.DataFrame, baseline: list[str], tmp_path: Path
) -> None:
    dear = bars.copy()
    dear[["open", "high", "low", "close"]] *= 1024.0  # a power of two: no state is rounded differently
    assert keys_of_run(tmp_path, dear) == baseline


def test_the_ticker_and_the_paths_do_not_change_a_key(
    bars: pd.DataFrame, baseline: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "elsewhere" / "XYZ.csv"
    file.parent.mkdir()
    bars.to_csv(file)
    template = file.parent / "words.toml"
    own = Path(bt_llm.__file__).parent / "prompts" / "templates" / "market.toml"
    template.write_bytes(own.read_bytes())
    assert keys_of_run(tmp_path / "other cache", file, {"template": template}) == baseline


def test_the_calibration_asks_for_more_states_under_the_same_keys(
    bars: pd.DataFrame, baseline: list[str], tmp_path: Path
) -> None:
    whole = keys_of_run(tmp_path, bars, {"calibration": "grid"})
    assert len(whole) == 105
    assert set(baseline) < set(whole)


def test_edges_that_no_prompt_shows_do_not_change_a_key(tmp_path: Path) -> None:
    moved = dataclasses.replace(TREND, edges=tuple(2 * edge for edge in TREND.edges))
    plain = template_file(tmp_path)  # without examples, whose states would fall into other buckets
    own = grid_keys(tmp_path / "own", template=plain)
    assert grid_keys(tmp_path / "moved", template=plain, space=moved) == own


def test_the_name_of_a_template_is_not_in_the_key(tmp_path: Path) -> None:
    assert grid_keys(tmp_path / "one", template=template_file(tmp_path, name="market")) == grid_keys(
        tmp_path / "other", template=template_file(tmp_path, name="renamed", version=9)
    )


def template_file(folder: Path, **changes: Any) -> Path:
    """A small template of which any part can be changed."""
    parts = {"name": "small", "version": 1, "system": "Judge.", "bullish": "Up", "answer": "Bias:"} | changes
    lines = [
        "format = 1",
        f'name = "{parts["name"]}"',
        f"version = {parts['version']}",
        f'answer = "{parts["answer"]}"',
        f'system = "{parts["system"]}"',
        'user = "{% for f in features %}{{ f.title }}: {{ f.label }}\\n{% endfor %}"',
        "[labels]",
        f'bullish = "{parts["bullish"]}"',
        'neutral = "Flat"',
        'bearish = "Down"',
    ]
    path = folder / f"template{len(list(folder.glob('*.toml')))}.toml"
    path.write_text("\n".join(lines))
    return path


def grid_keys(
    folder: Path,
    *,
    template: Path | None = None,
    space: Any = None,
    identity: dict[str, str] | None = None,
    **config: Any,
) -> set[str]:
    """The keys of a whole state space."""
    backend = ScriptedBackend(trend_follower, name="scripted:trend", batch=200)
    backend._identity = ModelIdentity(
        **{"name": "scripted:trend", "sha256": backend.identity.sha256} | (identity or {})
    )
    features = StateSpace() if space is None else StateSpace().with_feature(space)
    chosen = AdvisorConfig(template=template, state_space=features, cache_dir=folder, **config)
    advisor = Advisor(chosen, backend=backend)
    advisor.raw_cells(range(len(features)))
    return set(advisor.cache.keys())


CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"identity": {"sha256": "ab" * 32}},
    "chat template": {"identity": {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}},
    "tokens of the chat template": {"identity": {"bos_token": "<s>"}},
    "instructions": {"template": {"system": "Judge well."}},
    "label": {"template": {"bullish": "Rise"}},
    "start of the answer": {"template": {"answer": "So:"}},
    "reader": {"reader": "json"},
    "numerics": {"numerics": "fast"},
    "words of a bucket": {"space": dataclasses.replace(TREND, labels=("a", "b", "c", "d", "e"))},
    "title of a feature": {"space": dataclasses.replace(TREND, title="Slope")},
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_ingredient_alone_changes_every_key(what: str, tmp_path: Path) -> None:
    changes = dict(CHANGES[what])
    own = template_file(tmp_path)
    template = template_file(tmp_path, **changes.pop("template", {}))
    before = grid_keys(tmp_path / "before", template=own)
    assert before.isdisjoint(grid_keys(tmp_path / "after", template=template, **changes))
    assert before == grid_keys(tmp_path / "again", template=own)


def test_another_name_of_the_same_weights_finds_the_same_keys(tmp_path: Path) -> None:
    assert grid_keys(tmp_path / "a") == grid_keys(tmp_path / "b", identity={"name": "renamed"})
