"""Calls: pieces of work spread over the servers of one model, many at a time, all within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from bt_llm.exceptions import GenerationTimeout, ModelError
from bt_llm.models.openai._calls import Exchange, Quiet, Server, import_httpx
from bt_llm.models.openai._config import ApiKey, RemoteConfig
from bt_llm.models.openai._replies import ServerGoneError

__all__ = ["Calls"]

_log = logging.getLogger("bt_llm.remote")

T = TypeVar("T")

_LOOK_AHEAD = 16
"""Prompts for each connection that may be answered while an earlier one is still retried."""

_DELIVERY_S = 0.02


class Calls:
    """The servers that are asked; makes the connections when something is asked.

    All take from one queue, each as many at a time as its connections, so that a slow server gets less to
    do. What a server had to do when it went away goes back into the queue; it is not asked again by later
    calls, since what comes back under an address may be another model.

    Parameters
    ----------
    configs : sequence of RemoteConfig
        Each of one server; deadline and key are those of the first.
    """

    def __init__(self, configs: Sequence[RemoteConfig]) -> None:
        self._configs = list(configs)

    def one(self, work: Callable[[Exchange], Awaitable[T]]) -> T:
        """Run one piece of work and return what it returns."""
        results = [result for batch in self.many(1, lambda exchange, _: work(exchange)) for result in batch]
        [result] = [result for result in results if result is not None]
        return result

    def many(self, count: int, work: Callable[[Exchange, int], Awaitable[T]]) -> Iterator[list[T | None]]:
        """Run work for each of the numbers below `count`; yield the results in order, as they come.

        The requests are made in a thread of their own, so that this also works inside a running event
        loop. When one piece of work fails, those under way are finished and no other is begun. Before the
        error is raised, what was finished beyond the first piece that was not is yielded too, with None
        for those that were not, so that nothing that was answered is lost.

        Parameters
        ----------
        count : int
            Pieces of work.
        work : callable
            Awaits what it asks of a server with the `Exchange` that it is given, and returns a result,
            which does not depend on the server. It is run again, on another one, if a server goes away.

        Raises
        ------
        ModelError
            If a server refuses or is not what it should be, or none is left.
        GenerationTimeout
            If ``deadline_s`` is over.
        MissingExtraError
            If httpx is not installed.
        """
        if count == 0:
            return
        import_httpx()
        run = _Run(self._configs, count, work)
        results: dict[int, T] = {}
        told = 0
        with run:
            while told < count:
                results.update(run.take())
                ready: list[T | None] = []
                ready.extend(
                    results.pop(i) for i in itertools.takewhile(results.__contains__, range(told, count))
                )
                told += len(ready)
                if ready:
                    yield ready
                elif run.ended:
                    break
        self._configs = run.left or self._configs
        if run.error is not None:
            if results:
                yield [results.get(i) for i in range(told, max(results) + 1)]
            raise run.error


class _Run(Generic[T]):
    """The thread, the event loop and the connections of one call."""

    def __init__(
        self,
        configs: Sequence[RemoteConfig],
        count: int,
        work: Callable[[Exchange, int], Awaitable[T]],
    ) -> None:
        self.configs, self.count, self.work = configs, count, work
        self.left = list(configs)
        self.error: BaseException | None = None
        self.ended = False
        self._key = ApiKey.from_environment(configs[0].key_env)
        self._results: queue.SimpleQueue[dict[int, T] | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._drive, name="bt_llm remote", daemon=True)
        self._fresh: dict[int, T] = {}
        self._next = 0
        self._returned: list[int] = []
        self._done: set[int] = set()
        self._first_open = 0
        self._room = _LOOK_AHEAD * sum(config.connections for config in configs)

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
        found = None if self.ended else self._results.get()
        self.ended = found is None
        return found or {}

    async def _main(self) -> None:
        deadline = self._loop.time() + self.configs[0].deadline_s
        self._moved = asyncio.Event()
        self._servers = [Server(config, self._key, deadline) for config in self.configs]
        for server in self._servers:
            server.has_others = len(self._servers) > 1
        workers = [
            self._worker(server)
            for server in self._servers
            for _ in range(min(server.config.connections, self.count))
        ]
        try:
            with Quiet(self._key):
                async with asyncio.timeout_at(deadline):
                    await asyncio.gather(*workers)
        except TimeoutError:
            raise self._too_late() from None

    def _too_late(self) -> GenerationTimeout:
        hosts = ", ".join(config.host for config in self.configs)
        return GenerationTimeout(
            f"{hosts}: deadline of {self.configs[0].deadline_s:g} s over after {len(self._done)} of "
            f"{self.count} answers; what was answered is kept, so ask again, or set a longer deadline"
        )

    async def _worker(self, server: Server) -> None:
        """Take number after number, on a connection of its own."""
        async with server.connection() as exchange:
            while (number := await self._take(server)) is not None:
                try:
                    result = await self.work(exchange, number)
                except ServerGoneError as error:
                    heapq.heappush(self._returned, number)
                    self._lose(server, error)
                except TimeoutError:
                    self._fail(self._too_late())
                except Exception as error:
                    self._fail(error)
                else:
                    self._hand_over(number, result)
                self._moved.set()

    async def _take(self, server: Server) -> int | None:
        """Return the least number that waits; None when there is nothing left to do here."""
        while not server.stop.is_set() and len(self._done) < self.count:
            if self._returned:
                return heapq.heappop(self._returned)
            if self._next < min(self.count, self._first_open + self._room):
                self._next += 1
                return self._next - 1
            self._moved.clear()
            await self._moved.wait()
        return None

    def _lose(self, server: Server, error: ServerGoneError) -> None:
        """Go on without a server; the first of its workers to notice says so."""
        if server.stop.is_set():
            return
        server.stop.set()
        self.left.remove(server.config)
        if self.left:
            hosts = ", ".join(config.host for config in self.left)
            _log.warning("%s: what it had to do goes to %s", error, hosts)
        elif len(self.configs) > 1:
            self._fail(ModelError(f"none of {len(self.configs)} servers is left; the last one: {error}"))
        else:
            self._fail(error)
        for other in self._servers:
            other.has_others = len(self.left) > 1

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error  # what others run into because of it is no news
        for server in self._servers:
            server.stop.set()

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
