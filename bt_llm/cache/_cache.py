"""VerdictCache: the model's verdicts and other answers on disk, and the four modes of using them.

A verdict is a function of its `Question` alone, so it is stored under the question's hash and is good for
ever: nothing expires and nothing is evicted. See `Question` for what is in a key and why, `bt_llm.cache` for
how a database that others can write is read safely, and `bt_llm.cache` for files that carry verdicts to
other machines. What analysts have a model write (`GeneratedText`) is kept in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

from bt_llm.cache._database import HOW_TO_RECOVER
from bt_llm.cache._misses import VerdictMiss, replay_miss
from bt_llm.cache._models import checked_model, model_document, model_from_document
from bt_llm.cache._modes import CacheMode, CacheStats, default_directory, forced
from bt_llm.cache._records import (
    GeneratedText,
    Question,
    Record,
    StoredAnswer,
)
from bt_llm.cache._rows import Row, seal, unseal
from bt_llm.cache._store import JsonStore
from bt_llm.exceptions import CacheCorruptError, CacheError, ConfigError
from bt_llm.models import ModelIdentity, Progress
from bt_llm.plain_json import canonical_json
from bt_llm.plain_text import one_line
from bt_llm.progress import partly
from bt_llm.settings import path_text
from bt_llm.verdicts import Verdict

__all__ = ["VerdictCache", "VerdictMiss", "default_directory"]

A = TypeVar("A", Verdict, GeneratedText)
Ask: TypeAlias = Callable[[list[Question]], Iterable[list[tuple[Question, A, Mapping[str, Any]]]]]
"""Given distinct questions, yields lists of (question, answer, provenance), batch by batch."""

_KEY = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_MODEL = "model"


class VerdictCache:
    """Verdicts on disk, by the hash of everything that produced them.

    Several threads and processes can use one folder at once. Nothing is opened before it is needed, and
    nothing stays open in between. The mode governs `fetch`, `put_model`, `get_document` and `put_document`,
    which runs call by themselves; `put_many` and `delete` are deliberate acts and write in every mode.

    Parameters
    ----------
    directory : path, optional
        The cache folder; made by the first write. Default: ``BT_LLM_CACHE_DIR``, else the platform's.
    mode : CacheMode or str, optional
        Default: ``BT_LLM_CACHE_MODE``, else ``record``.

    Raises
    ------
    ConfigError
        If the mode is not one.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> question = Question(
    ...     model_sha256="ab" * 32, chat_template_sha256="cd" * 32, prompt=("Trend: up. Bias:",),
    ...     labels=("Bullish", "Neutral", "Bearish"), reader="logprobs", sampling={}, numerics="canonical",
    ... )
    >>> def ask(questions):
    ...     yield [(q, Verdict(bullish=0.5, neutral=0.2, bearish=0.3), {"tokens": 9}) for q in questions]
    >>> with TemporaryDirectory() as folder, VerdictCache(folder) as cache:
    ...     first, second = cache.fetch([question], ask), cache.fetch([question], ask)
    >>> first[0].cached, second[0].cached, second[0].bullish
    (False, True, 0.5)
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, mode: CacheMode | str | None = None
    ) -> None:
        if directory is not None:
            path_text("directory", directory)
        chosen = mode if mode is not None else os.environ.get("BT_LLM_CACHE_MODE") or CacheMode.RECORD
        directory, self.mode = forced(directory, CacheMode.parse(chosen))
        self._store = JsonStore(default_directory() if directory is None else directory)

    @property
    def directory(self) -> Path:
        """The cache folder, as an absolute path."""
        return self._store.directory

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VerdictCache({str(self.directory)!r}, mode={self.mode.value!r})"

    def close(self) -> None:
        """Free what is kept for the next write; the cache can still be used afterwards."""
        self._store.close()

    def get_many(self, keys: Collection[str]) -> dict[str, Record]:
        """Return the stored records, by key, in the order of `keys`; those not stored are left out.

        Raises
        ------
        CacheCorruptError
            If a row is not what was written under its key.
        CacheError
            If the database cannot be read.
        """
        return {key: self._record(row) for key, row in self._store.read(keys).items()}

    def put_many(self, records: Iterable[Record], *, overwrite: bool = False) -> list[Record]:
        """Store records in one transaction; on return they are on disk.

        Parameters
        ----------
        records : iterable of Record
            What to store.
        overwrite : bool
            Replace stored records. Otherwise the first one to be stored stays, so that all processes that
            record at once agree: two builds of llama.cpp can differ in the last digits.

        Returns
        -------
        list of Record
            What is stored now, in the order given; where it was stored before, its answer has
            ``cached=True``.

        Raises
        ------
        CacheError
            If they cannot be written. None of them is stored then, and what was stored before is intact.
        """
        given = list(records)
        kept: dict[str, Record] = {}

        def decide(stored: Mapping[str, str]) -> Iterator[Row]:
            kept.clear()
            for record in given:
                if record.key in stored and not overwrite:
                    kept[record.key] = self._record(Row(record.key, stored[record.key], None))
                elif record.key not in kept:
                    kept[record.key] = record
                    body = seal(record.key, record.body)
                    yield Row(record.key, body, record.question.model_sha256)

        if given:
            keys = list(dict.fromkeys(record.key for record in given))
            self._store.update(keys, decide, action=f"storing {len(keys)} verdicts")
        return [kept[record.key] for record in given]

    def fetch(
        self,
        questions: Sequence[Question],
        ask: Ask[A],
        *,
        on_progress: Progress | None = None,
        where: Callable[[Question], str] | None = None,
    ) -> list[A]:
        """Return the answers to the questions, in their order, as the mode says.

        Parameters
        ----------
        questions : sequence of Question
            Some may be the same; each distinct one is looked up, and asked, once. All are of readers
            that give verdicts, or all of ``text``.
        ask : callable
            Called at most once, with the distinct questions to ask, in order; yields lists of
            (question, answer, provenance). Each list is stored before the next one is taken, so a killed
            run loses at most one batch.
        on_progress : callable, optional
            Called with (answered, to ask) before the first batch and after each.
        where : callable, optional
            Says for a question where it comes from (a bar's time, a state), for the message of a miss.

        Returns
        -------
        list of Verdict or of GeneratedText
            As the model gave them, with ``cached=True`` for those that came from disk.

        Raises
        ------
        VerdictMiss
            In replay mode, if one is not stored; a `ReplayMiss`.
        CacheError
            If the cache cannot be read or written, or `ask` left a question unanswered.
        """
        distinct = {question.key: question for question in questions}
        reads = self.mode in (CacheMode.RECORD, CacheMode.REPLAY)
        found = self.get_many(distinct) if reads else {}
        missing = [question for key, question in distinct.items() if key not in found]
        if missing and self.mode is CacheMode.REPLAY:
            stored = (record.question for record in self.records())
            raise replay_miss(missing, len(distinct), stored, directory=self.directory, where=where)
        if missing:
            found.update(self._asked(missing, ask, on_progress))
        # A record holds what its question's reader gives, so these are what `ask` would have answered.
        return [cast(A, found[question.key].answer) for question in questions]

    def keys(self) -> list[str]:
        """Return the sorted keys of the stored verdicts."""
        return [key for key in self._store.keys(prefix="") if _KEY.fullmatch(key)]

    def records(self, keys: Collection[str] | None = None) -> Iterator[Record]:
        """Yield the stored records, checked, sorted by key: those of `keys`, or all.

        Raises
        ------
        CacheCorruptError
            If a row is not what was written under its key.
        """
        rows = self._store.scan() if keys is None else iter(self._store.read(sorted(set(keys))).values())
        return (self._record(row) for row in rows if _KEY.fullmatch(row.key))

    def stats(self) -> CacheStats:
        """Count what is stored."""
        names, models = self._store.keys(prefix=""), self.models()
        verdicts = sum(1 for name in names if _KEY.fullmatch(name))
        return CacheStats(
            directory=self.directory,
            verdicts=verdicts,
            by_model=self._store.tags(),
            models=tuple(models),
            documents=len(names) - verdicts - len(models),
            bytes=self._store.path.stat().st_size if self._store.path.exists() else 0,
        )

    def check(self) -> int:
        """Read every row and the whole file; return how many verdicts there are.

        Raises
        ------
        CacheCorruptError
            At the first thing that is not as it was written.
        """
        if damage := self._store.damage():
            raise CacheCorruptError(f"{self._store.path}: damaged ({one_line(damage[0])}); {HOW_TO_RECOVER}")
        count = 0
        for row in self._store.scan():
            is_verdict = _KEY.fullmatch(row.key) is not None
            _ = self._record(row) if is_verdict else self._content(row)
            count += is_verdict
        return count

    def delete(self, *, model_sha256: str) -> int:
        """Delete one model's verdicts and its identity; return how many verdicts there were."""
        keys = self._store.keys(tag=model_sha256)
        self._store.delete([*keys, _document_key(_MODEL, model_sha256)])
        return len(keys)

    def put_model(self, identity: ModelIdentity) -> None:
        """Remember who a model is, so that replay works without its file; nothing in replay and off mode.

        A model that is known under another name keeps that name too.
        """
        if self.mode in (CacheMode.REPLAY, CacheMode.OFF):
            return
        self.change_model(
            identity.sha256,
            lambda known: model_document(identity, sorted({*known.get("names", ()), identity.name})),
        )

    def change_model(self, sha256: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Store another identity of a model, in every mode, and lose nothing that others store meanwhile.

        Parameters
        ----------
        sha256 : str
            The model.
        change : callable
            Given what is stored of it, empty if nothing is, returns what to store. It is called within
            the transaction that stores it, and possibly before and again.
        """
        key = _document_key(_MODEL, sha256)

        def decide(stored: Mapping[str, str]) -> Iterator[Row]:
            known = self._identity(Row(key, stored[key])) if key in stored else {}
            changed = dict(change(known))
            if changed != known:
                yield Row(key, seal(key, canonical_json(changed)))

        known = self._model_document(sha256)
        if dict(change(known)) != known:  # else nothing is opened for writing
            self._store.update([key], decide, action="storing a model's identity")

    def get_model(self, sha256: str) -> ModelIdentity | None:
        """Return the identity of a model, or None if it is not stored."""
        known = self._model_document(sha256)
        return model_from_document(known) if known else None

    def models(self) -> list[ModelIdentity]:
        """Return every stored identity, sorted by SHA-256."""
        return [model_from_document(document) for document in self.model_documents()]

    def model_documents(self) -> list[dict[str, Any]]:
        """Return every stored identity as it is stored, with all its names, sorted by SHA-256."""
        rows = self._store.read(self._store.keys(prefix=f"{_MODEL}:"))
        return [self._identity(row) for row in rows.values()]

    def find_models(self, name: str) -> list[ModelIdentity]:
        """Return the stored models of that name, or whose SHA-256 begins with those 8 digits or more."""
        found = []
        for document in self.model_documents():
            if name in document["names"]:
                found.append(model_from_document(document, name))
            elif len(name) >= 8 and document["sha256"].startswith(name):
                found.append(model_from_document(document))
        return found

    def get_document(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return a small JSON document that `put_document` stored, or None; None in off mode too.

        Raises
        ------
        CacheCorruptError
            If the row is not what was written.
        """
        if self.mode is CacheMode.OFF:
            return None
        key = _document_key(kind, name)
        row = self._store.read([key]).get(key)
        return None if row is None else dict(self._content(row))

    def put_document(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Store a small JSON document, replacing any other; nothing in replay and off mode.

        Parameters
        ----------
        kind, name : str
            What it is, in lower case (``facts``), and which one.
        document : mapping
            JSON values.
        """
        if self.mode in (CacheMode.REPLAY, CacheMode.OFF):
            return
        key, body = _document_key(kind, name), canonical_json(dict(document))
        self._store.update([], lambda _: [Row(key, seal(key, body))], action=f"storing {kind}")

    def _model_document(self, sha256: str) -> dict[str, Any]:
        key = _document_key(_MODEL, sha256)
        row = self._store.read([key]).get(key)
        return {} if row is None else self._identity(row)

    def _asked(self, missing: list[Question], ask: Ask[A], on_progress: Progress | None) -> dict[str, Record]:
        stores = self.mode is not CacheMode.OFF
        if stores:
            self._store.prepare()
        wanted = {question.key for question in missing}
        answered: dict[str, Record] = {}
        if on_progress:
            on_progress(0, len(missing))
        with partly(on_progress, answered, len(missing)):
            for batch in ask(missing):
                records = [_fresh(*answer) for answer in batch]
                if any(record.key not in wanted for record in records):
                    raise CacheError(
                        "the model answered a question that it was not asked; nothing of it is stored"
                    )
                if stores:
                    records = self.put_many(records, overwrite=self.mode is CacheMode.REFRESH)
                answered.update((record.key, record) for record in records)
                if on_progress:
                    on_progress(len(answered), len(missing))
        if left := len(wanted) - len(answered):
            raise CacheError(f"the model was asked {len(wanted)} questions and left {left} unanswered")
        return answered

    def _content(self, row: Row) -> Any:
        try:
            return unseal(row.key, row.text)
        except ValueError as error:
            self._refuse(row, error)

    def _identity(self, row: Row) -> dict[str, Any]:
        try:
            return checked_model(row.key.removeprefix(f"{_MODEL}:"), self._content(row))
        except CacheCorruptError as error:
            self._refuse(row, error)

    def _record(self, row: Row) -> Record:
        try:
            record = Record.from_content(row.key, self._content(row))
        except CacheCorruptError as error:
            self._refuse(row, error)
        if row.tag not in (None, record.question.model_sha256):
            self._refuse(row, f"its tag {row.tag[:12]!r} is not its model")
        return record

    def _refuse(self, row: Row, problem: object) -> NoReturn:
        raise CacheCorruptError(
            f"{self._store.path}, key {row.key[:80]}: {problem}; {HOW_TO_RECOVER}"
        ) from None


def _document_key(kind: str, name: str) -> str:
    if not _KIND.fullmatch(kind):
        raise ConfigError(f"kind={kind!r} of a document: expected a word in lower case")
    return f"{kind}:{name.encode('utf-8', 'backslashreplace').decode()}"


def _fresh(question: Question, answer: StoredAnswer, provenance: Mapping[str, Any]) -> Record:
    """Return the record of an answer that was just given."""
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(
        question,
        replace(answer, cached=False),
        {"written": written, "model": answer.model} | dict(provenance),
    )
