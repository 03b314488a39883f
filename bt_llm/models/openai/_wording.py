"""The requests that servers want, in the words that each of them knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

__all__ = ["LLAMA_CPP", "OLLAMA", "Wording", "chat_request", "json_request", "other_wording", "text_request"]

Wording = Literal["", "reasoning", "count", "continued", "ollama", "native"]
"""What a server wants said otherwise than OpenAI's API has it for most models.

=========  =============================================================================================
reasoning  ``max_completion_tokens`` in the place of ``max_tokens``, and no temperature: OpenAI's own
           reasoning models
count      chat's ``logprobs`` is a number: Together
continued  vLLM goes on with the prompt's last line, such as ``Verdict:``, as what the model said itself
ollama     Ollama's own ``/api/chat``, which gives log-probabilities and cuts no prompt short in silence
native     typed-gguf's own ``/v1/decide``, which tells what the labels hold together
=========  =============================================================================================
"""

WORDINGS: tuple[Wording, ...] = get_args(Wording)

LLAMA_CPP: Mapping[str, Any] = {"cache_prompt": False, "id_slot": 0}
"""Has llama.cpp's server compute each prompt whole and alone: its sums are rounded alike each time then."""

OLLAMA: Mapping[str, Any] = {"stream": False, "think": False, "truncate": False, "shift": False}

_THOUGHT_TOKENS = 4096
"""What a reasoning model may think before its answer, which counts too."""

_REFUSED = re.compile(r"max_completion_tokens|\btemperature\b")

Request = tuple[str, dict[str, Any]]


def other_wording(complaint: str) -> Wording:
    """Return the wording that a server's complaint asks for; none where it asks for none.

    Examples
    --------
    >>> other_wording("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
    'reasoning'
    """
    return "reasoning" if _REFUSED.search(complaint) else ""


def text_request(text: str, top: int) -> Request:
    """Return path and payload that ask for the most probable tokens after a text."""
    return "/completions", {"temperature": 0.0, "prompt": text, "max_tokens": 1, "logprobs": top}


def chat_request(text: str, top: int, wording: Wording) -> Request:
    """Return path and payload that ask for the most probable tokens an answer begins with."""
    if wording == "ollama":
        return _ollama(text, 1, logprobs=True, top_logprobs=top)
    if wording == "continued" and "\n" in text:
        return _continued(text, top)
    logprobs = {"logprobs": top} if wording == "count" else {"logprobs": True, "top_logprobs": top}
    return _chat(text, 1, wording, logprobs)


def json_request(
    text: str,
    schema: Mapping[str, Any],
    method: str,
    wording: Wording = "",
    *,
    max_tokens: int,
    seed: int = 0,
) -> Request:
    """Return path and payload that ask for JSON after a schema, in one of the forms that servers know.

    ``json_schema`` is that of OpenAI, vLLM and llama.cpp, ``json_object`` with a schema that of
    llama-cpp-python.
    """
    if wording == "ollama":
        return _ollama(text, max_tokens, seed=seed, format=dict(schema))
    named = {"name": "verdict", "strict": True, "schema": dict(schema)}
    forms: dict[str, dict[str, Any]] = {
        "json_schema": {"type": "json_schema", "json_schema": named},
        "json_object": {"type": "json_object", "schema": dict(schema)},
    }
    thought = _THOUGHT_TOKENS if wording == "reasoning" else 0
    return _chat(text, max_tokens + thought, wording, {"seed": seed, "response_format": forms[method]})


def _chat(text: str, max_tokens: int, wording: Wording, more: Mapping[str, Any]) -> Request:
    if wording == "reasoning":
        limits: dict[str, Any] = {"max_completion_tokens": max_tokens}
    else:
        limits = {"temperature": 0.0, "max_tokens": max_tokens}
    return "/chat/completions", {**limits, "messages": _messages(text), **more}


def _continued(text: str, top: int) -> Request:
    question, _, begun = text.rpartition("\n")
    path, asked = _chat(question, 1, "", {"logprobs": True, "top_logprobs": top})
    answer = {"role": "assistant", "content": begun}
    goes_on = {"add_generation_prompt": False, "continue_final_message": True}
    return path, {**asked, "messages": [*asked["messages"], answer], **goes_on}


def _ollama(text: str, max_tokens: int, seed: int = 0, **more: Any) -> Request:
    options = {"temperature": 0.0, "num_predict": max_tokens, "seed": seed}
    return "/api/chat", {**OLLAMA, "messages": _messages(text), "options": options, **more}


def _messages(text: str) -> Sequence[Mapping[str, str]]:
    return [{"role": "user", "content": text}]
