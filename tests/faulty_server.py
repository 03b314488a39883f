"""An OpenAI-compatible server on loopback that goes wrong on purpose, and knows what it was asked.

Run as a program, it serves until its standard input ends: ``python faulty_server.py --delay 0.05``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import math
import random
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["LABELS", "WORDS", "Fault", "FaultyServer", "probabilities", "random_faults"]

LABELS = (" Bullish", " Neutral", " Bearish")
WORDS = ("Bullish", "Neutral", "Bearish")

Fault = Callable[[int, str], str | None]
"""From the number of a request and its prompt to the name of what goes wrong, or None."""

HUGE = 6 * 2**20

_ERRORS: dict[str, Any] = {
    "200 text": {"error": "the model crashed"},
    "200 object": {"object": "error", "message": "no such adapter", "code": 40301},
    "200 400": {"error": {"message": "no logprobs here", "code": 400}},
    "200 401": {"error": {"message": "who is it?", "code": 401}},
    "200 503": {"error": {"message": "overloaded", "code": 503}},
    "200 choice": {
        "choices": [
            {"message": {"content": ""}, "finish_reason": "error", "error": {"message": "cut", "code": 502}}
        ]
    },
}
"""Errors in replies of status 200, as gateways send them: by the name of the fault."""


def probabilities(prompt: str) -> tuple[float, float, float]:
    """What the server's model thinks: a function of the prompt; nine tenths fall on the labels."""
    digest = hashlib.sha256(prompt.encode()).digest()
    weights = [1 + byte for byte in digest[:3]]
    return tuple(0.9 * weight / sum(weights) for weight in weights)  # type: ignore[return-value]


def random_faults(share: float, seed: int) -> Fault:
    """Fail that share of the requests, in ways that a retry cures."""
    rng, lock = random.Random(seed), threading.Lock()

    def fault(_number: int, _prompt: str) -> str | None:
        with lock:
            return rng.choice(["429", "500", "503", "cut", "drop"]) if rng.random() < share else None

    return fault


