"""What computes beside the processor: asked of llama.cpp, which alone knows how it was built."""

from __future__ import annotations

import ctypes
from typing import Any

from bt_llm.models.llama._native import library

__all__ = ["compute_device", "gpu_names"]

_GPUS = (1, 2)  # ggml_backend_dev_type: 0 is the processor, 3 an accelerator of its own, such as a BLAS
_NAMES = {"mtl": "metal"}


def gpu_names() -> list[str]:
    """Return llama.cpp's names of the graphics processors that this build can use, such as ``CUDA0``."""
    lc = library()
    if not lc.llama_supports_gpu_offload():
        return []
    ggml: Any = lc._ggml.libggml
    device, count = ctypes.c_void_p, ggml.ggml_backend_dev_count
    ggml.ggml_backend_dev_get.restype, ggml.ggml_backend_dev_get.argtypes = device, [ctypes.c_size_t]
    ggml.ggml_backend_dev_name.restype, ggml.ggml_backend_dev_name.argtypes = ctypes.c_char_p, [device]
    ggml.ggml_backend_dev_type.argtypes = [device]
    count.restype = ctypes.c_size_t
    found = [ggml.ggml_backend_dev_get(number) for number in range(count())]
    gpus = [one for one in found if ggml.ggml_backend_dev_type(one) in _GPUS]
    return [ggml.ggml_backend_dev_name(one).decode("ascii", "replace") for one in gpus]


def compute_device(n_gpu_layers: int) -> str:
    """Return what computes some layers of a model, and how many; nothing where it is the processor alone.

    Parameters
    ----------
    n_gpu_layers : int
        As in `ModelConfig`.

    Returns
    -------
    str
        Such as ``cuda`` for all layers, ``vulkan:20`` for twenty of them, ``cuda+vulkan`` for two kinds of
        devices; empty for the processor. Sums are rounded in another way on each.

    Examples
    --------
    >>> compute_device(0)
    ''
    """
    if n_gpu_layers == 0:
        return ""
    kinds = {name.rstrip("0123456789").lower() for name in gpu_names()}
    where = "+".join(sorted(_NAMES.get(kind, kind) for kind in kinds))
    return where if n_gpu_layers == -1 or not where else f"{where}:{n_gpu_layers}"
