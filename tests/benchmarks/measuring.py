"""What the benchmarks share: options, interleaved timing, the machine's name, and the form of a result.

A benchmark is a file ``bench_*.py`` whose ``main()`` prints one JSON object:

- ``benchmark``: its name; ``title``: one line; ``quick``: whether it ran with ``--quick``;
- ``figures``: a list of `Figure` as dicts, ratios first: what goes into the table;
- ``details``: everything else that was measured; ``machine``: see `machine`.

Ratios are made of things timed alternately in one run, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import operator
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "Figure",
    "fresh_cache",
    "interleaved",
    "machine",
    "median",
    "note",
    "options",
    "report",
    "seconds",
]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
}
_PACKAGES = ("bt-llm", "llama-cpp-python", "backtrader", "numpy", "pandas", "diskcache")

median = statistics.median


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number, and the target it is held against.

    Parameters
    ----------
    name : str
        What was measured, for a table.
    value : float or None
        None if it could not be measured here; `note` says why.
    unit : str
        Such as ``x`` (a ratio), ``s`` or ``MB``.
    target : tuple of (str, float), optional
        A comparison (``>=``, ``<=``, ``<``, ``=``) and a number.
    note : str
        How the number was made, where its name does not say.

    Examples
    --------
    >>> Figure(name="naive over ours", value=1500.0, unit="x", target=(">=", 1000)).reached
    True
    """

    name: str
    value: float | None
    unit: str = ""
    target: tuple[str, float] | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without a target or a value."""
        if self.target is None or self.value is None:
            return None
        comparison, number = self.target
        return _COMPARE[comparison](self.value, number)

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into the JSON."""
        return {**asdict(self), "reached": self.reached}


def options(
    doc: str, argv: Sequence[str] | None = None, *, add: Callable[[Any], None] | None = None
) -> argparse.Namespace:
    """Read a benchmark's command line; `add` may add arguments to ``--quick``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, no more")
    if add is not None:
        add(parser)
    return parser.parse_args(argv)


def note(text: str) -> None:
    """Say on standard error how far a benchmark is."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    ways: Mapping[str, Callable[[], object]], repeats: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time several ways of doing a thing in turns, each round in another order.

    Parameters
    ----------
    ways : mapping
        Names, and what to call.
    repeats : int
        Rounds.
    clock : callable
        Returns seconds.

    Returns
    -------
    dict of str to list of float
        Seconds a round, by name.
    """
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            ways[name]()
            times[name].append(clock() - start)
    return times


@contextlib.contextmanager
def fresh_cache() -> Iterator[Path]:
    """Have a new, empty verdict cache for the time of a block, and nothing that remembers an older one."""
    from bt_llm.advice import forget_answers
    from bt_llm.models import forget_managers

    with tempfile.TemporaryDirectory(prefix="bt_llm-bench-") as folder:
        before = os.environ.get("BT_LLM_CACHE_DIR")
        os.environ["BT_LLM_CACHE_DIR"] = folder
        forget_answers()
        forget_managers()
        try:
            yield Path(folder)
        finally:
            forget_answers()
            forget_managers()
            if before is None:
                del os.environ["BT_LLM_CACHE_DIR"]
            else:
                os.environ["BT_LLM_CACHE_DIR"] = before


def machine() -> dict[str, Any]:
    """Name the machine and the versions; the load says how much else it was doing."""
    from bt_llm.models.llama._native import cpu_threads

    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads": cpu_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(value, 2) for value in psutil.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    with contextlib.suppress(Exception):  # a benchmark that needs no model also runs without llama.cpp
        from bt_llm.models import system_info
        from bt_llm.models.llama._native import library

        found["llama_cpp"] = library().llama_version().decode("ascii", "replace")
        found["cpu_features"] = system_info()
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(
    script: str, doc: str, figures: Sequence[Figure], details: Mapping[str, Any], *, quick: bool
) -> dict[str, Any]:
    """Print a result as one JSON object on standard output, and return it.

    Parameters
    ----------
    script : str
        The benchmark's ``__file__``.
    doc : str
        Its docstring, whose first line becomes the title.
    figures : sequence of Figure
        Ratios first.
    details : mapping
        What else was measured.
    quick : bool
        Whether it ran with ``--quick``.
    """
    result = {
        "benchmark": Path(script).stem.removeprefix("bench_"),
        "title": doc.strip().splitlines()[0],
        "quick": quick,
        "figures": [figure.to_dict() for figure in figures],
        "details": dict(details),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1, allow_nan=False))  # noqa: T201
    return result
