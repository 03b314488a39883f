"""The header of a GGUF: what it says of the model in it, and whether the file is whole.

A GGUF is untrusted input: lengths are checked against the file before they are used, and what is wrong is
said in one line.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bt_llm.exceptions import ModelFileError, ModelNotFoundError
from bt_llm.files import MAX_MB, most_bytes, open_regular
from bt_llm.models._parts import file_parts

__all__ = ["ModelFacts", "check_vocabulary", "read_facts"]

T = TypeVar("T")

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the header of a GGUF says of the model in it.

    `kv_width` is the number of values that attention keeps for one token, keys and values of all
    layers together, `state_width` what recurrent layers keep for one sequence; `file_bytes` is the size of
    the file, `weight_bytes` that of its tensors, `repackable_bytes` what of them llama.cpp may rearrange
    into a copy for the processor. `spaced` says whether the vocabulary puts a space before each text.
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
    state_width: int = 0
    spaced: bool = False


# GGUF's scalar types by number: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_NESTING = 4
_MAX_TEXT_MB = 16  # a chat template is a few kB
_MAX_DIMENSIONS = 8
_ENCODERS = {
    *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
    *("eurobert", "gemma-embedding", "llama-embed", "t5", "t5encoder", "wavtokenizer-dec", "clip"),
    *("dream", "llada", "llada-moe", "rnd1"),
}
_OF_A_PART: Mapping[str, Any] = dict.fromkeys(
    ("name", "architecture", "quantization", "chat_template", "bos_token", "eos_token"), ""
) | dict.fromkeys(
    [
        "n_ctx_train",
        "n_vocab",
        "n_merges",
        "n_layer",
        "n_embd",
        "n_ff",
        "n_head",
        "n_head_kv",
        "head_dim_k",
        "head_dim_v",
        "kv_width",
    ],
    0,
)
_REPACKED = {"Q4_0", "Q4_K", "Q2_K", "IQ4_NL"}  # types that llama.cpp rearranges for x86 processors


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
        if length > (most := most_bytes(_MAX_TEXT_MB)):
            raise _UnusableError(
                f"a text of {length:,} bytes in its header, where {most:,} are read; set {MAX_MB} to read "
                "more of what you trust"
            )
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
        If it is a folder, empty, not a GGUF, truncated, a part without the others, or no language model;
        the message says which, and for a truncated file the bytes there and the bytes demanded.
    """
    path = Path(path)
    parts = file_parts(path)
    if path.is_file() and (absent := [part.name for part in parts if not part.is_file()]):
        raise ModelFileError(f"{path} is one of {len(parts)} parts, and {', '.join(absent)} is not beside it")
    facts, *others = [_in(part, lambda header, part: _read(header, part, parts)) for part in parts]
    return replace(
        facts,
        **{
            name: getattr(facts, name) + sum(getattr(part, name) for part in others)
            for name in ("parameters", "file_bytes", "weight_bytes", "repackable_bytes")
        },
    )


def check_vocabulary(path: str | os.PathLike[str]) -> None:
    """Raise a ModelFileError if a token is there twice, as llama.cpp would end the process for."""
    _in(Path(path), lambda header, _: _check_tokens(header))


def _in(path: Path, read: Callable[[_Header, Path], T]) -> T:
    """Return what is read from a file's header."""
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelFileError(f"{path} is empty: expected a GGUF file; copy it again")
            if (magic := file.read(4)) != b"GGUF":
                raise ModelFileError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return read(_Header(data), path)
    except FileNotFoundError:
        raise ModelNotFoundError(f"no file {path}; find_model() turns a model's name into its path") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except _UnusableError as error:
        raise ModelFileError(f"{path} is not a usable GGUF file: {error}") from None


