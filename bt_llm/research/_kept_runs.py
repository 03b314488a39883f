"""Null runs that are done, on disk until their test has ended: one that was stopped goes on where it was.

They are rows of a store like that of the verdicts, in a folder beside the ledger: JSON with plain floats in
it, under a hash of everything that made them, sealed against damage. Nothing is written of a test whose gates
are replayed, or whose runs take less than a second: then there is nothing to lose.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, cast

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import bt_llm
from bt_llm.backtest import Backtest
from bt_llm.cache import CacheMode, JsonStore, Row, VerdictCache, seal, unseal
from bt_llm.exceptions import BtLlmError, CacheCorruptError, CacheError, ConfigError
from bt_llm.gates import AskingGate, EntryGate, content_sha256
from bt_llm.plain_json import canonical_json
from bt_llm.research._workers import code_sha256
from bt_llm.research.walk_forward._grid import describe_gate, describe_params
from bt_llm.statistics import Legs

__all__ = ["KeptRuns", "Measured", "arrays_sha256", "legs_sha256", "made_of", "place_of_runs"]

Floats: TypeAlias = NDArray[np.float64]
Measured: TypeAlias = Mapping[str, float] | Floats
"""What is kept of a run: its metrics, or its account's value at each bar."""

FORMAT = 1
"""Version of the rows; those of another one are not found."""

LIMIT = 2**29
"""Size of the file in bytes, from which on runs that other tests have left are dropped."""

_FOLDER = "null_runs"
_PATIENCE_S = 1.0
"""Seconds of runs that may be lost: they are written no more often."""
_ROWS = 200
_LONGEST = 300_000
"""Floats in a row."""

_log = logging.getLogger(__name__)


def place_of_runs(gate: EntryGate | None, output: str | os.PathLike[str] | None) -> Path | None:
    """Return where null runs of a test are kept: in its ledger's folder, or beside the verdicts' default one.

    Parameters
    ----------
    gate : gate or None
        Under test. Without a ledger, runs are kept only where its verdicts are stored.
    output : path or None
        Folder of the ledger.
    """
    if output is not None:
        return Path(output) / _FOLDER
    if not isinstance(gate, AskingGate):
        return None
    cache = VerdictCache(gate.config.cache_dir, gate.config.cache_mode)
    stores = cache.mode in (CacheMode.RECORD, CacheMode.REFRESH)
    return cache.directory / "trials" / _FOLDER if stores else None


def made_of(backtest: Backtest) -> dict[str, Any]:
    """Return what the figures of a strategy's runs depend on but the gate, as JSON values.

    Raises
    ------
    BtLlmError
        If it cannot be known, such as the source of a part.
    """
    chosen = backtest.strategy
    return {
        "strategy": [chosen.__qualname__, code_sha256(chosen)],
        "params": describe_params(chosen, backtest.params),
        "account": backtest.setup.content(code_sha256),
        "market": [[name, digest] for name, digest in backtest.market.hashes.items()],
        "how": [sorted(map(repr, backtest.modes.items())), backtest.engine, backtest.settles],
        "start": str(backtest.start),
    }


def arrays_sha256(*arrays: NDArray[Any]) -> str:
    """Return the SHA-256 of what stands in arrays."""
    found = hashlib.sha256()
    for one in arrays:
        found.update(f"{one.shape}|".encode() + np.ascontiguousarray(one, dtype="<f8").tobytes())
    return found.hexdigest()


def legs_sha256(legs: Legs) -> str:
    """Return the SHA-256 of what an account's sides earned."""
    return arrays_sha256(*(getattr(legs, field.name) for field in dataclasses.fields(legs)))


