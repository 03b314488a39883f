"""Cells: what state spaces of more cells cost beside one state asked alone, and how many prompts are asked.

The model is a scripted one that costs next to nothing, so that what is timed (in processor time) is all that
surrounds a model: prompts, keys, the cache on disk and the calibration. A model's own time goes with the
prompts asked, which are counted. Each case begins with an empty cache; sizes take turns. One state asked
alone must not pay for the grid: without calibration it asks one prompt; with a grid that is cached it asks
none, and only reads what the prior is the mean over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Figure, fresh_cache, interleaved, median, options, report

CELLS = {"105": (5, 7, 3), "512": (8, 8, 8), "16,807": (7,) * 5}
"""Buckets of each feature, by the cells that they make."""

VISITED, ALLOWED = 300, 900
"""Cells of the largest space that a run visits, and prompts that it may ask."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    rounds = 1 if chosen.quick else 7
    asked: dict[str, int] = {}

    def way(name: str, sizes: tuple[int, ...], cells: str, calibration: str = "grid") -> Any:
        def work() -> None:
            with fresh_cache() as folder:
                asked[name] = ask(folder, sizes, chosen_cells(sizes, cells), calibration)

        return work

    def cached() -> float:
        sizes = CELLS["512"]
        with fresh_cache() as folder:
            ask(folder, sizes, chosen_cells(sizes, "all"), "grid")
            start = time.process_time()
            asked["cached"] = ask(folder, sizes, [5], "grid")
            return time.process_time() - start

    ways = {
        "alone": way("alone", CELLS["105"], "one", "none"),
        **{name: way(name, sizes, "all") for name, sizes in CELLS.items() if name != "16,807"},
        "16,807": way("16,807", CELLS["16,807"], "some"),
    }
    ways["alone"]()  # imports
    times = interleaved(ways, rounds, clock=time.process_time)
    from_cache = [cached() for _ in range(rounds)]
    took = {name: median(values) for name, values in times.items()}
    figures = [
        Figure(
            name="512 cells over 105 cells, time over cells",
            value=took["512"] / took["105"] / (512 / 105),
            unit="x",
            note="1 is linear",
        ),
        Figure(name="one state alone over 105 cells, time", value=took["alone"] / took["105"], unit="x"),
        Figure(
            name="one state of 512 cells that are cached over asking them, time",
            value=median(from_cache) / took["512"],
            unit="x",
        ),
        Figure(
            name=f"16,807 cells, {VISITED} visited, over 512 cells, time",
            value=took["16,807"] / took["512"],
            unit="x",
        ),
        Figure(name="one state alone, no calibration: prompts", value=asked["alone"], target=("=", 1)),
        Figure(name="one state, the grid cached: prompts", value=asked["cached"], target=("=", 0)),
        *(
            Figure(name=f"{name} cells: prompts", value=asked[name], target=("=", int(name)))
            for name in ("105", "512")
        ),
        Figure(
            name=f"16,807 cells, {VISITED} visited: prompts",
            value=asked["16,807"],
            target=("<=", ALLOWED),
        ),
    ]
    seconds = {**times, "one of 512, cached": from_cache}
    return report(__file__, __doc__, figures, {"prompts": asked, "seconds": seconds}, quick=chosen.quick)


def ask(folder: Path, sizes: tuple[int, ...], cells: Sequence[int], calibration: Any) -> int:
    """Return how many prompts a new advisor asks for cells, with the cache of a folder."""
    from bt_llm.advice import Advisor, AdvisorConfig, Usage, forget_answers
    from bt_llm.verdicts import Feature, StateSpace

    forget_answers()
    space = StateSpace(
        features=tuple(
            Feature(name=f"f{i}", edges=tuple(range(n - 1)), labels=tuple(f"in {k}" for k in range(n)))
            for i, n in enumerate(sizes)
        )
    )
    config = AdvisorConfig(
        model="scripted:random:1", cache_dir=folder, state_space=space, calibration=calibration
    )
    usage = Usage()
    Advisor(config).advise_cells(cells, usage)
    return usage.model_calls


def chosen_cells(sizes: tuple[int, ...], which: str) -> list[int]:
    """Return one cell, all of a space, or `VISITED` of them that are spread over it."""
    import numpy as np

    count = int(np.prod(sizes))
    if which == "one":
        return [count // 2]
    return list(range(count)) if which == "all" else np.linspace(0, count - 1, VISITED).astype(int).tolist()


if __name__ == "__main__":
    main()
