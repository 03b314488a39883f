"""What a server may reply: everything in it is checked before it is used, since a server is not trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bt_llm.exceptions import ModelError
from bt_llm.plain_json import strict_json

__all__ = [
    "NoLogprobsError",
    "RefusedError",
    "ReplyError",
    "ServerGoneError",
    "chat_text",
    "next_tokens",
    "read_json",
    "refusal",
    "served_models",
    "tokens_used",
]

_SPACES = str.maketrans({"\u2581": " ", "\u0120": " "})
"""How some servers write the space that a token begins with."""

_REPORTED = ("n_params", "n_vocab", "n_embd", "n_ctx_train", "size")
"""Facts of llama.cpp's model list that stay the same while the weights do."""


class Listed(NamedTuple):
    """A model in a server's list: what stays the same of it from start to start, and whose it is."""

    reported: dict[str, Any]
    owner: str = ""


class ReplyError(ModelError):
    """A reply that is not what the API says it is."""


class RefusedError(ModelError):
    """An error in the place of an answer; `status` is 0 where there was no reply at all."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ServerGoneError(RefusedError):
    """A server that is down, or too busy, after all retries; another one of the same model may answer."""


class NoLogprobsError(ReplyError):
    """A reply that is right but for its log-probabilities, which are not there."""


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text without NaN and infinities.

    Raises
    ------
    ReplyError
        If it is none.
    """
    try:
        return strict_json(body.decode("utf-8"))
    except ValueError:
        start = body[:60].decode("ascii", "replace")
        raise ReplyError(
            f"the reply is not JSON: {''.join(c if c.isprintable() else ' ' for c in start)!r}"
        ) from None


def refusal(status: int, document: Any) -> tuple[int, str] | None:
    """Return status and message of an error, which some send with a status of 200; None for an answer.

    Examples
    --------
    >>> refusal(200, {"error": {"message": "overloaded", "code": 503}})
    (503, 'overloaded')
    >>> refusal(200, {"choices": [{"text": "a"}], "error": None}) is None
    True
    """
    fields = document if isinstance(document, dict) else {}
    choice = _first(fields.get("choices"))
    error = fields.get("error") or (choice.get("error") if isinstance(choice, dict) else None)
    succeeded = status // 100 == 2
    if succeeded and not error and fields.get("object") != "error":
        return None
    told = error or document
    parts = [told.get(key) for key in ("message", "detail", "code")] if isinstance(told, dict) else [told]
    if succeeded and type(parts[-1]) is int and 400 <= parts[-1] < 600:
        status = parts[-1]
    return status, next((said for part in parts if (said := _sentence(part))), "")


def _sentence(part: Any) -> str:
    """Return a message as it is, or those of what FastAPI found wrong; nothing of anything else.

    Examples
    --------
    >>> _sentence([{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}])
    'body.prompt: Field required'
    """
    if isinstance(part, str):
        return part
    said = []
    for item in part if isinstance(part, list) else ():
        if isinstance(item, dict) and isinstance(item.get("msg"), str):
            place = item["loc"] if isinstance(item.get("loc"), list) else []
            said.append(": ".join(filter(None, (".".join(map(str, place)), item["msg"]))))
    return "; ".join(said)


def served_models(document: Any) -> dict[str, Listed]:
    """Return the models in a reply of ``/v1/models`` by name; Together's is a list alone.

    Examples
    --------
    >>> served_models({"data": [{"id": "small", "created": 1, "meta": {"n_params": 7}}]})["small"].reported
    {'n_params': 7}
    """
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise ReplyError("the server's list of models is no list")
    models = {}
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= 500 or not name.isprintable():
            raise ReplyError("the server's list of models has an entry without a printable name")
        meta = entry.get("meta")
        facts = meta if isinstance(meta, dict) else {}
        found = {key: facts[key] for key in _REPORTED if type(facts.get(key)) is int}
        if isinstance(entry.get("root"), str) and len(entry["root"]) <= 500:
            found["root"] = entry["root"]
        models[name] = Listed(found, str(entry.get("owned_by") or ""))
    return models


