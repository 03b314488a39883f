"""One server while a call lasts: requests that are retried, and replies that are read or refused."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from typing import TYPE_CHECKING, Any

from bt_llm import plain_text
from bt_llm.exceptions import MissingExtraError, ModelError
from bt_llm.models.openai._config import RemoteConfig
from bt_llm.models.openai._keys import ApiKey, no_key_hint
from bt_llm.models.openai._pauses import backoff, retry_after
from bt_llm.models.openai._replies import RefusedError, ReplyError, ServerGoneError, read_json, refusal

if TYPE_CHECKING:
    import httpx

__all__ = ["Server", "import_httpx"]

_log = plain_text.logger("bt_llm.remote")

_FEW_RETRIES = 3
"""Of the first questions, so that a wrong address is soon noticed, and where others can do the work."""

_LOADING = 503
"""Status of llama.cpp's server while it loads its model, which may take long."""

_NO_API = "; is it an OpenAI-compatible API?"

_IN_A_ROW = 2
"""Requests at a time to a server that computes one by one: the next is there when one is answered."""


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
        httpx = import_httpx()
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
        httpx, config = import_httpx(), self.config
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
        httpx, config = import_httpx(), self.config
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
        if isinstance(error, httpx.TimeoutException):
            return f"no answer for {self.config.timeout_s:g} s"
        return "cannot connect" if isinstance(error, httpx.ConnectError) else "the connection broke"


def import_httpx() -> Any:
    """Return httpx; a MissingExtraError says how to install it."""
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("remote models need httpx: pip install 'bt-llm[remote]'") from error
    return httpx
