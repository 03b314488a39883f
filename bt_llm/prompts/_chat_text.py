"""A conversation as text, in the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bt_llm.exceptions import PromptError
from bt_llm.models import ModelIdentity, render_chat

__all__ = ["chat_text"]


def chat_text(identity: ModelIdentity, messages: Sequence[Mapping[str, str]]) -> str:
    r"""Return the text of a conversation in the model's own chat template, open for its answer.

    A model without a chat template gets plain text: the contents, a blank line between turns and none
    after a question. Templates that print today's date print one that never changes, and where one opens a
    thought, it is over before the answer begins; see `render_chat`.

    Parameters
    ----------
    identity : ModelIdentity
        Carries the template and the special tokens that it refers to.
    messages : sequence of mapping
        ``{"role": "system" | "user" | "assistant", "content": text}``.

    Raises
    ------
    PromptError
        If the model's template cannot be rendered.

    Examples
    --------
    >>> plain = ModelIdentity(name="base", sha256="0" * 64)
    >>> chat_text(plain, [{"role": "user", "content": "Trend: up"}])
    'Trend: up\n'
    """
    if not identity.chat_template:
        ends = {"system": "\n\n", "user": "\n", "assistant": "\n\n"}
        return "".join(m["content"] + ends.get(m["role"], "\n") for m in messages)
    tokens = {"bos_token": identity.bos_token, "eos_token": identity.eos_token}
    try:
        return render_chat(identity.chat_template, messages, thinking=False, **tokens)
    except PromptError as error:
        raise PromptError(f"model {identity.name!r}: {error}; use another GGUF of it") from error
