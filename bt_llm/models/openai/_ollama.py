"""Ollama's models as a kind, such as ``ollama:llama3.2:1b``: known by their digest, wherever they are."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from bt_llm.exceptions import ConfigError
from bt_llm.models._base import ModelIdentity, Prompt
from bt_llm.models._cost import Cost, Rates
from bt_llm.models.openai._config import IN_NAME, RemoteConfig, parse_options, query
from bt_llm.models.openai._kind import ServedModel

__all__ = ["OllamaConfig", "OllamaModel"]

_FORM = "ollama:NAME:TAG, such as ollama:llama3.2:1b"
_PORT = 11434
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaConfig(RemoteConfig):
    """An Ollama server and a model there: a `RemoteConfig` whose name says the model alone.

    The server is the one of the option ``host``, else of the variable ``OLLAMA_HOST``, as Ollama's own client
    has it, else the one on this machine. One request at a time, unless ``connections`` says otherwise, since
    that is how Ollama works on them.

    Examples
    --------
    >>> config = OllamaConfig.parse("ollama:llama3.2:1b?host=http://10.0.0.2:11434")
    >>> config.model, config.base_url, config.name
    ('llama3.2:1b', 'http://10.0.0.2:11434/v1', 'ollama:llama3.2:1b')
    """

    kind: ClassVar[str] = "ollama"

    @classmethod
    def parse(cls, text: str) -> OllamaConfig:
        """Read a model's name such as ``ollama:llama3.2:1b``; without a tag it is ``latest``.

        Raises
        ------
        ConfigError
            If it is not one, or an option is of no use there.
        """
        model, _, options = text.removeprefix(f"{cls.kind}:").partition("?")
        if not text.startswith(f"{cls.kind}:") or not _NAME.fullmatch(model):
            raise ConfigError(f"name {text[:80]!r} of a model of Ollama's: expected {_FORM}")
        kept, host = [], ""
        for part in filter(None, options.split("&")):
            option, _, value = part.partition("=")
            if option in ("model", "sha256", "gguf", "provider", "api_version", "api-version"):
                raise ConfigError(f"option {option!r} is of no use to {_FORM}: its digest says who answers")
            if option == "host":
                host = value
            else:
                kept.append(part)
        tagged = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        values = {"connections": 1, **parse_options("&".join(kept))}
        return cls(base_url=_address(host or os.environ.get("OLLAMA_HOST", "")), model=tagged, **values)

    def __post_init__(self) -> None:
        """Check every field, once."""
        RemoteConfig.__post_init__(self)
        if self.via == "completions":
            raise ConfigError("via='completions': Ollama gives no log-probabilities there; use chat or json")

    @property
    def pinned(self) -> bool:
        """Whether who answers does not depend on where: the digest says it."""
        return True

    @property
    def name(self) -> str:
        """The model's name without where it is and how it is asked; what a cache knows it by."""
        chosen = {
            option: value for option in IN_NAME[-2:] if (value := getattr(self, option)) not in ("auto", 0)
        }
        return f"{self.kind}:{self.model}{query(chosen)}"


def _address(text: str) -> str:
    """Return the address of a server named as in ``OLLAMA_HOST``, where port and ``http`` may be left out.

    Examples
    --------
    >>> _address(""), _address("0.0.0.0:8080"), _address("https://llm.example")
    ('http://127.0.0.1:11434/v1', 'http://127.0.0.1:8080/v1', 'https://llm.example/v1')
    """
    scheme, told, rest = text.strip().rpartition("://")
    place = rest.rstrip("/").removesuffix("/v1")
    found = re.fullmatch(r"(\[[^\]]*\]|[^:/]*)(?::(\d+))?(/.*)?", place)
    if found is None:
        raise ConfigError("host of an Ollama server: expected one such as http://127.0.0.1:11434")
    host, port, path = found[1], found[2], found[3] or ""
    port = port or ("" if told else str(_PORT))
    return f"{scheme or 'http'}://{_HERE.get(host, host)}{f':{port}' if port else ''}{path}/v1"


class OllamaModel(ServedModel):
    """A model of an Ollama server.

    Examples
    --------
    >>> OllamaModel("qwen3:4b").config.addresses
    'http://127.0.0.1:11434/v1'
    """

    kind: ClassVar[str] = "ollama"
    form: ClassVar[str] = "ollama:NAME:TAG"
    config_type: ClassVar[type[RemoteConfig]] = OllamaConfig

    @property
    def addresses(self) -> tuple[str, ...]:
        """The address that the name gives; none where it is the one of the user's own settings."""
        return self.config.urls if "host=" in self.rest.partition("?")[2] else ()

    def cost(self, prompts: Sequence[Prompt], identity: ModelIdentity | None, rates: Rates) -> Cost:
        """Return the tokens and requests of a prompt, which cost nothing; one request reads it."""
        return replace(super().cost(prompts, identity, replace(rates, requests_per_prompt=1)), paid=False)
