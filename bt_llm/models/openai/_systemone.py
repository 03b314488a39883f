"""Decision servers as a kind of models, ``systemone:URL``: they answer typed questions with chances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bt_llm.exceptions import ConfigError
from bt_llm.models._registry import Capability
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._kind import ServedModel

__all__ = ["SystemOneConfig", "SystemOneModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOneConfig(RemoteConfig):
    """A decision server and a model there.

    Examples
    --------
    >>> SystemOneConfig.parse("systemone:http://127.0.0.1:8088?model=small").name
    'systemone:http://127.0.0.1:8088/v1?model=small'
    """

    kind: ClassVar[str] = "systemone"

    def __post_init__(self) -> None:
        """Check every field, once."""
        RemoteConfig.__post_init__(self)
        for option in ("gguf", "provider", "api_version", "top"):
            if getattr(self, option):
                raise ConfigError(f"option {option!r} is of no use to a decision server")
        if self.via != "auto":
            raise ConfigError(f"via={self.via!r}: a decision server is read in one way")


class SystemOneModel(ServedModel):
    """A model of a decision server, such as typed-gguf's.

    Examples
    --------
    >>> SystemOneModel("http://127.0.0.1:8088?model=small").config.addresses
    'http://127.0.0.1:8088/v1'
    """

    kind: ClassVar[str] = "systemone"
    form: ClassVar[str] = "systemone:http://HOST:PORT?model=NAME"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"score"})
    config_type: ClassVar[type[RemoteConfig]] = SystemOneConfig