def _read(header: _Header, part: Path, parts: Sequence[Path]) -> ModelFacts:
    """Return what one file says; a later part says nothing of the model but sizes."""
    fields, n_tensors = _fields(header)
    count, size = _integer(fields, "split.count", 1), header.size
    if count != len(parts):
        raise _UnusableError(
            f"one of {count} parts by its header, and one of {len(parts)} by its name; expected the names "
            "that llama-gguf-split gives, such as NAME-00001-of-00003.gguf"
        )
    parameters, repackable, demanded = _read_tensors(header, n_tensors, fields.get("general.alignment", 32))
    if demanded > size:
        raise _UnusableError(
            f"truncated, {size:,} bytes are there and its tensors demand {demanded:,}; copy it again"
        )
    return ModelFacts(
        **(_facts(fields, header, part) if part == parts[0] else _OF_A_PART),
        parameters=parameters,
        file_bytes=size,
        weight_bytes=size - header.at,
        repackable_bytes=repackable,
    )


def _fields(header: _Header) -> tuple[dict[str, Any], int]:
    """Return the header's fields, and the number of tensors that it describes after them."""
    header.at = 4
    version = header.unpack("I")
    if version not in (2, 3):
        raise _UnusableError(f"format version {version}, expected 2 or 3 in little-endian order")
    n_tensors, n_fields = header.unpack("Q"), header.unpack("Q")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = header.text()
        fields[key] = header.value(header.unpack("I"))
    return fields, n_tensors


def _check_tokens(header: _Header) -> None:
    fields, _ = _fields(header)
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, _Texts):
        return
    header.at, seen = tokens.start, set[bytes]()
    for number in range(tokens.count):
        length = header.unpack("Q")
        start = header.skip(length)
        text = header.data[start : header.at]
        if text in seen:
            shown = text.decode("utf-8", "replace")
            raise _UnusableError(f"token {number} of its vocabulary, {shown!r:.60}, is there twice")
        seen.add(text)


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

    if embeds := _embedder(fields, architecture):
        raise _UnusableError(f"{embeds}: it has no next word to say; expected a language model")

    def number(key: str, default: int | None = None) -> int:
        return _integer(fields, f"{architecture}.{key}", default)

    n_layer, n_embd = number("block_count"), number("embedding_length")
    heads_of = (f"{architecture}.attention.head_count", f"{architecture}.attention.head_count_kv")
    recurs = any(f"{architecture}.{key}" in fields for key in ("ssm.state_size", "wkv.head_size"))
    attends = not recurs or all(fields.get(key) != 0 for key in heads_of)
    n_head = number("attention.head_count") if attends else 1
    n_head_kv = number("attention.head_count_kv", n_head) if attends else 0
    head_dim = n_embd // n_head
    dim_k, dim_v = number("attention.key_length", head_dim), number("attention.value_length", head_dim)
    heads = fields.get(heads_of[1])  # some models have one number a layer
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
        "state_width": _state_width(fields, architecture, n_layer),
        "spaced": _is_spaced(fields),
        "chat_template": template if isinstance(template, str) else "",
        "bos_token": special["bos"],
        "eos_token": special["eos"],
    }


def _embedder(fields: dict[str, Any], architecture: str) -> str:
    """Return what a model is that llama.cpp would end the process over; nothing if it writes word by word."""
    if architecture in _ENCODERS or fields.get(f"{architecture}.attention.causal") is False:
        return f"an encoder or a diffusion model ({architecture})"
    if fields.get(f"{architecture}.pooling_type", 0) not in (0, None):
        return f"an embedding model ({architecture})"
    return ""


def _state_width(fields: dict[str, Any], architecture: str, n_layer: int) -> int:
    """Return the values that recurrent layers keep a sequence: at most, if only some layers are."""
    sizes = [fields.get(f"{architecture}.ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel")]
    inner, state, kernel = (size if type(size) is int and 0 < size < 2**24 else 0 for size in sizes)
    return n_layer * inner * (state + kernel)


def _is_spaced(fields: dict[str, Any]) -> bool:
    """Whether the vocabulary is SentencePiece's and puts a space before each text, as it does if unsaid."""
    spaced = fields.get("tokenizer.ggml.add_space_prefix", True)
    return fields.get("tokenizer.ggml.model") == "llama" and spaced is not False


def _integer(fields: dict[str, Any], key: str, default: int | None) -> int:
    value = fields.get(key, default)
    if isinstance(value, list) and value:
        value = max(value)
    if type(value) is not int or not 0 < value < 2**40:
        raise _UnusableError(f"{key} is {value!r}, expected a positive whole number; it is no language model")
    return value
