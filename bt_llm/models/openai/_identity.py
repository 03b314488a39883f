"""Who answers: what each server serves and how it can be read, and whether that is the same everywhere."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError
from bt_llm.models._base import ModelIdentity, canonical_json
from bt_llm.models.openai._calls import Exchange
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._endpoints import Calls
from bt_llm.models.openai._readers import Asking, RemoteReader, candidates, stored_reader
from bt_llm.models.openai._replies import ServerGoneError, served_models

__all__ = ["FIRST_RETRIES", "Found", "identify_servers"]

_log = logging.getLogger("bt_llm.remote")

FORMAT = 1
"""Version of how a server is asked; another one gives other keys."""

FIRST_RETRIES = 3
"""Of the first questions: a wrong address should not take a minute to be noticed."""

_LONGEST_TEMPLATE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the servers of one model have said of themselves.

    Parameters
    ----------
    identity : ModelIdentity
        Who they are.
    model : str
        The model's name there.
    servers : tuple of RemoteConfig
        Those that answered, each alone.
    """

    identity: ModelIdentity
    model: str
    servers: tuple[RemoteConfig, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What one server says; `reported` are facts of the weights."""

    config: RemoteConfig
    model: str
    reported: Mapping[str, Any]
    reader: RemoteReader
    chat_template: str
    eos_token: str


def identify_servers(config: RemoteConfig, known: Sequence[ModelIdentity] = ()) -> Found:
    """Ask the servers what they serve and what they can do; nothing may differ.

    Parameters
    ----------
    config : RemoteConfig
        One server or several.
    known : sequence of ModelIdentity
        Identities that this name had before: if it is still one of them, it is read as it was then.

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
    asked = config.servers
    with ThreadPoolExecutor(len(asked), "bt_llm remote") as pool:
        several = len(asked) > 1
        answers = list(pool.map(lambda one: _ask(one, pin, local, known, several=several), asked))
    servers = [answer for answer in answers if isinstance(answer, _Server)]
    gone = [answer for answer in answers if isinstance(answer, ServerGoneError)]
    if not servers:
        more = f" (and none of {len(asked)} servers is there)" if len(asked) > 1 else ""
        raise ServerGoneError(f"{gone[-1]}{more}")
    for error in gone:
        hosts = ", ".join(server.config.host for server in servers)
        _log.warning("%s: only %s will be asked", error, hosts)
    first, *others = servers
    for other in others:
        _check_same(first, other)
    return Found(
        identity=_identity(config, first, pin, local),
        model=first.model,
        servers=tuple(server.config for server in servers),
    )


def _identity(config: RemoteConfig, server: _Server, pin: str, local: ModelIdentity | None) -> ModelIdentity:
    who = _who(server.config, pin, server.model, server.reported)
    parts = {"backend": "openai", "format": FORMAT, "who": who, "reader": asdict(server.reader)}
    weights = f"sha256 {pin}, as the user says" if pin else "unknown"
    return ModelIdentity(
        name=config.name,
        sha256=hashlib.sha256(canonical_json(parts).encode()).hexdigest(),
        chat_template=server.chat_template,
        bos_token="",  # the server adds the one that the model wants
        eos_token=server.eos_token,
        details={
            **(local.details if local else {}),
            "weights": weights,
            "who": who,
            "reader": asdict(server.reader),
        },
    )


def _who(config: RemoteConfig, pin: str, model: str, reported: Mapping[str, Any]) -> dict[str, str]:
    """Return what a verdict depends on: the weights, or of unknown ones all that is known of them."""
    if pin:
        return {"sha256": pin}
    return {"server": config.base_url, "model": model, "reported": canonical_json(dict(reported))}


def _check_same(one: _Server, other: _Server) -> None:
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
                f"{one.config.host} and {other.config.host} do not serve the same: {what} is "
                f"{_shown(first)} at the first and {_shown(second)} at the second; {todo}"
            )


def _shown(value: Any) -> str:
    if isinstance(value, RemoteReader):
        return f"via={value.via} ({value.method}, top={value.top})"
    text = value if isinstance(value, str) else str(value)
    if len(text) <= 80 and text.isprintable():
        return repr(value)
    return f"one with SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _local(config: RemoteConfig) -> ModelIdentity | None:
    """Return the identity of the file that is said to be served."""
    if not config.gguf:
        return None
    from bt_llm.models._files import find_model
    from bt_llm.models.llama._files import identify

    return identify(find_model(config.gguf))


def _ask(
    config: RemoteConfig,
    pin: str,
    local: ModelIdentity | None,
    known: Sequence[ModelIdentity],
    *,
    several: bool,
) -> _Server | ServerGoneError:
    """Return what one server says, or why it says nothing."""

    async def learn(exchange: Exchange) -> _Server:
        asking = Asking(exchange)
        models = served_models((await asking.get("/models")).document)
        asking.model = next(iter(models)) if not config.model and len(models) == 1 else config.model
        if asking.model not in models:
            raise ModelNotFoundError(
                f"{config.host}: no model {config.model!r}; name one with model=, of {sorted(models)}"
            )
        reported = models[asking.model]
        who = _who(config, pin, asking.model, reported)
        reader = _remembered(config, who, known)
        # What one of several servers was read by may be more than another one can do.
        if reader is None or (several and not await reader.works(asking)):
            reader = await _settle(config, asking)
        template, eos = "", ""
        if reader.via == "completions":
            template, eos = (
                (local.chat_template, local.eos_token) if local else await _template(config, asking)
            )
        return _Server(
            config=config,
            model=asking.model,
            reported=reported,
            reader=reader,
            chat_template=template,
            eos_token=eos,
        )

    try:
        return Calls([replace(config, retries=min(config.retries, FIRST_RETRIES))]).one(learn)
    except ServerGoneError as error:
        return error


def _remembered(
    config: RemoteConfig, who: Mapping[str, str], known: Sequence[ModelIdentity]
) -> RemoteReader | None:
    for identity in known:
        reader = stored_reader(identity)
        if reader is not None and identity.details.get("who") == who and _wanted(config, reader):
            return reader
    return None


def _wanted(config: RemoteConfig, reader: RemoteReader) -> bool:
    return config.via in ("auto", reader.via) and (not config.top or config.top == reader.top)


async def _settle(config: RemoteConfig, asking: Asking) -> RemoteReader:
    """Find the best way of reading that the server has."""
    via, host = config.via, config.host
    for choice in ("completions", "chat", "json") if via == "auto" else (via,):
        for reader in candidates(choice, config.top):
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


async def _template(config: RemoteConfig, asking: Asking) -> tuple[str, str]:
    """Return the chat template and the end token that a llama.cpp server tells; else empty ones."""
    reply = await asking.get(f"{config.root_url}/props", must=False)
    facts = reply.document if reply.ok and isinstance(reply.document, dict) else {}
    template, eos = facts.get("chat_template"), facts.get("eos_token")
    if isinstance(template, str) and isinstance(eos, str) and len(template) <= _LONGEST_TEMPLATE:
        return template, eos
    return "", ""
