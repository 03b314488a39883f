"""What computes beside the processor: asked of llama.cpp, which alone knows how it was built."""

from __future__ import annotations

import ctypes
from typing import Any

from bt_llm.models.llama._native import library

__all__ = ["compute_device", "gpu_names"]

_GPUS = (1, 2)  # ggml_backend_dev_type: 0 is the processor, 3 an accelerator of its own, such as a BLAS
_NAMES = {"mtl": "metal"}


def gpu_names() -> list[str]:
    """Return the names of the graphics processors that this build of llama.cpp can use, such as ``CUDA0``.

    ``GPU`` stands for those of a build that does not tell their names.
    """
    if not library().llama_supports_gpu_offload():
        return []
    try:
        devices = _devices(_ggml())
    except (ImportError, OSError, AttributeError):
        return ["GPU"]
    return [name for name, kind in devices if kind in _GPUS]


def _ggml() -> Any:
    """Return the library below llama.cpp, which llama-cpp-python loads but does not describe.

    It lies beside llama-cpp-python's own llama.cpp only; with another (``LLAMA_CPP_LIB_PATH``) the loader
    finds what it has through llama.cpp.
    """
    try:
        from llama_cpp._ggml import libggml
    except OSError:
        from llama_cpp.llama_cpp import _lib

        return _lib
    return libggml


def build_commit() -> str:
    """Return the commit of llama.cpp as its build recorded it, "unknown" where it did not.

    A build from a changed copy of the source ends in ``-dirty``.
    """
    library()
    try:
        get = _ggml().ggml_commit
    except (ImportError, OSError, AttributeError):
        return "unknown"
    get.restype = ctypes.c_char_p
    return (get() or b"unknown").decode("ascii", "replace")


def _devices(ggml: Any) -> list[tuple[str, int]]:
    """Return the names and types of all devices."""
    count, get = ggml.ggml_backend_dev_count, ggml.ggml_backend_dev_get
    name, kind = ggml.ggml_backend_dev_name, ggml.ggml_backend_dev_type
    count.restype, get.restype, name.restype = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    get.argtypes, name.argtypes, kind.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_void_p]
    found = [get(number) for number in range(count())]
    return [(name(one).decode("ascii", "replace"), kind(one)) for one in found]


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
