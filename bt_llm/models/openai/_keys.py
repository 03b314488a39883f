"""API keys: which belongs to which host, as the user says; no name, file or reply that is received has a say.

A key is bound to a host and port (443 where none is given), in one of three places, looked through in order:

- the environment: ``BT_LLM_API_KEY`` is the key of the one host that ``BT_LLM_API_HOST`` names;
- a file, ``BT_LLM_KEYS_FILE`` or ``keys.toml`` in the user's folder of settings, which nobody else may read:
  lines such as ``"api.example.com" = "sk-..."`` and ``"127.0.0.1:8000" = "..."``;
- the keyring, where the package `keyring` is installed: the service ``bt_llm``, the host as the user.

A key goes over ``https``, and over ``http`` to this machine alone.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import platformdirs

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError

__all__ = ["ApiKey", "host_and_port", "key_for", "no_key_hint"]

KEY, HOST, FILE = "BT_LLM_API_KEY", "BT_LLM_API_HOST", "BT_LLM_KEYS_FILE"
SERVICE = "bt_llm"
"""What the keyring knows the keys by."""

_PORTS = {"https": 443, "http": 80}
_LONGEST_FILE = 2**16
_SHORTEST_PART = 8
"""Letters of a key that may stand in a text by chance, plus one."""

_HTTP_LOGGERS = ("httpcore.connection", "httpcore.http11")

_log = plain_text.logger("bt_llm.remote")


class ApiKey:
    """A secret that goes into one header and nowhere else.

    Its text is in no representation, and `repeated_in` says whether a text repeats it.

    Examples
    --------
    >>> key = ApiKey("sk-0123456789abcdef")
    >>> key, key.repeated_in("Incorrect API key provided: sk-0123456***")
    (ApiKey(set), True)
    """

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str = "") -> None:
        self._value = value
        parts = [value[i : i + _SHORTEST_PART] for i in range(len(value) - _SHORTEST_PART + 1)]
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")
        self._forms = (*parts, encoded, quote(value))

    @classmethod
    def read(cls, value: str, source: str) -> ApiKey:
        """Take a key from where the user keeps it.

        Raises
        ------
        ConfigError
            If it is not printable ASCII without spaces, and so cannot be sent; `source` says where it is.
        """
        value = value.strip()
        if any(not "!" <= character <= "~" for character in value):
            raise ConfigError(f"the API key in {source} holds a character that cannot be sent: set it again")
        return cls(value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"ApiKey({'set' if self else 'empty'})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: a key is read anew by whoever needs it."""
        raise TypeError("an API key cannot be pickled")

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries the key, or none."""
        return {"Authorization": f"Bearer {self._value}"} if self else {}

    @property
    def azure_headers(self) -> dict[str, str]:
        """The header that carries it to a deployment of Azure's, or none."""
        return {"api-key": self._value} if self else {}

    def repeated_in(self, text: str) -> bool:
        """Whether a text holds the key, or eight letters of it that follow each other.

        A key of fewer letters, such as the ``EMPTY`` of a server that checks none, is no secret.
        """
        return len(self._value) >= _SHORTEST_PART and any(form in text for form in self._forms)

    def kept_out_of(self, text: str) -> str:
        """Return text of a server as it may be shown: short, printable, and without the key."""
        if self.repeated_in(text):
            return "(its message is withheld: it repeats the API key)"
        return "".join(c if c.isprintable() else " " for c in text)[:300]

    @contextlib.contextmanager
    def kept_out_of_logs(self) -> Iterator[None]:
        """Keep a key that a server repeats in its headers out of the HTTP library's own debug log."""

        def harmless(record: logging.LogRecord) -> bool:
            return not self.repeated_in(record.getMessage())

        loggers = [logging.getLogger(name) for name in _HTTP_LOGGERS]
        for logger in loggers:
            logger.addFilter(harmless)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(harmless)


def key_for(url: str) -> ApiKey:
    """Return the key that the user has bound to the host of an address; an empty one where there is none.

    Raises
    ------
    ConfigError
        If a key cannot be read or sent, or would go unencrypted to another machine.
    """
    place = host_and_port(url)
    key = _from_environment(place) or _from_file(place) or _from_keyring(place)
    if key and urlsplit(url).scheme != "https" and not _is_loopback(place):
        raise ConfigError(
            f"an API key is bound to {place}, and {url} would send it unencrypted: expected https; "
            "nothing is sent"
        )
    return key


def no_key_hint(url: str) -> str:
    """Return what to do where a server wants a key; nothing of a key is in it."""
    place = host_and_port(url)
    if key_for(url):
        return f"; set the API key of {place} anew: the one that is bound to it is refused"
    alone = f" ({KEY} is set, but for no host)" if os.environ.get(KEY) and not os.environ.get(HOST) else ""
    return f"; set the API key of {place}{alone}: {KEY} with {HOST}={place}, or a line of {_file()}"


def host_and_port(text: str) -> str:
    """Return the host and the port of an address, or of what the user has written of one.

    Raises
    ------
    ConfigError
        If it names no host.

    Examples
    --------
    >>> host_and_port("https://API.example.com/v1"), host_and_port("[::1]:8000")
    ('api.example.com:443', '[::1]:8000')
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    except ValueError:
        host, port = "", 0
    if not host or parts.username is not None or any(not "!" <= c <= "~" for c in host):
        raise ConfigError(
            "a host that a key is bound to: expected one such as api.example.com or 127.0.0.1:8000"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(place: str) -> bool:
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_environment(place: str) -> ApiKey:
    host = os.environ.get(HOST, "").strip()
    if not host or host_and_port(host) != place:
        return ApiKey()
    return ApiKey.read(os.environ.get(KEY, ""), KEY)


def _file() -> Path:
    given = os.environ.get(FILE)
    return Path(given) if given else platformdirs.user_config_path("bt_llm", appauthor=False) / "keys.toml"


def _from_file(place: str) -> ApiKey:
    path = _file()
    try:
        found = path.stat()
    except OSError:
        return ApiKey()
    _check_private(path, found)
    try:
        with path.open("rb") as file:
            bound = dict(_hosts(tomllib.loads(file.read(_LONGEST_FILE).decode("utf-8"))))
    except OSError as error:
        raise ConfigError(f"keys file {path}: cannot be read ({error.strerror or error})") from None
    except ValueError:  # its message may repeat a line
        raise ConfigError(f'keys file {path}: expected lines such as "api.example.com" = "KEY"') from None
    return ApiKey.read(bound.get(place, ""), str(path))


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"keys file {path}: expected an ordinary file")
    if os.name == "nt":
        return
    if found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise ConfigError(
            f"keys file {path} of mode {stat.S_IMODE(found.st_mode):04o}: expected one of yours that nobody "
            f"else may read; chmod 600 {path}"
        )


def _hosts(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield hosts and keys: without quotes, TOML reads ``api.example.com`` as tables in tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _hosts(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield host_and_port(prefix + name), value
        else:
            raise ValueError(name)


def _from_keyring(place: str) -> ApiKey:
    if find_spec("keyring") is None:
        return ApiKey()
    import keyring

    names = [place, place.removesuffix(":443")] if place.endswith(":443") else [place]
    try:
        found = next(filter(None, (keyring.get_password(SERVICE, name) for name in names)), "")
    except Exception as error:  # whatever the desktop's own service raises
        if type(error).__name__ != "NoKeyringError":  # the package is there, and nothing behind it
            _log.warning("the keyring cannot be read (%s)", type(error).__name__)
        return ApiKey()
    return ApiKey.read(found, "the keyring")
