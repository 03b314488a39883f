"""ScriptedBackend: a deterministic stand-in for a model, for tests (yours too) and for planted edges."""

from __future__ import annotations

import abc
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


class AnyLabels(abc.ABC):
    """A script that answers for any number of labels; like a model it sees their words, not their worths."""

    @abc.abstractmethod
    def __call__(self, prompt: str, n_labels: int = 3) -> tuple[float, ...]:
        """Return the probabilities of so many labels, in their order."""


class Leaning(AnyLabels):
    """Leans to the first label or to the last.

    Parameters
    ----------
    lean : callable
        From a prompt's text to a number from 1, the first label, to -1, the last.
    three : callable
        From a lean to the probabilities of three labels.

    Examples
    --------
    >>> [round(p, 3) for p in trend_follower("Trend: strong up", 5)]
    [0.484, 0.242, 0.097, 0.048, 0.028]
    >>> trend_follower("Trend: strong up")
    (0.6, 0.2, 0.1)
    """

    def __init__(
        self, lean: Callable[[str], float], three: Callable[[float], tuple[float, float, float]]
    ) -> None:
        self._lean = lean
        self._three = three

    def __call__(self, prompt: str, n_labels: int = 3) -> tuple[float, ...]:
        """Return the probabilities for a prompt: the nearer a label is to the lean, the more."""
        lean = self._lean(prompt)
        if n_labels == 3:
            return self._three(lean)
        places = [1.0 - 2.0 * at / (n_labels - 1) for at in range(n_labels)]
        weights = [1.0 / (1.0 + 4.0 * (place - lean) ** 2) for place in places]
        return tuple(0.9 * weight / math.fsum(weights) for weight in weights)


def _trend(prompt: str) -> float:
    """Return 1 for a strong up-trend to -1 for a strong down-trend, by the prompt's last line about it.

    Earlier ones are examples.
    """
    lines = (line for line in reversed(prompt.splitlines()) if line.startswith("Trend: "))
    words = next(lines, "")
    size = 1.0 if "strong" in words else 0.5
    return size if "up" in words else -size if "down" in words else 0.0


def _three(lean: float) -> tuple[float, float, float]:
    return (0.6, 0.2, 0.1) if lean > 0 else (0.1, 0.2, 0.6) if lean < 0 else (0.2, 0.5, 0.2)


trend_follower = Leaning(_trend, _three)
"""The first labels in an up-trend, the last in a down-trend, the middle otherwise."""

contrarian = Leaning(lambda prompt: -_trend(prompt), _three)
"""The opposite of the trend follower."""

always_bullish = Leaning(lambda _: 1.0, lambda _: (0.8, 0.1, 0.1))
"""The first label, whatever the state."""


class RandomScript(AnyLabels):
    """Probabilities that look random but are a function of the prompt and a seed.

    Parameters
    ----------
    seed : int
        Another seed, another model.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, prompt: str, n_labels: int = 3) -> tuple[float, ...]:
        """Return the probabilities for a prompt."""
        found = b"".join(_block(self.seed, prompt, number) for number in range(-(-n_labels // 8)))
        weights = [1 + int.from_bytes(found[4 * i : 4 * i + 4], "big") for i in range(n_labels)]
        total = sum(weights)
        return tuple(weight / total for weight in weights)


def _block(seed: int, prompt: str, number: int) -> bytes:
    """Return 32 bytes, enough for eight labels."""
    name = f"{seed}|{prompt}" if number == 0 else f"{seed}|{prompt}|{number}"
    return hashlib.sha256(name.encode()).digest()


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
        Gives the probabilities of the labels, in their order; one that is no `AnyLabels` for a fixed number.
    name : str
        Stands for the model's name, and, hashed, for its weights: two scripts need two names, or contents.
    content : str
        What else the answers depend on; hashed with the name.
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
        content: str = "",
        batch: int = 32,
        answers: Callable[[str, Mapping[str, Any]], str] | None = None,
    ) -> None:
        self.script = script
        self.batch = batch
        self.calls = 0
        self._answers = answers or self._verdict_json
        self._identity = ModelIdentity(
            name=name, sha256=hashlib.sha256(f"bt_llm {name}{content}".encode()).hexdigest()
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
        if prefix == "scripted" and script == "random" and seed.isdecimal():
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
        probabilities = self._probabilities(text, n_labels)
        return LabelScores(tuple(math.log(p) if p > 0 else -math.inf for p in probabilities))

    def _probabilities(self, text: str, n_labels: int) -> Sequence[float]:
        script = self.script
        probabilities = script(text, n_labels) if isinstance(script, AnyLabels) else script(text)
        if len(probabilities) != n_labels:
            raise ConfigError(f"script gave {len(probabilities)} probabilities for {n_labels} labels")
        return probabilities

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int
    ) -> Iterator[Answer]:
        """Yield one text a prompt."""
        for prompt in prompts:
            self.calls += 1
            yield Answer(self._answers(prompt.text, schema), finished=True)

    def _verdict_json(self, text: str, schema: Mapping[str, Any]) -> str:
        words = schema.get("properties", {}).get("verdict", {}).get("enum", ())
        if not words:  # something other than a verdict is wanted, which a script of labels cannot give
            return "{}"
        probabilities = list(self._probabilities(text, len(words)))
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return json.dumps(
            {"verdict": words[best], "confidence": round(100 * probabilities[best]), "reason": "scripted"}
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

    @property
    def addresses(self) -> tuple[str, ...]:
        """None: it answers in this process."""
        return ()

    def open(self, config: ModelConfig) -> ScriptedBackend:
        """Return the script as a backend."""
        return ScriptedBackend.named(self.name)
