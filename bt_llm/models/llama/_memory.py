"""How much memory is free, for this process and not only for the machine, and whether a model fits it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from bt_llm.exceptions import ConfigError, InsufficientMemoryError
from bt_llm.models._gguf import ModelFacts

__all__ = [
    "ControlGroup",
    "available_memory_mb",
    "check_fits",
    "control_groups",
    "estimate_memory_mb",
    "total_memory_mb",
]

_MB = 1024 * 1024
_BYTES_A_VOCABULARY_ENTRY = 180  # tokens and merges in llama.cpp's hash maps, measured on two models
_LIBRARY_MB = 12.0  # the shared library and its Python bindings
_MEMBERSHIP = Path("/proc/self/cgroup")
_HIERARCHY = Path("/sys/fs/cgroup")

# (limit, usage, key of the reclaimable file cache in memory.stat) in versions 2 and 1 of control groups
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory_mb() -> float:
    """Return the memory in MB (2**20 bytes) that this process can still take without swapping.

    The smaller of what the machine has available and what the limits of the process's control
    groups (containers, batch systems) leave; psutil alone does not see those limits.
    """
    free = [group.free_mb for group in control_groups()]
    return min([psutil.virtual_memory().available / _MB, *free])


def total_memory_mb() -> float:
    """Return the memory in MB that this process could ever have: the machine's, or a lower limit."""
    limits = [group.limit_mb for group in control_groups()]
    return min([psutil.virtual_memory().total / _MB, *limits])


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Memory limit of a control group in MB, and what is left of it."""

    limit_mb: float
    free_mb: float


def control_groups(membership: Path = _MEMBERSHIP, hierarchy: Path = _HIERARCHY) -> list[ControlGroup]:
    """Return the limits that hold for this process, of control groups of either version.

    Every group from the process's own up to the root can set one. File cache that the kernel would
    give up first counts as free.

    Parameters
    ----------
    membership : Path
        Lines ``number:controllers:/path``; of version 2, ``0::/path``.
    hierarchy : Path
        Where the groups are mounted.
    """
    found = []
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, names = hierarchy, _V2
        elif "memory" in controllers.split(","):
            root, names = hierarchy / "memory", _V1
        else:
            continue
        group = root / path.strip("/")
        # Inside a container the group's own path may not exist: its files are then at the root.
        for folder in (group, *group.parents):
            if (limited := _group(folder, *names)) is not None:
                found.append(limited)
            if folder == root:
                break
    return found


def _group(folder: Path, limit_name: str, usage_name: str, cache_key: str) -> ControlGroup | None:
    limit, usage = _text(folder / limit_name).strip(), _text(folder / usage_name).strip()
    if not (limit.isdecimal() and usage.isdecimal()):
        return None  # "max", or no such file
    cache = 0
    for line in _text(folder / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == cache_key and value.isdecimal():
            cache = int(value)
    free = int(limit) - max(0, int(usage) - cache)
    return ControlGroup(int(limit) / _MB, max(0, free) / _MB)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def check_fits(
    facts: ModelFacts,
    n_ctx: int,
    *,
    keep_free_mb: float,
    n_seq_max: int = 1,
    n_batch: int = 512,
    n_outputs: int = 1,
    repacked: bool = False,
) -> None:
    """Raise unless a model, with contexts of those sizes, fits the memory that is free now.

    Parameters
    ----------
    facts : ModelFacts
        Of the file.
    n_ctx, n_seq_max, n_batch, n_outputs, repacked : int, int, int, int, bool
        As in `estimate_memory_mb`.
    keep_free_mb : float
        What must remain free.

    Raises
    ------
    InsufficientMemoryError
        Naming what is needed and free, and the largest context or the smaller model that would fit.
    """
    free = available_memory_mb()

    def needed(tokens: int) -> float:
        sizes = (tokens, n_seq_max, n_batch, n_outputs)
        return estimate_memory_mb(facts, *sizes, repacked=repacked) + keep_free_mb

    if needed(n_ctx) <= free:
        return
    smaller = [size for k in range(8, 24) if (size := 2**k) < n_ctx and needed(size) <= free]
    if smaller:
        advice = f"n_ctx={smaller[-1]} instead of {n_ctx} would fit"
    else:
        advice = "no smaller n_ctx fits: use a smaller model or quantization (smollm2 needs about 250 MB)"
    kept = f", {keep_free_mb:,.0f} of them to be kept free" if keep_free_mb else ""
    raise InsufficientMemoryError(
        f"{facts.name} with n_ctx={n_ctx} needs about {needed(n_ctx):,.0f} MB{kept}, and {free:,.0f} MB are "
        f"free; {advice}, or close other programs"
    )


def estimate_memory_mb(
    facts: ModelFacts,
    n_ctx: int,
    n_seq_max: int = 1,
    n_batch: int = 512,
    n_outputs: int = 1,
    *,
    repacked: bool = False,
) -> float:
    """Estimate the memory in MB (2**20 bytes) that a model takes once all of it has been used.

    The sum of the weights (mapped from the file, every page of which is touched), the vocabulary,
    the KV cache in 16 bits (each sequence rounded up to 256 tokens, as llama.cpp does), the states of
    recurrent layers in 32, the largest
    intermediate results of one decode without flash attention, and the logits.

    Parameters
    ----------
    facts : ModelFacts
        Of the file.
    n_ctx : int
        Tokens that each sequence can hold.
    n_seq_max : int
        Sequences side by side.
    n_batch : int
        Tokens a decode.
    n_outputs : int
        Rows of logits a decode.
    repacked : bool
        Whether llama.cpp keeps a rearranged copy of the weights beside the file, as it does by default
        on x86 processors; canonical numerics do not.
    """
    if min(n_ctx, n_seq_max, n_batch, n_outputs) < 1:
        raise ConfigError(
            f"n_ctx={n_ctx}, n_seq_max={n_seq_max}, n_batch={n_batch}, n_outputs={n_outputs}: "
            "expected at least 1 of each"
        )
    cells = -(-n_ctx // 256) * 256
    rows = min(n_batch, cells * n_seq_max)
    kv_cache = 2 * cells * n_seq_max * facts.kv_width + 4 * n_seq_max * facts.state_width
    hidden = 4 * rows * max(facts.n_embd, facts.n_head * facts.head_dim_k)
    attention = 4 * rows * cells * (facts.n_head + 1) + 8 * hidden
    feed_forward = 8 * rows * facts.n_ff + 3 * hidden
    logits = 4 * n_outputs * facts.n_vocab
    compute = max(attention, feed_forward, logits + 2 * hidden)
    vocabulary = _BYTES_A_VOCABULARY_ENTRY * (facts.n_vocab + facts.n_merges)
    weights = facts.weight_bytes + (facts.repackable_bytes if repacked else 0)
    return (weights + vocabulary + kv_cache + compute + logits) / _MB + _LIBRARY_MB