class KeptRuns:
    """The finished null runs of one test.

    Entered for as long as the test lasts: if it ends, its runs are dropped; if an exception stops it, they
    are kept, and that gets a note of how many. Of what cannot be known by its content nothing is kept, nor is
    it where the store cannot be used. Both are logged, and are no reason to stop.

    Parameters
    ----------
    folder : path or None
        Where they are kept; None for nowhere.
    describe : callable
        Returns what makes the runs, but their gates, as JSON values; see `made_of`. Called when a run is
        first looked for.
    total : int
        Null runs of the test, for the note.
    """

    def __init__(self, folder: Path | None, describe: Callable[[], Any], *, total: int) -> None:
        self._store: JsonStore | None = None
        self._describe = describe
        self._total = total
        self._name = ""
        self._waiting: list[Row] = []
        self._written_at = time.monotonic()
        self._is_copy = self._used = False
        if folder is not None:
            try:
                self._store = JsonStore(folder)
            except BtLlmError as error:  # a ledger can be where no cache can
                self._give_up(str(error))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker on this machine needs to keep runs of the same test."""
        name = ""
        if self._store is not None:
            with self._minding():
                name = self._test()
                self._used = True
        return {"folder": None if self._store is None else self._store.directory, "name": name}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["folder"], dict, total=0)  # type: ignore[misc]
        self._name, self._is_copy = state["name"], True

    def __enter__(self) -> KeptRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the runs of a test that has ended; of another, write what waits, and note how many."""
        if error is None:
            self._forget()
            return
        self._write()
        if self._used and (count := self._count()):
            error.add_note(f"{min(count, self._total)} of {self._total} null runs are kept")

    def found(self, place: str, what: str, gates: Sequence[EntryGate]) -> dict[int, Any]:
        """Return what is kept of the runs of gates, by their positions.

        Parameters
        ----------
        place : str
            What tells runs of the same gates apart, such as a symbol.
        what : str
            What was measured.
        gates : sequence of gate
            All that are looked for.
        """
        if self._store is None:
            return {}
        with self._minding() as store:
            if not store.path.exists():
                return {}
            keys = [self._key(place, what, gate) for gate in gates]
            rows = store.read(keys)
            read = {at: _value(rows[key]) for at, key in enumerate(keys) if key in rows}
            self._used = self._used or bool(read)
            return {at: value for at, value in read.items() if value is not None}
        return {}

    def add(self, place: str, what: str, gate: EntryGate, measured: Measured) -> None:
        """Keep what was measured of a run; it is on disk within about a second."""
        if self._store is None:
            return
        if len(measured) > _LONGEST:
            self._give_up(f"an account of {len(measured):,} bars is too long; {_LONGEST:,} are the most")
            return
        with self._minding():
            key = self._key(place, what, gate)
            self._waiting.append(Row(key, seal(key, _text(measured))))
        if time.monotonic() - self._written_at >= _PATIENCE_S:
            self._write()

    def settle(self) -> None:
        """Write what waits, if it took long, or if this is a worker, which may get no further work."""
        if self._is_copy or self._used or time.monotonic() - self._written_at >= _PATIENCE_S:
            self._write()

    def _forget(self) -> None:
        self._waiting.clear()
        if self._used:
            with self._minding() as store:
                self._drop(store, store.keys(prefix=self._test()))

    def _write(self) -> None:
        self._written_at = time.monotonic()
        if self._store is None or not self._waiting:
            return
        with self._minding() as store:
            if self._is_full(store):
                others = [key for key in store.keys(prefix="") if not key.startswith(self._test())]
                self._drop(store, others)
            if self._is_full(store):
                self._drop(store, store.keys(prefix=self._test()))
                raise CacheError(f"those of this test take more than {LIMIT / 2**20:.0f} MB")
            waiting = list(self._waiting)
            store.update((), lambda _: waiting, action="keeping null runs")
            self._used = True
            del self._waiting[: len(waiting)]  # a Ctrl-C before this has them written again

    @staticmethod
    def _is_full(store: JsonStore) -> bool:
        return store.path.exists() and store.path.stat().st_size > LIMIT

    @staticmethod
    def _drop(store: JsonStore, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _ROWS):
            store.delete(keys[start : start + _ROWS])

    def _count(self) -> int:
        with self._minding() as store:
            return len(store.keys(prefix=self._test()))
        return 0

    def _key(self, place: str, what: str, gate: EntryGate) -> str:
        return f"{self._test()}:{content_sha256([place, what, describe_gate(gate, False)])}"

    def _test(self) -> str:
        """Return the hash of everything that makes the runs of this test, but the gate of each."""
        if not self._name:
            told = self._describe()
            try:
                self._name = content_sha256([FORMAT, _versions(), told])
            except (TypeError, ValueError) as error:
                raise ConfigError(f"what makes them cannot be written down ({error})") from error
        return self._name

    @contextlib.contextmanager
    def _minding(self) -> Iterator[JsonStore]:
        """Yield the store; whatever is wrong with it, or with a key, ends the keeping and nothing else."""
        store = cast(JsonStore, self._store)
        try:
            yield store
        except CacheCorruptError:
            self._give_up(f"{store.path} is damaged; delete it")
        except (BtLlmError, OSError) as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        if not self._is_copy:  # of a worker, the test itself says it
            _log.warning("null runs are not kept: %s", reason)
        self._store, self._used, self._waiting = None, False, []


def _versions() -> list[str]:
    """Return the versions of what computes the figures."""
    return [
        bt_llm.__version__,
        str(bt.__version__),
        np.__version__,
        pd.__version__,
        platform.python_version(),
        platform.machine(),
    ]


def _text(measured: Measured) -> str:
    """Return figures as JSON: the names, if they have any, and the floats' own bytes."""
    names, values = (
        (list(measured), list(measured.values())) if isinstance(measured, Mapping) else ([], measured)
    )
    floats = np.asarray(values, dtype="<f8").tobytes()
    return canonical_json({"names": names, "floats": base64.b64encode(floats).decode("ascii")})


def _value(row: Row) -> dict[str, float] | Floats | None:
    """Return the figures of a row; None of one that is damaged."""
    try:
        content = unseal(row.key, row.text)
        names, told = content["names"], content["floats"]
        floats = np.frombuffer(base64.b64decode(told, validate=True), dtype="<f8").astype(np.float64)
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(names, list) or len(names) not in (0, len(floats)):
        return None
    return dict(zip(map(str, names), floats.tolist(), strict=True)) if names else floats
