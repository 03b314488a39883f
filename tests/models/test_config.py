from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.models import LLMThrottler, ModelConfig


def test_defaults_are_those_of_the_specification() -> None:
    config = ModelConfig(model_path="models/llama-3.2-1b.gguf")
    assert [getattr(config, name) for name in ModelConfig.names()] == [
        "models/llama-3.2-1b.gguf", 2048, 4, 0, 0.7, 512, 0.9, 40, 1.1, 0, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("total_mb", "expected"),
    [
        (4096, ("models/llama-3.2-1b.gguf", 1024, 2, 0.7)),
        (0, ("models/llama-3.2-1b.gguf", 1024, 2, 0.7)),
        (8192, ("models/llama-3.2-3b.gguf", 2048, 4, 0.7)),
        (7800, ("models/llama-3.2-3b.gguf", 2048, 4, 0.7)),  # what a machine of 8 GB reports
        (16384, ("models/llama-3.2-3b.gguf", 4096, 8, 0.6)),
        (64000, ("models/llama-3.2-3b.gguf", 4096, 8, 0.6)),
    ],
)
def test_recommended_by_memory(total_mb: float, expected: tuple[str, int, int, float]) -> None:
    config = ModelConfig.recommended(total_mb)
    assert (config.model_path, config.n_ctx, config.n_threads, config.temperature) == expected


def test_numbers_of_numpy_are_numbers() -> None:
    config = ModelConfig(n_ctx=np.int64(512), temperature=np.float64(0.5), verbose=np.bool_(False))
    assert config == ModelConfig(n_ctx=512, temperature=0.5)
    assert [type(value) for value in (config.n_ctx, config.temperature, config.verbose)] == [int, float, bool]
    assert ModelConfig.recommended(np.float64(4096)).n_ctx == 1024
    assert LLMThrottler(np.float32(2)).min_interval == 2.0
    with pytest.raises(ConfigError, match="n_ctx=0: expected a whole number of at least 1"):
        ModelConfig(n_ctx=np.int64(0))


def test_threads_can_be_left_to_the_machine() -> None:
    assert ModelConfig(n_threads=None).n_threads is None


def test_recommended_takes_overrides_and_refuses_nonsense() -> None:
    assert ModelConfig.recommended(4096, n_ctx=512).n_ctx == 512
    with pytest.raises(ConfigError, match="available_mb=-1"):
        ModelConfig.recommended(-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_path", ""),
        ("model_path", 3),
        ("n_ctx", 0),
        ("n_ctx", 2048.0),
        ("n_ctx", True),
        ("n_threads", 0),
        ("n_gpu_layers", -2),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", "0.7"),
        ("max_tokens", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("repeat_penalty", 0),
        ("seed", -1),
        ("verbose", 1),
    ],
)
def test_every_field_is_checked(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        ModelConfig(**{name: value})  # type: ignore[arg-type]


def test_a_path_object_is_a_path() -> None:
    assert ModelConfig(model_path=Path("a.gguf")).model_path == Path("a.gguf")
