"""Random-weight GGUFs of exactly Llama 3.2's shapes, to time 1B and 3B without their licence or download.

Speed and memory do not depend on the values of the weights, so such a file times like the real model. What it
answers is noise: never use it for P&L, and never commit it. The tokenizer and chat template come from
another GGUF (by default SmolLM2's); its vocabulary is padded with unused tokens up to the shape's size.

Needs, on 2 cores (weights are first written in F16, then quantised by llama.cpp):

    shape   file (Q4_K_M)   disk while writing   time
    tiny      0.01 GB          0.04 GB            3 s
    1b        0.81 GB          3.3 GB             2 min
    3b        2.02 GB          8.5 GB             5 min

Files go to the folder `benchmarks` of bt_llm's cache (BT_LLM_BENCHMARKS_DIR or --folder choose another),
under their final name only when they are whole.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FILE_TYPES",
    "SHAPES",
    "Shape",
    "benchmark_models",
    "benchmarks_folder",
    "build",
    "ensure",
    "shape_path",
]

FILE_TYPES = ("Q4_K_M", "Q4_0", "Q8_0", "F16")
"""What a file can hold; the first is what people run."""

N_CTX_TRAIN = 131_072
_ROPE_BASE, _RMS_EPSILON = 500_000.0, 1e-5
_SPREAD = 0.02  # standard deviation of the weights: keeps activations finite over 28 layers
_CHUNK = 1 << 22  # values drawn at a time
_QUANTISED_SHARE = {"Q4_K_M": 0.33, "Q4_0": 0.3, "Q8_0": 0.54, "F16": 1.0}  # of the F16 file, rounded up

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Llama model with tied embeddings.

    Examples
    --------
    >>> SHAPES["1b"].parameters, SHAPES["3b"].parameters
    (1235814432, 3212749888)
    """

    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_vocab: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each tensor, rows first, in the order of the file."""
        heads, kv_heads = self.n_head * self.head_dim, self.n_head_kv * self.head_dim
        yield "token_embd.weight", (self.n_vocab, self.n_embd)  # tied: the output matrix too
        yield "rope_freqs.weight", (self.head_dim // 2,)
        for layer in range(self.n_layer):
            block = f"blk.{layer}."
            yield block + "attn_norm.weight", (self.n_embd,)
            yield block + "attn_q.weight", (heads, self.n_embd)
            yield block + "attn_k.weight", (kv_heads, self.n_embd)
            yield block + "attn_v.weight", (kv_heads, self.n_embd)
            yield block + "attn_output.weight", (self.n_embd, heads)
            yield block + "ffn_norm.weight", (self.n_embd,)
            yield block + "ffn_gate.weight", (self.n_ff, self.n_embd)
            yield block + "ffn_up.weight", (self.n_ff, self.n_embd)
            yield block + "ffn_down.weight", (self.n_embd, self.n_ff)
        yield "output_norm.weight", (self.n_embd,)

    @property
    def parameters(self) -> int:
        """Number of values in all tensors, the factors of the rotary embedding included."""
        return sum(int(np.prod(size)) for _, size in self.tensors())


SHAPES = {
    "tiny": Shape(n_layer=2, n_embd=256, n_head=4, n_head_kv=2, head_dim=64, n_ff=512, n_vocab=49_152),
    "1b": Shape(n_layer=16, n_embd=2048, n_head=32, n_head_kv=8, head_dim=64, n_ff=8192, n_vocab=128_256),
    "3b": Shape(n_layer=28, n_embd=3072, n_head=24, n_head_kv=8, head_dim=128, n_ff=8192, n_vocab=128_256),
}
"""Llama 3.2's two shapes, and one for tests."""


def benchmarks_folder() -> Path:
    """Return where shape files are kept: ``BT_LLM_BENCHMARKS_DIR``, or the user's cache folder."""
    if chosen := os.environ.get("BT_LLM_BENCHMARKS_DIR"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("bt_llm", appauthor=False)) / "benchmarks"


