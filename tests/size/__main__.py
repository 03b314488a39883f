"""Run all settings for some minutes, and write ``docs/size.md``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.size.setting import Found, Setting, all_settings, measure
from tests.size.table import misses, page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "size.md"
ROUND = 10


def _studies(name: str, start: int) -> tuple[str, list[Found]]:
    setting = next(one for one in all_settings() if one.name == name)
    return name, measure(setting, range(start, min(start + ROUND, setting.repeats)))


def simulate(settings: Sequence[Setting], minutes: float, processes: int) -> dict[str, list[Found]]:
    """Return what the studies said, by setting; each has as many as the time and its repeats allow."""
    found: dict[str, list[Found]] = {setting.name: [] for setting in settings}
    ends = time.monotonic() + 60.0 * minutes
    starts = range(0, max(setting.repeats for setting in settings), ROUND)
    with ProcessPoolExecutor(processes) as pool:
        for start in starts:
            waiting = [setting for setting in settings if start < setting.repeats]
            if time.monotonic() > ends:
                break
            jobs = [pool.submit(_studies, setting.name, start) for setting in waiting]
            for job in as_completed(jobs):
                name, said = job.result()
                found[name] += said
    return found


def main() -> int:
    """Simulate, write the page, and say which goals were missed by more than two Monte Carlo errors."""
    parser = argparse.ArgumentParser(prog="python -m tests.size", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="no round is begun after that")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="settings whose names hold this; the page is not written")
    chosen = parser.parse_args()
    settings = [setting for setting in all_settings() if chosen.only in setting.name]
    found = simulate(settings, chosen.minutes, chosen.processes)
    text = page(settings, found)
    if chosen.only:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8", newline="\n")
    missed = [line for setting in settings for line in misses(setting, found[setting.name], 2.0)]
    print("\n".join([f"{len(missed)} goals missed", *missed]))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
