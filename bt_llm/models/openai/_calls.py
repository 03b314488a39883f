"""Server: one server as a call sees it; each request is retried, within the deadline of the call."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from bt_llm.exceptions import MissingExtraError, ModelError
from bt_llm.models.openai._config import ApiKey, RemoteConfig
from bt_llm.models.openai._replies import ReplyError, ServerGoneError, read_json

if TYPE_CHECKING:
    import httpx

__all__ = ["Exchange", "Quiet", "Reply", "Server", "import_httpx"]

_log = logging.getLogger("bt_llm.remote")

_LONGEST_BACKOFF_S = 30.0
_REFUSED_RETRIES = 3
"""Of a server that does not let anybody connect, while others can take its work."""

_HTTP_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to keep: its status, the JSON of a 2xx, and what it complains of otherwise."""

    status: int
    document: Any = None
    complaint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered later, or elsewhere."""
        return self.status == 429 or self.status >= 500


class Exchange:
    """One connection: ``await exchange(path)`` gets, ``await exchange(path, payload)`` posts JSON.

    Parameters
    ----------
    server : Server
        Whom it asks.
    transport : httpx.AsyncHTTPTransport
        The connection.
    """

    def __init__(self, server: Server, transport: httpx.AsyncHTTPTransport) -> None:
        self._server, self._transport = server, transport

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return self._server.config.host

    async def __call__(self, path: str, payload: Any = None) -> Reply:
        """Ask until there is a reply that no retry would change."""
        return await self._server.ask(self._transport, path, payload)


class Server:
    """One server's address, key and patience, for as long as a call takes.

    Retried are statuses of 429 and 5xx and broken connections, with pauses that double and are spread by a
    hash, so that a run can be repeated; where the server says ``Retry-After``, all requests wait so long.
    Not retried are other 4xx, redirects (the key would go along), an untrusted certificate, and replies
    that are no JSON or too long. Proxies of the environment are not used.

    Parameters
    ----------
    config : RemoteConfig
        Where and how.
    key : ApiKey
        What the server wants to see.
    deadline : float
        Time of the event loop at which the call is over.
    """

    def __init__(self, config: RemoteConfig, key: ApiKey, deadline: float) -> None:
        self.config = config
        self.has_others = False
        self.stop = asyncio.Event()
        """Set when nothing is to be asked here any more; who waits for a retry is told so."""
        self._key, self._deadline = key, deadline
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "bt-llm",
            **key.headers,
        }
        # Certificates are looked up only where they are needed: that takes a while. SSL_CERT_FILE is obeyed.
        secure = config.base_url.startswith("https:")
        self._context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._urls: dict[str, httpx.URL] = {}
        self._not_before = 0.0  # time of the loop until which the server wants to be left alone

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Exchange]:
        """Open what asks one request at a time."""
        async with self._transport() as transport:
            yield Exchange(self, transport)

    def _transport(self) -> httpx.AsyncHTTPTransport:
        """Return what holds one connection: httpx without its client, which takes as long again."""
        module = import_httpx()
        limits = module.Limits(max_connections=1, max_keepalive_connections=1)
        transport: httpx.AsyncHTTPTransport = module.AsyncHTTPTransport(
            verify=self._context, limits=limits, trust_env=False
        )
        return transport

    async def ask(self, transport: httpx.AsyncHTTPTransport, path: str, payload: Any = None) -> Reply:
        """Ask until there is a reply that no retry would change.

        Raises
        ------
        ServerGoneError
            If it stays broken.
        ModelError
            If it answers what is no answer.
        TimeoutError
            If the deadline would be over before the next attempt.
        """
        httpx = import_httpx()
        body = None if payload is None else json.dumps(payload).encode()
        for attempt in itertools.count():
            await self._sleep_until(self._not_before)
            pause = _backoff(self.config.backoff_s, attempt, body or path.encode())
            reply, problem, retries = None, "", self.config.retries
            try:
                reply, wanted = await self._once(transport, path, body)
            except httpx.TransportError as error:
                problem = self._broken(error)
                if self.has_others and isinstance(error, httpx.ConnectError):
                    retries = min(retries, _REFUSED_RETRIES)
            else:
                if not reply.may_pass:
                    return reply
                problem = f"status {reply.status} {reply.complaint}".strip()
                if wanted is not None:
                    pause = max(pause, wanted)
                    self._not_before = max(self._not_before, asyncio.get_running_loop().time() + wanted)
            if attempt >= retries or self.stop.is_set():
                if reply is not None:
                    return reply
                raise ServerGoneError(
                    f"{self.config.host}: {problem}, {attempt + 1} times; is the server running there?"
                )
            _log.debug("%s: %s; asking again in %.2f s", self.config.host, problem, pause)
            await self._sleep_until(asyncio.get_running_loop().time() + pause)
        raise AssertionError("unreachable")

    async def _sleep_until(self, when: float) -> None:
        if when > self._deadline:
            raise TimeoutError
        if (left := when - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.stop.wait()

    async def _once(
        self, transport: httpx.AsyncHTTPTransport, path: str, body: bytes | None
    ) -> tuple[Reply, float | None]:
        """Ask once; return the reply, and for how many seconds the server wants no other request."""
        httpx, config = import_httpx(), self.config
        request = httpx.Request(
            "GET" if body is None else "POST",
            self._urls.get(path) or self._urls.setdefault(path, httpx.URL(self._address(path))),
            headers=self._headers,
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), config.timeout_s)},
        )
        response = await transport.handle_async_request(request)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ReplyError(f"{config.host}: the reply is compressed, which was not asked for: refused")
            if 300 <= response.status_code < 400:
                raise ModelError(
                    f"{config.host}: {path} redirects elsewhere (status {response.status_code}): refused, "
                    "since the API key would go along; give the final address"
                )
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > config.max_bytes:
                    raise ReplyError(
                        f"{config.host}: the reply is longer than {config.max_bytes:,} bytes: refused"
                    )
        finally:
            await response.aclose()
        wanted = _retry_after(response.headers.get("retry-after"))
        return self._read(response.status_code, bytes(content)), wanted

    def _address(self, path: str) -> str:
        return self.config.base_url + path if path.startswith("/") else path

    def _read(self, status: int, content: bytes) -> Reply:
        if 200 <= status < 300:
            try:
                document = read_json(content)
            except ReplyError as error:
                raise ReplyError(f"{self.config.host}: {self._safe(str(error))}") from None
            if self._key and self._key.repeated_in(json.dumps(document, ensure_ascii=False)):
                raise ReplyError(f"{self.config.host}: the reply repeats the API key: refused")
            return Reply(status, document)
        return Reply(status, complaint=self._safe(_complaint(content)))

    def _safe(self, text: str) -> str:
        """Return text of the server as it may be shown: short, printable, and without the key."""
        if self._key.repeated_in(text):
            return "(its message is withheld: it repeats the API key)"
        return "".join(c if c.isprintable() else " " for c in text)[:300]

    def _broken(self, error: httpx.TransportError) -> str:
        """Return what broke the connection; raises where asking again would change nothing."""
        httpx = import_httpx()
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                reason = getattr(cause, "verify_message", "") or cause.reason or "handshake failed"
                raise ModelError(
                    f"{self.config.host}: no secure connection ({reason}); if the certificate is your own, "
                    "set SSL_CERT_FILE to the file of its authority"
                ) from None
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise ModelError(
                f"{self.config.host}: the request cannot be sent ({type(error).__name__})"
            ) from None
        if isinstance(error, httpx.TimeoutException):
            return f"no answer for {self.config.timeout_s:g} s"
        return "cannot connect" if isinstance(error, httpx.ConnectError) else "the connection broke"


def import_httpx() -> Any:
    """Return the module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("remote models need httpx: pip install 'bt-llm[remote]'") from error
    return httpx


