"""Questions, verdicts and records made up for the tests of the cache and of packs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bt_llm.cache import Record
from bt_llm.cache._records import Question
from bt_llm.models import ModelIdentity
from bt_llm.verdicts import Verdict

MODEL = "ab" * 32
TEMPLATE = "cd" * 32
PREFIX = "You judge one market state.\nAnswer with one word.\n"


def question(number: int = 0, **changes: Any) -> Question:
    """The question of that number; `changes` replace its ingredients."""
    ingredients: dict[str, Any] = {
        "model_sha256": MODEL,
        "chat_template_sha256": TEMPLATE,
        "prompt": (PREFIX, f"Trend: {number}\n", "Bias:"),
        "labels": (" Bullish", " Neutral", " Bearish"),
        "reader": "logprobs",
        "sampling": {},
        "numerics": "canonical",
    }
    return Question(**(ingredients | changes))


def verdict(number: int, voice: int = 0) -> Verdict:
    """The verdict on that question; another voice gives another one."""
    digest = hashlib.sha256(f"{number}/{voice}".encode()).digest()
    bullish = digest[0] / 512
    neutral = digest[1] / 512
    return Verdict(bullish=bullish, neutral=neutral, bearish=1 - bullish - neutral, label_mass=0.75)


def record(number: int = 0, voice: int = 0, **provenance: Any) -> Record:
    """The record of that question, by that voice."""
    return Record(question(number), verdict(number, voice), provenance)


def identity(**changes: Any) -> ModelIdentity:
    """Who `MODEL` is."""
    facts: dict[str, Any] = {
        "name": "small",
        "sha256": MODEL,
        "chat_template": "{{ messages }}",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "details": {"parameters": 135},
    }
    return ModelIdentity(**(facts | changes))


class Model:
    """Something to ask, which counts how often it is."""

    def __init__(self, voice: int = 0, batch: int = 2) -> None:
        self.voice, self.batch = voice, batch
        self.asked: list[Question] = []

    def __call__(
        self, questions: Sequence[Question]
    ) -> Iterator[list[tuple[Question, Verdict, Mapping[str, Any]]]]:
        for start in range(0, len(questions), self.batch):
            part = questions[start : start + self.batch]
            self.asked += part
            yield [(one, verdict(self.number(one), self.voice), {"tokens": 9}) for one in part]

    @staticmethod
    def number(one: Question) -> int:
        """The number that `question` was given."""
        return int(one.prompt[1].removeprefix("Trend: "))
