"""What is said for one call of `generate` or `chat`, checked against what can be said."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from bt_llm.exceptions import ConfigError
from bt_llm.models._config import ModelConfig
from bt_llm.settings import is_number, python_scalar

__all__ = ["call_settings"]

_SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "repeat_penalty", "seed")
_OVERRIDES = (*_SAMPLING, "stop", "timeout_s")


def call_settings(
    config: ModelConfig, overrides: Mapping[str, Any]
) -> tuple[ModelConfig, list[str], float | None]:
    """Return the sampling of a call, the texts to stop before, and the seconds to give up after.

    Raises
    ------
    ConfigError
        For an unknown override, naming a near one, or a bad value.
    """
    for name in overrides:
        if name not in _OVERRIDES:
            near = difflib.get_close_matches(name, _OVERRIDES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown option {name!r}{hint} (options: {', '.join(_OVERRIDES)})")
    stop, timeout_s = overrides.get("stop", []), python_scalar(overrides.get("timeout_s"))
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, Sequence) or not all(isinstance(text, str) and text for text in stop):
        raise ConfigError(f"stop={stop!r}: expected a text, or a list of texts")
    if timeout_s is not None and not (is_number(timeout_s) and timeout_s > 0):
        raise ConfigError(f"timeout_s={timeout_s!r}: expected a number of seconds above 0")
    sampling = {name: overrides[name] for name in _SAMPLING if name in overrides}
    return dataclasses.replace(config, **sampling), list(stop), timeout_s
