"""Run the benchmarks: all `bench_*.py` beside this file, or those named, each in a process of its own.

Writes one JSON file, and prints a Markdown table of the figures, ratios first, with the machine's name under
it: it goes into the README by hand. Progress goes to standard error. A benchmark that fails is reported and
the others still run; the exit code is then 1. A target that is not reached is a result, not a failure.

Without ``--quick`` it takes about an hour on 2 cores, up to 6 GB of memory, and builds the 1B shape first
(`shapes.py`); close other programs, since figures are only as good as the machine is quiet.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import machine, note

__all__ = ["find_benchmarks", "markdown", "run_benchmark"]

HERE = Path(__file__).resolve().parent
_RATIOS = ("x",)
_TAKES_QUICK = re.compile("--quick|import .*options")  # by itself, or from `measuring.options`


def find_benchmarks(folder: Path = HERE) -> dict[str, Path]:
    """Return the benchmarks by name, in alphabetical order."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}


def run_benchmark(path: Path, *, quick: bool = False) -> dict[str, Any]:
    """Run one in a process of its own, and return its JSON object; one with ``error`` if it failed."""
    command = [sys.executable, str(path)]
    if quick and _TAKES_QUICK.search(path.read_text("utf-8")):
        command.append("--quick")
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    result = _parse(done.stdout)
    if done.returncode or result is None:
        said = done.stdout[-500:].strip() or "nothing"
        result = {"error": f"exit code {done.returncode}, and printed {said}; its messages stand above"}
    return {**result, "took_seconds": round(time.perf_counter() - start, 1)}


def _parse(printed: str) -> dict[str, Any] | None:
    try:
        result = json.loads(printed)
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def markdown(results: Mapping[str, Mapping[str, Any]], named: Mapping[str, Any]) -> str:
    """Return the table of the figures, those of each benchmark together and its ratios first.

    Parameters
    ----------
    results : mapping
        JSON objects of benchmarks, by name. One without ``figures`` shows its own numbers instead.
    named : mapping
        The machine, as `measuring.machine` describes it.

    Examples
    --------
    >>> figure = {"name": "a over b", "value": 2.5, "unit": "x", "target": [">=", 2], "reached": True}
    >>> machine = {"cpu": "CPU", "cores": 2, "threads": 2, "python": "3.11.7"}
    >>> print(markdown({"demo": {"figures": [figure]}}, machine))
    | benchmark | figure | measured | target | reached |
    |---|---|---|---|---|
    | demo | a over b | 2.5 x | >= 2 | yes |
    <BLANKLINE>
    CPU, 2 cores, 2 threads, Python 3.11.7
    """
    lines = ["| benchmark | figure | measured | target | reached |", "|---|---|---|---|---|"]
    for name, result in results.items():
        lines += [_row(name, figure) for figure in _figures(result)]
    return "\n".join([*lines, "", describe_machine(named)])


def describe_machine(named: Mapping[str, Any]) -> str:
    """Return one line that names the machine and the versions."""
    parts = [f"{named['cpu']}", f"{named['cores']} cores", f"{named['threads']} threads"]
    if "llama_cpp" in named:
        parts.append(f"llama.cpp {named['llama_cpp']}")
    packages = ("llama-cpp-python", "backtrader", "numpy", "pandas")
    parts.append(f"Python {named['python']}")
    return ", ".join([*parts, *(f"{package} {named[package]}" for package in packages if package in named)])


def _figures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "error" in result:
        return [{"name": "failed", "value": None, "note": result["error"]}]
    if "figures" in result:
        figures = [dict(figure) for figure in result["figures"]]
        return sorted(figures, key=lambda figure: figure.get("unit") not in _RATIOS)
    numbers = [
        {"name": key.replace("_", " "), "value": value}
        for key, value in result.items()
        if type(value) in (int, float) and key != "took_seconds"
    ]
    return sorted(numbers, key=lambda figure: "ratio" not in figure["name"])


def _row(benchmark: str, figure: Mapping[str, Any]) -> str:
    target, reached = figure.get("target"), figure.get("reached")
    cells = [
        benchmark,
        str(figure["name"]),
        _measured(figure),
        f"{target[0]} {_number(target[1])}" if target else "",
        {True: "yes", False: "no"}.get(reached, "") if reached is not None else "",
    ]
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _measured(figure: Mapping[str, Any]) -> str:
    value, unit, said = figure.get("value"), figure.get("unit", ""), figure.get("note", "")
    if value is None:
        return said or "not measured"
    text = f"{_number(value)} {unit}".strip()
    return f"{text} ({said})" if said else text


def _number(value: float) -> str:
    """Return three digits that count, and all those before the point."""
    if value == 0 or float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, write and print."""
    known = find_benchmarks()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, no more")
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="default: %(default)s")
    chosen = parser.parse_args(argv)
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"no benchmark {unknown[0]!r}: choose from {', '.join(known)}")
    document: dict[str, Any] = {
        "format": 1,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": chosen.quick,
        "machine": machine(),
        "results": {},
    }
    for name in chosen.names or known:
        note(f"== {name}")
        document["results"][name] = run_benchmark(known[name], quick=chosen.quick)
        _write(chosen.output, document)  # after each, so that an interrupted run keeps what it has
    print(markdown(document["results"], document["machine"]))  # noqa: T201
    return int(any("error" in result for result in document["results"].values()))


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        json.dump(document, file, indent=1, sort_keys=False, allow_nan=False)
        file.write("\n")
    os.replace(file.name, path)


if __name__ == "__main__":
    sys.exit(main())