def _backoff(first_s: float, attempt: int, seed: bytes) -> float:
    """Return the seconds before a retry: half to all of a pause that doubles; the same for a same request."""
    longest = min(_LONGEST_BACKOFF_S, first_s * 2.0 ** min(attempt, 30))
    digest = hashlib.sha256(seed + attempt.to_bytes(4, "big")).digest()
    return longest * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or an HTTP date.

    Examples
    --------
    >>> _retry_after("2"), _retry_after("soon")
    (2.0, None)
    """
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.fromtimestamp(time.time(), UTC)).total_seconds()
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _complaint(content: bytes) -> str:
    """Return the message in the body of an error."""
    try:
        document = read_json(content)
    except ReplyError:
        return ""
    error = document.get("error", document) if isinstance(document, dict) else document
    parts = [error.get("message"), error.get("detail")] if isinstance(error, dict) else [error]
    return next((part for part in parts if isinstance(part, str)), "")


class Quiet:
    """Keep a key that a server repeats in its headers out of the HTTP library's own debug log."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def __enter__(self) -> None:
        for name in _HTTP_LOGGERS:
            logging.getLogger(name).addFilter(self._harmless)

    def __exit__(self, *_: object) -> None:
        for name in _HTTP_LOGGERS:
            logging.getLogger(name).removeFilter(self._harmless)

    def _harmless(self, record: logging.LogRecord) -> bool:
        return not self._key.repeated_in(record.getMessage())
