"""What a server says of itself: the models it lists, and what llama.cpp's and Ollama's tell besides."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bt_llm.exceptions import ModelError, ModelNotFoundError, PromptError
from bt_llm.models._chat import render_chat
from bt_llm.models.openai._replies import RefusedError, ReplyError, served_models
from bt_llm.models.openai._server import Server

__all__ = ["LlamaCpp", "ServedModelFacts", "find_served", "llama_cpp", "ollama_digest", "shown_names"]

_log = logging.getLogger("bt_llm.remote")

_LONGEST_TEMPLATE = 100_000
_SHOWN = 12

_ANSWER_ANY_NAME = {"llamacpp", "me"}
"""Owners of models by which llama.cpp's and llama-cpp-python's servers are known: they have another model
answer, in silence, to a name that they do not list."""

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_DATE = re.compile(r"\d{1,2} [A-Z][a-z]{2,8} \d{4}")

_TURNS = (
    {"role": "user", "content": "RSI: 50"},
    {"role": "assistant", "content": "Verdict: Neutral"},
    {"role": "user", "content": "RSI: 60"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModelFacts:
    """A model of a server; `reported` are facts of its weights, `listed` says whether it is in the list.

    `owner` is by whom the list says that it is, which is the name of some servers' programs.
    """

    model: str
    reported: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True
    owner: str = ""
    others: tuple[str, ...] = ()


async def find_served(server: Server) -> ServedModelFacts:
    """Return the model that is asked for; a model that is named need not be in the server's list.

    Raises
    ------
    ModelNotFoundError
        If none is named and the server has not exactly one, or it would answer with another one.
    """
    config = server.config
    host, name = config.host, config.model or config.deployment
    try:
        models = served_models(await server.ask("/models"))
    except (RefusedError, ReplyError) as error:
        # Some have no list, or none for this key; who names a model is told by its own replies.
        hopeless = isinstance(error, RefusedError) and error.status in (0, 401, 429)
        if not name or hopeless or (isinstance(error, RefusedError) and error.status > 500):
            raise
        _log.debug("%s", error)
        models = {}
    if not name and len(models) == 1:
        name = next(iter(models))
    if name in models:
        return ServedModelFacts(model=name, reported=models[name].reported, owner=models[name].owner)
    others = tuple(sorted(models))
    if not name or any(model.owner in _ANSWER_ANY_NAME for model in models.values()):
        raise ModelNotFoundError(
            f"{host}: no model {name!r}; name one with model=, of {shown_names(others, name)}"
        )
    listed = any("*" in other and fnmatch.fnmatchcase(name, other) for other in others)
    return ServedModelFacts(model=name, listed=listed, others=others)


def shown_names(names: Sequence[str], near: str = "") -> str:
    """Return names as a message lists them: those that look alike, where there are many.

    Examples
    --------
    >>> shown_names(["a", "b"])
    "['a', 'b']"
    """
    if len(names) <= _SHOWN:
        return str(list(names))
    import difflib

    shown = difflib.get_close_matches(near, names, n=5, cutoff=0.4) or list(names[:5])
    return f"{shown} and {len(names) - len(shown):,} more"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCpp:
    """What llama.cpp's server tells: its chat template and end token, empty ones where it tells none."""

    chat_template: str = ""
    eos_token: str = ""
    is_llama_cpp: bool = False


async def llama_cpp(server: Server) -> LlamaCpp:
    """Return what llama.cpp's server tells; empty texts of another one."""
    try:
        told = await server.ask(f"{server.config.root_url}/props")
    except RefusedError as error:
        if not error.status:
            raise
        return LlamaCpp()
    except ReplyError:
        return LlamaCpp()
    facts = told if isinstance(told, dict) else {}
    template, eos = facts.get("chat_template"), facts.get("eos_token")
    is_llama_cpp = type(facts.get("total_slots")) is int
    if not (isinstance(template, str) and isinstance(eos, str) and len(template) <= _LONGEST_TEMPLATE):
        return LlamaCpp(is_llama_cpp=is_llama_cpp)
    if is_llama_cpp and template:
        await _compare_rendering(server, template, str(facts.get("bos_token") or ""), eos)
    return LlamaCpp(chat_template=template, eos_token=eos, is_llama_cpp=is_llama_cpp)


async def _compare_rendering(server: Server, template: str, bos: str, eos: str) -> None:
    """Say so where the server would render a conversation otherwise than it is rendered here."""
    try:
        told = await server.ask(f"{server.config.root_url}/apply-template", {"messages": list(_TURNS)})
        ours = render_chat(template, _TURNS, bos_token="", eos_token=eos)
    except (RefusedError, ReplyError, PromptError):
        return  # an old server, or a template that takes no such conversation
    theirs = told.get("prompt") if isinstance(told, dict) else None
    if isinstance(theirs, str) and _undated(theirs.removeprefix(bos)) != _undated(ours.removeprefix(bos)):
        _log.warning(
            "%s: its chat template is rendered otherwise by the server than here: %r there, %r here; "
            "via=chat has the server render it",
            server.config.host,
            theirs[-80:],
            ours[-80:],
        )


def _undated(text: str) -> str:
    return _DATE.sub("", text).strip()


async def ollama_digest(server: Server, model: str) -> str:
    """Return the digest of a model's files at an Ollama server; nothing where it is another server.

    Raises
    ------
    ModelNotFoundError
        If it is an Ollama server that has not this model.
    """
    try:
        told = await server.ask(f"{server.config.root_url}/api/tags")
    except (RefusedError, ReplyError) as error:
        if isinstance(error, RefusedError) and not error.status:
            raise
        return ""
    entries = told.get("models") if isinstance(told, dict) else None
    digests: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else ():
        facts = entry if isinstance(entry, dict) else {}
        name, found = str(facts.get("name")), _DIGEST.fullmatch(str(facts.get("digest")))
        if found is None:
            continue
        digests[name] = found[1]
        if facts.get("remote_model") and name in (model, f"{model}:latest"):
            raise ModelError(f"{server.config.host}: the weights of {name} are not there but in the cloud")
    if not digests:
        return ""
    known = digests.get(model) or digests.get(f"{model}:latest")
    if known is None:
        raise ModelNotFoundError(
            f"{server.config.host}: no model {model!r}; it has {shown_names(sorted(digests), model)}: "
            f"ollama pull {model}"
        )
    return known
