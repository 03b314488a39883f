"""Wire: HTTP/1.1 over one connection, as h11 reads it; nothing is retried, followed or decompressed.

A general client does ten times as much for each request as bt_llm needs of it, which with many connections is
what the processor is busy with. Here a request is one write, and a reply is read until it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bt_llm.exceptions import MissingExtraError

if TYPE_CHECKING:
    import h11

__all__ = ["BrokenError", "Response", "TooLongError", "Wire", "import_h11", "tls_context"]

_READ_BYTES = 65_536


class BrokenError(Exception):
    """A connection that failed, in a way that another attempt may not; `refused` if there never was one."""

    def __init__(self, problem: str, *, refused: bool = False) -> None:
        super().__init__(problem)
        self.refused = refused


class TooLongError(Exception):
    """A reply that is longer than it may be."""


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers (names in lower case; of one that is repeated, the last) and body."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def import_h11() -> Any:
    """Return the module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import h11
    except ImportError as error:
        raise MissingExtraError("remote models need h11: pip install 'bt-llm[remote]'") from error
    return h11


def tls_context(url: str) -> ssl.SSLContext | None:
    """Return what checks the certificate of an address, or None for plain HTTP; SSL_CERT_FILE is obeyed.

    Reading the certificates of all authorities takes a while, so a context is made once and shared.
    """
    return ssl.create_default_context() if url.startswith("https:") else None


class Wire:
    """One connection to a server, opened when it is first needed and again when it was closed.

    Parameters
    ----------
    url : str
        An address of the server; only its scheme, host and port are used.
    context : ssl.SSLContext or None
        What `tls_context` says of the address.
    headers : mapping
        Sent with every request.
    timeout_s : float
        Seconds without a byte after which a connection is broken.
    max_bytes : int
        Longest body of a reply.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        max_bytes: int,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if context is None else 443)
        self._context, self._timeout_s, self._max_bytes = context, timeout_s, max_bytes
        self._headers = [("Host", parts.netloc), *headers.items()]
        self._h11 = import_h11()
        self._protocol: h11.Connection | None = None

    async def request(self, target: str, body: bytes | None) -> Response:
        """Send a request, a GET without a body and a POST with one, and return the reply.

        Raises
        ------
        BrokenError
            If the connection fails.
        TooLongError
            If the body is longer than ``max_bytes``.
        ssl.SSLError
            If there is no trust.
        """
        try:
            if self._protocol is None or self._reader.at_eof():
                await self._open()
            response = await self._ask(target, body)
        except BaseException:
            await self.close()
            raise
        if (
            self._protocol is not None
            and self._protocol.our_state is self._protocol.their_state is self._h11.DONE
        ):
            self._protocol.start_next_cycle()
        else:
            await self.close()
        return response

    async def _open(self) -> None:
        await self.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise self._silent() from None
        except ssl.SSLError:
            raise
        except OSError:
            raise BrokenError("cannot connect", refused=True) from None
        self._protocol = self._h11.Connection(self._h11.CLIENT)

    async def _ask(self, target: str, body: bytes | None) -> Response:
        assert self._protocol is not None
        try:
            self._writer.write(self._encoded(self._protocol, target, body))
            async with asyncio.timeout(self._timeout_s):
                await self._writer.drain()
            return await self._reply(self._protocol)
        except TimeoutError:
            raise self._silent() from None
        except ssl.SSLError:
            raise
        except (OSError, self._h11.RemoteProtocolError):
            raise BrokenError("the connection broke") from None

    def _encoded(self, protocol: h11.Connection, target: str, body: bytes | None) -> bytes:
        headers = self._headers if body is None else [*self._headers, ("Content-Length", str(len(body)))]
        request = self._h11.Request(method="GET" if body is None else "POST", target=target, headers=headers)
        pieces = [protocol.send(request)]
        if body is not None:
            pieces.append(protocol.send(self._h11.Data(data=body)))
        pieces.append(protocol.send(self._h11.EndOfMessage()))
        return b"".join(piece for piece in pieces if piece)

    async def _reply(self, protocol: h11.Connection) -> Response:
        status, headers, content = 0, {}, bytearray()
        while True:
            event = protocol.next_event()
            if event is self._h11.NEED_DATA:
                async with asyncio.timeout(self._timeout_s):
                    protocol.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, self._h11.Data):
                content += event.data
                if len(content) > self._max_bytes:
                    raise TooLongError
            elif isinstance(event, self._h11.Response):
                status = event.status_code
                headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, self._h11.EndOfMessage):
                return Response(status, headers, bytes(content))
            elif not isinstance(event, self._h11.InformationalResponse):
                raise BrokenError("the connection broke")  # it was closed before the reply

    def _silent(self) -> BrokenError:
        return BrokenError(f"no answer for {self._timeout_s:g} s")

    async def close(self) -> None:
        """Close the connection, if there is one; it opens again when it is needed."""
        if self._protocol is None:
            return
        self._protocol = None
        self._writer.transport.abort()  # nothing is under way, and a server may be slow to say goodbye
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