def shape_path(name: str, file_type: str = "Q4_K_M", folder: Path | None = None) -> Path:
    """Return where the file of a shape belongs, whether it is there or not."""
    ending = "" if file_type == FILE_TYPES[0] else f"-{file_type}"
    return (folder or benchmarks_folder()) / f"shape-{name}{ending}.gguf"


def ensure(name: str, *, progress: Progress | None = None) -> Path:
    """Return the file of a shape, built if it is not there yet."""
    path = shape_path(name)
    return path if path.is_file() else build(name, path, progress=progress)


def benchmark_models(
    chosen: list[Path] | None = None, *, build_shapes: bool = False
) -> list[tuple[str, Path | None]]:
    """Return names and files of the models to measure: those chosen, or SmolLM2 and the 1B shape.

    The shape's file is None if it is not there and not to be built.
    """
    from bt_llm.models import find_model
    from bt_llm.models._files import SMOLLM2

    if chosen:
        return [(path.stem, path) for path in chosen]
    shape = ensure("1b", progress=tell_stderr) if build_shapes else shape_path("1b")
    return [("SmolLM2-135M", find_model(SMOLLM2)), ("1B shape", shape if shape.is_file() else None)]


def build(
    name: str,
    path: Path,
    *,
    file_type: str = "Q4_K_M",
    tokenizer: str | Path = "smollm2",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the file of a shape, whole or not at all.

    Parameters
    ----------
    name : str
        Of `SHAPES`.
    path : Path
        Where; its folder is made, and holds the temporary F16 file.
    file_type : str
        One of `FILE_TYPES`.
    tokenizer : str or Path
        GGUF whose tokenizer is copied, as `bt_llm.models.find_model` takes it.
    seed : int
        Of the weights.
    threads : int, optional
        To quantise with; by default one a physical core.
    progress : callable, optional
        Told how far it is.

    Raises
    ------
    OSError
        If the disk is too small, before anything is written.
    ValueError
        If the tokenizer has more tokens than the shape.
    """
    from bt_llm.models import find_model

    donor = find_model(tokenizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(SHAPES[name], file_type, path.parent)
    tell = progress if progress is not None else lambda _step, _share: None
    with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as folder:
        written = Path(folder) / "f16.gguf"
        _write_f16(name, written, donor, seed, tell)
        if file_type != "F16":
            wide, written = written, Path(folder) / "quantised.gguf"
            _quantise(wide, written, file_type, threads, tell)
        os.replace(written, path)
    return path


def _check_disk(shape: Shape, file_type: str, folder: Path) -> None:
    wide = 2 * shape.parameters + 16 * 2**20
    needed = wide if file_type == "F16" else int(wide * (1 + _QUANTISED_SHARE[file_type]))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, but writing this shape takes {needed / 1e9:.1f} GB: "
            "choose another folder with --folder"
        )


def _write_f16(name: str, path: Path, donor: Path, seed: int, tell: Progress) -> None:
    import gguf

    shape = SHAPES[name]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random weights in the shape of Llama 3.2 {name.upper()}")
    writer.add_block_count(shape.n_layer)
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_layer_norm_rms_eps(_RMS_EPSILON)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_F16))
    _copy_tokenizer(writer, donor, shape.n_vocab)
    # The table of tensors comes first and the data after it, so that no more than one tensor is in memory.
    for tensor, size in shape.tensors():
        kind = np.dtype(np.float32 if len(size) == 1 else np.float16)
        writer.add_tensor_info(tensor, size, kind, int(np.prod(size)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    generator, done = np.random.default_rng(seed), 0
    for tensor, size in shape.tensors():
        writer.write_tensor_data(_values(tensor, size, shape, generator))
        done += int(np.prod(size))
        tell("writing F16", done / shape.parameters)
    writer.close()


def _copy_tokenizer(writer: Any, donor: Path, n_vocab: int) -> None:
    import gguf

    # Parallel arrays of one entry a token, and what an unused token has there.
    padding: dict[str, Callable[[int], Any]] = {
        "tokenizer.ggml.tokens": "<unused_{}>".format,
        "tokenizer.ggml.token_type": lambda _: int(gguf.TokenType.UNUSED),
        "tokenizer.ggml.scores": lambda _: -1e9,
    }
    for key, entry in gguf.GGUFReader(donor).fields.items():
        if not key.startswith("tokenizer."):
            continue
        value, kinds = entry.contents(), entry.types
        if key in padding:
            if len(value) > n_vocab:
                raise ValueError(f"{donor} has {len(value)} tokens, more than the shape's {n_vocab}")
            value = [*value, *map(padding[key], range(len(value), n_vocab))]
        writer.add_key_value(key, value, kinds[0], sub_type=kinds[1] if len(kinds) > 1 else None)


def _values(name: str, size: tuple[int, ...], shape: Shape, generator: np.random.Generator) -> NDArray[Any]:
    if name == "rope_freqs.weight":
        return _rope_factors(shape.head_dim)
    if len(size) == 1:
        return np.ones(size, dtype=np.float32)
    flat = np.empty(int(np.prod(size)), dtype=np.float16)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        piece[:] = generator.standard_normal(piece.size, dtype=np.float32) * np.float32(_SPREAD)
    return flat.reshape(size)


def _rope_factors(head_dim: int) -> NDArray[np.float32]:
    """Return what Llama 3.2 divides its rotary frequencies by: 32 for long waves, 1 for short ones.

    Source: the `llama3` rope scaling of its config (factor 32, low 1, high 4, trained on 8,192 tokens).
    """
    waves = 2 * np.pi * _ROPE_BASE ** (np.arange(0, head_dim, 2) / head_dim)
    ramp = (8192 / waves - 1.0) / (4.0 - 1.0)
    return (1.0 / ((1.0 - ramp.clip(0, 1)) / 32.0 + ramp.clip(0, 1))).astype(np.float32)


def _quantise(source: Path, target: Path, file_type: str, threads: int | None, tell: Progress) -> None:
    from bt_llm.models.llama._native import cpu_threads, library

    lc = library()
    params = lc.llama_model_quantize_default_params()
    params.ftype = getattr(lc, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    params.nthread = cpu_threads(threads)
    log, handler = logging.getLogger("bt_llm.llama"), _TensorCount(tell)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        code = lc.llama_model_quantize(os.fsencode(source), os.fsencode(target), params)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    if code:
        raise RuntimeError(f"llama.cpp could not quantise {source} to {file_type} (code {code})")


class _TensorCount(logging.Handler):
    """Reads from llama.cpp's log, one line a tensor, how far quantising is."""

    def __init__(self, tell: Progress) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"\[ *(\d+)/ *(\d+)\]", record.getMessage()):
            self._tell("quantising", int(found[1]) / int(found[2]))


