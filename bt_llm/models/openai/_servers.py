"""Servers of one model: many requests at a time, each retried, spread over them, all within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import queue
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bt_llm import plain_text
from bt_llm.exceptions import GenerationTimeout, MissingExtraError, ModelError
from bt_llm.models._interrupts import can_give_up, given_up
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._keys import ApiKey, key_for, no_key_hint
from bt_llm.models.openai._pauses import backoff, retry_after
from bt_llm.models.openai._replies import RefusedError, ReplyError, ServerGoneError, read_json, refusal

if TYPE_CHECKING:
    import httpx
    from anyio.from_thread import BlockingPortal

__all__ = ["Server", "Servers"]

_log = plain_text.logger("bt_llm.remote")

T = TypeVar("T")

_FEW_RETRIES = 3
"""Of the first questions, so that a wrong address is soon noticed, and where others can do the work."""

_LOADING = 503
"""Status of llama.cpp's server while it loads its model, which may take long."""

_NO_API = "; is it an OpenAI-compatible API?"

_LOOK_UP_S = 0.2
"""Seconds after which it is looked up whether whoever asks has given up."""

_IN_A_ROW = 2
"""Requests at a time to a server that computes one by one: the next is there when one is answered."""

_LOOK_AHEAD = 16
"""Prompts for each connection that may be answered while an earlier one is still retried."""


class Servers:
    """Those that are asked; each call makes its own connections and leaves none open.

    The requests are made in a thread of their own, so that this also works inside a running event loop.
    Who went away is not asked again by later calls, since what comes back under an address may be another
    model. The deadline is that of the first.
    """

    def __init__(self, configs: Sequence[RemoteConfig]) -> None:
        self._configs = list(configs)

    def each(self, work: Callable[[Server], Awaitable[T]]) -> list[T]:
        """Run the first work with every server, and return what came of those that are there.

        Raises
        ------
        ModelError
            If a server refuses or is not what it should be, or none is there.
        GenerationTimeout
            If ``deadline_s`` is over.
        MissingExtraError
            If httpx is not installed.
        """

        async def ask() -> list[T | BaseException]:
            async with _connected(self._configs, hurried=True) as servers:
                return await asyncio.gather(*map(work, servers), return_exceptions=True)

        with _portal() as portal:
            try:
                asked = portal.start_task_soon(ask)
                while can_give_up() and not futures.wait([asked], _LOOK_UP_S).done:
                    _look_up(self._configs)
                answers = asked.result()
                for answer in answers:
                    if isinstance(answer, BaseException) and not isinstance(answer, ServerGoneError):
                        raise answer
            except GenerationTimeout:
                raise
            except TimeoutError:
                raise _too_late(self._configs, 0, len(self._configs)) from None
        gone = [answer for answer in answers if isinstance(answer, ServerGoneError)]
        there = [one for one, answer in zip(self._configs, answers, strict=True) if answer not in gone]
        if not there:
            more = f" (and none of {len(gone)} servers is there)" if len(gone) > 1 else ""
            raise ServerGoneError(f"{gone[-1]}{more}")
        for error in gone:
            _log.warning("%s: only %s will be asked", error, _hosts(there))
        self._configs = there
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def spread(self, count: int, work: Callable[[Server, int], Awaitable[T]]) -> Iterator[list[T | None]]:
        """Run work for each of the numbers below `count`; yield the results in order, as they come.

        All servers take from one queue, each as many at a time as its connections, so that a slow one gets
        less to do. What a server had to do when it went away goes back into the queue: no result may
        depend on the server. When one piece of work fails, those under way are finished and no other is
        begun. Before the error is raised, what was finished beyond the first piece that was not is yielded
        too, with None for those that were not, so that nothing that was answered is lost. The errors are
        those of `each`.
        """
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = _Call(self._configs, count, work, results.put)
        with _portal() as portal:  # left early, it cancels the call
            ending = portal.start_task_soon(call.run)
            ending.add_done_callback(results.put)
            ended = False
            while not ended:
                first = _next(results, self._configs)
                batch = [first, *(results.get() for _ in range(results.qsize()))]
                if ended := batch[-1] is ending:
                    batch.pop()
                if batch:
                    yield batch
            self._configs = [server.config for server in call.alive] or self._configs
            ending.result()


