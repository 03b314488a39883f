"""``make attack``: strangers' files, kills, Ctrl-C and flipped bits, in about ten minutes on two cores.

The figures go to standard output and, with ``--write``, into SECURITY.md. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.attack.interrupts import LIMIT_S, VERBS, interrupt, lasts, prepare
from tests.attack.kills import WRITERS, kill_one
from tests.attack.mutations import KINDS, attack, tally
from tests.cache.flipped_bits import flip_and_repair

PAGE = Path(__file__).resolve().parent.parent.parent / "SECURITY.md"
BEGIN, END = "<!-- figures of make attack -->", "<!-- end of figures -->"


class Figure(NamedTuple):
    """A row of the table, and what failed."""

    what: str
    count: str
    result: str
    failures: list[str]


def mutations(share: float) -> Iterator[Figure]:
    """Attack with changed files of every kind: 5,040 of them at a share of 1."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            counted, failed = tally(attack(kind, Path(folder), max(1, round(720 * share))))
        wrong = {what: count for what, count in counted.items() if what not in ("refused", "read")}
        result = f"{counted['refused']:,} refused in one line, {counted['read']:,} read"
        if wrong:
            result += "; " + ", ".join(f"{count} {what}" for what, count in wrong.items())
        count = f"{sum(counted.values()):,}"
        yield Figure(f"changed {kind}", count, result, [f"{one.what}: {one.detail}" for one in failed])


def kills(share: float) -> Iterator[Figure]:
    """Kill writers: 102 at a share of 1, three of each in one folder."""
    for kind in WRITERS:
        count, failed = max(3, round(34 * share)), []
        for first in range(0, count, 3):
            with tempfile.TemporaryDirectory() as folder:
                problems = [
                    kill_one(kind, Path(folder), seed) for seed in range(first, min(first + 3, count))
                ]
            failed += [problem for problem in problems if problem]
        yield Figure(f"kills of a {kind}'s writer", f"{count}", f"{count - len(failed)} lost nothing", failed)


def interrupts(share: float) -> Iterator[Figure]:
    """Send Ctrl-C to commands in turn: 100 at a share of 1; a shorter run is more patient."""
    limit_s = LIMIT_S if share >= 1 else 15.0
    count, stopped, seed = max(3, round(100 * share)), [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name))
        longest, broken = {}, []
        for verb in list(VERBS)[:count]:
            longest[verb], problem = lasts(verb, folder, 8.0)
            broken += [f"{verb} failed undisturbed: {problem}"] if problem else []
        while len(stopped) < count and seed < 3 * count:
            verb = list(longest)[seed % len(longest)]
            one = interrupt(verb, folder, 0.9 * longest[verb], seed, limit_s)
            stopped += [] if one.over else [one]  # it had ended before: nothing was interrupted
            seed += 1
    failed = [
        f"{one.verb} at {one.at_s:.2f} s: {one.problem}: {one.errors[-600:]}"
        for one in stopped
        if one.problem
    ]
    seconds = sorted(one.seconds for one in stopped)
    times = f"median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s"
    ended = len(stopped) - len(failed)
    result = f"{ended} in {limit_s:g} s, with code 130, one line and nothing left; {times}"
    yield Figure(f"Ctrl-C over {len(longest)} commands", f"{len(stopped)}", result, [*broken, *failed])


def flips(share: float) -> Iterator[Figure]:
    """Flip bits of caches and repair them: 1,000 at a share of 1."""
    with tempfile.TemporaryDirectory() as folder:
        found = flip_and_repair(Path(folder), max(2, round(1000 * share)))
    failed = []
    if found.recovered < found.sound:
        failed.append(f"{found.sound - found.recovered} sound verdicts are lost")
    if found.wrong:
        failed.append(f"{found.wrong} wrong verdicts")
    result = f"{found.recovered:,} of {found.sound:,} sound verdicts recovered, {found.wrong} wrong"
    yield Figure("caches with one to three flipped bits", f"{found.files:,}", result, failed)


PARTS: dict[str, Callable[[float], Iterator[Figure]]] = {
    "mutations": mutations,
    "kills": kills,
    "interrupts": interrupts,
    "flips": flips,
}


def page_with(text: str, figures: list[Figure], share: float, seconds: float) -> str:
    """Return a page with the figures between its marks."""
    when = datetime.now(UTC).date().isoformat()
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    machine = f"{os.cpu_count()} cores{load}, Python {platform.python_version()}"
    rows = "".join(f"| {one.what} | {one.count} | {one.result} |\n" for one in figures)
    part = "" if share == 1 else f", a share of {share:g} of the cases"
    table = (
        f"{BEGIN}\n{when}, {machine}, {seconds / 60:.0f} min{part}:\n\n"
        f"| attack | cases | result |\n|---|---:|---|\n{rows}{END}"
    )
    head, _, rest = text.partition(BEGIN)
    return head + table + rest.partition(END)[2]


def main() -> int:
    """Run the parts; print and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases; 0.05 for a short run")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument("--write", action="store_true", help="the figures into SECURITY.md")
    given = parser.parse_args()
    # Whoever starts this in the background has it ignore Ctrl-C, and so would the commands that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, figures = time.monotonic(), []
    for part in given.part or PARTS:
        for figure in PARTS[part](given.share):
            figures.append(figure)
            print(f"{figure.what:42}{figure.count:>6}  {figure.result}", flush=True)
            for failure in figure.failures[:5]:
                print(f"    {failure}", file=sys.stderr, flush=True)
    if given.write:
        text = page_with(PAGE.read_text(encoding="utf-8"), figures, given.share, time.monotonic() - begun)
        PAGE.write_text(text, encoding="utf-8")
    return 1 if any(one.failures for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
