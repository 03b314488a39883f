"""A board: many models' verdicts under one fixed set of tasks, recomputed from their packs, and ranked.

A folder has ``tasks.toml`` and a pack a model, ``NAME.jsonl``. A task is a strategy on bars with its costs;
an entry is what the verdicts in a pack make of all tasks. No model is loaded or asked.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bt_llm import statistics
from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import BacktestResult, Market, Primary, load_strategy, run_backtest
from bt_llm.cache import VerdictCache, import_pack
from bt_llm.data import shipped
from bt_llm.exceptions import BtLlmError, ConfigError, DataError, ReplayMiss
from bt_llm.files import read_text
from bt_llm.gates import EntryGate, Gate, RuleGate
from bt_llm.models import Progress
from bt_llm.progress import shows_progress
from bt_llm.research._board_result import UNGATED, Board, BoardEntry, TaskScore
from bt_llm.settings import is_number, path_text
from bt_llm.writing import temporary_folder

__all__ = ["BoardTasks", "Task", "board"]

FORMAT = 1
_CHANCE, _RULE = "chance ", "plain rule"
_TASKS = "tasks.toml"
_MOST_TASKS, _MOST_ENTRIES, _USUAL_MB = 50, 200, 1
_FEWEST_BARS = 250
_SCORE = "score"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A strategy on a market.

    Parameters
    ----------
    name : str
        For tables.
    strategy : str
        ``file.py:ClassName``: a file that comes with bt_llm, or one beside the tasks.
    data : str
        A CSV of bars, likewise.
    commission, slippage, percent : float
        As of `Setup`.
    """

    name: str
    strategy: str
    data: str
    commission: float = 0.0
    slippage: float = 0.0
    percent: float = 95.0


@dataclass(frozen=True, kw_only=True)
class BoardTasks:
    """What a folder's ``tasks.toml`` says.

    Parameters
    ----------
    tasks : tuple of Task
        In their order.
    chance : int
        How many entries draw their policy by chance, ``scripted:random:1`` and so on.
    resamples, seed : int
        Of the bootstrap.
    level : float
        Of the model confidence set: one less its confidence.
    folder : Path
        Where the file is.
    """

    tasks: tuple[Task, ...]
    chance: int = 3
    resamples: int = 999
    seed: int = 0
    level: float = 0.05
    folder: Path = Path()

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> BoardTasks:
        """Return the tasks of a folder.

        Raises
        ------
        ConfigError
            If there are none, or something in them is not as it should be; in one line.
        """
        path = Path(path_text("folder", folder)) / _TASKS
        try:
            table = tomllib.loads(read_text(path, _USUAL_MB).removeprefix("\ufeff"))
        except OSError as error:
            raise ConfigError(
                f"board {str(folder)!r}: {_TASKS} cannot be read ({error.strerror or error})"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeError, RecursionError) as error:
            raise ConfigError(f"board {str(folder)!r}: {_TASKS} is not TOML ({error!s:.120})") from None
        return cls(**_checked(table, f"board {str(folder)!r}: {_TASKS}"), folder=Path(folder))

    def file(self, name: str) -> Path:
        """Return a file of a task: beside the tasks, or one that comes with bt_llm."""
        beside = self.folder / name
        if "/" not in name and "\\" not in name and beside.is_file():
            return beside
        try:
            return shipped(name)
        except DataError as error:
            raise ConfigError(f"board: no file {name!r:.80} beside {_TASKS}, and {error}") from None


_NUMBERS: Mapping[str, tuple[type, float, float]] = {
    "chance": (int, 0, 20),
    "resamples": (int, 99, 100_000),
    "seed": (int, 0, 2**32 - 1),
    "level": (float, 0.001, 0.5),
}


