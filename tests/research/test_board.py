"""A board ranks what packs make of fixed tasks, and says where nobody can tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bt_llm import AdvisorConfig, Gate, run_backtest
from bt_llm.advice import Advisor, Policy, forget_answers
from bt_llm.backtest import roughly
from bt_llm.cache import VerdictCache, export_pack
from bt_llm.cli._app import app
from bt_llm.data import load_bars, shipped, shipped_board
from bt_llm.exceptions import ConfigError
from bt_llm.report import write_report
from bt_llm.research import BoardTasks, board

TASKS = """
format = 1
chance = 1
resamples = 199

[[task]]
name = "hours"
strategy = "sma_cross.py:GatedSmaCross"
data = "bars.csv"
commission = 0.00002
"""


def write_pack(folder: Path, name: str, model: str, cells: int | None = None) -> None:
    forget_answers()
    with VerdictCache(folder / "cache" / name) as cache:
        advisor = Advisor(AdvisorConfig(model=model, cache_dir=cache.directory))
        Policy.of(advisor)
        keys = None if cells is None else advisor.keys(range(cells))
        export_pack(cache, folder / f"{name}.jsonl", keys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    load_bars(shipped("eurusd_hourly.csv"))[:900].to_csv(tmp_path / "bars.csv")
    (tmp_path / "tasks.toml").write_text(TASKS)
    write_pack(tmp_path, "trend", "scripted:trend")
    write_pack(tmp_path, "again", "scripted:trend")
    write_pack(tmp_path, "short of some", "scripted:contrarian", 40)
    return tmp_path


def test_an_entry_is_what_its_verdicts_make_of_the_task_and_no_model_is_asked(folder: Path) -> None:
    found = board(folder)
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend"))
    strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    alone = run_backtest(strategy, folder / "bars.csv", gate=gate, commission=0.00002)
    entries = {one.name: one for one in found.entries}
    assert list(entries) == ["again", "short of some", "trend", "chance 1", "plain rule", "ungated"]
    for name in ("trend", "again"):
        metrics = entries[name].tasks["hours"].metrics
        assert metrics == {metric: alone.metrics[metric] for metric in metrics}
    returns = alone.returns.to_numpy()
    assert entries["trend"].score == pytest.approx(returns.mean() / returns.std())
    assert entries["trend"].confidence == entries["again"].confidence
    assert found.bars == len(returns)


def test_what_lacks_verdicts_is_not_ranked_and_nobody_is_called_best_who_may_not_be(folder: Path) -> None:
    found = board(folder)
    (left_out,) = [one for one in found.entries if one.left_out]
    assert left_out.name == "short of some"
    assert left_out.left_out == "hours: the pack of short of some lacks verdicts that the task needs"
    assert len(found.best) > 1
    assert found.sentences[0].startswith("Cannot tell which")
    assert any("know nothing" in sentence for sentence in found.sentences)
    assert any(sentence.startswith("Not ranked: short of some: hours: ") for sentence in found.sentences)
    assert [one.score for one in found.ranked] == sorted((one.score for one in found.ranked), reverse=True)


def test_the_same_folder_gives_the_same_board_and_a_page(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["board", str(folder), "--format", "json", "--report", str(tmp_path / "b.html")]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads(json.dumps(board(folder).to_dict()))
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "Cannot tell which" in page
    assert "short of some" in page
    write_report(tmp_path / "again.html", board(folder), title="Board")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_the_board_that_ships_has_its_tasks_and_small_packs() -> None:
    tasks = BoardTasks.read(shipped_board())
    assert len(tasks.tasks) == 4
    packs = sorted(shipped_board().glob("*.jsonl"))
    assert len(packs) == 4
    assert all(pack.stat().st_size < 200_000 for pack in packs)
    for task in tasks.tasks:
        assert tasks.file(task.data).is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "format None"),
        ("format = 1\n", r"expected \[\[task\]\]"),
        ("format = 1\nx = 1\n", "unknown keys"),
        ("format = 1\nseed = -1\n", "seed = -1"),
        ("format = 1\nseed = true\n", "seed = True"),
        ("format = 1\nlevel = nan\n", "level = nan"),
        ("format = 1\n[[task]]\nname = 'a'\n", "a task"),
        ("format = 1\n[[task]]\nname = 'a'\nstrategy = 3\ndata = 'b'\n", "strategy = 3"),
        ("format = 1\n[[task]]\nname = 'a'\nstrategy = 's'\ndata = 'b'\ncommission = 2\n", "commission = 2"),
        (TASKS + TASKS[TASKS.index("[[task]]") :], "two tasks have one name"),
        ("format = \n", "not TOML"),
    ],
)
def test_tasks_that_are_none_are_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tasks.toml").write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        board(tmp_path)
    assert "\n" not in str(refused.value)


def test_what_is_no_folder_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^folder=3: expected a path"):
        board(3)  # type: ignore[arg-type]


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    for name in ("../secret.csv", "/etc/passwd", "no.csv"):
        (tmp_path / "tasks.toml").write_text(TASKS.replace("bars.csv", name))
        with pytest.raises(ConfigError, match="no file"):
            board(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        board(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["ungated", "plain rule", "chance 7"])
def test_a_pack_that_is_named_as_another_entry_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "tasks.toml").write_text(TASKS)
    (tmp_path / f"{name}.jsonl").touch()
    with pytest.raises(ConfigError, match=f"a pack is called '{name}.jsonl', as an entry is that needs none"):
        board(tmp_path)


def test_packs_that_are_too_many_are_not_left_out_unsaid(tmp_path: Path) -> None:
    (tmp_path / "tasks.toml").write_text(TASKS)
    for number in range(201):
        (tmp_path / f"{number}.jsonl").touch()
    with pytest.raises(ConfigError, match="201 packs, expected at most 200"):
        board(tmp_path)


def test_a_good_entry_is_told_from_bad_ones(folder: Path) -> None:
    """Of a market that trends from hour to hour, following it must come out alone above its opposite."""
    rng = np.random.default_rng(3)
    bars = load_bars(folder / "bars.csv")
    steps = np.repeat(rng.choice([-1.0, 1.0], len(bars) // 60 + 1), 60)[: len(bars)]
    closes = 100.0 * np.exp(np.cumsum(0.001 * steps + 0.0005 * rng.standard_normal(len(bars))))
    opens = np.concatenate([[100.0], closes[:-1]])
    made = bars.assign(
        open=opens, close=closes, high=np.maximum(opens, closes), low=np.minimum(opens, closes)
    )
    made.to_csv(folder / "bars.csv")
    shutil.rmtree(folder / "cache")
    (folder / "again.jsonl").unlink()
    write_pack(folder, "short of some", "scripted:contrarian")
    found = board(folder)
    entries = {one.name: one for one in found.entries}
    assert entries["trend"].score > entries["short of some"].score
    assert entries["short of some"].confidence <= 0.05 < entries["trend"].confidence


def test_its_p_values_stand_beside_their_least_and_what_could_have_been_found(folder: Path) -> None:
    found = board(folder)
    question, over = found.question, found.over_ungated
    assert question is not None
    assert over is not None
    assert question.smallest == over.smallest == 1 / 200
    compared = [one.confidence for one in found.ranked if one.kind != "no gate"]
    assert question.p_value == min(compared)  # the set's first step is the test of all pairs
    for told in (question, over):
        assert told.detectable is not None
        assert 0.0 < told.detectable < 1.0
        assert told.to_dict()["detectable_in"] == "score"
    assert f"that no two differ: p = {question.p_value:.3g}, 0.005 at the least" in found.sentences[0]
    assert f"a score higher by {roughly(question.detectable)} than another one would be" in found.sentences[0]
    assert over.sentence in found.sentences
    assert f"An effect of {roughly(over.detectable)} in score would have been found" in over.sentence
    assert found.to_dict()["over_ungated"]["p_value"] == over.p_value


def test_at_a_level_that_no_p_value_reaches_it_cannot_tell(folder: Path) -> None:
    tasks = (folder / "tasks.toml").read_text()
    (folder / "tasks.toml").write_text(f"level = 0.001\n{tasks}")
    found = board(folder)
    cannot = "Cannot tell whether the best is better than no gate at all: no outcome could have given p below"
    assert any(sentence.startswith(cannot) for sentence in found.sentences)
    assert found.sentences[0].startswith("Cannot tell which is best")
    assert "four times in five" not in found.sentences[0]
    assert found.question is not None
    assert (found.question.found, found.question.detectable) == (None, None)
