"""Stored verdicts as they are shown: a row each, everything of one, and how far a model has drifted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from bt_llm.plain_json import canonical_json

if TYPE_CHECKING:
    from bt_llm.cache import Question, Record
    from bt_llm.cli._verifying import Drift

__all__ = ["SHORT", "drift_table", "joined", "list_table", "record_facts", "record_row"]

SHORT = 12
"""Digits of a hash that a table shows."""


def record_row(record: Record, names: dict[str, list[str]]) -> dict[str, Any]:
    from bt_llm.verdicts import Verdict

    answer, question = record.answer, record.question
    return {
        "key": record.key,
        "model": joined(names.get(question.model_sha256, [])) or question.model_sha256[:SHORT],
        "prompt": _end_of(question),
        "action": answer.answer if isinstance(answer, Verdict) else "text",
        "confidence": answer.confidence if isinstance(answer, Verdict) else None,
        "written": str(record.provenance.get("written", "")),
    }


def list_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")  # narrow: 80 columns are few
    for column in ("key", "model", "action", "conf.", "written"):
        table.add_column(column, no_wrap=True, justify="right" if column == "conf." else "left")
    table.add_column("prompt ends with")
    for row in rows:
        confidence = "-" if row["confidence"] is None else f"{row['confidence']:.3f}"
        written = (row["written"] or "-")[:10]
        cells = (row["key"][:SHORT], row["model"], row["action"], confidence, written, row["prompt"])
        table.add_row(*cells)
    return table


def _end_of(question: Question) -> str:
    """Return the prompt's last question on one line: the state, without what the chat template adds."""
    chunks = question.prompt[1:] or question.prompt
    lines = [line for chunk in chunks for line in chunk.splitlines()[:1]]
    return ", ".join(line.partition("<|")[0].strip() for line in lines if line.strip())


def record_facts(record: Record, names: dict[str, list[str]]) -> dict[str, str]:
    """Return everything of a record as text, in the order of reading."""
    from bt_llm.verdicts import Verdict

    question, answer = record.question, record.answer
    shown = {"prompt": question.text}
    if isinstance(answer, Verdict):
        shown["verdict"] = answer.answer
        if answer.valid:
            named = zip(answer.labels.names, answer.probabilities, strict=True)
            shown["probabilities"] = ", ".join(f"{name} {value!r}" for name, value in named)
        shown["on the labels"] = "-" if answer.label_mass != answer.label_mass else repr(answer.label_mass)
        shown["reason"] = answer.reason or "-"
    else:
        shown["text"] = answer.text
    shown["model"] = f"{joined(names.get(question.model_sha256, []))} {question.model_sha256[:SHORT]}"
    shown["labels"] = canonical_json(list(question.labels))
    shown["reader"] = f"{question.reader} {canonical_json(dict(question.sampling))}"
    shown["numerics"] = question.numerics
    return shown | {name: str(value) for name, value in sorted(record.provenance.items()) if name != "model"}


def drift_table(drifts: list[Drift]) -> Table:
    table = Table("model", title="Asked again", title_justify="left")
    for column in ("asked", "same to the last bit", "largest drift", "flipped", "not asked"):
        table.add_column(column, justify="right")
    for drift in drifts:
        flipped = ", ".join(flip.key[:SHORT] for flip in drift.flipped[:3])
        table.add_row(
            drift.model,
            f"{drift.asked:,}",
            f"{drift.same:,}",
            f"{drift.largest:.3g}",
            f"{len(drift.flipped)} ({flipped})" if flipped else "0",
            f"{drift.not_asked:,}",
        )
    return table


def joined(names: list[str]) -> str:
    return ", ".join(names)
