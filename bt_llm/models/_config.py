"""ModelConfig: how a local model is loaded and sampled."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from bt_llm.exceptions import ConfigError
from bt_llm.settings import is_number, make_plain, python_scalar

__all__ = ["ModelConfig"]

_POSITIVE = {"n_ctx", "n_threads", "max_tokens"}
_RANGES: dict[str, tuple[float, float]] = {
    "n_gpu_layers": (-1, 10_000),  # -1: all of them, as in llama.cpp
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_000_000),  # 0: off, as in llama.cpp
    "repeat_penalty": (0.01, 10.0),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How a local GGUF model is loaded, and the defaults of its sampling.

    Parameters
    ----------
    model_path : str or path
        A GGUF file, a name in `models/`, or ``smollm2``.
    n_ctx : int
        Context window, in tokens.
    n_threads : int or None
        CPU threads. More than there are cores makes it slower; None is one a physical core.
    n_gpu_layers : int
        Layers kept on the GPU; 0 is CPU only, -1 is all.
    temperature, top_p, top_k, repeat_penalty : float, float, int, float
        Sampling of `LlamaModel.generate` and `chat`, as llama.cpp defines them. Verdicts do not
        use them: those are read from probabilities, without sampling.
    max_tokens : int
        Longest answer, in tokens.
    seed : int
        Of the sampling, so that the same call gives the same text.
    verbose : bool
        Let llama.cpp write its log to standard error.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of its range.

    Examples
    --------
    >>> ModelConfig(n_ctx=1024).n_ctx
    1024
    >>> ModelConfig(n_ctx=-1)
    Traceback (most recent call last):
    bt_llm.exceptions.ConfigError: n_ctx=-1: expected a whole number of at least 1
    """

    model_path: str | os.PathLike[str] = "models/llama-3.2-1b.gguf"
    n_ctx: int = 2048
    n_threads: int | None = 4
    n_gpu_layers: int = 0
    temperature: float = 0.7
    max_tokens: int = 512
    top_p: float = 0.9
    top_k: int = 40
    repeat_penalty: float = 1.1
    seed: int = 0
    verbose: bool = False

    def __post_init__(self) -> None:
        """Check every field, once."""
        make_plain(self)
        if not isinstance(self.model_path, str | os.PathLike) or not os.fspath(self.model_path):
            raise ConfigError(f"model_path={self.model_path!r}: expected a path or a model's name")
        if not isinstance(self.verbose, bool):
            raise ConfigError(f"verbose={self.verbose!r}: expected True or False")
        for name in ("n_ctx", "n_threads", "n_gpu_layers", "max_tokens", "top_k", "seed"):
            value = getattr(self, name)
            if name == "n_threads" and value is None:
                continue
            if type(value) is not int or (name in _POSITIVE and value < 1):
                least = " of at least 1" if name in _POSITIVE else ""
                raise ConfigError(f"{name}={value!r}: expected a whole number{least}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not is_number(value) or not low <= value <= high:
                raise ConfigError(f"{name}={value!r}: expected a number from {low:g} to {high:g}")

    @classmethod
    def recommended(cls, available_mb: float, **overrides: Any) -> ModelConfig:
        """Return the configuration for a machine with that much memory.

        Parameters
        ----------
        available_mb : float
            Memory of the machine in MB. 4 GB: Llama 3.2 1B with 1,024 tokens and 2 threads; 8 GB: 3B
            with 2,048 and 4; 16 GB and up: 3B with 4,096, 8 threads and a temperature of 0.6. A
            machine sold as 8 or 16 GB reports a little less, so the steps are at 7 and 15 GB.
        **overrides
            Fields to set otherwise.

        Examples
        --------
        >>> ModelConfig.recommended(8 * 1024).model_path
        'models/llama-3.2-3b.gguf'
        """
        available_mb = python_scalar(available_mb)
        if not is_number(available_mb) or available_mb < 0:
            raise ConfigError(f"available_mb={available_mb!r}: expected a number of at least 0")
        one_b, three_b = "models/llama-3.2-1b.gguf", "models/llama-3.2-3b.gguf"
        if available_mb < 7 * 1024:
            chosen: dict[str, Any] = {"model_path": one_b, "n_ctx": 1024, "n_threads": 2}
        elif available_mb < 15 * 1024:
            chosen = {"model_path": three_b, "n_ctx": 2048, "n_threads": 4}
        else:
            chosen = {"model_path": three_b, "n_ctx": 4096, "n_threads": 8, "temperature": 0.6}
        return cls(**(chosen | overrides))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(f.name for f in fields(cls))
