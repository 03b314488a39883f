"""Probe every scripted model on every market, and write the rates into ``docs/leakage.md``: some minutes."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.leakage_rates.rates import Rates, every_pair, misses, rates, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "leakage.md"
BEGIN, END = "<!-- rates: python -m tests.leakage_rates -->\n", "<!-- end of the rates -->"


def written(text: str, found: str) -> str:
    """Return the page with other rates between its two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: expected the lines {BEGIN.strip()} and {END}")
    return f"{before}{begin}\n{found}\n\n{end}{after}"


def _one(job: tuple[str, str, int, int]) -> Rates:
    market, control, seeds, points = job
    return rates(market, control, range(seeds), points=points)


def main() -> int:
    """Simulate, write the page, and say what was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.leakage_rates", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    jobs = [(*pair, chosen.seeds, chosen.points) for pair in every_pair()]
    with ProcessPoolExecutor(chosen.processes) as pool:
        found = list(pool.map(_one, jobs))
    said = (
        f"{chosen.seeds} seeds each, {chosen.points} bars asked about in each, level 1 % for all probes "
        "together.\n\n"
    )
    PAGE.write_text(
        written(PAGE.read_text(encoding="utf-8"), said + table(found)), encoding="utf-8", newline="\n"
    )
    missed = misses(found)
    sys.stdout.write("\n".join([f"{len(missed)} bounds missed", *missed, ""]))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
