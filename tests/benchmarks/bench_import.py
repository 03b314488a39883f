"""Import: what bt_llm adds to the start of a program that imports Backtrader.

Fresh Python processes, taking turns, each importing backtrader, and then nothing, bt_llm, the names that
a strategy file needs, or those and `run_backtest` (which needs pandas). Each measures its own imports (wall
time, and processor time, which a busy machine disturbs less), so the start of Python itself is not in the
figures. Files are in the operating system's cache: one round is thrown away. Figures are differences of
medians.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from measuring import Figure, median, note, options, report

ALLOWED_MS = 150.0
_WAYS = {
    "backtrader": "import backtrader",
    "bt_llm": "import backtrader, bt_llm",
    "strategy": "import backtrader; from bt_llm import Gate, LLMAdvice, attach_gate",
    "names": "import backtrader; from bt_llm import Gate, LLMAdvice, run_backtest",
}
_PROGRAM = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{imports}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def import_seconds(imports: str) -> tuple[float, float]:
    """Return the wall and processor seconds that imports take in a new process."""
    program = _PROGRAM.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    rounds = 3 if chosen.quick else 25
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in _WAYS}
    for i in range(rounds + 1):
        for name, imports in _WAYS.items():
            taken = import_seconds(imports)
            if i:
                times[name].append(taken)
        note(f"import: {i} of {rounds} rounds")
    wall = {name: 1e3 * median([w for w, _ in taken]) for name, taken in times.items()}
    cpu = {name: 1e3 * median([c for _, c in taken]) for name, taken in times.items()}
    figures = [
        Figure(
            name=f"{what} above backtrader",
            value=wall[way] - wall["backtrader"],
            unit="ms",
            target=("<=", ALLOWED_MS),
            note=f"processor time: {cpu[way] - cpu['backtrader']:.0f} ms",
        )
        for way, what in (
            ("bt_llm", "import bt_llm"),
            ("strategy", "import Gate, LLMAdvice, attach_gate"),
            ("names", "import Gate, LLMAdvice, run_backtest"),
        )
    ]
    figures.append(Figure(name="import backtrader", value=wall["backtrader"], unit="ms"))
    details = {"rounds": rounds, "wall_ms": wall, "processor_ms": cpu}
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


if __name__ == "__main__":
    main()
