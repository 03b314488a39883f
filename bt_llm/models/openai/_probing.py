"""Finding out how a server can be read, and whether it answers the same question alike twice."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bt_llm.exceptions import ModelError
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._readers import Asking, RemoteReader, candidates
from bt_llm.models.openai._replies import RefusedError
from bt_llm.models.openai._server import Server
from bt_llm.models.openai._wording import Wording, other_wording

__all__ = ["find_reader", "largest_difference", "say_untemplated", "try_reader", "ways"]

_log = logging.getLogger("bt_llm.remote")

_INSTRUCT = re.compile(
    r"instruct|chat|assistant|thinking|reason|(?:^|[-_:/.])(?:it|sft|dpo|rlhf)(?:$|[-_:/.])|"
    r"^(?:gpt-[4-9]|gpt-oss|o\d|claude|gemini|deepseek-r)",
    re.IGNORECASE,
)
_BASE = re.compile(r"(?:^|[-_:/.])(?:base|pt|pretrain(?:ed)?)(?:$|[-_:/.])", re.IGNORECASE)

_ROUND = 4
_SHARED = "Judge the state of the market. Answer with one word.\n" + "".join(
    f"Trend: {trend}\nRSI: {rsi}\nVolatility: {level}\nVerdict: {word}\n"
    for trend, rsi, level, word in (
        ("up", "70 to 80", "low", "Bullish"),
        ("flat", "45 to 55", "normal", "Neutral"),
        ("down", "20 to 30", "high", "Bearish"),
    )
)


def looks_tuned(model: str) -> bool:
    """Whether a model's name says that it was tuned to chat, and so wants its chat template.

    Examples
    --------
    >>> looks_tuned("Llama-3.2-1B-Instruct"), looks_tuned("google/gemma-3-1b-it"), looks_tuned("llama-8b")
    (True, True, False)
    """
    return bool(_INSTRUCT.search(model)) and not _BASE.search(model)


def ways(via: str, templated: bool, names: Sequence[str]) -> tuple[str, ...]:
    """Return the ways of reading to try, the best first.

    The whole prompt can be sent as text where its chat template is known, or there is none to know; where
    there may be one that only the server has, the server is to wrap the prompt.

    Examples
    --------
    >>> ways("auto", False, ["Llama-3.2-1B-Instruct"])
    ('chat', 'completions', 'json')
    """
    if via != "auto":
        return (via,)
    tuned = any(looks_tuned(name) for name in names)
    return ("completions", "chat", "json") if templated or not tuned else ("chat", "completions", "json")


def say_untemplated(host: str, model: str) -> None:
    """Say that a prompt is sent without the chat template that its model may want."""
    _log.warning(
        "%s: model %r gets prompts as plain text, since the server tells no chat template: right for a base "
        "model only; of a model that was tuned to chat give gguf=FILE, or via=chat",
        host,
        model,
    )


async def find_reader(
    server: Server, model: str, order: Sequence[str], wordings: Sequence[Wording] = ("", "count")
) -> tuple[RemoteReader, str]:
    """Return the best way of reading that a server has, and the model that it says has answered.

    Raises
    ------
    ModelError
        If there is none, with what the server said of each.
    """
    config, complaints = server.config, dict[str, str]()
    for via in order:
        for reader in _candidates(via, config, wordings):
            if reader.wording == "count" and "logprob" not in complaints.get(via, ""):
                continue  # it is not the number of them that was refused
            asking = reader.asking(server, model)
            problem = await try_reader(reader, asking)
            if problem and not reader.wording and via != "completions" and other_wording(problem):
                reader = replace(reader, wording=other_wording(problem))
                problem = await try_reader(reader, asking)
            if not problem:
                if via == "json" and len(order) > 1:
                    _say_no_logprobs(config.host, complaints)
                return reader, asking.answered_by
            complaints[via] = _clearer(complaints.get(via, ""), problem)
    raise ModelError(_unreadable(config, order, complaints))


def _candidates(via: str, config: RemoteConfig, wordings: Sequence[Wording]) -> list[RemoteReader]:
    """Return what to try for a way; a number in the place of chat's ``logprobs`` is at most 20."""
    found = [one for wording in wordings for one in candidates(via, config.top, wording)]
    of_chat = ("count", "continued")
    found = [one for one in found if via == "chat" or one.wording not in of_chat]
    return [one for one in found if one.wording != "count" or one.top <= 20]


async def try_reader(reader: RemoteReader, asking: Asking) -> str:
    """Return what is wrong with a way of reading; nothing where it works.

    Raises
    ------
    ModelError
        If the server refuses for a reason that every other way would meet too, such as a wrong API key.
    """
    try:
        return await reader.try_out(asking)
    except RefusedError as error:
        # llama-cpp-python's server answers 500 to options that it does not know, and OpenAI 403 to who asks
        # some models for log-probabilities.
        if error.status in (0, 401, 429) or error.status > 500:
            raise
        if error.status == 403 and "logprob" not in str(error):
            raise
        return str(error)


def _clearer(before: str, now: str) -> str:
    """Return the complaint that tells more: the server's own, of which the first names what it missed."""
    return before if " refused with " in before or not now else now


def _say_no_logprobs(host: str, complaints: Mapping[str, str]) -> None:
    said = {text for text in complaints.values() if " refused with " in text}
    _log.warning(
        "%s gives no log-probabilities: verdicts are made of the confidence that the model writes as JSON%s",
        host,
        "".join(f"; {text}" for text in sorted(said)),
    )


def _unreadable(config: RemoteConfig, order: Sequence[str], complaints: Mapping[str, str]) -> str:
    said = "; ".join(
        f"{via}: {text.removeprefix(f'{config.host}: ')}" for via, text in complaints.items() if text
    )
    if order[0] == "decision":
        return f"{config.host}: it answers no question of the type choice ({said})"
    if len(order) == 1 and order[0] != "json":
        return (
            f"{config.host}: no log-probabilities via={order[0]}; use via=auto, or start the server so that "
            f"it gives them ({said})"
        )
    if "json" not in order:
        return f"{config.host}: no log-probabilities; add via=json to the model's name ({said})"
    return (
        f"{config.host}: neither log-probabilities nor JSON after a schema there ({said}); serve the model "
        "with what gives one of them, such as llama-server"
    )


async def largest_difference(server: Server, model: str, reader: RemoteReader) -> float | None:
    """Return by how much a probability differs when the same questions come again, in another order.

    As many at a time as there are connections; None where there are no probabilities to compare.
    """
    if reader.via == "json":
        return None
    texts = [f"{_SHARED}Trend: up\nRSI: {10 * i}\nVolatility: low\nVerdict:" for i in range(_ROUND)]
    room = asyncio.Semaphore(server.config.connections)

    async def one(text: str) -> dict[str, float]:
        async with room:
            return await reader.tokens(reader.asking(server, model), text)

    first = await asyncio.gather(*map(one, texts))
    again = await asyncio.gather(*map(one, reversed(texts)))
    return max(map(_difference, first, reversed(again)))


def _difference(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the largest difference of a token's probability; one that came once only was out of sight."""
    both = one.keys() & other.keys()
    if one.keys() == other.keys() and all(one[token] == other[token] for token in both):
        return 0.0
    found = max((abs(math.exp(one[token]) - math.exp(other[token])) for token in both), default=1.0)
    return max(found, 5e-7)