class FaultyServer:
    """Serves on loopback inside a ``with``; `asked` and `answered` count prompts.

    `tokens` cuts the labels into what the model's tokens are; `endpoints` are those it has.
    """

    def __init__(
        self,
        fault: Fault = lambda _number, _prompt: None,
        *,
        endpoints: tuple[str, ...] = ("completions", "chat", "json_schema"),
        tokens: Mapping[str, tuple[str, ...]] | None = None,
        models: tuple[str, ...] = ("small",),
        most_tokens: int = 1000,
        delay_s: float = 0.0,
        retry_after: str = "0.05",
        props: Mapping[str, Any] | None = None,
        context: ssl.SSLContext | None = None,
        meta: Mapping[str, Any] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.fault, self.endpoints, self.models, self.props = fault, endpoints, models, props
        self.tokens, self.meta, self.dead = dict(tokens or {}), dict(meta or {}), False
        self.most_tokens, self.delay_s, self.retry_after = most_tokens, delay_s, retry_after
        self.asked: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()
        self.times: list[float] = []
        self.payloads: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.authorizations: set[str | None] = set()
        self.connections = 0
        self.at_once = self._now = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            server_of = owner

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # the usual 5 makes clients that connect at once wait for a second
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self._http = Server((host, 0), Handler)
        self._http.daemon_threads = False
        self.over = threading.Event()
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "https" if context is not None else "http"
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{shown}:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FaultyServer:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def die(self) -> None:
        """Answer nobody from now on, and let nobody connect."""
        self.dead = True
        self._http.shutdown()
        self._http.socket.close()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        with self.lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            yield
        finally:
            with self.lock:
                self._now -= 1

    def top(self, prompt: str, count: int) -> dict[str, float]:
        """The most probable next tokens."""
        begun = next((b for t in self.tokens.values() for b in _beginnings(t) if prompt.endswith(b)), "")
        before = prompt.removesuffix(begun)
        found: collections.Counter[str] = collections.Counter()
        for label, chance in zip(LABELS, probabilities(before), strict=True):
            tokens = self.tokens.get(label, (label,))
            if not begun:
                found[tokens[0]] += chance
            elif label.startswith(begun) and label != begun:
                found[tokens[1]] += chance
        total = sum(found.values()) if begun else 1.0
        logprobs = {
            token: math.log(chance / total * (0.95 if begun else 1)) for token, chance in found.items()
        }
        logprobs |= {" the": math.log(0.03), " a": math.log(0.01), ",": math.log(0.005)}
        return dict(sorted(logprobs.items(), key=lambda item: -item[1])[:count])


def _beginnings(tokens: tuple[str, ...]) -> list[str]:
    return ["".join(tokens[:i]) for i in range(1, len(tokens))]


class _Handler(BaseHTTPRequestHandler):
    server_of: FaultyServer
    busy = contextlib.ExitStack()  # of the request that is being answered
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet a reply
    timeout = 20

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        with self.server_of.lock:
            self.server_of.connections += 1

    def do_GET(self) -> None:
        server = self.server_of
        self._note("")
        if self.path == "/v1/models" and "models redirect" in server.endpoints:
            self._send(307, b"", {"Location": "http://127.0.0.1:1/v1/models"})
        elif self.path == "/v1/models":
            entries = [
                {"id": name, "object": "model", "created": time.time(), "meta": server.meta}
                for name in server.models
            ]
            self._json(200, {"object": "list", "data": entries})
        elif self.path == "/props" and server.props is not None:
            self._json(200, server.props)
        else:
            self._json(404, {"error": {"message": f"no {self.path}"}})

    def do_POST(self) -> None:
        server, started = self.server_of, time.monotonic()
        if server.dead:
            self.close_connection = True
            return
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = payload["prompt"] if "prompt" in payload else payload["messages"][-1]["content"]
        with contextlib.ExitStack() as self.busy:
            self.busy.enter_context(server.busy())
            number = self._note(prompt, payload)
            fault = server.fault(number, prompt)
            answer = self._answer(payload, prompt) if fault is None else None
            time.sleep(max(0.0, started + server.delay_s - time.monotonic()))
            if server.dead:  # since it was asked
                self.close_connection = True
            elif fault is None:
                with server.lock:  # before who asked can know of it
                    server.answered[prompt] += 1
                self._json(200, answer)
            else:
                self._go_wrong(fault, payload, prompt)

    def _note(self, prompt: str, payload: dict[str, Any] | None = None) -> int:
        server = self.server_of
        with server.lock:
            server.paths.append(self.path)
            server.authorizations.add(self.headers.get("Authorization"))
            if payload is None:
                return -1
            server.asked[prompt] += 1
            server.times.append(time.monotonic())
            server.payloads.append(payload)
            return len(server.times) - 1

    def _answer(self, payload: dict[str, Any], prompt: str) -> Any:
        server = self.server_of
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": 1}
        if payload["model"] not in server.models:
            raise _RefusedError(404, f"The model {payload['model']!r} does not exist")
        form = payload.get("response_format")
        if form is not None:
            if form["type"] not in server.endpoints:
                raise _RefusedError(422, f"no {form['type']}")
            text = json.dumps({"verdict": WORDS[0], "confidence": 70})
            return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage}
        kind = "chat" if "messages" in payload else "completions"
        if kind not in server.endpoints:
            raise _RefusedError(404, f"no {kind}")
        count = payload["top_logprobs"] if kind == "chat" else payload["logprobs"]
        if count > server.most_tokens:
            raise _RefusedError(400, f"at most {server.most_tokens} logprobs")
        top = server.top(prompt, count)
        if kind == "completions":
            choice: dict[str, Any] = {"text": next(iter(top)), "logprobs": {"top_logprobs": [top]}}
        else:
            entries = [{"token": token, "logprob": value, "bytes": None} for token, value in top.items()]
            choice = {
                "message": {"content": next(iter(top))},
                "logprobs": {"content": [{**entries[0], "top_logprobs": entries}]},
            }
        return {"choices": [{**choice, "finish_reason": "length"}], "usage": usage}

    def _go_wrong(self, fault: str, payload: dict[str, Any], prompt: str) -> None:
        server = self.server_of
        secret = str(self.headers.get("Authorization"))
        if fault == "429":
            self._json(429, {"error": {"message": "too many"}}, {"Retry-After": server.retry_after})
        elif fault.isdigit():
            self._json(int(fault), {"error": {"message": f"fault {fault}"}})
        elif fault == "cut":
            body = json.dumps(self._answer(payload, prompt)).encode()
            self._send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        elif fault == "hang":
            server.over.wait(120)
            self.close_connection = True
        elif fault == "drip":
            self._send(200, b"", {"Content-Length": "1000"})
            for _ in range(40):
                with contextlib.suppress(OSError):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                time.sleep(0.05)
            self.close_connection = True
        elif fault == "redirect":
            self._send(307, b"", {"Location": "http://127.0.0.1:1/elsewhere"})
        elif fault == "huge":
            self._send(200, b"[" + b"1," * (HUGE // 2) + b"1]")
        elif fault == "gzip":
            self._send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
        elif fault == "not json":
            self._send(200, b"<html>Welcome</html>")
        elif fault == "nan":
            self._send(200, b'{"choices": [{"logprobs": {"top_logprobs": [{" Bullish": NaN}]}}]}')
        elif fault == "deep":
            self._send(200, b"[" * 100_000)
        elif fault == "no logprobs":
            self._json(200, {"choices": [{"text": " Bullish", "logprobs": None}]})
        elif fault == "wrong labels":
            self._json(200, {"choices": [{"logprobs": {"top_logprobs": [{" Buy": -0.1, " Sell": -3.0}]}}]})
        elif fault == "positive":
            self._json(200, {"choices": [{"logprobs": {"top_logprobs": [{" Bullish": 0.7}]}}]})
        elif fault == "too much":
            self._json(200, {"choices": [{"logprobs": {"top_logprobs": [{" Bullish": -0.1, "b": -0.1}]}}]})
        elif fault == "no choices":
            self._json(200, {"choices": []})
        elif fault.startswith("200 "):
            self._json(200, _ERRORS[fault])
        elif fault == "echo key in 200":
            self._json(200, {"error": {"message": f"wrong key {secret}", "code": 401}})
        elif fault == "echo key in error":
            self._json(400, {"error": {"message": f"wrong key {secret}"}}, {"X-Key": secret})
        elif fault == "echo key in reply":
            self._json(200, {**self._answer(payload, prompt), "note": secret}, {"X-Key": secret})
        elif fault == "echo key in garbage":
            self._send(200, f"oops {secret}".encode())
        else:
            raise AssertionError(fault)

    def _json(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.busy.close()  # before who asked can ask the next
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except _RefusedError as refused:
            self._json(refused.status, {"error": {"message": refused.message}})
        except OSError:
            self.close_connection = True


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


def main() -> None:
    """Serve until standard input ends; print the address first, and at the end what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each reply")
    parser.add_argument("--fail", type=float, default=0.0, help="share of requests that fail")
    chosen = parser.parse_args()
    with FaultyServer(random_faults(chosen.fail, seed=1), delay_s=chosen.delay) as server:
        print(server.url, flush=True)  # noqa: T201
        sys.stdin.read()
        counts = {"requests": len(server.times), "connections": server.connections, "at_once": server.at_once}
        print(json.dumps(counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
