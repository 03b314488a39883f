"""What a decision server is asked, and answers: ``POST /v1/systemone``, a question of the type `choice`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bt_llm.models.openai._replies import ReplyError
from bt_llm.models.openai._scores import Scores

__all__ = ["choice_scores", "decision_models", "decision_request"]

_QUESTION = "Which word does the answer to the last question of this text begin with?"
_ID = "verdict"


def decision_request(text: str, words: Sequence[str], *, native: bool) -> tuple[str, dict[str, Any]]:
    """Return path and payload; `native` asks typed-gguf where it tells the words' mass too."""
    question = {"type": "choice", "instructions": _QUESTION, "criteria": dict.fromkeys(words)}
    asked = {"state": text, "questions": {_ID: question}}
    return ("/decide", {**asked, "format": "native"}) if native else ("/systemone", asked)


def choice_scores(document: Any, words: Sequence[str], *, native: bool) -> Scores:
    """Return the words' log-probabilities; they sum to 1, and to the mass where that is told.

    Raises
    ------
    ReplyError
        If the reply is none, or its probabilities are not those of the words.

    Examples
    --------
    >>> answer = {"type": "choice", "probabilities": {"up": 0.75, "down": 0.25}, "coverage": 0.5}
    >>> scores = choice_scores({"answers": {"verdict": answer}}, ["up", "down"], native=True)
    >>> [round(math.exp(score), 3) for score in scores.logprobs]
    [0.375, 0.125]
    """
    answers = document.get("answers") if isinstance(document, dict) else None
    answer = answers.get(_ID) if isinstance(answers, dict) else None
    chances = answer.get("probabilities") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(chances, dict):
        raise ReplyError("the reply has no answer with probabilities")
    if set(chances) != set(words) or not all(_is_chance(value) for value in chances.values()):
        raise ReplyError(f"the reply's probabilities are not those of {list(words)}")
    if not 0.99 <= math.fsum(chances.values()) <= 1.01:
        raise ReplyError("the reply's probabilities do not sum to 1")
    mass: Any = answer.get("coverage") if native else 1.0
    if not _is_chance(mass):
        raise ReplyError("the reply does not tell what the words hold together")
    values = [chances[word] * mass for word in words]
    return Scores(tuple(math.log(value) if value > 0 else -math.inf for value in values))


def _is_chance(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def decision_models(document: Any) -> dict[str, Mapping[str, Any]]:
    """Return the models in a reply of ``/v1/models``, and of each what is said of it.

    Examples
    --------
    >>> decision_models({"models": [{"name": "small", "description": "4B Q8_0"}]})
    {'small': {'description': '4B Q8_0'}}
    """
    entries = document.get("models") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ReplyError("the server's list of models is no list")
    models: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        facts = entry if isinstance(entry, dict) else {}
        name = facts.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 500 or not name.isprintable():
            raise ReplyError("the server's list of models has an entry without a printable name")
        models[name] = {key: str(facts[key])[:500] for key in ("description", "release_date") if key in facts}
    return models
