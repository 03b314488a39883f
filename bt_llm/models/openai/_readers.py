"""RemoteReader: the ways of reading a verdict from a server, and what is asked for each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bt_llm.exceptions import ConfigError
from bt_llm.models._base import ModelIdentity
from bt_llm.models.openai._replies import (
    NoLogprobsError,
    RefusedError,
    chat_text,
    next_tokens,
    tokens_used,
)
from bt_llm.models.openai._servers import Server

__all__ = [
    "Asking",
    "RemoteReader",
    "candidates",
    "check_labels",
    "json_request",
    "stored_reader",
]

_METHODS: Mapping[str, tuple[str, ...]] = {
    "completions": ("tokens",),
    "chat": ("first_token",),
    "json": ("json_schema", "json_object"),
}
_TOPS = {"completions": (100, 20, 5), "chat": (100, 20, 5), "json": (0,)}
"""How many tokens to ask for, the most first: llama.cpp gives any number, vLLM 20 and OpenAI 5 or 20."""

_PROBE = "RSI: 55 to 70\nTrend: up\nVerdict:"
_JSON_TOKENS = 60


class Asking:
    """The requests of one prompt to a server's model, and what they take."""

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._model = server, model
        self._started = time.monotonic()
        self.tokens = 0

    async def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """Ask, decoding greedily; return the answer's JSON."""
        answer = await self._server.ask(path, {"model": self._model, "temperature": 0.0, **payload})
        self.tokens += tokens_used(answer)
        return answer

    @property
    def milliseconds(self) -> float:
        """Time since the first request."""
        return 1e3 * (time.monotonic() - self._started)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReader:
    """How verdicts are read from a server; part of every key.

    Parameters
    ----------
    via : {'completions', 'chat', 'json'}
        What is asked.
    method : {'tokens', 'first_token', 'json_schema', 'json_object'}
        See the table at the top of `bt_llm.models`.
    top : int
        Most probable tokens asked for; 0 for JSON.
    """

    via: Literal["completions", "chat", "json"]
    method: Literal["tokens", "first_token", "json_schema", "json_object"]
    top: int = 0

    def __str__(self) -> str:
        return f"via={self.via} ({self.method}, top={self.top})"

    async def works(self, asking: Asking) -> bool:
        """Whether a server can be read this way; asks it for one short answer.

        Raises
        ------
        ModelError
            If the server refuses for another reason, such as a wrong API key.
        """
        try:
            answer = await asking.post(*self._request(_PROBE, ["up", "down"]))
            if self.via == "json":
                return isinstance(json.loads(chat_text(answer)[0]), dict)
            return bool(next_tokens(answer))
        except RefusedError as error:
            # llama-cpp-python's server answers 500 to options that it does not know.
            if error.status in (0, 401, 403, 429) or error.status > 500:
                raise
            return False
        except (NoLogprobsError, ValueError, RecursionError):
            return False

    async def scores(self, asking: Asking, text: str, labels: Sequence[str]) -> tuple[float, ...]:
        """Return the labels' log-probabilities after a prompt; all minus infinity if none can be seen."""
        if self.method == "tokens":
            return await self._followed(asking, text, labels)
        words = [label.strip() for label in labels]
        answer = await asking.post(*self._request(text, words))
        if self.method == "first_token":
            return _first_token_scores(next_tokens(answer), words)
        return _written_scores(chat_text(answer)[0], words)

    def _request(self, text: str, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
        if self.via == "completions":
            return "/completions", {"prompt": text, "max_tokens": 1, "logprobs": self.top}
        if self.via == "json":
            return json_request(text, _confidence_schema(words), self.method, max_tokens=_JSON_TOKENS)
        messages = [{"role": "user", "content": text}]
        logprobs = {"logprobs": True, "top_logprobs": self.top}
        return "/chat/completions", {"messages": messages, "max_tokens": 1, **logprobs}

    async def _followed(self, asking: Asking, text: str, labels: Sequence[str]) -> tuple[float, ...]:
        """Follow the labels token by token; of several tokens that begin a label, the longest is its own."""
        scores: dict[str, float] = {}
        seen = False
        nodes = {"": (0.0, list(labels))}
        while nodes:
            begun, (before, going_on) = nodes.popitem()
            tokens = next_tokens(await asking.post(*self._request(text + begun, labels)))
            for label in going_on:
                rest = label[len(begun) :]
                token = max((t for t in tokens if t and rest.startswith(t)), key=len, default="")
                total = before + (tokens[token] if token else min(tokens.values()))
                seen = seen or bool(token)
                if token in ("", rest):
                    scores[label] = total
                else:
                    nodes.setdefault(begun + token, (total, []))[1].append(label)
        return tuple(scores[label] if seen else -math.inf for label in labels)


def candidates(via: str, top: int) -> list[RemoteReader]:
    """Return the readers to try for a way, the best first; `top` is a number of tokens, or 0 for any.

    Examples
    --------
    >>> [reader.top for reader in candidates("completions", 0)]
    [100, 20, 5]
    """
    tops = (top,) if top and via != "json" else _TOPS[via]
    return [RemoteReader(via=via, method=m, top=t) for m in _METHODS[via] for t in tops]  # type: ignore[arg-type]


def stored_reader(identity: ModelIdentity) -> RemoteReader | None:
    """Return the reader in an identity's details, or None; they may come from a pack of anybody's."""
    stored = identity.details.get("reader")
    if not isinstance(stored, Mapping) or set(stored) != {"via", "method", "top"}:
        return None
    via, method, top = stored["via"], stored["method"], stored["top"]
    if not isinstance(via, str) or method not in _METHODS.get(via, ()) or type(top) is not int or top < 0:
        return None
    return RemoteReader(via=via, method=method, top=top)  # type: ignore[arg-type]


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


def json_request(
    text: str, schema: Mapping[str, Any], method: str, *, max_tokens: int, seed: int = 0
) -> tuple[str, dict[str, Any]]:
    """Return path and payload that ask for JSON after a schema, in one of the two forms that servers know.

    ``json_schema`` is that of OpenAI, vLLM and llama.cpp, ``json_object`` with a schema that of
    llama-cpp-python.
    """
    named = {"name": "verdict", "strict": True, "schema": dict(schema)}
    forms: dict[str, dict[str, Any]] = {
        "json_schema": {"type": "json_schema", "json_schema": named},
        "json_object": {"type": "json_object", "schema": dict(schema)},
    }
    return "/chat/completions", {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "seed": seed,
        "response_format": forms[method],
    }


def _first_token_scores(tokens: Mapping[str, float], words: Sequence[str]) -> tuple[float, ...]:
    """Add up the tokens that begin one word and no other.

    Examples
    --------
    >>> tokens = {"Up": math.log(0.5), " Up": math.log(0.25), "D": math.log(0.125)}
    >>> [round(math.exp(score), 3) for score in _first_token_scores(tokens, ["Up", "Flat", "Down"])]
    [0.75, 0.125, 0.125]
    """
    shares: list[list[float]] = [[] for _ in words]
    for token, value in tokens.items():
        begun = [i for i, word in enumerate(words) if token.strip() and word.startswith(token.strip())]
        if len(begun) == 1:
            shares[begun[0]].append(math.exp(value))
    if not any(shares):
        return (-math.inf,) * len(words)
    least = min(tokens.values())
    sums = [math.fsum(share) for share in shares]
    return tuple(max(least, math.log(total)) if total > 0 else least for total in sums)


def _confidence_schema(words: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": list(words)},
            "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
        },
        "required": ["verdict", "confidence"],
        "additionalProperties": False,
    }


def _written_scores(text: str, words: Sequence[str]) -> tuple[float, ...]:
    """Return log-probabilities from a verdict and its confidence, of which 0 % is knowing nothing.

    Examples
    --------
    >>> scores = _written_scores('{"verdict": "up", "confidence": 70}', ["up", "flat", "down"])
    >>> [round(math.exp(score), 3) for score in scores]
    [0.8, 0.1, 0.1]
    >>> _written_scores("up, I think", ["up", "flat", "down"])
    (-inf, -inf, -inf)
    """
    nothing = (-math.inf,) * len(words)
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
    return tuple(math.log(chance) if chance > 0 else -math.inf for chance in chances)