def next_tokens(document: Any) -> dict[str, float]:
    """Return the most probable next tokens and their log-probabilities, of any endpoint's reply.

    Three forms are read: the lists of the completions of OpenAI, vLLM and llama-cpp-python, the ``content``
    of chat completions, which llama.cpp's server uses for both, and Ollama's own.

    Raises
    ------
    ReplyError
        If it is no reply; `NoLogprobsError` if it gives none.

    Examples
    --------
    >>> next_tokens({"choices": [{"text": "a", "logprobs": {"top_logprobs": [{"a": -0.5, "b": -1.5}]}}]})
    {'a': -0.5, 'b': -1.5}
    """
    if _is_ollama(document):
        logprobs = {"content": document["logprobs"]} if document.get("logprobs") else None
    else:
        logprobs = _choice(document).get("logprobs")
    if logprobs is None:
        raise NoLogprobsError("the reply has no log-probabilities")
    if not isinstance(logprobs, dict):
        raise ReplyError("the reply's logprobs are no object")
    first = _first(logprobs.get("content"))
    if isinstance(first, dict) and isinstance(first.get("top_logprobs"), list):
        entries = [entry if isinstance(entry, dict) else {} for entry in first["top_logprobs"]]
        pairs = [(entry.get("token"), entry.get("logprob")) for entry in entries]
    else:
        legacy = _first(logprobs.get("top_logprobs"))
        if not isinstance(legacy, dict):
            raise NoLogprobsError("the reply's log-probabilities have no top_logprobs")
        pairs = list(legacy.items())
    return _checked(pairs)


def _is_ollama(document: Any) -> bool:
    """Whether a reply is one of Ollama's ``/api/chat``, which has no choices."""
    return isinstance(document, dict) and "choices" not in document and isinstance(document.get("done"), bool)


def _choice(document: Any) -> Mapping[str, Any]:
    choice = _first(document.get("choices")) if isinstance(document, dict) else None
    if not isinstance(choice, dict):
        raise ReplyError("the reply has no choices")
    return choice


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _checked(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Return tokens and log-probabilities; of two tokens of one text, the more probable one."""
    if not pairs:
        raise NoLogprobsError("the reply's top_logprobs are empty")
    tokens: dict[str, float] = {}
    for text, value in pairs:
        number = type(value) in (int, float) and value <= 1e-4
        if not isinstance(text, str) or not number:
            raise ReplyError(f"the reply has a token of {text!r:.40} with a log-probability of {value!r:.40}")
        spelled = text.translate(_SPACES)
        tokens[spelled] = max(min(float(value), 0.0), tokens.get(spelled, -math.inf))
    if math.fsum(math.exp(value) for value in tokens.values()) > 1.01:
        raise ReplyError("the reply's probabilities sum to more than 1")
    return tokens


def chat_text(document: Any) -> tuple[str, bool]:
    """Return the text of a chat completion, and whether it was finished rather than cut off."""
    choice = document if _is_ollama(document) else _choice(document)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise ReplyError("the reply has no message with a text")
    return text, "length" not in (choice.get("finish_reason"), choice.get("done_reason"))


def tokens_used(document: Any) -> int:
    """Return how many tokens a reply says it took, prompt and answer; 0 if it does not say.

    Examples
    --------
    >>> tokens_used({"usage": {"prompt_tokens": 20, "completion_tokens": 1}})
    21
    """
    usage = document.get("usage") if isinstance(document, dict) else None
    names: tuple[str, ...] = ("prompt_tokens", "completion_tokens")
    if _is_ollama(document):
        usage, names = document, ("prompt_eval_count", "eval_count")
    elif isinstance(usage, dict) and "input_tokens" in usage:
        names = ("input_tokens", "output_tokens")  # of decision servers
    counts = [usage.get(name) for name in names] if isinstance(usage, dict) else []
    return sum(count for count in counts if type(count) is int and 0 <= count < 2**31)
