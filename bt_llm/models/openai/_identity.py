"""Who answers: what each server serves, how it can be read, and whether that is the same everywhere."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError
from bt_llm.models._base import ModelIdentity
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._readers import Asking, RemoteReader, candidates, stored_reader
from bt_llm.models.openai._replies import RefusedError, served_models
from bt_llm.models.openai._servers import Server, Servers
from bt_llm.plain_json import canonical_json

__all__ = ["identify_servers"]

_log = logging.getLogger("bt_llm.remote")

FORMAT = 1
"""Version of how a server is asked; another one gives other keys."""

_LONGEST_TEMPLATE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one server says of itself; `reported` are facts of the weights."""

    host: str
    model: str
    reported: Mapping[str, Any]
    who: Mapping[str, str]
    reader: RemoteReader
    chat_template: str = ""
    eos_token: str = ""


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
    reader = asdict(first.reader)
    parts = {"backend": "openai", "format": FORMAT, "who": first.who, "reader": reader}
    # How this machine makes tokens of a text is nothing to a server, which makes its own of the whole.
    local_details = {n: v for n, v in local.details.items() if n != "tokens"} if local else {}
    weights = f"sha256 {pin}, as the user says" if pin else "unknown"
    identity = ModelIdentity(
        name=config.name,
        sha256=hashlib.sha256(canonical_json(parts).encode()).hexdigest(),
        chat_template=first.chat_template,
        bos_token="",  # the server adds the one that the model wants
        eos_token=first.eos_token,
        details={**local_details, "weights": weights, "who": first.who, "reader": reader},
    )
    return identity, first.model


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
    host = server.config.host
    models = served_models(await server.ask("/models"))
    model = next(iter(models)) if not config.model and len(models) == 1 else config.model
    if model not in models:
        raise ModelNotFoundError(
            f"{host}: no model {config.model!r}; name one with model=, of {sorted(models)}"
        )
    asking, reported = Asking(server, model), models[model]
    # What a verdict depends on: the weights, or of unknown ones all that is known of them.
    unknown = {"server": server.config.base_url, "model": model, "reported": canonical_json(reported)}
    who = {"sha256": pin} if pin else unknown
    reader = _remembered(config, who, known)
    # What one of several servers was read by may be more than another one can do.
    if reader is None or (config.replicas and not await reader.works(asking)):
        reader = await _settle(config.via, config.top, host, asking)
    said = _Said(host=host, model=model, reported=reported, who=who, reader=reader)
    if reader.via != "completions":
        return said
    if local is not None:
        return replace(said, chat_template=local.chat_template, eos_token=local.eos_token)
    template, eos = await _template(server)
    return replace(said, chat_template=template, eos_token=eos)


def _remembered(
    config: RemoteConfig, who: Mapping[str, str], known: Sequence[ModelIdentity]
) -> RemoteReader | None:
    for identity in known:
        reader = stored_reader(identity)
        if (
            reader is not None
            and identity.details.get("who") == who
            and config.via in ("auto", reader.via)
            and config.top in (0, reader.top)
        ):
            return reader
    return None


async def _settle(via: str, top: int, host: str, asking: Asking) -> RemoteReader:
    """Find the best way of reading that the server has."""
    for choice in ("completions", "chat", "json") if via == "auto" else (via,):
        for reader in candidates(choice, top):
            if await reader.works(asking):
                if via == "auto" and choice == "json":
                    _log.warning(
                        "%s gives no log-probabilities: verdicts are made of the confidence that the "
                        "model writes as JSON",
                        host,
                    )
                return reader
    if via in ("completions", "chat"):
        raise ModelError(
            f"{host}: no log-probabilities via={via}; use via=auto, or start the server so that it gives them"
        )
    raise ModelError(f"{host}: via={via} finds neither log-probabilities nor JSON after a schema there")


async def _template(server: Server) -> tuple[str, str]:
    """Return the chat template and the end token that a llama.cpp server tells; else empty ones."""
    try:
        told = await server.ask(f"{server.config.root_url}/props")
    except RefusedError as error:
        if not error.status:
            raise
        return "", ""
    facts = told if isinstance(told, dict) else {}
    template, eos = facts.get("chat_template"), facts.get("eos_token")
    if isinstance(template, str) and isinstance(eos, str) and len(template) <= _LONGEST_TEMPLATE:
        return template, eos
    return "", ""


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
