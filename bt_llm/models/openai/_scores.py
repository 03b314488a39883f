"""Log-probabilities of labels, from the tokens or the JSON that a server answers with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bt_llm.exceptions import ConfigError

__all__ = ["Scores", "check_labels", "confidence_schema", "first_token_scores", "written_scores"]


class Scores(NamedTuple):
    """The labels' log-probabilities in their order; all minus infinity if none can be seen.

    `mass` is what those that were seen hold together, where another one was not and has an upper bound.
    """

    logprobs: tuple[float, ...]
    mass: float | None = None

    @classmethod
    def of(cls, found: Sequence[float | None], bounds: Sequence[float], *, began: bool = False) -> Scores:
        """Return the scores of labels, some of which were not found and have at most what `bounds` says.

        None can be seen where none was found, unless one `began`.

        Examples
        --------
        >>> Scores.of([math.log(0.5), None], [0.0, math.log(0.01)]).mass
        0.5
        """
        seen = [value for value in found if value is not None]
        if not seen and not began:
            return cls((-math.inf,) * len(found))
        logprobs = tuple(
            bound if value is None else value for value, bound in zip(found, bounds, strict=True)
        )
        return cls(logprobs, None if len(seen) == len(found) else math.fsum(math.exp(v) for v in seen))


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that cannot be told apart.

    Raises
    ------
    ConfigError
        If one is empty, or begins another one.
    """
    words = [label.strip() for label in labels]
    for i, first in enumerate(words):
        if not first or any(i != j and other.startswith(first) for j, other in enumerate(words)):
            raise ConfigError(
                f"labels {list(labels)}: expected words of which none is empty or begins another one"
            )


def first_token_scores(tokens: Mapping[str, float], words: Sequence[str]) -> Scores:
    """Add up the tokens that begin one word and no other.

    Examples
    --------
    >>> tokens = {"Up": math.log(0.5), " Up": math.log(0.25), "D": math.log(0.125)}
    >>> scores = first_token_scores(tokens, ["Up", "Flat", "Down"])
    >>> [round(math.exp(score), 3) for score in scores.logprobs], round(scores.mass, 3)
    ([0.75, 0.125, 0.125], 0.875)
    """
    shares: list[list[float]] = [[] for _ in words]
    for token, value in tokens.items():
        begun = [i for i, word in enumerate(words) if token.strip() and word.startswith(token.strip())]
        if len(begun) == 1:
            shares[begun[0]].append(math.exp(value))
    least = min(tokens.values())
    sums = [math.fsum(share) for share in shares]
    return Scores.of([max(least, math.log(s)) if s > 0 else None for s in sums], [least] * len(words))


def confidence_schema(words: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a verdict with a confidence."""
    return {
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": list(words)},
            "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
        },
        "required": ["verdict", "confidence"],
        "additionalProperties": False,
    }


def written_scores(text: str, words: Sequence[str]) -> Scores:
    """Return log-probabilities from a verdict and its confidence, of which 0 % is knowing nothing.

    Examples
    --------
    >>> scores = written_scores('{"verdict": "up", "confidence": 70}', ["up", "flat", "down"]).logprobs
    >>> [round(math.exp(score), 3) for score in scores]
    [0.8, 0.1, 0.1]
    >>> written_scores("up, I think", ["up", "flat", "down"]).logprobs
    (-inf, -inf, -inf)
    """
    nothing = Scores((-math.inf,) * len(words))
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return nothing
    if not isinstance(answer, dict) or set(answer) != {"verdict", "confidence"}:
        return nothing
    word, confidence = answer["verdict"], answer["confidence"]
    if word not in words or type(confidence) is not int or not 0 <= confidence <= 100:
        return nothing
    share = (100 - confidence) / (100 * len(words))
    chances = [1.0 - share * (len(words) - 1) if w == word else share for w in words]
    return Scores(tuple(math.log(chance) if chance > 0 else -math.inf for chance in chances))