def _checked(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    if type(table.get("format")) is not int or table["format"] != FORMAT:
        raise ConfigError(f"{where}: format {table.get('format')!r:.40}: this version reads {FORMAT}")
    if unknown := sorted(set(table) - {"format", "task", *_NUMBERS}):
        raise ConfigError(
            f"{where}: unknown keys {unknown!s:.80}; expected {', '.join(_NUMBERS)} and [[task]]"
        )
    found: dict[str, Any] = {}
    for name, (kind, low, high) in _NUMBERS.items():
        if name in table:
            value: Any = table[name]
            if type(value) not in (kind,) or not is_number(value) or not low <= value <= high:
                raise ConfigError(
                    f"{where}: {name} = {value!r:.40}: expected a number from {low:g} to {high:g}"
                )
            found[name] = value
    entries = table.get("task")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_TASKS:
        raise ConfigError(f"{where}: expected [[task]], up to {_MOST_TASKS} times")
    tasks = tuple(_task(entry, where) for entry in entries)
    if len({task.name for task in tasks}) < len(tasks):
        raise ConfigError(f"{where}: two tasks have one name; expected a name of its own for each")
    return {**found, "tasks": tasks}


def _task(entry: Any, where: str) -> Task:
    names = {field.name for field in dataclasses.fields(Task)}
    needed = {"name", "strategy", "data"}
    if not isinstance(entry, dict) or not needed <= set(entry) <= names:
        raise ConfigError(f"{where}: a task {entry!s:.60}: expected {', '.join(sorted(names))}")
    for name, value in entry.items():
        if name in needed:
            if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
                raise ConfigError(f"{where}: {name} = {value!r:.40}: expected a text")
        elif not is_number(value) or not 0 <= value <= (100 if name == "percent" else 1):
            raise ConfigError(f"{where}: {name} = {value!r:.40}: expected a share")
    return Task(**entry)


@shows_progress("entries")
def board(
    folder: str | os.PathLike[str],
    *,
    on_progress: Progress | None = None,
    on_code: Callable[[Path], None] | None = None,
) -> Board:
    """Return what the packs of a folder make of its tasks, ranked; no model is loaded or asked.

    Parameters
    ----------
    folder : path
        With ``tasks.toml`` and a pack for each entry.
    on_progress : callable, optional
        Called with (runs done, runs in all).
    on_code : callable, optional
        Called with each file of strategies before it is run.

    Raises
    ------
    ConfigError
        If the folder has no tasks that can be read, more than 200 packs, or one that is named as an entry
        that needs none, such as ``ungated``.
    MissingExtraError
        If ``arch`` is not installed.

    Notes
    -----
    On each task every entry gates the same strategy on the same bars. A task's returns are divided by the
    standard deviation of those of the ungated strategy, so that no market counts for more than its bars. An
    entry's series is the mean of its tasks at each time: what strategies on one market earn together is
    resampled together, or two tasks would pass for twice the evidence. Entries are ranked by the mean of that
    series over its standard deviation; which of them may be the best is said by the model confidence set, and
    whether the best is better than no gate by Hansen's test, which counts that it was looked for. Beside
    either p-value stand the least that it could be, and the difference in score that these tasks could show.
    An entry that lacks a verdict, or whose run has problems, is not ranked, and why is said.

    Examples
    --------
    >>> from bt_llm.data import shipped_board
    >>> found = board(shipped_board())                                           # doctest: +SKIP
    """
    tasks = BoardTasks.read(folder)
    packs = _packs(tasks.folder)
    files = dict.fromkeys(tasks.file(task.strategy.partition(":")[0]) for task in tasks.tasks)
    for file in files:
        if on_code is not None:
            on_code(file)
    with temporary_folder() as cache:
        gates = _gates(tasks, packs, cache)
        total, done = len(gates) * len(tasks.tasks), 0
        runs: dict[str, dict[str, BacktestResult | str]] = {name: {} for name in gates}
        for task in tasks.tasks:
            place, _, name = task.strategy.partition(":")
            strategy = load_strategy(f"{tasks.file(place)}:{name}")
            market = Market.of(tasks.file(task.data))
            for entry, gate in gates.items():
                runs[entry][task.name] = _run(task, strategy, market, entry, gate)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
    return _ranked(tasks, runs, gates)


def _packs(folder: Path) -> list[Path]:
    packs = sorted(folder.glob("*.jsonl"))
    if len(packs) > _MOST_ENTRIES:
        raise ConfigError(f"board {str(folder)!r}: {len(packs)} packs, expected at most {_MOST_ENTRIES}")
    for pack in packs:
        if pack.stem in (UNGATED, _RULE) or pack.stem.startswith(_CHANCE):
            raise ConfigError(
                f"board {str(folder)!r}: a pack is called {pack.name!r}, as an entry is that needs none: "
                "expected another name"
            )
    return packs


def _gates(tasks: BoardTasks, packs: list[Path], cache: Path) -> dict[str, EntryGate | str]:
    """Return the gate of each entry by its name; of a pack that cannot be used, why."""
    found: dict[str, EntryGate | str] = {}
    for pack in packs:
        try:
            found[pack.stem] = _gate_of(pack, cache / f"{len(found)}")
        except BtLlmError as error:
            found[pack.stem] = str(error).partition("\n")[0]
    for number in range(1, tasks.chance + 1):
        config = AdvisorConfig(model=f"scripted:random:{number}", cache_mode="off")
        found[f"{_CHANCE}{number}"] = Gate(advisor=config)
    found[_RULE] = RuleGate()
    found[UNGATED] = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off")).baseline()
    return found


def _gate_of(pack: Path, folder: Path) -> Gate:
    with VerdictCache(folder, "record") as cache:
        import_pack(cache, pack)
        models = [document["sha256"] for document in cache.model_documents()]
    if len(models) != 1:
        raise ConfigError(f"{pack.name} has verdicts of {len(models)} models: expected one")
    return Gate(advisor=AdvisorConfig(model=models[0], cache_dir=folder, cache_mode="replay"))


def _run(
    task: Task, strategy: Any, market: Market, entry: str, gate: EntryGate | str
) -> BacktestResult | str:
    """Return an entry's run of a task, or why there is none."""
    if isinstance(gate, str):
        return gate
    try:
        costs = {name: getattr(task, name) for name in ("commission", "slippage", "percent")}
        return run_backtest(strategy, market, gate=gate, name=entry, **costs)
    except ReplayMiss:  # whose message names a folder that is gone by now
        return f"the pack of {entry} lacks verdicts that the task needs"
    except BtLlmError as error:
        return str(error).partition("\n")[0]


def _ranked(
    tasks: BoardTasks,
    runs: Mapping[str, Mapping[str, BacktestResult | str]],
    gates: Mapping[str, EntryGate | str],
) -> Board:
    names = [task.name for task in tasks.tasks]
    ungated = {name: runs[UNGATED][name] for name in names}
    left_out = {entry: _why_not(one, ungated) for entry, one in runs.items()}
    kept = [entry for entry, why in left_out.items() if not why]
    if UNGATED not in kept:
        raise ConfigError(f"board: the tasks cannot be run without a gate: {left_out[UNGATED]}")
    scaled = _series({entry: runs[entry] for entry in kept}, ungated)
    candidates = [entry for entry in kept if entry != UNGATED]
    bars = len(scaled)
    enough = len(candidates) > 1 and bars >= _FEWEST_BARS
    compared = scaled[candidates]
    how: dict[str, Any] = {"n": tasks.resamples, "seed": tasks.seed}
    confidence = statistics.model_confidence_set(compared, **how) if enough else {}
    entries = [
        BoardEntry(
            name=entry,
            kind=_kind(entry, gates[entry]),
            score=_sharpe(scaled[entry]) if entry in scaled else float("nan"),
            confidence=confidence.get(entry, float("nan")),
            left_out=left_out[entry],
            tasks={name: _score(one) for name, one in runs[entry].items()},
        )
        for entry in runs
    ]
    return Board(
        tasks=tuple(names),
        entries=tuple(entries),
        level=tasks.level,
        question=_which(compared, tasks) if enough else None,
        over_ungated=_over_ungated(scaled, tasks) if enough else None,
        bars=bars,
    )


def _which(compared: pd.DataFrame, tasks: BoardTasks) -> Primary:
    """Return whether any two entries differ, of all pairs at once: the confidence set's first step."""
    smallest = 1.0 / (1 + tasks.resamples)
    stated = 1.0 - tasks.level if smallest <= tasks.level else 0.95
    family = statistics.stepwise_differences(compared, n=tasks.resamples, seed=tasks.seed, confidence=stated)
    return Primary(
        claim="one entry is better than another",
        p_value=family.p_value,
        smallest=smallest,
        alpha=tasks.level,
        detectable=family.detectable if smallest <= tasks.level and family.detectable > 0.0 else None,
        measure=_SCORE,
    )


def _over_ungated(scaled: pd.DataFrame, tasks: BoardTasks) -> Primary:
    """Return whether the best entry is better than no gate, with what could have been found."""
    length = max(1, round(len(scaled[UNGATED]) ** (1 / 3)))
    found = statistics.best_of(
        scaled, UNGATED, n=tasks.resamples, seed=tasks.seed, block_length=length, alpha=tasks.level
    )
    return Primary(
        claim="the best is better than no gate at all",
        p_value=found.p_value,
        smallest=found.smallest,
        alpha=tasks.level,
        detectable=found.detectable,
        measure=_SCORE,
    )


def _why_not(runs: Mapping[str, BacktestResult | str], ungated: Mapping[str, BacktestResult | str]) -> str:
    """Return why an entry is not ranked; empty if it is."""
    for task, run in runs.items():
        if isinstance(run, str):
            return f"{task}: {run}"
        if run.problems:
            return f"{task}: {run.problems[0]}"
        base = ungated[task]
        if isinstance(base, BacktestResult) and not run.equity.index.equals(base.equity.index):
            return f"{task}: its bars are not those of the ungated strategy"
    return ""


def _series(runs: Mapping[str, Mapping[str, Any]], ungated: Mapping[str, Any]) -> pd.DataFrame:
    """Return each entry's returns in the ungated one's deviations: at each time the mean of its tasks."""
    deviations = {task: run.returns.to_numpy().std() for task, run in ungated.items()}
    returns = {
        (entry, task): run.returns / deviations[task]
        for entry, of_entry in runs.items()
        for task, run in of_entry.items()
    }
    return statistics.pooled(pd.concat(returns, axis=1, sort=True))


def _sharpe(series: pd.Series[float]) -> float:
    deviation = float(series.std(ddof=0))
    return float(series.mean()) / deviation if deviation > 0.0 else 0.0


def _kind(name: str, gate: EntryGate | str) -> str:
    if name == UNGATED:
        return "no gate"
    if isinstance(gate, RuleGate):
        return "rule"
    return "chance" if name.startswith(_CHANCE) else "pack"


def _score(run: BacktestResult | str) -> TaskScore:
    if isinstance(run, str):
        return TaskScore(refused=run)
    return TaskScore(
        metrics={name: run.metrics[name] for name in ("return", "sharpe", "max_drawdown", "trades")},
        problems=run.problems,
        equity=pd.Series(run.equity),
    )