class _Call(Generic[T]):
    """What waits to be asked in one call, what was answered, and which servers are still asked."""

    def __init__(
        self,
        configs: Sequence[RemoteConfig],
        count: int,
        work: Callable[[Server, int], Awaitable[T]],
        deliver: Callable[[T | None], None],
    ) -> None:
        self.alive: list[Server] = []
        self._configs, self._count, self._work, self._deliver = configs, count, work, deliver
        self._room = _LOOK_AHEAD * sum(config.connections for config in configs)
        self._waiting = list(range(count))  # a heap
        self._answers: dict[int, T] = {}  # those beyond the first that is missing
        self._told = 0
        self._moved = asyncio.Event()
        self._error: Exception | None = None

    async def run(self) -> None:
        """Ask all, within the deadline; deliver what was answered, then raise what went wrong."""
        try:
            async with _connected(self._configs) as self.alive, asyncio.TaskGroup() as group:
                for server in self.alive:
                    for _ in range(min(server.config.connections, self._count)):
                        group.create_task(self._keep_asking(server))
        except TimeoutError as error:
            self._fail(error)
        for number in range(self._told, max(self._answers, default=-1) + 1):
            self._deliver(self._answers.get(number))
        if isinstance(self._error, TimeoutError):
            raise _too_late(self._configs, self._told + len(self._answers), self._count)
        if self._error is not None:
            raise self._error

    async def _keep_asking(self, server: Server) -> None:
        """Take number after number; there are as many of these as the server has connections."""
        while (number := await self._take(server)) is not None:
            try:
                self._keep(number, await self._work(server, number))
            except ServerGoneError as error:
                heapq.heappush(self._waiting, number)
                self._lose(server, error)
            except Exception as error:
                self._fail(error)
            self._moved.set()

    async def _take(self, server: Server) -> int | None:
        """Return the least number that waits; None when there is nothing left to do here."""
        while not server.stopped.is_set() and self._told < self._count:
            if self._waiting and self._waiting[0] < self._told + self._room:
                return heapq.heappop(self._waiting)
            self._moved.clear()
            await self._moved.wait()  # another server may go away, and its numbers come back
        return None

    def _keep(self, number: int, answer: T) -> None:
        self._answers[number] = answer
        while self._told in self._answers:
            self._deliver(self._answers.pop(self._told))
            self._told += 1

    def _lose(self, server: Server, error: ServerGoneError) -> None:
        """Go on without a server; the first to notice says so."""
        if server.stopped.is_set():
            return
        server.stopped.set()
        self.alive.remove(server)
        if self.alive:
            _log.warning(
                "%s: what it had to do goes to %s", error, _hosts([other.config for other in self.alive])
            )
        elif len(self._configs) > 1:
            self._fail(ModelError(f"none of {len(self._configs)} servers is left; the last one: {error}"))
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error  # what others run into because of it is no news
        for server in self.alive:
            server.stopped.set()


class Server:
    """One server while a call lasts; ``await server.ask(path)`` gets, with a payload it posts JSON.

    Retried are statuses of 429 and 5xx and broken connections, with pauses that double and are spread by the
    request, so that a run can be repeated; where the server says ``Retry-After``, all requests wait so long.
    Not retried are other 4xx, redirects (the key would go along), an untrusted certificate, and replies
    that are no JSON or too long. Proxies of the environment are not used. `alive` are those that can take
    its work, itself included.
    """

    def __init__(
        self,
        config: RemoteConfig,
        key: ApiKey,
        deadline: float,
        alive: list[Server],
        *,
        hurried: bool = False,
    ) -> None:
        httpx = _import_httpx()
        self.config = config
        self.stopped = asyncio.Event()
        """Set when nothing is to be asked here any more; who waits for a retry is told so."""
        self.one_by_one = asyncio.Semaphore(_IN_A_ROW)
        """For what the server computes one by one: who waits longer than others is not taken for hung."""
        self._key, self._deadline, self._alive, self._hurried = key, deadline, alive, hurried
        self._not_before = 0.0  # time of the loop until which the server wants to be left alone
        keyed = key.azure_headers if config.api_version else key.headers
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **keyed}
        self._suffix = f"?api-version={config.api_version}" if config.api_version else ""
        # Certificates are looked up only where they are needed: that takes a while. SSL_CERT_FILE is obeyed.
        secure = config.base_url.startswith("https:")
        context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Of one connection each: a pool of several takes a quarter more processor time a request, and a
        # client half as much, besides keeping cookies and logging every request.
        limits = httpx.Limits(max_connections=1)
        self.transports = [
            httpx.AsyncHTTPTransport(verify=context, limits=limits) for _ in range(config.connections)
        ]
        self._free = list(self.transports)

    async def ask(self, path: str, payload: Any = None) -> Any:
        """Return the answer's JSON; asks until there is a reply that no retry would change.

        Raises
        ------
        ServerGoneError
            If it stays broken or busy.
        RefusedError
            If it answers an error.
        ModelError
            If it answers what is no answer.
        TimeoutError
            If the deadline would be over before the next attempt.
        """
        httpx, config = _import_httpx(), self.config
        body = None if payload is None else json.dumps(payload).encode()
        few = min(config.retries, _FEW_RETRIES)
        for attempt in itertools.count():
            await self._pause_until(self._not_before)
            retries = few if self._hurried else config.retries
            try:
                return await self._once(path, body)
            except ServerGoneError as error:
                failure = error
                if error.status == _LOADING:
                    retries = config.retries
            except httpx.TransportError as error:
                problem = f"{self._broken(error)}, {attempt + 1} times; is the server running there?"
                failure = ServerGoneError(f"{config.host}: {problem}")
                if isinstance(error, httpx.ConnectError) and len(self._alive) > 1:
                    retries = few
            if attempt >= retries or self.stopped.is_set():
                raise failure
            pause = backoff(config.backoff_s, attempt, body or path.encode())
            _log.debug("%s; asking again in %.2f s", failure, pause)
            await self._pause_until(asyncio.get_running_loop().time() + pause)

    async def _pause_until(self, when: float) -> None:
        if when > self._deadline:
            raise TimeoutError
        if (left := when - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), left)

    async def _once(self, path: str, body: bytes | None) -> Any:
        httpx, config = _import_httpx(), self.config
        request = httpx.Request(
            "GET" if body is None else "POST",
            config.base_url + path + self._suffix if path.startswith("/") else path,
            headers=self._headers,
            content=body,
            extensions={"timeout": httpx.Timeout(config.timeout_s).as_dict()},
        )
        transport = self._free.pop()
        try:
            async with asyncio.timeout(config.timeout_s) as limit:  # httpx's own begins anew with each byte
                response = await transport.handle_async_request(request)
                async with contextlib.aclosing(response):
                    body = await self._body(path, response)
        except TimeoutError:
            if limit.expired():
                raise httpx.ReadTimeout("") from None
            raise
        finally:
            self._free.append(transport)
        try:
            return self._read(path, response.status_code, body)
        except ServerGoneError:
            wait_s = retry_after(response.headers.get("retry-after", ""))
            self._not_before = max(self._not_before, asyncio.get_running_loop().time() + wait_s)
            raise

    async def _body(self, path: str, response: httpx.Response) -> bytes:
        host, content = self.config.host, bytearray()
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ReplyError(f"{host}: the reply is compressed, which was not asked for: refused")
        if response.status_code // 100 == 3:
            raise ModelError(
                f"{host}: {path} redirects elsewhere (status {response.status_code}): refused, since the API "
                "key would go along; give the final address"
            )
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > self.config.max_bytes:
                raise ReplyError(f"{host}: the reply is longer than {self.config.max_bytes:,} bytes: refused")
        return bytes(content)

    def _read(self, path: str, status: int, body: bytes) -> Any:
        host, key, document = self.config.host, self._key, None
        try:
            document = read_json(body)
        except ReplyError as error:
            if status // 100 == 2:
                raise ReplyError(f"{host}: {key.kept_out_of(str(error))}") from None
        if (refused := refusal(status, document)) is not None:
            status, complaint = refused
            said = f": {key.kept_out_of(complaint)}" if complaint else ""
            wants_key = status in (401, 403)
            hint = no_key_hint(self.config.base_url) if wants_key else _NO_API if status == 404 else ""
            kind = ServerGoneError if status == 429 or status >= 500 else RefusedError
            raise kind(f"{host}: {path} refused with status {status}{said}{hint}", status)
        if key and key.repeated_in(json.dumps(document, ensure_ascii=False)):
            raise ReplyError(f"{host}: the reply repeats the API key: refused")
        return document

    def _broken(self, error: httpx.TransportError) -> str:
        """Return what broke the connection; raises if it is what no other attempt would change."""
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
        if isinstance(error, httpx.TimeoutException):
            return f"no answer for {self.config.timeout_s:g} s"
        return "cannot connect" if isinstance(error, httpx.ConnectError) else "the connection broke"


