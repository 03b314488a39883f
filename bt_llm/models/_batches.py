"""batch_analyze: many prompts, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bt_llm.exceptions import ConfigError
from bt_llm.progress import current, shows_progress
from bt_llm.settings import several

__all__ = ["TextModel", "batch_analyze"]


class TextModel(Protocol):
    """Something that writes text after a prompt, as `LlamaModel` does."""

    def generate(self, prompt: str, **overrides: Any) -> str:
        """Return what the model writes."""
        ...


@shows_progress("prompts")
def batch_analyze(model: TextModel, prompts: Sequence[str], **overrides: Any) -> list[str]:
    """Return the model's text after each prompt, in their order.

    Parameters
    ----------
    model : TextModel
        Such as a loaded `LlamaModel`.
    prompts : sequence of str
        Each is answered on its own: no answer depends on the others.
    **overrides
        As in `LlamaModel.generate`, for every prompt.

    Examples
    --------
    >>> class Echo:
    ...     def generate(self, prompt, **overrides):
    ...         return prompt.upper()
    >>> batch_analyze(Echo(), ["gold up", "oil down"])
    ['GOLD UP', 'OIL DOWN']
    """
    prompts = several("prompts", prompts, "texts")
    if not callable(getattr(model, "generate", None)):
        raise ConfigError(f"model={model!r:.60}: expected one that generates, such as a loaded LlamaModel")
    told, found = current("prompts"), []
    for prompt in prompts:
        found.append(model.generate(prompt, **overrides))
        if told is not None:
            told(len(found), len(prompts))
    return found
