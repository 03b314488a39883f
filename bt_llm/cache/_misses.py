"""What to say when replay mode misses a verdict: which stored question is nearest, and what differs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bt_llm.cache._records import Question
from bt_llm.exceptions import ReplayMiss
from bt_llm.plain_json import canonical_json

__all__ = ["VerdictMiss", "describe_difference", "nearest_question", "replay_miss"]


class VerdictMiss(ReplayMiss):
    """Replay mode, and a verdict is not stored.

    Attributes
    ----------
    question : Question or None
        The first one that is missing.
    nearest : Question or None
        The stored one that is most like it; None when nothing is stored.
    differs : tuple of str
        Names of the ingredients that are not the same in both.
    """

    def __init__(
        self,
        message: str,
        *,
        question: Question | None = None,
        nearest: Question | None = None,
        differs: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.question = question
        self.nearest = nearest
        self.differs = differs


def replay_miss(
    missing: Sequence[Question],
    asked: int,
    stored: Iterable[Question],
    *,
    directory: str | os.PathLike[str],
    where: Callable[[Question], str] | None = None,
) -> VerdictMiss:
    """Return the error for the first of the questions that are missing.

    Parameters
    ----------
    missing : sequence of Question
        The distinct ones that are not stored, at least one.
    asked : int
        How many distinct ones were looked up.
    stored : iterable of Question
        All that are stored.
    directory : path
        The cache folder.
    where : callable, optional
        Says for a question where it comes from (a bar's time, a state).
    """
    question = missing[0]
    at = f" ({where(question)})" if where else ""
    count = f"{len(missing)} of {asked} verdicts are" if asked > 1 else "a verdict is"
    head = (
        f"replay: {count} not stored in {directory}, first {question.key[:12]}{at}:"
        " record (BT_LLM_CACHE_MODE=record), or import a pack that has them"
    )
    nearest = nearest_question(question, stored)
    if nearest is None:
        return VerdictMiss(f"{head}\nNo verdict at all is stored there.", question=question)
    differs = question.differs(nearest)
    return VerdictMiss(
        f"{head}\nThe nearest stored one, {nearest.key[:12]}, differs in {', '.join(differs)}:"
        f"\n{describe_difference(question, nearest)}",
        question=question,
        nearest=nearest,
        differs=differs,
    )


def nearest_question(question: Question, stored: Iterable[Question]) -> Question | None:
    """Return the stored question with the fewest differing ingredients, then the most alike prompt.

    Alike is counted in lines that both prompts have, then in characters they begin with alike; what is
    left of a tie goes to the smallest key.
    """
    lines = set(question.text.splitlines())

    def likeness(other: Question) -> tuple[int, int, int, str]:
        shared = len(lines.intersection(other.text.splitlines()))
        # Compared with min(), which takes the smallest key of a tie, whatever the order of `stored`.
        return len(question.differs(other)), -shared, -_same_start(question.text, other.text), other.key

    return min(stored, key=likeness, default=None)


def describe_difference(question: Question, other: Question) -> str:
    """Return, one line an ingredient, what differs between two questions, and a diff of their prompts."""
    lines = []
    for name in question.differs(other):
        if name == "prompt":
            lines += list(
                difflib.unified_diff(
                    other.text.splitlines(),
                    question.text.splitlines(),
                    "stored prompt",
                    "asked prompt",
                    "",
                    "",
                    1,
                    "",
                )
            ) or ["  prompt: the same text, cut into other chunks"]
        else:
            lines.append(
                f"  {name}: stored {_short(getattr(other, name))}, asked {_short(getattr(question, name))}"
            )
    return "\n".join(lines)


def _same_start(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else canonical_json(value)
