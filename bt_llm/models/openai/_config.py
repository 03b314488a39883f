"""RemoteConfig: which servers are asked, for which model, how fast and how patiently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import IPv6Address
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from bt_llm.exceptions import ConfigError
from bt_llm.settings import make_plain

__all__ = ["ANY", "IN_NAME", "PREFIX", "RemoteConfig", "Via", "parse_options", "query"]

PREFIX = "openai:"
"""What the name of a remote model begins with."""

Via = Literal["auto", "completions", "chat", "json"]
"""How verdicts are read: see `bt_llm.models`."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9._-]+)?")
_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?|v1|preview|latest")
_FORM = "openai:http://HOST:PORT/v1?model=NAME&sha256=HEX"
ANY = "*"
"""In the place of an address: whichever server has those weights."""

IN_NAME = ("model", "provider", "sha256", "gguf", "via", "top")
"""Options that say who answers and how; the others only say how it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteConfig:
    """An OpenAI-compatible server, or several with the same model, and how they are asked.

    Parameters
    ----------
    base_url : str
        Address of the API, such as ``http://127.0.0.1:8000/v1``; ``*`` for no server but whatever the
        cache has of those weights.
    replicas : tuple of str
        Addresses of further servers of the same model; in a name, after commas. What is asked is spread
        over all of them. They need `sha256` or `gguf`: verdicts of unknown weights belong to one server.
    model : str
        The model's name there; empty if the server has only one.
    sha256 : str
        Hash of the weights, if you know what is served: verdicts then belong to the weights and not to the
        server. It is taken on trust, since no server proves what it runs.
    gguf : str
        The file that is served, or a name in `models/`: its hash, its chat template and its tokens are used.
    via : {'auto', 'completions', 'chat', 'json'}
        What is read; 'auto' tries them in this order.
    top : int
        Most probable tokens to ask for; 0 finds out how many the server gives.
    connections : int
        Requests at a time, of each server.
    timeout_s : float
        Seconds without a byte after which a connection counts as broken.
    deadline_s : float
        Seconds that one call may take in all, retries included.
    retries : int
        Further attempts after a broken connection, a status of 429 or of 5xx.
    backoff_s : float
        Longest pause before the first retry; it doubles with each, up to 30 s.
    max_bytes : int
        Longest reply that is read.
    provider : str
        Who computes behind a gateway that chooses among several, such as OpenRouter: its name there, such as
        ``deepinfra/fp8``. Nobody else may answer then.
    api_version : str
        What Azure's deployments want to be told, such as ``2024-10-21``; the key goes into the header
        ``api-key`` then.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Examples
    --------
    >>> config = RemoteConfig.parse("openai:http://127.0.0.1:8000/v1?model=smollm2&connections=4")
    >>> config.model, config.connections
    ('smollm2', 4)
    >>> config.name
    'openai:http://127.0.0.1:8000/v1?model=smollm2'
    >>> two = RemoteConfig.parse("openai:http://a:8000,http://b:8000?model=llama-8b&sha256=" + "ab" * 32)
    >>> [server.base_url for server in two.servers]
    ['http://a:8000/v1', 'http://b:8000/v1']
    >>> two.name.partition("&")[0]
    'openai:*?model=llama-8b'
    """

    base_url: str
    replicas: tuple[str, ...] = ()
    model: str = ""
    sha256: str = ""
    gguf: str = ""
    via: Via = "auto"
    top: int = 0
    connections: int = 16
    timeout_s: float = 120.0
    deadline_s: float = 3600.0
    retries: int = 8
    backoff_s: float = 0.5
    max_bytes: int = 4 * 2**20
    provider: str = ""
    api_version: str = ""

    kind: ClassVar[str] = "openai"
    """What the name of such a model begins with, before the colon."""

    def __post_init__(self) -> None:
        """Check every field, once."""
        make_plain(self)
        self._check_addresses()
        if self.via not in get_args(Via):
            raise ConfigError(f"via={self.via!r}: expected one of {', '.join(get_args(Via))}")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise ConfigError(f"sha256={self.sha256!r}: expected 64 hex digits in lower case")
        if self.sha256 and self.gguf:
            raise ConfigError("sha256 and gguf both given: expected one of them, since a file has its hash")
        for name, least in (("top", 0), ("connections", 1), ("retries", 0), ("max_bytes", 1024)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**31:
                raise ConfigError(f"{name}={value!r}: expected a whole number of at least {least}")
        for name in ("timeout_s", "deadline_s", "backoff_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 1e9:
                raise ConfigError(f"{name}={value!r}: expected a number of seconds above 0")
        if self.provider and not _PROVIDER.fullmatch(self.provider):
            raise ConfigError(f"provider={self.provider!r}: expected a name such as deepinfra/fp8")
        if self.api_version and not _API_VERSION.fullmatch(self.api_version):
            raise ConfigError(f"api_version={self.api_version!r}: expected a date such as 2024-10-21")

    def _check_addresses(self) -> None:
        if self.base_url == ANY and self.pinned and not self.replicas:
            return
        if isinstance(self.replicas, str):
            raise ConfigError(f"replicas={self.replicas!r}: expected a tuple of addresses")
        first, *further = urls = [_checked_url(url) for url in (self.base_url, *self.replicas)]
        object.__setattr__(self, "base_url", first)
        object.__setattr__(self, "replicas", tuple(further))
        if twice := sorted({url for url in urls if urls.count(url) > 1}):
            raise ConfigError(f"address {twice[0]} given twice: name each server once")
        if further and not self.pinned:
            raise ConfigError(
                f"{len(urls)} servers of unknown weights: say with sha256=HEX or gguf=FILE that they serve "
                "the same, or name one of them"
            )

    @classmethod
    def parse(cls, text: str) -> RemoteConfig:
        """Read a model's name such as ``openai:http://127.0.0.1:8000/v1?model=NAME&sha256=HEX``.

        Raises
        ------
        ConfigError
            If it is not one; the message never repeats the values of unknown options.
        """
        prefix = f"{cls.kind}:"
        if not text.startswith(prefix):
            raise ConfigError(f"a remote model's name begins with {prefix!r}: expected {_FORM}")
        addresses, _, options = text.removeprefix(prefix).partition("?")
        address, *replicas = addresses.split(",")
        return cls(base_url=address, replicas=tuple(replicas), **parse_options(options))

    @property
    def pinned(self) -> bool:
        """Whether the user says which weights are served, so that it does not matter where."""
        return bool(self.sha256 or self.gguf)

    @property
    def name(self) -> str:
        """The model's name without what only says how it is asked; what a cache knows it by.

        Where the weights are pinned it has no address: what one server said is found by the name of another.
        """
        chosen = {
            option: getattr(self, option)
            for option in IN_NAME
            if getattr(self, option) != _OPTIONS[option].default
        }
        where = ANY if self.pinned else self.base_url
        return f"{self.kind}:{where}{query(chosen)}"

    @property
    def addresses(self) -> str:
        """All addresses, with commas between them, as in a name."""
        return ",".join((self.base_url, *self.replicas))

    @property
    def urls(self) -> tuple[str, ...]:
        """The address of each server; none for weights that no server is named for."""
        return () if self.base_url == ANY else (self.base_url, *self.replicas)

    @property
    def servers(self) -> tuple[RemoteConfig, ...]:
        """The same for each of the servers alone.

        Raises
        ------
        ConfigError
            If there is none.
        """
        if self.base_url == ANY:
            raise ConfigError(
                f"model {self.name!r} names no server to ask: give the address in the place of the *, "
                "or replay what is stored"
            )
        return tuple(replace(self, base_url=url, replicas=()) for url in self.urls)

    @property
    def host(self) -> str:
        """Host and port of the first server, for messages."""
        return urlsplit(self.base_url).netloc or self.base_url

    @property
    def root_url(self) -> str:
        """Address without the version, where servers have what is not in the API."""
        return self.base_url.removesuffix("/v1")

    @property
    def deployment(self) -> str:
        """Name of the deployment in an address of Azure's, or nothing."""
        return self.base_url.partition("/openai/deployments/")[2].partition("/")[0]


