"""Servers on loopback that answer in the documented shapes of those that people use.

A shape is a function of (method, path with query, headers, body) to a status and a document.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Shape = Callable[[str, str, Mapping[str, str], Any], tuple[int, Any]]

CHAT = {"Bull": 0.4, "Bear": 0.3, "Ne": 0.15, "The": 0.1, "**": 0.02}
"""What an answer begins with; a twentieth is out of sight."""
TEXT = {" Bullish": 0.5, " Bearish": 0.2, " Neutral": 0.2, " The": 0.05}
WRITTEN = '{"verdict": "Bullish", "confidence": 70}'


class ShapedServer:
    """Serves a shape inside a ``with``; `log` has each request as (method, path, headers, body).

    `at_once` is the most requests that came at a time.
    """

    def __init__(self, shape: Shape) -> None:
        self.log: list[tuple[str, str, dict[str, str], Any]] = []
        self.at_once = self._now = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = (self.command, self.path, dict(self.headers), json.loads(raw) if raw else None)
                owner.log.append(request)
                owner.count(1)
                time.sleep(0.002)
                status, document = shape(*request)
                owner.count(-1)
                body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def count(self, change: int) -> None:
        with self._lock:
            self._now += change
            self.at_once = max(self.at_once, self._now)

    def __enter__(self) -> ShapedServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def asked(self, path: str) -> list[Any]:
        """The bodies of the requests to a path."""
        return [body for _method, where, _headers, body in self.log if where.partition("?")[0] == path]


def error(status: int, message: str, **more: Any) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "invalid_request_error", **more}}


def listed(*names: str, owner: str = "somebody", **more: Any) -> tuple[int, Any]:
    entries = [
        {"id": name, "object": "model", "created": 1730000000, "owned_by": owner, **more} for name in names
    ]
    return 200, {"object": "list", "data": entries}


def _entries(chances: Mapping[str, float], count: int) -> list[dict[str, Any]]:
    pairs = sorted(chances.items(), key=lambda pair: -pair[1])[:count]
    return [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in pairs]


def chat_reply(
    body: Any, chances: Mapping[str, float] | None = CHAT, text: str = WRITTEN, **more: Any
) -> Any:
    """A chat completion with log-probabilities of these chances; None for a reply without."""
    logprobs = None
    if chances is not None:
        top = _entries(chances, body["top_logprobs"])
        logprobs = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": logprobs,
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 1}
    return {
        "object": "chat.completion",
        "model": body.get("model", ""),
        "choices": [choice],
        "usage": usage,
        **more,
    }


def text_reply(body: Any, chances: Mapping[str, float] | None = TEXT, **more: Any) -> Any:
    """A completion in OpenAI's older shape."""
    logprobs = None
    if chances is not None:
        top = {entry["token"]: entry["logprob"] for entry in _entries(chances, body["logprobs"])}
        first = next(iter(top))
        logprobs = {"tokens": [first], "token_logprobs": [top[first]], "top_logprobs": [top]}
    choice = {"index": 0, "text": " ", "logprobs": logprobs, "finish_reason": "length"}
    return {"object": "text_completion", "model": body.get("model", ""), "choices": [choice], **more}


