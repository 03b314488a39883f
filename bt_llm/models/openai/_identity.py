"""Who answers: what each server serves, how it can be read, and whether that is the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError
from bt_llm.models._base import ModelIdentity
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._decisions import decision_models
from bt_llm.models.openai._facts import (
    LlamaCpp,
    ServedModelFacts,
    find_served,
    llama_cpp,
    ollama_digest,
    shown_names,
)
from bt_llm.models.openai._probing import (
    find_reader,
    largest_difference,
    say_untemplated,
    try_reader,
    ways,
)
from bt_llm.models.openai._readers import RemoteReader, stored_reader
from bt_llm.models.openai._server import Server
from bt_llm.models.openai._servers import Servers
from bt_llm.models.openai._wording import Wording
from bt_llm.plain_json import canonical_json

__all__ = ["identify_servers"]

_log = plain_text.logger("bt_llm.remote")

FORMAT = 1
"""Version of how a server is asked; another one gives other keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one server says of itself; `reported` are facts of the weights.

    `differs` is by how much a probability differed when the same question came again, where it was asked.
    """

    host: str
    model: str
    reported: Mapping[str, Any]
    who: Mapping[str, str]
    reader: RemoteReader
    chat_template: str = ""
    eos_token: str = ""
    differs: float | None = None


def identify_servers(
    config: RemoteConfig, servers: Servers, known: Sequence[ModelIdentity] = ()
) -> tuple[ModelIdentity, str]:
    """Ask the servers who they are; return that, and the model's name there.

    If it is still one of the `known` identities that this name had before, it is read as it was then.

    Raises
    ------
    ConfigError
        If two servers differ in the model, its chat template or the way in which it can be read.
    ModelNotFoundError
        If a server does not serve the model.
    ModelError
        If no server answers, or one refuses.
    """
    local = _local(config)
    pin = config.sha256 or (local.sha256 if local else "")
    first, *others = servers.each(lambda server: _ask(server, config, pin, local, known))
    for other in others:
        _check_same(first, other)
    if first.reader.via == "completions" and not first.chat_template:
        say_untemplated(first.host, first.model)
    reader = first.reader.document
    parts = {"backend": "openai", "format": FORMAT, "who": first.who, "reader": reader}
    # How this machine makes tokens of a text is nothing to a server, which makes its own of the whole.
    of_file = {n: v for n, v in local.details.items() if n != "tokens"} if local else {}
    details: dict[str, Any] = {**of_file, "weights": _weights(pin, first.who)}
    differences = [one.differs for one in (first, *others) if one.differs is not None]
    if differences:
        details["differs"] = max(differences)
    identity = ModelIdentity(
        name=config.name,
        sha256=hashlib.sha256(canonical_json(parts).encode()).hexdigest(),
        chat_template=first.chat_template,
        bos_token="",  # the server adds the one that the model wants
        eos_token=first.eos_token,
        details={**details, "who": first.who, "reader": reader},
    )
    return identity, first.model


def _weights(pin: str, who: Mapping[str, str]) -> str:
    if pin:
        return f"sha256 {pin}, as the user says"
    return f"Ollama's digest {who['ollama']}" if "ollama" in who else "unknown"


def _local(config: RemoteConfig) -> ModelIdentity | None:
    """Return the identity of the file that is said to be served."""
    if not config.gguf:
        return None
    from bt_llm.models._files import find_model
    from bt_llm.models.llama._files import identify

    return identify(find_model(config.gguf))


async def _ask(
    server: Server,
    config: RemoteConfig,
    pin: str,
    local: ModelIdentity | None,
    known: Sequence[ModelIdentity],
) -> _Said:
    """Ask one server who it is and how it can be read."""
    if config.kind == "ollama":
        return await _ask_ollama(server, config, known)
    if config.kind == "systemone":
        return await _ask_decisions(server, config, pin, known)
    served, told = await find_served(server), await llama_cpp(server)
    model, reported = served.model, dict(served.reported)
    if not (pin or reported or told.is_llama_cpp) and (digest := await ollama_digest(server, model)):
        reported["digest"] = digest  # what is pulled again under a name is another model
    who = {"sha256": pin} if pin else _unknown(server, config, model, reported)
    template = local.chat_template if local is not None else told.chat_template
    before = _before(config, who, known, told) if served.listed else None
    said = _Said(host=server.config.host, model=model, reported=reported, who=who, reader=_NONE)
    # What one of several servers was read by may be more than another one can do.
    if before and config.replicas and await try_reader(before[0], before[0].asking(server, model)):
        before = None
    if before:
        said = replace(said, reader=before[0], differs=before[1])
    else:
        said = await _find(server, config, served, said, told, templated=bool(template))
    if said.reader.via == "json" and config.via == "auto" and "digest" in reported:
        _log.warning(
            "%s: it is Ollama, whose own chat gives them: name the model ollama:%s", said.host, model
        )
    if said.reader.via != "completions":
        return said
    eos = local.eos_token if local is not None else told.eos_token
    return replace(said, chat_template=template, eos_token=eos)


_USUAL: tuple[Wording, ...] = ("", "count")
_WORDINGS: Mapping[str, tuple[Wording, ...]] = {"vllm": ("continued", "")}
"""How chat is asked of servers that can do more than the usual, by who owns their models."""

_NONE = RemoteReader(via="json", method="json_schema")


async def _find(
    server: Server,
    config: RemoteConfig,
    served: ServedModelFacts,
    said: _Said,
    told: LlamaCpp,
    *,
    templated: bool,
) -> _Said:
    """Find out how a server can be read, and whether it answers the same question alike twice."""
    names = [said.model, str(said.reported.get("root", ""))]
    try:
        order = ways(config.via, templated, names)
        reader, answered_by = await find_reader(
            server, said.model, order, _WORDINGS.get(served.owner, _USUAL)
        )
    except ModelError as error:
        if served.listed:
            raise
        raise ModelNotFoundError(
            f"{said.host}: no model {said.model!r}; its list has {shown_names(served.others, said.model)} "
            f"({str(error).removeprefix(f'{said.host}: ')})"
        ) from None
    if not served.listed:
        _say_unlisted(said, served)
        if "model" in said.who and answered_by and answered_by != said.model:
            said = replace(said, who={**said.who, "answers": answered_by})
    reader = replace(reader, alone=told.is_llama_cpp and reader.via != "json")
    return replace(said, reader=reader, differs=await _measure(server, said.model, reader))


def _unknown(server: Server, config: RemoteConfig, model: str, reported: Mapping[str, Any]) -> dict[str, str]:
    """Return all that is known of weights that nobody names: what a verdict depends on."""
    who = {"server": server.config.base_url, "model": model, "reported": canonical_json(reported)}
    return {**who, "provider": config.provider} if config.provider else who


def _say_unlisted(said: _Said, served: ServedModelFacts) -> None:
    if served.others:
        _log.warning(
            "%s: its list of models has no %r, only %s; it was asked all the same, and answers",
            said.host,
            said.model,
            shown_names(served.others, said.model),
        )


async def _measure(server: Server, model: str, reader: RemoteReader) -> float | None:
    """Return by how much a server's answers differ when they are asked for again; say so where they do."""
    differs = await largest_difference(server, model, reader)
    if differs:
        _log.warning(
            "%s: inexact: the same question got another probability when it was asked again (by up to %.2g); "
            "a verdict is what it was the first time, as the cache keeps it, and another run may differ",
            server.config.host,
            differs,
        )
    return differs