_OPTIONS = {
    field.name.removesuffix("_s"): field
    for field in fields(RemoteConfig)
    if field.name not in ("base_url", "replicas", "max_bytes")
}
"""What may stand after the question mark of a name, and the fields it sets."""


def query(options: Mapping[str, Any]) -> str:
    """Return options as they stand in a name, with the question mark; nothing of none."""
    return f"?{urlencode(options, safe='/:', quote_via=quote)}" if options else ""


def parse_options(text: str) -> dict[str, Any]:
    """Return the fields that the options after a name's question mark set.

    Raises
    ------
    ConfigError
        If one is unknown or given twice; their values are not repeated.

    Examples
    --------
    >>> parse_options("model=gpt-4o&api-version=2024-10-21")
    {'model': 'gpt-4o', 'api_version': '2024-10-21'}
    """
    values: dict[str, Any] = {}
    for option, value in parse_qsl(text, keep_blank_values=True):
        if option == "key_env":
            raise ConfigError(
                "option 'key_env' of a remote model: a name chooses no key; bind the key to the server's "
                "host with BT_LLM_API_KEY and BT_LLM_API_HOST"
            )
        field = _OPTIONS.get(option.replace("-", "_"))  # Azure writes api-version
        if field is None or field.name in values:
            problem = "unknown" if field is None else "given twice"
            raise ConfigError(f"option {option[:40]!r} of a remote model is {problem}: use {list(_OPTIONS)}")
        values[field.name] = value if field.type not in ("int", "float") else _number(option, value)
    return values


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"option {option}={text[:40]!r} of a remote model: expected a number") from None
    return int(number) if number.is_integer() else number


def _checked_url(text: str) -> str:
    """Return the address without a slash at its end, and with ``/v1`` where it names no path.

    Examples
    --------
    >>> _checked_url("http://[0:0::1]:8000")
    'http://[::1]:8000/v1'
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            host = f"[{IPv6Address(host)}]"
    except ValueError:
        raise ConfigError(f"address of a remote model: expected {_FORM}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "address of a remote model: it holds a password; put the key into an environment variable"
        )
    bad = any(not "!" <= character <= "~" for character in text)
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or bad:
        raise ConfigError(f"address {text[:80]!r} of a remote model: expected {_FORM}")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/') or '/v1'}"
