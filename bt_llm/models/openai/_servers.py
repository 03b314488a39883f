"""Servers of one model: many requests at a time, spread over those that are there, within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bt_llm import plain_text
from bt_llm.exceptions import GenerationTimeout, ModelError
from bt_llm.models._interrupts import can_give_up, given_up
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._keys import key_for
from bt_llm.models.openai._replies import ServerGoneError
from bt_llm.models.openai._server import Server, import_httpx

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["Servers"]

_log = plain_text.logger("bt_llm.remote")

T = TypeVar("T")

_LOOK_UP_S = 0.2
"""Seconds after which it is looked up whether whoever asks has given up."""

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
    import_httpx()
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


def _hosts(configs: Sequence[RemoteConfig]) -> str:
    return ", ".join(config.host for config in configs)


def _too_late(configs: Sequence[RemoteConfig], done: int, count: int) -> GenerationTimeout:
    return GenerationTimeout(
        f"{_hosts(configs)}: deadline of {configs[0].deadline_s:g} s over after {done} of {count} answers; "
        "what was answered is kept, so ask again, or set a longer deadline"
    )