@contextlib.asynccontextmanager
async def _connected(
    configs: Sequence[RemoteConfig], *, hurried: bool = False
) -> AsyncIterator[list[Server]]:
    """Yield the servers, to be asked until the deadline, at which TimeoutError is raised."""
    keys = [key_for(config.base_url) for config in configs]
    deadline = asyncio.get_running_loop().time() + configs[0].deadline_s
    servers: list[Server] = []
    async with contextlib.AsyncExitStack() as stack:
        for config, key in zip(configs, keys, strict=True):
            stack.enter_context(key.kept_out_of_logs())
            servers.append(Server(config, key, deadline, alive=servers, hurried=hurried))
            for transport in servers[-1].transports:
                await stack.enter_async_context(transport)
        async with asyncio.timeout_at(deadline):
            yield servers


def _portal() -> contextlib.AbstractContextManager[BlockingPortal]:
    """Return an event loop in a thread, which is cancelled if it is left by an error."""
    _import_httpx()
    from anyio.from_thread import start_blocking_portal

    return start_blocking_portal()


def _look_up(configs: Sequence[RemoteConfig]) -> None:
    """Stop if whoever asks has given up meanwhile."""
    if given_up():
        raise GenerationTimeout(f"{_hosts(configs)}: no answer while somebody waited for it")


def _next(results: queue.SimpleQueue[T], configs: Sequence[RemoteConfig]) -> T:
    """Return what comes next out of a queue, unless whoever asks gives up."""
    while can_give_up():
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=_LOOK_UP_S)
        _look_up(configs)
    return results.get()


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("remote models need httpx: pip install 'bt-llm[remote]'") from error
    return httpx


def _hosts(configs: Sequence[RemoteConfig]) -> str:
    return ", ".join(config.host for config in configs)


def _too_late(configs: Sequence[RemoteConfig], done: int, count: int) -> GenerationTimeout:
    return GenerationTimeout(
        f"{_hosts(configs)}: deadline of {configs[0].deadline_s:g} s over after {done} of {count} answers; "
        "what was answered is kept, so ask again, or set a longer deadline"
    )
