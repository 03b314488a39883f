"""One connection against a server whose every byte is written here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bt_llm.backends.remote_http import BrokenError, Response, TooLongError, Wire, tls_context

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}"


class Script:
    """Answers each request with the next text; an empty one, or the end of a list, closes the connection."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.left = list(connections)
        self.requests: list[bytes] = []
        self.opened = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for answer in self.left.pop(0):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                writer.write(answer)
                await writer.drain()
        writer.close()


def talk(script: Script, work: Callable[[Wire], Awaitable[Any]], **options: Any) -> Any:
    """Run work on a wire to that server."""

    async def main() -> Any:
        server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        settings = {"timeout_s": 5.0, "max_bytes": 100, **options}
        wire = Wire(url, tls_context(url), {"X-Key": "k"}, **settings)
        try:
            return await work(wire)
        finally:
            await wire.close()
            await wire.close()  # once more does no harm
            server.close()

    return asyncio.run(main())


def ask(count: int, pause_s: float = 0.0) -> Callable[[Wire], Awaitable[list[Response]]]:
    async def work(wire: Wire) -> list[Response]:
        responses = []
        for number in range(count):
            responses.append(await wire.request(f"/v1/{number}", b"[]"))
            await asyncio.sleep(pause_s)
        return responses

    return work


def test_one_connection_carries_all_requests() -> None:
    script = Script([OK, OK, OK])
    responses = talk(script, ask(3))
    assert [response.content for response in responses] == [b"{}"] * 3
    assert responses[0].headers["content-length"] == "2"
    assert script.opened == 1
    head, _, body = script.requests[1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-Key: k" in head
    assert body == b"[]"


def test_a_get_has_no_body() -> None:
    script = Script([OK])

    async def get(wire: Wire) -> Response:
        return await wire.request("/v1/models", None)

    assert talk(script, get).status == 200
    assert script.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"Content-Length" not in script.requests[0]


@pytest.mark.parametrize("answer", [OK, CLOSING, b"HTTP/1.0 200 OK\r\n\r\n{}"])
def test_a_connection_that_was_closed_is_opened_again(answer: bytes) -> None:
    script = Script([answer], [answer])
    responses = talk(script, ask(2, pause_s=0.05))  # so long that the end has arrived
    assert [response.content for response in responses] == [b"{}"] * 2
    assert script.opened == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
def test_other_forms_of_a_reply_are_read(answer: bytes) -> None:
    assert talk(Script([answer]), ask(1))[0].content == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_reply_is_a_broken_connection(answer: bytes) -> None:
    with pytest.raises(BrokenError, match="the connection broke") as caught:
        talk(Script([answer]), ask(1))
    assert not caught.value.refused


def test_after_a_broken_reply_the_next_one_is_not_mixed_with_it() -> None:
    script = Script([b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200], [OK])

    async def work(wire: Wire) -> Response:
        with pytest.raises(TooLongError):
            await wire.request("/v1/0", b"[]")
        return await wire.request("/v1/1", b"[]")

    assert talk(script, work).content == b"{}"


def test_nobody_there_and_nobody_speaking() -> None:
    async def nobody() -> None:
        await Wire("http://127.0.0.1:1", None, {}, timeout_s=5.0, max_bytes=100).request("/", None)

    with pytest.raises(BrokenError, match="cannot connect") as caught:
        asyncio.run(nobody())
    assert caught.value.refused
    silent = Script([b"HTTP/1.1 200 OK\r\n", OK])
    with pytest.raises(BrokenError, match=r"no answer for 0\.05 s"):
        talk(silent, ask(1), timeout_s=0.05)