def ollama(
    digest: str = "a" * 64, version: str = "0.13.5", chances: Mapping[str, float] = CHAT, **extra: Any
) -> Shape:
    """Ollama: no log-probabilities of its OpenAI-like completions; those of its own chat since 0.12.11."""

    def shape(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if path == "/api/version":
            return 200, {"version": version}
        if path == "/api/tags":
            names = ("llama3.2:1b", "qwen3:latest")
            entries = [{"name": n, "model": n, "size": 7, "digest": digest, **extra} for n in names]
            return 200, {"models": entries}
        if path == "/v1/models":
            return listed("llama3.2:1b", "qwen3:latest", owner="library")
        if method == "GET":
            return 404, "404 page not found"
        if body["model"] not in ("llama3.2:1b", "qwen3:latest"):
            return 404, {"error": f"model '{body['model']}' not found"}
        if path == "/v1/completions":
            return 200, text_reply(body, None, system_fingerprint="fp_ollama")
        if path == "/v1/chat/completions":
            if body.get("top_logprobs", 0) > 20:
                return error(400, "top_logprobs must be between 0 and 20")
            return 200, chat_reply(body, chances if "top_logprobs" in body else None)
        if path != "/api/chat":
            return 404, "404 page not found"
        reply: dict[str, Any] = {"model": body["model"], "done": True, "done_reason": "length"}
        reply |= {"prompt_eval_count": 9, "eval_count": 1, "message": {"role": "assistant", "content": "x"}}
        if "format" in body:
            return 200, {
                **reply,
                "done_reason": "stop",
                "message": {"role": "assistant", "content": WRITTEN},
            }
        if version >= "0.12.11":
            top = _entries(chances, body["top_logprobs"])
            reply["logprobs"] = [{**top[0], "top_logprobs": top}]
        return 200, reply

    return shape


def vllm(name: str) -> Shape:
    """vLLM: twenty log-probabilities at most, of both endpoints."""

    def shape(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return listed(name, owner="vllm", root=name, max_model_len=4096)
        if method == "GET":
            return 404, {"detail": "Not Found"}
        count = body.get("top_logprobs") if "messages" in body else body.get("logprobs")
        if count > 20:
            message = f"Requested sample logprobs of {count}, which is greater than max allowed: 20"
            return 400, {"object": "error", "message": message, "type": "BadRequestError", "code": 400}
        if "messages" not in body:
            return 200, text_reply(body)
        goes_on = body.get("continue_final_message", False)
        if goes_on and body.get("add_generation_prompt", True):
            return 400, {"object": "error", "message": "Cannot set both", "code": 400}
        return 200, chat_reply(body, TEXT if goes_on else CHAT)

    return shape


def openai_api(method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """OpenAI's own: chat models, one for completions, and reasoning models that refuse what others take."""
    if "Authorization" not in headers:
        return error(401, "You didn't provide an API key.")
    if path == "/v1/models":
        return listed("gpt-4o-mini", "o3-mini", "gpt-3.5-turbo-instruct")
    if method == "GET":
        return error(404, f"Invalid URL (GET {path})")
    model = body["model"]
    if path == "/v1/completions":
        if model != "gpt-3.5-turbo-instruct":
            return error(404, "This is a chat model and not supported in the v1/completions endpoint.")
        return (200, text_reply(body)) if body["logprobs"] <= 5 else error(400, "logprobs: at most 5")
    if model == "gpt-3.5-turbo-instruct":
        return error(404, "This is not a chat model.")
    if model == "o3-mini":
        if "max_tokens" in body:
            return error(
                400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="x"
            )
        if "temperature" in body:
            return error(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")
        if body.get("logprobs"):
            return error(403, "You are not allowed to request logprobs from this model")
        return 200, chat_reply(body, None)
    if body.get("top_logprobs", 0) > 20:
        return error(400, "Invalid value for 'top_logprobs': must be less than or equal to 20.")
    return 200, chat_reply(body, CHAT if body.get("logprobs") else None)


def lm_studio(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """LM Studio: no log-probabilities, which it ignores in silence; unknown addresses answer 200."""
    if path == "/v1/models":
        return listed("llama-3.2-1b-instruct", owner="organization_owner")
    if method == "GET" or path not in ("/v1/completions", "/v1/chat/completions"):
        return 200, {"error": f"Unexpected endpoint or method. ({method} {path})"}
    if path == "/v1/completions":
        return 200, text_reply(body, None)
    if body.get("response_format", {}).get("type") == "json_object":
        return 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}
    return 200, chat_reply(body, None, WRITTEN if "response_format" in body else "Bullish")


def openrouter(answers: str = "DeepInfra") -> Shape:
    """OpenRouter: hundreds of models, each at several providers, one of which each reply names."""

    def shape(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if path == "/api/v1/models":
            entries = [{"id": f"vendor/model-{i}", "description": "d" * 900} for i in range(400)]
            return 200, {"data": [*entries, {"id": "meta-llama/llama-3.2-1b-instruct"}]}
        if method == "GET" or "chat" not in path:
            return 404, "<!DOCTYPE html><html></html>"
        if body["top_logprobs"] > 20:
            return error(400, "top_logprobs: at most 20", code=400)
        return 200, chat_reply(body, provider=answers)

    return shape


def litellm(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """LiteLLM's gateway, with a wildcard in its list."""
    if path == "/v1/models":
        return listed("openai/*")
    if method == "GET":
        return 404, {"detail": "Not Found"}
    if path == "/v1/completions":
        return 200, text_reply(body, None)
    if body["top_logprobs"] > 20:
        return error(400, "litellm.BadRequestError: OpenAIException - Invalid 'top_logprobs'", code="400")
    return 200, chat_reply(body)


def together(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """Together: the list of models is a list alone, and chat's ``logprobs`` a number of at most 20."""
    if path == "/v1/models":
        return 200, [{"id": "meta/Llama-3-8b-chat-hf", "object": "model", "created": 1, "type": "chat"}]
    if method == "GET":
        return 404, {"error": {"message": "Not Found"}}
    if type(body.get("logprobs")) is not int:
        return error(422, "logprobs: expected an integer")
    if body["logprobs"] > 20:
        return error(422, "logprobs: must be at most 20")
    chances = CHAT if "messages" in body else TEXT
    reply = text_reply(body, chances)
    reply["choices"][0]["message"] = {"role": "assistant", "content": "Bull"}
    return 200, reply


def azure(method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """Azure: deployments have names of their own, which its list of base models does not have."""
    where, _, query = path.partition("?")
    if "api-key" not in headers and "Authorization" not in headers:
        return 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}
    if where == "/openai/v1/models":
        return listed("gpt-4o-2024-11-20", "gpt-4o-mini-2024-07-18")
    if where.startswith("/openai/deployments/mine") and query != "api-version=2024-10-21":
        return 404, {"error": {"code": "404", "message": "Resource not found"}}
    if method == "GET":
        return 404, {"error": {"code": "404", "message": "Resource not found"}}
    if "deployments" not in where and body["model"] != "mine":
        return 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}
    if "/chat/" not in where:
        return 400, {"error": {"code": "OperationNotSupported", "message": "No completion operation"}}
    if body["top_logprobs"] > 20:
        return error(400, "Invalid value for 'top_logprobs': must be less than or equal to 20.")
    return 200, {**chat_reply(body), "model": "gpt-4o-2024-11-20"}


def llama_cpp(
    *, template: str = "{{ messages[0].content }}", rendered: str | None = None, wobble: bool = False
) -> Shape:
    """llama.cpp's server; where it may batch prompts or keep a cache of them, its numbers wobble."""
    counts = iter(range(10**6))

    def shape(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return listed("small", owner="llamacpp", meta={"n_params": 7, "n_vocab": 9})
        if path == "/props":
            return 200, {
                "total_slots": 4,
                "chat_template": template,
                "bos_token": "<s>",
                "eos_token": "</s>",
            }
        if path == "/apply-template" and rendered is not None:
            return 200, {"prompt": rendered}
        if method == "GET" or path != "/v1/completions":
            return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
        alone = body.get("cache_prompt") is False and body.get("id_slot") == 0
        noise = 0.0 if alone and not wobble else 0.001 * (next(counts) % 7)
        top = _entries({**TEXT, " Bullish": 0.5 - noise}, body["logprobs"])
        reply = text_reply(body, None)
        reply["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return 200, reply

    return shape


def decisions(*, native: bool, coverage: float = 0.5) -> Shape:
    """A decision server; typed-gguf's own address tells besides what the words hold together."""

    def shape(method: str, path: str, _headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"models": [{"name": "small", "description": "4B", "release_date": "2026-09-01"}]}
        if path not in ("/v1/systemone", *(("/v1/decide",) if native else ())):
            return 404, {"detail": "Not Found"}
        wrong = set(body) - {"state", "model", "questions", *(("format",) if path == "/v1/decide" else ())}
        if wrong or not body["state"]:
            found = {"type": "extra_forbidden", "loc": ["body", *sorted(wrong)], "msg": "not permitted"}
            return 422, {"detail": [found]}
        answers: dict[str, Any] = {}
        for name, question in body["questions"].items():
            words = list(question["criteria"])
            chances = {word: (0.5 if i == 0 else 0.5 / (len(words) - 1)) for i, word in enumerate(words)}
            answers[name] = {
                "type": "choice",
                "choice": words[0],
                "confidence": 0.4,
                "probabilities": chances,
            }
            if path == "/v1/decide":
                answers[name]["coverage"] = coverage
        return 200, {"model": body["model"], "answers": answers, "usage": {"input_tokens": 9}}

    return shape
