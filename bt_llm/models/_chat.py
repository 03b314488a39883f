"""Chat templates of models: Jinja from an untrusted file, rendered in a sandbox and without a clock."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bt_llm.exceptions import ConfigError, PromptError

__all__ = ["ROLES", "check_messages", "render_chat"]

ROLES = ("system", "user", "assistant")


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
    template: str, messages: Sequence[Mapping[str, str]], *, bos_token: str, eos_token: str
) -> str:
    """Return the text of a conversation, open for the assistant's answer.

    Templates that print today's date get no clock, and print the date built into them.

    Parameters
    ----------
    template : str
        Jinja source, as a GGUF carries it.
    messages : sequence of mapping
        As `check_messages` returns them.
    bos_token, eos_token : str
        Texts that the template refers to.

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
    try:
        return _compiled(template).render(
            messages=messages, bos_token=bos_token, eos_token=eos_token, add_generation_prompt=True
        )
    except (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as error:
        raise PromptError(f"the model's chat template cannot be rendered: {error}") from error


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    # The options that model makers write their templates for; undefined variables are empty there.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    return environment.from_string(source)