async def _ask_ollama(server: Server, config: RemoteConfig, known: Sequence[ModelIdentity]) -> _Said:
    """Ask an Ollama server; its digest of the model says who answers, wherever that is."""
    digest = await ollama_digest(server, config.model)
    if not digest:
        raise ModelNotFoundError(
            f"{server.config.host}: no model {config.model!r} there, or no Ollama server: ollama pull "
            f"{config.model}"
        )
    who = {"ollama": digest}
    said = _Said(host=server.config.host, model=config.model, reported={}, who=who, reader=_NONE)
    before = _before(config, who, known, LlamaCpp())
    if before is not None:
        return replace(said, reader=before[0], differs=before[1])
    if config.via != "json":
        await _check_version(server)
    order = ("chat",) if config.via == "auto" else (config.via,)
    reader, _ = await find_reader(server, config.model, order, ("ollama",))
    return replace(said, reader=reader, differs=await _measure(server, config.model, reader))


async def _ask_decisions(
    server: Server, config: RemoteConfig, pin: str, known: Sequence[ModelIdentity]
) -> _Said:
    """Ask a decision server; typed-gguf also tells what the labels hold together."""
    models = decision_models(await server.ask("/models"))
    model = next(iter(models)) if not config.model and len(models) == 1 else config.model
    if model not in models:
        others = shown_names(sorted(models), model)
        raise ModelNotFoundError(
            f"{server.config.host}: no model {model!r}; name one of {others} with model="
        )
    reported = models[model]
    who = {"sha256": pin} if pin else _unknown(server, config, model, reported)
    said = _Said(host=server.config.host, model=model, reported=reported, who=who, reader=_NONE)
    if before := _before(config, who, known, LlamaCpp()):
        return replace(said, reader=before[0], differs=before[1])
    wordings: tuple[Wording, ...] = ("native", "")
    reader, _ = await find_reader(server, model, ("decision",), wordings)
    if not reader.wording:
        _log.warning(
            "%s: it does not tell how much of the probability the labels hold together: a verdict of a model "
            "that would say something else cannot be told from one that is sure",
            said.host,
        )
    return replace(said, reader=reader, differs=await _measure(server, model, reader))


