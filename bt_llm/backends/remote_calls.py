"""Calls: requests to one server, many at a time, each retried, all within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import queue
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bt_llm.backends.remote_config import ApiKey, RemoteConfig
from bt_llm.backends.remote_replies import ReplyError, read_json
from bt_llm.exceptions import GenerationTimeout, MissingExtraError, ModelError

if TYPE_CHECKING:
    import httpx

__all__ = ["Calls", "Exchange", "Reply"]

_log = logging.getLogger("bt_llm.remote")

T = TypeVar("T")

_LOOK_AHEAD = 16
"""Prompts for each connection that may be answered while an earlier one is still retried."""

_LONGEST_BACKOFF_S = 30.0
_DELIVERY_S = 0.02
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


Exchange = Callable[..., Awaitable[Reply]]
"""``await exchange(path)`` gets, ``await exchange(path, payload)`` posts JSON."""


class Calls:
    """One server's address, key and patience; makes the connections when something is asked.

    Retried are statuses of 429 and 5xx and broken connections, with pauses that double and are spread by a
    hash, so that a run can be repeated; where the server says ``Retry-After``, all requests wait so long.
    Not retried are other 4xx, redirects (the key would go along), an untrusted certificate, and replies
    that are no JSON or too long. Proxies of the environment are not used.

    Parameters
    ----------
    config : RemoteConfig
        Where and how.
    """

    def __init__(self, config: RemoteConfig) -> None:
        self.config = config

    def one(self, work: Callable[[Exchange], Awaitable[T]]) -> T:
        """Run one piece of work and return what it returns."""
        [[result]] = list(self.many(1, lambda exchange, _: work(exchange)))
        return result

    def many(self, count: int, work: Callable[[Exchange, int], Awaitable[T]]) -> Iterator[list[T]]:
        """Run work for each of the numbers below `count`; yield the results in order, as they come.

        The requests are made in a thread of their own, so that this also works inside a running event
        loop. When one piece of work fails, those under way are finished and no other is begun.

        Parameters
        ----------
        count : int
            Pieces of work.
        work : callable
            Awaits what it asks of the server with the `Exchange` that it is given, and returns a result.

        Raises
        ------
        ModelError
            If the server refuses, is not what it should be, or stays broken.
        GenerationTimeout
            If ``deadline_s`` is over.
        MissingExtraError
            If httpx is not installed.
        """
        if count == 0:
            return
        _import_httpx()
        run = _Run(self.config, count, work)
        results: dict[int, T] = {}
        told = 0
        with run:
            while told < count:
                results.update(run.take())
                ready = list(itertools.takewhile(lambda i: i in results, range(told, count)))
                if ready:
                    yield [results.pop(i) for i in ready]
                    told += len(ready)
                elif run.error is not None:
                    raise run.error


class _Run(Generic[T]):
    """The thread, the event loop and the connections of one call."""

    def __init__(
        self, config: RemoteConfig, count: int, work: Callable[[Exchange, int], Awaitable[T]]
    ) -> None:
        self.config, self.count, self.work = config, count, work
        self.error: BaseException | None = None
        self._key = ApiKey.from_environment(config.key_env)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "bt-llm",
            **self._key.headers,
        }
        # Certificates are looked up only where they are needed: that takes a while. SSL_CERT_FILE is obeyed.
        secure = config.base_url.startswith("https:")
        self._context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._results: queue.SimpleQueue[dict[int, T] | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._drive, name="bt_llm remote", daemon=True)
        self._fresh: dict[int, T] = {}
        self._ended = False
        self._numbers = iter(range(count))
        self._done: set[int] = set()
        self._first_open = 0
        self._urls: dict[str, httpx.URL] = {}
        self._not_before = 0.0  # time of the loop until which the server wants to be left alone

    def __enter__(self) -> None:
        self._task = self._loop.create_task(self._main())
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if len(self._done) < self.count:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()  # the connections are closed by then
        self._loop.close()

    def _drive(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                self._loop.run_until_complete(self._task)
            except Exception as error:
                self.error = error
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._deliver()
        self._results.put(None)

    def take(self) -> dict[int, T]:
        """Wait for results and return those that are there; none when the thread has ended."""
        found = None if self._ended else self._results.get()
        self._ended = found is None
        return found or {}

    async def _main(self) -> None:
        config = self.config
        self._deadline = self._loop.time() + config.deadline_s
        self._moved, self._stop = asyncio.Event(), asyncio.Event()
        try:
            with _Quiet(self._key):
                async with asyncio.timeout_at(self._deadline):
                    workers = min(config.connections, self.count)
                    await asyncio.gather(*(self._worker() for _ in range(workers)))
        except TimeoutError:
            raise self._too_late() from None

    def _too_late(self) -> GenerationTimeout:
        config = self.config
        return GenerationTimeout(
            f"{config.host}: deadline of {config.deadline_s:g} s over after {len(self._done)} of "
            f"{self.count} answers; what was answered is kept, so ask again, or set a longer deadline"
        )

    async def _worker(self) -> None:
        """Take number after number, on a connection of its own."""
        room = _LOOK_AHEAD * self.config.connections
        async with self._transport() as transport:
            exchange = functools.partial(self._exchange, transport)
            for number in self._numbers:
                while number >= self._first_open + room and not self._stop.is_set():
                    self._moved.clear()
                    await self._moved.wait()
                if self._stop.is_set():
                    return
                try:
                    result = await self.work(exchange, number)
                except Exception as error:
                    self.error = self.error or error  # what others run into because of it is no news
                    self._stop.set()
                else:
                    self._hand_over(number, result)
                self._moved.set()

    def _hand_over(self, number: int, result: T) -> None:
        """Keep a result for the next delivery: to wake the other thread for each one would take longer."""
        self._done.add(number)
        while self._first_open in self._done:
            self._first_open += 1
        self._fresh[number] = result
        if len(self._done) == self.count:
            self._deliver()
        elif len(self._fresh) == 1:
            self._loop.call_later(_DELIVERY_S, self._deliver)

    def _deliver(self) -> None:
        if self._fresh:
            self._results.put(self._fresh)
            self._fresh = {}

    def _transport(self) -> httpx.AsyncHTTPTransport:
        """Return what holds one connection: httpx without its client, which takes as long again."""
        module = _import_httpx()
        limits = module.Limits(max_connections=1, max_keepalive_connections=1)
        transport: httpx.AsyncHTTPTransport = module.AsyncHTTPTransport(
            verify=self._context, limits=limits, trust_env=False
        )
        return transport

    async def _exchange(self, transport: httpx.AsyncHTTPTransport, path: str, payload: Any = None) -> Reply:
        """Ask until there is a reply that no retry would change."""
        httpx = _import_httpx()
        body = None if payload is None else json.dumps(payload).encode()
        for attempt in itertools.count():
            await self._sleep_until(self._not_before)
            pause = _backoff(self.config.backoff_s, attempt, body or path.encode())
            reply, problem = None, ""
            try:
                reply, wanted = await self._once(transport, path, body)
            except httpx.TransportError as error:
                problem = self._broken(error)
            else:
                if not (reply.status == 429 or reply.status >= 500):
                    return reply
                problem = f"status {reply.status} {reply.complaint}".strip()
                if wanted is not None:
                    pause = max(pause, wanted)
                    self._not_before = max(self._not_before, self._loop.time() + wanted)
            if attempt >= self.config.retries or self._stop.is_set():
                if reply is not None:
                    return reply
                raise ModelError(
                    f"{self.config.host}: {problem}, {attempt + 1} times; is the server running there?"
                )
            _log.debug("%s: %s; asking again in %.2f s", self.config.host, problem, pause)
            await self._sleep_until(self._loop.time() + pause)
        raise AssertionError("unreachable")

    async def _sleep_until(self, when: float) -> None:
        if when > self._deadline:
            raise self._too_late()
        if (left := when - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stop.wait()

    async def _once(
        self, transport: httpx.AsyncHTTPTransport, path: str, body: bytes | None
    ) -> tuple[Reply, float | None]:
        """Ask once; return the reply, and for how many seconds the server wants no other request."""
        httpx, config = _import_httpx(), self.config
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
        httpx = _import_httpx()
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


def _import_httpx() -> Any:
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


class _Quiet:
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
