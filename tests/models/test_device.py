"""What computes beside the processor, with a llama.cpp that says what builds with GPUs do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bt_llm.models import Numerics, Prompt
from bt_llm.models.llama import _device as device
from bt_llm.models.llama import _session as session
from bt_llm.models.llama._device import compute_device, gpu_names
from bt_llm.models.llama._scorer import Scorer
from bt_llm.models.llama._session import Session

CPU, GPU, INTEGRATED, ACCELERATOR = range(4)


def use(monkeypatch: pytest.MonkeyPatch, *devices: tuple[str, int], offload: bool = True) -> None:
    """Have the library be a build with these devices."""
    ggml = SimpleNamespace(
        ggml_backend_dev_count=lambda: len(devices),
        ggml_backend_dev_get=lambda number: number,
        ggml_backend_dev_name=lambda number: devices[number][0].encode(),
        ggml_backend_dev_type=lambda number: devices[number][1],
    )
    monkeypatch.setattr(
        device, "library", lambda: SimpleNamespace(llama_supports_gpu_offload=lambda: offload)
    )
    monkeypatch.setattr(device, "_ggml", lambda: ggml)


@pytest.mark.parametrize(
    ("devices", "layers", "expected"),
    [
        ([("CPU", CPU)], -1, ""),
        ([("BLAS", ACCELERATOR), ("CPU", CPU)], -1, ""),
        ([("CUDA0", GPU), ("CPU", CPU)], 0, ""),
        ([("CUDA0", GPU), ("CUDA1", GPU), ("CPU", CPU)], -1, "cuda"),
        ([("CUDA0", GPU), ("CPU", CPU)], 20, "cuda:20"),
        ([("Vulkan0", INTEGRATED), ("CPU", CPU)], -1, "vulkan"),
        ([("MTL0", GPU), ("BLAS", ACCELERATOR), ("CPU", CPU)], -1, "metal"),
        ([("Metal", GPU), ("CPU", CPU)], -1, "metal"),
        ([("Vulkan0", INTEGRATED), ("CUDA0", GPU), ("CPU", CPU)], -1, "cuda+vulkan"),
    ],
)
def test_a_device_is_what_computes_layers(
    monkeypatch: pytest.MonkeyPatch, devices: list[tuple[str, int]], layers: int, expected: str
) -> None:
    use(monkeypatch, *devices)
    assert compute_device(layers) == expected


def test_a_build_that_offloads_nothing_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, ("CUDA0", GPU), offload=False)
    assert gpu_names() == []
    assert compute_device(-1) == ""


def test_layers_on_the_processor_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "library", lambda: pytest.fail("llama.cpp was loaded"))
    assert compute_device(0) == ""


def test_a_build_that_tells_no_names_has_a_gpu_of_unknown_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    monkeypatch.setattr(device, "_ggml", lambda: SimpleNamespace())
    assert compute_device(-1) == "gpu"


def test_the_library_that_is_installed_lists_its_processor() -> None:
    assert CPU in [kind for _, kind in device._devices(device._ggml())]


@pytest.mark.model
@pytest.mark.parametrize(
    ("numerics", "device_name", "most"), [("canonical", "cuda", 1), ("canonical", "", 5), ("fast", "cuda", 5)]
)
def test_a_gpu_decodes_prompts_one_by_one(
    monkeypatch: pytest.MonkeyPatch, smollm2_path: Path, numerics: Numerics, device_name: str, most: int
) -> None:
    """Its sums depend on how many rows there are: on an H100, by up to 7e-4 of a verdict's probability."""
    monkeypatch.setattr(session, "compute_device", lambda layers: device_name)
    scorer = Scorer(Session(smollm2_path))
    together = []
    decode = session.decode_block

    def counted(context: object, tokens: Sequence[object], *args: Any, **kwargs: Any) -> None:
        together.append(len(tokens))
        decode(context, tokens, *args, **kwargs)

    monkeypatch.setattr("bt_llm.models.llama._scorer.decode_block", counted)
    prompts = [Prompt(("Trend:", f" {word}")) for word in ("up", "down", "flat", "steep", "none")]
    found = [one for batch in scorer.score(prompts, (" A", " B"), numerics=numerics) for one in batch]
    assert (len(found), max(together)) == (5, most)
