"""What computes beside the processor, with a llama.cpp that says what builds with GPUs do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bt_llm.models.llama import _device as device
from bt_llm.models.llama._device import compute_device, gpu_names

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