def tell_stderr(step: str, share: float) -> None:
    """Show progress on one line of standard error, or nothing where it is not a terminal."""
    if sys.stderr.isatty():
        end = "\n" if share >= 1 else ""
        print(f"\r{step}: {share:4.0%}", end=end, file=sys.stderr, flush=True)  # noqa: T201


def main(argv: list[str] | None = None) -> int:
    """Build the shapes named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="+", choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--folder", type=Path, default=benchmarks_folder(), help="default: %(default)s")
    parser.add_argument("--type", default=FILE_TYPES[0], choices=FILE_TYPES, help="default: %(default)s")
    parser.add_argument("--tokenizer", default="smollm2", help="GGUF to copy the tokenizer from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="to quantise with; default: one a core")
    parser.add_argument("--force", action="store_true", help="build even if the file is there")
    chosen = parser.parse_args(argv)
    for name in chosen.shapes:
        path = shape_path(name, chosen.type, chosen.folder)
        if path.is_file() and not chosen.force:
            print(f"{path} is there already")  # noqa: T201
            continue
        try:
            build(
                name,
                path,
                file_type=chosen.type,
                tokenizer=chosen.tokenizer,
                seed=chosen.seed,
                threads=chosen.threads,
                progress=tell_stderr,
            )
        except (OSError, ValueError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            return 1
        print(path)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
