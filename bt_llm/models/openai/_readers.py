"""RemoteReader: the ways of reading a verdict from a server, and what is asked for each."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bt_llm.exceptions import ModelError
from bt_llm.models._base import ModelIdentity, Numerics
from bt_llm.models.openai._decisions import choice_scores, decision_request
from bt_llm.models.openai._replies import (
    NoLogprobsError,
    ReplyError,
    chat_text,
    next_tokens,
    tokens_used,
)
from bt_llm.models.openai._scores import Scores, confidence_schema, first_token_scores, written_scores
from bt_llm.models.openai._server import Server
from bt_llm.models.openai._wording import (
    LLAMA_CPP,
    WORDINGS,
    Wording,
    chat_request,
    json_request,
    text_request,
)

__all__ = ["Asking", "RemoteReader", "candidates", "stored_reader"]

_METHODS: Mapping[str, tuple[str, ...]] = {
    "completions": ("tokens",),
    "chat": ("first_token",),
    "json": ("json_schema", "json_object"),
    "decision": ("choice",),
}
_TOPS = {"completions": (100, 20, 5), "chat": (100, 20, 5), "json": (0,), "decision": (0,)}
"""How many tokens to ask for, the most first: llama.cpp gives any number, vLLM 20 and OpenAI 5 or 20."""

_PROBE = "RSI: 55 to 70\nTrend: up\nVerdict:"
_SOME = ("Bullish", "Neutral", "Bearish")
_JSON_TOKENS = 60


class Asking:
    """The requests of one prompt to a server's model, and what they take.

    `answered_by` is the model that the last reply names, `more` what stands in each request besides.
    """

    def __init__(self, server: Server, model: str, more: Mapping[str, Any] | None = None) -> None:
        self.answered_by = ""
        self.tokens = 0
        self._server, self._more = server, {"model": model, **(more or {})}
        self._started = time.monotonic()
        if provider := server.config.provider:
            self._more["provider"] = {
                "only": [provider],
                "allow_fallbacks": False,
                "require_parameters": True,
            }

    async def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """Ask; return the answer's JSON.

        Raises
        ------
        ModelError
            If a gateway had another provider answer than the one that was named, or none was named.
        """
        address = self._server.config.root_url + path if path.startswith("/api/") else path
        in_turn = self._server.one_by_one if "id_slot" in self._more else contextlib.nullcontext()
        async with in_turn:
            answer = await self._server.ask(address, {**self._more, **payload})
        self.tokens += tokens_used(answer)
        facts = answer if isinstance(answer, dict) else {}
        self.answered_by = str(facts.get("model") or "")[:200]
        if isinstance(facts.get("provider"), str):
            self._check_provider(facts["provider"])
        return answer

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Have errors about a reply say which server it came from."""
        host = f"{self._server.config.host}: "
        try:
            yield
        except ReplyError as error:
            if str(error).startswith(host):
                raise
            raise type(error)(f"{host}{error}") from error

    def _check_provider(self, answered: str) -> None:
        wanted, host = self._server.config.provider, self._server.config.host
        if not wanted:
            raise ModelError(
                f"{host}: it spreads a model over providers that serve different weights ({answered!r:.40} "
                "answered this time): name one in the model's name, such as provider=deepinfra"
            )
        ours, theirs = (
            re.sub("[^a-z0-9]", "", name.partition("/")[0].casefold()) for name in (wanted, answered)
        )
        if not (ours.startswith(theirs) or theirs.startswith(ours)):
            raise ReplyError(f"{host}: {answered!r:.40} answered in the place of the provider {wanted!r}")

    @property
    def milliseconds(self) -> float:
        """Time since the first request."""
        return 1e3 * (time.monotonic() - self._started)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReader:
    """How verdicts are read from a server; part of every key.

    Parameters
    ----------
    via : {'completions', 'chat', 'json', 'decision'}
        What is asked; 'decision' is a question to a decision server.
    method : {'tokens', 'first_token', 'json_schema', 'json_object', 'choice'}
        See the table at the top of `bt_llm.models`.
    top : int
        Most probable tokens asked for; 0 where none are.
    wording : {'', 'reasoning', 'count', 'continued', 'ollama', 'native'}
        What the server wants said otherwise than most do.
    alone : bool
        Whether it is llama.cpp's server, which is told to compute each prompt whole and alone: then its sums
        are rounded alike each time, unless ``numerics`` is ``fast``.
    """

    via: Literal["completions", "chat", "json", "decision"]
    method: Literal["tokens", "first_token", "json_schema", "json_object", "choice"]
    top: int = 0
    wording: Wording = ""
    alone: bool = False

    def __str__(self) -> str:
        return f"via={self.via} ({self.method}, top={self.top})"

    @property
    def document(self) -> dict[str, Any]:
        """What stands in an identity: all that is not as with most servers."""
        return {name: value for name, value in asdict(self).items() if name in _ALWAYS or value}

    def asking(self, server: Server, model: str, numerics: Numerics = "canonical") -> Asking:
        """Return what asks a server about one prompt."""
        return Asking(server, model, LLAMA_CPP if self.alone and numerics == "canonical" else None)

    async def try_out(self, asking: Asking) -> str:
        """Ask for one short answer; return what is wrong with it, which is nothing where this way works."""
        try:
            with asking.named():
                answer = await asking.post(*self._request(_PROBE, ["up", "down"]))
                return self._wrong_with(answer)
        except NoLogprobsError as error:
            return str(error)
        except ReplyError as error:
            if self.via != "decision":
                raise
            return str(error)
        except (ValueError, RecursionError):
            return "the reply is not JSON"

    def _wrong_with(self, answer: Any) -> str:
        if self.via == "decision":
            choice_scores(answer, ["up", "down"], native=self.wording == "native")
        elif self.via != "json":
            next_tokens(answer)
        elif not isinstance(json.loads(chat_text(answer)[0]), dict):
            return "the reply is no JSON object"
        return ""

    async def tokens(self, asking: Asking, text: str) -> dict[str, float]:
        """Return the most probable next tokens after a prompt; of a decision, the labels of a question."""
        if self.via == "decision":
            scores = await self.scores(asking, text, _SOME)
            return dict(zip(_SOME, scores.logprobs, strict=True))
        answer = await asking.post(*self._request(text, []))
        with asking.named():
            return next_tokens(answer)

    async def scores(self, asking: Asking, text: str, labels: Sequence[str]) -> Scores:
        """Return the labels' log-probabilities after a prompt."""
        if self.method == "tokens":
            return await self._followed(asking, text, labels)
        words = [label.strip() for label in labels]
        answer = await asking.post(*self._request(text, words))
        with asking.named():
            if self.method == "first_token":
                return first_token_scores(next_tokens(answer), words)
            if self.method == "choice":
                return choice_scores(answer, words, native=self.wording == "native")
            return written_scores(chat_text(answer)[0], words)

    async def write(
        self, asking: Asking, text: str, schema: Mapping[str, Any], *, max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        """Return JSON after a schema, and whether it was finished; `via` is json."""
        limits = {"max_tokens": max_tokens, "seed": seed}
        answer = await asking.post(*json_request(text, schema, self.method, self.wording, **limits))
        with asking.named():
            return chat_text(answer)

    def _request(self, text: str, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
        if self.via == "completions":
            return text_request(text, self.top)
        if self.via == "chat":
            return chat_request(text, self.top, self.wording)
        if self.via == "decision":
            return decision_request(text, words, native=self.wording == "native")
        schema = confidence_schema(words)
        return json_request(text, schema, self.method, self.wording, max_tokens=_JSON_TOKENS)

    async def _followed(self, asking: Asking, text: str, labels: Sequence[str]) -> Scores:
        """Follow the labels token by token; of several tokens that begin a label, the longest is its own."""
        found: dict[str, float] = {}
        bounds = dict.fromkeys(labels, 0.0)
        seen = False
        nodes = {"": (0.0, list(labels))}
        while nodes:
            begun, (before, going_on) = nodes.popitem()
            tokens = await self.tokens(asking, text + begun)
            for label in going_on:
                rest = label[len(begun) :]
                token = max((t for t in tokens if t and rest.startswith(t)), key=len, default="")
                total = before + (tokens[token] if token else min(tokens.values()))
                seen = seen or bool(token)
                if token == rest:
                    found[label] = total
                elif not token:
                    bounds[label] = total
                else:
                    nodes.setdefault(begun + token, (total, []))[1].append(label)
        return Scores.of([found.get(x) for x in labels], [bounds[x] for x in labels], began=seen)


_ALWAYS = ("via", "method", "top")


def candidates(via: str, top: int, wording: Wording = "") -> list[RemoteReader]:
    """Return the readers to try for a way, the best first; `top` is a number of tokens, or 0 for any.

    Examples
    --------
    >>> [reader.top for reader in candidates("completions", 0)]
    [100, 20, 5]
    """
    if wording == "ollama":
        method = {"chat": "first_token", "json": "json_schema"}[via]
        limit = (min(top, 20) or 20) if via == "chat" else 0
        return [RemoteReader(via=via, method=method, top=limit, wording=wording)]  # type: ignore[arg-type]
    tops = (top,) if top and via != "json" else _TOPS[via]
    return [
        RemoteReader(via=via, method=m, top=t, wording=wording)  # type: ignore[arg-type]
        for m in _METHODS[via]
        for t in tops
    ]


def stored_reader(identity: ModelIdentity) -> RemoteReader | None:
    """Return the reader in an identity's details, or None; they may come from a pack of anybody's."""
    stored = identity.details.get("reader")
    if not isinstance(stored, Mapping) or not {*_ALWAYS} <= set(stored) <= {*_ALWAYS, "wording", "alone"}:
        return None
    via, method, top = stored["via"], stored["method"], stored["top"]
    wording, alone = stored.get("wording", ""), stored.get("alone", False)
    if not isinstance(via, str) or method not in _METHODS.get(via, ()) or type(top) is not int or top < 0:
        return None
    if wording not in WORDINGS or type(alone) is not bool:
        return None
    return RemoteReader(via=via, method=method, top=top, wording=wording, alone=alone)  # type: ignore[arg-type]
