"""Caches with flipped bits, repaired: how many sound verdicts come back, and whether any wrong one does."""

from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from bt_llm.cache import Record, VerdictCache, repair_cache
from bt_llm.exceptions import CacheCorruptError
from tests.cache_cases import identity, question, verdict

__all__ = ["Tally", "flip_and_repair", "pristine", "ranges"]

PAGE = 4096


@dataclasses.dataclass
class Tally:
    """What came of damaged files.

    Attributes
    ----------
    files : int
        Damaged files.
    sound : int
        Verdicts in them of which no bit was flipped.
    recovered : int
        Of these, those that are in the repaired file as they were.
    wrong : int
        Verdicts in the repaired files that are not as they were.
    unread : int
        Files that could not be read before they were repaired.
    """

    files: int = 0
    sound: int = 0
    recovered: int = 0
    wrong: int = 0
    unread: int = 0


def pristine(folder: Path, rows: int) -> dict[str, Record]:
    """Make a cache of short and long verdicts without stale copies in its pages; returns them by key."""
    records = [
        Record(
            question(number, prompt=(_words(number, 970 * number % 9000), f"Trend: {number}")),
            verdict(number % 7),
            {"model": "m", "written": "2026-01-01T00:00:00+00:00"},
        )
        for number in range(rows)
    ]
    cache = VerdictCache(folder)
    cache.put_many(records)
    cache.put_model(identity())
    with sqlite3.connect(folder / "cache.db") as connection:
        connection.execute("VACUUM")
    connection.close()
    return {record.key: record for record in records}


def _words(number: int, length: int) -> str:
    """Text that no other number has a piece of."""
    draw = random.Random(number)
    return "Bars: " + "".join(draw.choices("abcdefghij 0123456789", k=length))


def ranges(folder: Path) -> dict[str, list[range]]:
    """Return where the text of each verdict stands in the file, piece by piece."""
    data = (folder / "cache.db").read_bytes()
    with sqlite3.connect(folder / "cache.db") as connection:
        texts = connection.execute("SELECT key, value FROM Cache WHERE length(key) = 64").fetchall()
    connection.close()
    found = {}
    for key, value in texts:
        text, pieces = value.encode(), []
        while text:
            start = data.index(text[: min(len(text), 300)])
            length = next(
                (n for n in range(len(text)) if data[start + n : start + n + 1] != text[n : n + 1]), len(text)
            )
            pieces.append(range(start, start + length))
            text = text[length:]
        found[key] = pieces
    return found


def flip_and_repair(folder: Path, files: int, *, rows: int = 60, seed: int = 0) -> Tally:
    """Flip one to three bits anywhere in a cache, repair it, and compare, so many times.

    Parameters
    ----------
    folder : Path
        An empty folder to work in.
    files : int
        Damaged files to make.
    rows : int
        Verdicts in each.
    seed : int
        Which bits.
    """
    draw, tally = random.Random(seed), Tally()
    records = pristine(folder / "pristine", rows)
    where = ranges(folder / "pristine")
    whole = (folder / "pristine" / "cache.db").read_bytes()
    in_texts = {place for pieces in where.values() for piece in pieces for place in piece}
    between = [place for place in range(len(whole)) if place not in in_texts]
    for number in range(files):
        damaged = bytearray(whole)
        # Of every second file the bits are of what holds the texts together, where one costs most.
        choices: Sequence[int] = between if number % 2 else range(len(whole))
        places = [draw.choice(choices) for _ in range(draw.randint(1, 3))]
        for place in places:
            damaged[place] ^= 1 << draw.randrange(8)
        sound = [key for key, pieces in where.items() if not _hit(pieces, places)]
        count(tally, folder / "damaged", bytes(damaged), records, sound)
    return tally


def count(tally: Tally, folder: Path, data: bytes, records: dict[str, Record], sound: Sequence[str]) -> None:
    """Repair one damaged file, and add what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "cache.db").write_bytes(data)
    try:
        VerdictCache(folder).check()
    except CacheCorruptError:
        tally.unread += 1
    repair_cache(folder)
    cache = VerdictCache(folder)
    cache.check()
    there = {record.key: record for record in cache.records()}
    tally.files += 1
    tally.sound += len(sound)
    tally.recovered += sum(_same(there.get(key), records[key]) for key in sound)
    tally.wrong += sum(not _same(record, records.get(key)) for key, record in there.items())


def _hit(pieces: list[range], places: list[int]) -> bool:
    return any(place in piece for piece in pieces for place in places)


def _same(one: Record | None, other: Record | None) -> bool:
    return one is not None and other is not None and one.body == other.body
