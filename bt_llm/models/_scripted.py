"""ScriptedBackend: a deterministic stand-in for a model, for tests (yours too) and for planted edges."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from bt_llm.exceptions import ConfigError
from bt_llm.models._base import Answer, LabelScores, ModelIdentity, Numerics, Prompt
from bt_llm.models._config import ModelConfig
from bt_llm.models._registry import ModelKind

__all__ = ["SCRIPTS", "Script", "ScriptedBackend", "ScriptedModel"]

Script = Callable[[str], Sequence[float]]
"""From the text of a prompt to the probabilities of its labels, which sum to at most 1."""


def _question(prompt: str) -> str:
    """Return the last line that speaks of a trend: earlier ones are examples."""
    return next((line for line in reversed(prompt.splitlines()) if line.startswith("Trend: ")), "")


def trend_follower(prompt: str) -> tuple[float, float, float]:
    """Bullish in an up-trend, bearish in a down-trend, neutral otherwise."""
    words = _question(prompt)
    up, down = "up" in words, "down" in words
    return (0.6, 0.2, 0.1) if up else (0.1, 0.2, 0.6) if down else (0.2, 0.5, 0.2)


def contrarian(prompt: str) -> tuple[float, float, float]:
    """Return the opposite of the trend follower."""
    bullish, neutral, bearish = trend_follower(prompt)
    return bearish, neutral, bullish


def always_bullish(_prompt: str) -> tuple[float, float, float]:
    """Bullish, whatever the state."""
    return 0.8, 0.1, 0.1


class RandomScript:
    """Probabilities that look random but are a function of the prompt and a seed.

    Parameters
    ----------
    seed : int
        Another seed, another model.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, prompt: str) -> tuple[float, float, float]:
        """Return the probabilities for a prompt."""
        digest = hashlib.sha256(f"{self.seed}|{prompt}".encode()).digest()
        weights = [1 + int.from_bytes(digest[i : i + 4], "big") for i in (0, 4, 8)]
        total = sum(weights)
        return weights[0] / total, weights[1] / total, weights[2] / total


SCRIPTS: dict[str, Script] = {
    "trend": trend_follower,
    "contrarian": contrarian,
    "bullish": always_bullish,
    "random": RandomScript(),
}


class ScriptedBackend:
    r"""A backend whose answers come from a function of the prompt's text.

    Parameters
    ----------
    script : callable
        Gives the probabilities of the labels, in their order.
    name : str
        Stands for the model's name, and, hashed, for its weights: two scripts need two names.
    batch : int
        Prompts answered at a time, so that an interrupted run loses at most so many.
    answers : callable, optional
        From (prompt text, schema) to the text that `generate_json` returns; by default the verdict
        of `script` as JSON.

    Attributes
    ----------
    calls : int
        Prompts answered so far.

    Examples
    --------
    >>> backend = ScriptedBackend.named("scripted:trend")
    >>> [[scores]] = backend.score([Prompt(("Trend: up\n",))], (" Bullish", " Neutral", " Bearish"))
    >>> [round(math.exp(value), 3) for value in scores.logprobs]
    [0.6, 0.2, 0.1]
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        batch: int = 32,
        answers: Callable[[str, Mapping[str, Any]], str] | None = None,
    ) -> None:
        self.script = script
        self.batch = batch
        self.calls = 0
        self._answers = answers or self._verdict_json
        self._identity = ModelIdentity(
            name=name, sha256=hashlib.sha256(f"bt_llm {name}".encode()).hexdigest()
        )

    @classmethod
    def named(cls, name: str) -> ScriptedBackend:
        """Return the backend of a name such as ``scripted:trend`` or ``scripted:random:7``.

        Raises
        ------
        ConfigError
            If there is no such script.
        """
        prefix, _, rest = name.partition(":")
        script, _, seed = rest.partition(":")
        if prefix == "scripted" and script == "random" and seed.isdigit():
            return cls(RandomScript(int(seed)), name=name)
        if prefix != "scripted" or script not in SCRIPTS or seed:
            raise ConfigError(
                f"model {name!r}: want scripted:NAME, NAME one of {sorted(SCRIPTS)}, or scripted:random:SEED"
            )
        return cls(SCRIPTS[script], name=name)

    @property
    def identity(self) -> ModelIdentity:
        """A name, and its hash in place of the weights'."""
        return self._identity

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Nothing but the fact that it is a script."""
        return {"backend": "scripted"}

    def score(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, numerics: Numerics = "canonical"
    ) -> Iterator[list[LabelScores]]:
        """Yield the script's probabilities, `batch` prompts at a time."""
        for start in range(0, len(prompts), self.batch):
            yield [self._score(prompt.text, len(labels)) for prompt in prompts[start : start + self.batch]]

    def _score(self, text: str, n_labels: int) -> LabelScores:
        self.calls += 1
        probabilities = self.script(text)
        if len(probabilities) != n_labels:
            raise ConfigError(f"script gave {len(probabilities)} probabilities for {n_labels} labels")
        return LabelScores(tuple(math.log(p) if p > 0 else -math.inf for p in probabilities))

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int
    ) -> Iterator[Answer]:
        """Yield one text a prompt."""
        for prompt in prompts:
            self.calls += 1
            yield Answer(self._answers(prompt.text, schema), finished=True)

    def _verdict_json(self, text: str, _schema: Mapping[str, Any]) -> str:
        probabilities = list(self.script(text))
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        word = ("Bullish", "Neutral", "Bearish")[best]
        return json.dumps(
            {"verdict": word, "confidence": round(100 * probabilities[best]), "reason": "scripted"}
        )

    def close(self) -> None:
        """Do nothing: a script holds nothing."""


class ScriptedModel(ModelKind):
    """The scripts that ship, as a kind of models.

    Examples
    --------
    >>> ScriptedModel("trend").open(ModelConfig()).identity.name
    'scripted:trend'
    """

    kind: ClassVar[str] = "scripted"
    form: ClassVar[str] = "scripted:NAME"
    defined_by_name: ClassVar[bool] = True

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        ScriptedBackend.named(self.name)

    def open(self, config: ModelConfig) -> ScriptedBackend:
        """Return the script as a backend."""
        return ScriptedBackend.named(self.name)
