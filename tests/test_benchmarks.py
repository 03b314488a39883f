"""The benchmarks' own parts: shape files, resampled paths, figures and the table. Nothing here is timed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bt_llm.data import load_bars, shipped
from bt_llm.models import LlamaModel, ModelConfig, Prompt, read_facts

FOLDER = Path(__file__).resolve().parent / "benchmarks"
OWN = tuple(
    f"bench_{name}" for name in ("bars", "cells", "cold", "floor", "growth", "import", "memory", "warm")
)


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Import a module of the benchmarks' folder, and forget it afterwards: their names are plain words."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def tiny(load: Any, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = load("shapes")
    path = tmp_path_factory.mktemp("shapes") / "shape-tiny.gguf"
    return shapes.build("tiny", path, tokenizer=smollm2_path, threads=1)


# Shapes


@pytest.mark.parametrize(("name", "parameters"), [("1b", 1_235_814_400), ("3b", 3_212_749_824)])
def test_shapes_are_those_of_llama_3_2(load: Any, name: str, parameters: int) -> None:
    shape = load("shapes").SHAPES[name]
    # Meta's counts; the file holds the factors of the rotary embedding besides, half a head of them.
    assert shape.parameters == parameters + shape.head_dim // 2


@pytest.mark.model
def test_a_shape_file_is_what_it_says(tiny: Path) -> None:
    facts = read_facts(tiny)
    assert (facts.architecture, facts.quantization) == ("llama", "Q4_K_M")
    assert (facts.n_layer, facts.n_embd, facts.n_ff, facts.n_vocab) == (2, 256, 512, 49_152)
    assert (facts.n_head, facts.n_head_kv, facts.head_dim_k, facts.head_dim_v) == (4, 2, 64, 64)
    # embedding, rotary factors, last norm; a layer: 2 norms, q and o, k and v, three of the feed-forward
    layer = 2 * 256 + 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256
    assert facts.parameters == 49_152 * 256 + 32 + 256 + 2 * layer
    assert facts.n_ctx_train == 131_072
    assert "im_start" in facts.chat_template


@pytest.mark.model
def test_a_shape_file_answers(tiny: Path) -> None:
    backend = LlamaModel(ModelConfig(model_path=tiny, n_threads=1), n_seq=8)
    try:
        prompts = [Prompt(("The market is ", word)) for word in ("up", "down")]
        first, second = next(backend.score(prompts, [" Bullish", " Bearish"]))
    finally:
        backend.close()
    assert np.isfinite([*first.logprobs, *second.logprobs]).all()
    assert max(first.logprobs) < 0
    assert first.logprobs != second.logprobs


@pytest.mark.model
def test_a_shape_file_in_f16_holds_the_seeds_weights(load: Any, smollm2_path: Path, tmp_path: Path) -> None:
    shapes = load("shapes")
    steps: list[tuple[str, float]] = []
    path = shapes.build(
        "tiny",
        tmp_path / "wide" / "tiny.gguf",
        file_type="F16",
        tokenizer=smollm2_path,
        seed=5,
        progress=lambda *step: steps.append(step),
    )
    assert [one.name for one in path.parent.iterdir()] == ["tiny.gguf"]
    assert steps[-1] == ("writing F16", 1.0)
    facts = read_facts(path)
    assert facts.quantization == "F16"
    embedding = np.fromfile(path, dtype="<f2", count=1000, offset=facts.file_bytes - facts.weight_bytes)
    drawn = np.random.default_rng(5).standard_normal(1 << 22, dtype=np.float32)[:1000] * np.float32(0.02)
    assert (embedding == drawn.astype(np.float16)).all()


def test_an_aborted_build_leaves_nothing(
    load: Any, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = load("shapes")

    def fail(*_: object) -> None:
        raise RuntimeError("cut off")

    monkeypatch.setattr(shapes, "_write_f16", fail)
    with pytest.raises(RuntimeError, match="cut off"):
        shapes.build("tiny", tmp_path / "new" / "tiny.gguf", tokenizer=smollm2_path)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_is_found_before_anything_is_written(
    load: Any, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shapes = load("shapes")
    usage = shapes.shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shapes.shutil, "disk_usage", lambda _: usage)
    arguments = ["3b", "--folder", str(tmp_path / "new"), "--tokenizer", str(smollm2_path)]
    assert shapes.main(arguments) == 1
    assert "1.0 GB free, but writing this shape takes 8.6 GB" in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []


def test_shape_files_stay_out_of_the_repository(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = load("shapes")
    monkeypatch.delenv("BT_LLM_BENCHMARKS_DIR", raising=False)
    path = shapes.shape_path("1b").resolve()
    assert path.name == "shape-1b.gguf"
    assert not path.is_relative_to(FOLDER.parent.parent)
    monkeypatch.setenv("BT_LLM_BENCHMARKS_DIR", "/elsewhere")
    assert shapes.shape_path("3b", "Q8_0") == Path("/elsewhere/shape-3b-Q8_0.gguf")


def test_rotary_factors_are_those_of_the_converter(load: Any) -> None:
    factors = load("shapes")._rope_factors(64)
    assert factors.shape == (32,)
    assert factors[0] == 1.0
    assert factors[-1] == 32.0
    # Dimension 30: a wave of 2 pi 500000^(30/64) = 2,948 tokens, between 8192/4 and 8192/1, so on the ramp:
    # share (8192/2948 - 1) / 3 = 0.593, factor 1 / (0.407/32 + 0.593).
    assert factors[15] == pytest.approx(1 / (0.407 / 32 + 0.593), rel=1e-3)


# Paths


def test_resampled_paths_keep_the_shape_of_bars(load: Any) -> None:
    real = load_bars(shipped("eurusd_hourly.csv"))
    path = load("bench_growth").resampled(real, 20_000, seed=3)
    assert load_bars(path).attrs["repairs"] == []  # checks OHLC, order of times and finiteness
    assert len(path) == 20_000
    assert path.index[0] == real.index[0]
    prices = ["open", "high", "low", "close"]
    closes = path["close"].to_numpy()
    moves = np.log(path[prices].to_numpy()[1:]) - np.log(closes[:-1, None])
    real_logs = np.log(real[prices].to_numpy())
    real_moves = real_logs[1:] - real_logs[:-1, 3:]
    real_moves -= real_moves[:, 3].mean()
    known = {tuple(row) for row in real_moves.round(8)}
    assert all(tuple(row) in known for row in moves.round(8)[::97])


def test_resampled_paths_are_seeded_and_of_blocks(load: Any) -> None:
    resampled = load("bench_growth").resampled
    real = load_bars(shipped("eurusd_hourly.csv"))
    path = resampled(real, 1_000, block=100, seed=1)
    assert path.equals(resampled(real, 1_000, block=100, seed=1))
    assert not path.equals(resampled(real, 1_000, block=100, seed=2))
    volume = real["volume"].to_numpy()[1:]
    for start in range(0, 1_000, 100):
        drawn = path["volume"].to_numpy()[start : start + 100]
        there = np.flatnonzero(volume == drawn[0])
        assert any((np.take(volume, range(at, at + 100), mode="wrap") == drawn).all() for at in there)


def test_a_million_bars_stay_where_prices_are(load: Any) -> None:
    path = load("bench_growth").resampled(load_bars(shipped("eurusd_hourly.csv")), 1_000_000)
    assert 0.01 < path["low"].min() < path["high"].max() < 100.0


# Figures, and the table


@pytest.mark.parametrize(
    ("value", "target", "reached"),
    [
        (0.9, (">=", 0.9), True),
        (0.899, (">=", 0.9), False),
        (1.1, ("<=", 1.1), True),
        (1.0, ("<", 1), False),
        (0, ("=", 0), True),
        (1, ("=", 0), False),
        (1.0, None, None),
        (None, (">=", 1), None),
    ],
)
def test_figures_know_whether_they_reach_their_target(
    load: Any, value: float | None, target: tuple[str, float] | None, reached: bool | None
) -> None:
    assert load("measuring").Figure(name="a", value=value, target=target).reached is reached


def test_ways_take_turns_in_changing_order(load: Any) -> None:
    order: list[str] = []
    ticks = iter(range(100))
    ways = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = load("measuring").interleaved(ways, 4, clock=lambda: float(next(ticks)))
    assert "".join(order) == "abcbcacababc"
    assert times == {name: [1.0] * 4 for name in "abc"}


def test_reports_are_json(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    measuring = load("measuring")
    figure = measuring.Figure(name="a over b", value=2.0, unit="x", target=(">=", 1))
    measuring.report("bench_demo.py", "One line.\n\nMore.", [figure], {"rounds": 3}, quick=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["benchmark"], found["title"], found["quick"]) == ("demo", "One line.", True)
    assert found["figures"][0]["reached"] is True
    assert found["machine"]["cpu"]
    assert found["machine"]["threads"] >= 1


MACHINE = {"cpu": "Some CPU", "cores": 2, "threads": 2, "python": "3.11.7", "numpy": "2.4.6"}


def test_the_table_puts_ratios_first_and_says_what_was_reached(load: Any) -> None:
    results = {
        "cold": {
            "figures": [
                {"name": "seconds", "value": 1234.5678, "unit": "s", "target": None, "reached": None},
                {
                    "name": "naive | ours",
                    "value": 1800.4,
                    "unit": "x",
                    "target": [">=", 1000.0],
                    "reached": True,
                    "note": "12 bars",
                },
                {"name": "slow", "value": 0.8449, "unit": "x", "target": [">=", 0.9], "reached": False},
                {"name": "absent", "value": None, "unit": "x", "note": "not built"},
            ]
        },
        "other": {"rounds": 3, "ratio_of_two": 1.5, "took_seconds": 9.0, "text": "x"},
        "broken": {"error": "exit code 1"},
    }
    assert load("run").markdown(results, MACHINE).splitlines() == [
        "| benchmark | figure | measured | target | reached |",
        "|---|---|---|---|---|",
        "| cold | naive / ours | 1,800 x (12 bars) | >= 1,000 | yes |",
        "| cold | slow | 0.845 x | >= 0.9 | no |",
        "| cold | absent | not built |  |  |",
        "| cold | seconds | 1,235 s |  |  |",
        "| other | ratio of two | 1.5 |  |  |",
        "| other | rounds | 3 |  |  |",
        "| broken | failed | exit code 1 |  |  |",
        "",
        "Some CPU, 2 cores, 2 threads, Python 3.11.7, numpy 2.4.6",
    ]


def _script(folder: Path, name: str, text: str) -> Path:
    path = folder / f"bench_{name}.py"
    path.write_text(text, "utf-8")
    return path


def test_the_runner_keeps_what_worked_and_says_what_did_not(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load("run")
    _script(tmp_path, "good", "import sys, json; print(json.dumps({'ratio': 2, 'args': sys.argv[1:]}))")
    _script(tmp_path, "quick", "import sys, json; print(json.dumps({'args': sys.argv[1:]}))  # --quick")
    _script(tmp_path, "bad", "raise SystemExit(3)")
    _script(tmp_path, "mute", "print('no JSON')")
    found = run.find_benchmarks(tmp_path)
    assert list(found) == ["bad", "good", "mute", "quick"]
    monkeypatch.setattr(run, "find_benchmarks", lambda: found)
    output = tmp_path / "deep" / "results.json"
    assert run.main(["--quick", "--output", str(output)]) == 1
    document = json.loads(output.read_text("utf-8"))
    assert (document["quick"], document["format"]) == (True, 1)
    results = document["results"]
    assert (results["good"]["ratio"], results["good"]["args"], results["quick"]["args"]) == (
        2,
        [],
        ["--quick"],
    )
    assert results["bad"]["error"].startswith("exit code 3")
    assert "no JSON" in results["mute"]["error"]
    assert [path.name for path in output.parent.iterdir()] == ["results.json"]
    assert "| bad | failed |" in capsys.readouterr().out
    assert run.main(["good", "--output", str(output)]) == 0
    assert list(json.loads(output.read_text("utf-8"))["results"]) == ["good"]


def test_the_runner_knows_its_benchmarks_by_name(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = load("run")
    assert {name.removeprefix("bench_") for name in OWN} <= set(run.find_benchmarks())
    with pytest.raises(SystemExit) as stopped:
        run.main(["clod"])
    assert stopped.value.code == 2
    assert "no benchmark 'clod'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("bench_*.py"))])
def test_benchmarks_can_be_imported_without_running(load: Any, name: str) -> None:
    module: ModuleType = load(name)
    assert callable(module.main)
    assert module.__doc__
    assert module.__doc__.strip().splitlines()[0].endswith(".")


def test_the_growth_benchmark_counts_what_it_says(load: Any) -> None:
    growth = load("bench_growth")
    bars = growth.resampled(load_bars(shipped("eurusd_hourly.csv")), 1_000)
    with load("measuring").fresh_cache():
        first, second = (growth._run(bars, "scripted:trend") for _ in range(2))
    assert (first["bars"], first["prompts_asked"], second["prompts_asked"]) == (1_000, 105, 0)
    assert 1 < first["distinct_states"] == second["distinct_states"] < 105
    assert second["advice_seconds"] > 0
    assert second["rsi_seconds"] > 0


def test_the_cells_benchmark_counts_the_prompts_that_are_asked(load: Any, tmp_path: Path) -> None:
    cells = load("bench_cells")
    assert cells.ask(tmp_path / "alone", (3, 4), [5], "none") == 1
    assert cells.ask(tmp_path / "grid", (3, 4), [5], "grid") == 12
    assert cells.ask(tmp_path / "grid", (3, 4), [7], "grid") == 0
    assert len(cells.chosen_cells((5, 7, 3), "all")) == 105
    assert len(set(cells.chosen_cells((7,) * 5, "some"))) == cells.VISITED


@pytest.mark.model
def test_the_floor_benchmark_counts_suffixes_and_label_tokens(load: Any, tiny: Path) -> None:
    bench = load("bench_floor").Bench(tiny, 8, states=3, threads=1)
    try:
        # In SmolLM2's tokens ` Bullish` and ` Bearish` are two each: one more to decode for each of them.
        suffixes = [len(bench.backend.session.tokenise(prompt).suffix) for prompt in bench.prompts]
        assert bench.plain_tokens == sum(suffixes) + 2 * 3
        bench.score(bench.prompts)
        before = bench.probabilities
        assert before.shape == (3, 3)
        assert np.allclose(before.sum(axis=1), 1.0)
        assert bench.raw() > 0
        bench.score(bench.prompts)  # measuring the raw throughput leaves the kept prefix right
        assert (bench.probabilities == before).all()
        bench.round()
        assert len(bench.ratios) == len(bench.raw_ms) == len(bench.scored_ms) == 1
        bench.ratios, bench.drift = [0.2, 0.9, 0.8, 0.7], [0.5, 0.0, 0.05, 0.1]
        assert bench.ratio == 0.8
        bench.drift = [0.5] * 4
        assert bench.ratio == pytest.approx(0.75)
    finally:
        bench.close()


@pytest.mark.model
def test_the_memory_benchmark_measures_both_ways(load: Any, tiny: Path, capsys: Any) -> None:
    memory = load("bench_memory")
    for way in memory.WAYS:
        found = memory._in_child(way, tiny)
        assert found["grown_mb"] > 10
        assert found["estimate_mb"] > 10
