"""Chat templates of models: Jinja from an untrusted file, rendered in a sandbox and without a clock."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser

from bt_llm.exceptions import ConfigError, PromptError
from bt_llm.models._sandbox import BoundedEnvironment
from bt_llm.models._thoughts import opened_answer

__all__ = ["ROLES", "check_messages", "render_chat"]

ROLES = ("system", "user", "assistant")
_DATE = datetime(2024, 7, 26)
_WORDS = {"%b": "Jul", "%B": "July", "%a": "Fri", "%A": "Friday"}  # of that day, whatever the locale


def _strftime_now(form: str) -> str:
    for code, word in _WORDS.items():
        form = form.replace(code, word)
    return _DATE.strftime(form)


_ASKED_FOR = {"strftime_now": _strftime_now, "datetime": "Jul 26 2024", "functions": ""}
"""What some templates fail without; the date as llama.cpp's server writes its own."""


def check_messages(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the messages as plain dicts.

    Raises
    ------
    ConfigError
        If there are none, or one is not ``{"role": "system" | "user" | "assistant", "content": text}``.

    Examples
    --------
    >>> check_messages([{"role": "usr", "content": "Hi"}])
    Traceback (most recent call last):
    bt_llm.exceptions.ConfigError: message 0: role 'usr', expected one of system, user, assistant
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise ConfigError("messages: expected a list of at least one {'role': ..., 'content': ...}")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise ConfigError(f"message {i}: expected exactly the keys 'role' and 'content'")
        if message["role"] not in ROLES:
            raise ConfigError(f"message {i}: role {message['role']!r}, expected one of {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise ConfigError(f"message {i}: content is {type(message['content']).__name__}, expected text")
    return [dict(message) for message in messages]


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    bos_token: str,
    eos_token: str,
    thinking: bool = True,
) -> str:
    r"""Return the text of a conversation, open for the assistant's answer.

    As llama.cpp's server renders it, without a clock: a template that asks for today's date in vain is told
    26 July 2024, the date that the templates of Llama 3 have built in. Where a template knows no system
    role, the system's words begin the first question.

    Parameters
    ----------
    template : str
        Jinja source, as a GGUF carries it.
    messages : sequence of mapping
        As `check_messages` returns them.
    bos_token, eos_token : str
        Texts that the template refers to.
    thinking : bool
        False has the answer begin where a thought would be over: templates that know `enable_thinking` are
        told so, and a thought that is open after that is closed as its family closes one.

    Raises
    ------
    PromptError
        If the template cannot be rendered, or refuses the messages.

    Examples
    --------
    >>> render_chat("{{ messages[0].content }}{{ eos_token }}", [{"role": "user", "content": "Hi"}],
    ...             bos_token="", eos_token="</s>")
    'Hi</s>'
    """
    values = {"bos_token": bos_token, "eos_token": eos_token, "add_generation_prompt": True}
    if not thinking:
        values |= {"enable_thinking": False}
    text = _with_system(template, list(messages), values)
    if thinking:
        return text
    return opened_answer(text, template, lambda turns: _with_system(template, turns, values))


def _with_system(template: str, messages: list[Mapping[str, str]], values: Mapping[str, Any]) -> str:
    """Render messages; where the system's words are refused or dropped, the next message begins with them."""
    refusal: PromptError | None = None
    merged = _merged(messages)
    try:
        text = _rendered(template, {**values, "messages": messages})
        if merged is None or messages[0]["content"].strip() in text:
            return text
    except PromptError as error:
        if merged is None:
            raise
        refusal = error
    try:
        return _rendered(template, {**values, "messages": merged})
    except PromptError as error:
        raise (refusal or error) from None


def _merged(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]] | None:
    """Return messages without a system's, the first question beginning with it; None where there is none."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    system, question, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n{question['content']}"}, *rest]


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    try:
        compiled = _compiled(template)
        try:
            return _SANDBOX.rendered(compiled, values)
        except jinja2.TemplateRuntimeError:  # none of these is given to a template that does without
            return _SANDBOX.rendered(compiled, {**_ASKED_FOR, **values})
    except jinja2.TemplateError as error:
        raise PromptError(f"the model's chat template cannot be rendered: {error}") from error


class _Generation(Extension):
    """The tag with which templates mark what a model wrote, for those who train it: renders what is in it."""

    tags = {"generation"}  # noqa: RUF012 - read only

    def parse(self, parser: Parser) -> list[Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _sandbox() -> BoundedEnvironment:
    # The options that model makers write their templates for; undefined variables are empty there.
    environment = BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    environment.bound()
    return environment


_SANDBOX = _sandbox()


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    return _SANDBOX.compiled(source)