async def _check_version(server: Server) -> None:
    told = await server.ask(f"{server.config.root_url}/api/version")
    version = told.get("version") if isinstance(told, dict) else None
    numbers = tuple(int(part) for part in str(version)[:40].split("-")[0].split(".") if part.isdecimal())
    if numbers and numbers < _WITH_LOGPROBS and version != "0.0.0":  # which is what builds of one's own say
        raise ModelError(
            f"{server.config.host}: Ollama {version!s:.20} gives no log-probabilities, which came with "
            f"{'.'.join(map(str, _WITH_LOGPROBS))}: update it, or add via=json to the model's name"
        )


_WITH_LOGPROBS = (0, 12, 11)
"""Version of Ollama that gives log-probabilities."""


def _before(
    config: RemoteConfig, who: Mapping[str, str], known: Sequence[ModelIdentity], told: LlamaCpp
) -> tuple[RemoteReader, float | None] | None:
    """Return how the same model was read before, and by how much its answers differed."""
    for identity in known:
        reader, differs = stored_reader(identity), identity.details.get("differs")
        if (
            reader is not None
            and identity.details.get("who") == who
            and config.via in ("auto", reader.via)
            and config.top in (0, reader.top)
            and (reader.via == "json" or reader.alone == told.is_llama_cpp)
        ):
            return reader, differs if isinstance(differs, float) else None
    return None


def _check_same(one: _Said, other: _Said) -> None:
    both = one.reported.keys() & other.reported.keys()
    for what, first, second, todo in (
        ("the model", one.model, other.model, "name one that all have with model="),
        *((name, one.reported[name], other.reported[name], "leave one out") for name in sorted(both)),
        ("the chat template", one.chat_template, other.chat_template, "leave one out, or give gguf=FILE"),
        ("the end token", one.eos_token, other.eos_token, "leave one out, or give gguf=FILE"),
        ("the way of reading", one.reader, other.reader, "give via= and top= that all can do"),
    ):
        if first != second:
            raise ConfigError(
                f"{one.host} and {other.host} do not serve the same: {what} is "
                f"{_shown(first)} at the first and {_shown(second)} at the second; {todo}"
            )


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    if len(text) <= 80:
        return text
    return f"one with SHA-256 {hashlib.sha256(str(value).encode()).hexdigest()[:12]}"
