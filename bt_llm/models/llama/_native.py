"""llama.cpp's own objects, held safely: the library, its log, the weights, and a context of many sequences.

Nothing here knows of prompts, labels or verdicts. Importing this module does not load llama.cpp.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import functools
import os
import platform
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from bt_llm import plain_text
from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    InsufficientMemoryError,
    MissingExtraError,
    ModelError,
    ModelFileError,
)
from bt_llm.locks import ForkableLock
from bt_llm.models._base import Numerics
from bt_llm.models._files import file_stamp
from bt_llm.models._interrupts import NotedInterrupt, can_give_up, given_up
from bt_llm.progress import within

__all__ = [
    "MIN_ROWS",
    "MIN_TOKENS",
    "Context",
    "ContextShape",
    "Weights",
    "computing_threads",
    "cpu_threads",
    "library",
]

Tokens = npt.NDArray[np.int32]

MIN_ROWS = 8
"""Rows from which ggml's tiled kernels compute a matrix product, whatever else is in the batch."""

MIN_TOKENS = 2 if platform.machine().lower() in ("x86_64", "amd64") else 8
"""Tokens a sequence from which the attention products are computed by ggml's matrix kernels: these see
each sequence on its own. tinyBLAS asks for 2 rows on x86 and for up to 8 elsewhere."""

_log = plain_text.logger("bt_llm.llama")
_log_tail: collections.deque[str] = collections.deque(maxlen=8)
_log_lock = ForkableLock()
_kept_alive: list[Any] = []
_verbose = False
_computed_in: int | None = None  # the process whose OpenMP threads exist


def library(*, verbose: bool | None = None) -> Any:
    """Return the `llama_cpp` module, with its log routed to the logger ``bt_llm.llama``.

    Parameters
    ----------
    verbose : bool, optional
        Whether to also write llama.cpp's log to standard error, from now on and in the whole
        process: the library has one log. None leaves that as it is.

    Raises
    ------
    MissingExtraError
        If llama-cpp-python or its shared library cannot be loaded.
    """
    global _verbose
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(
            f"llama-cpp-python cannot be loaded ({error}): pip install --force-reinstall llama-cpp-python"
        ) from error
    with _log_lock:
        _verbose = _verbose if verbose is None else verbose
        if not _kept_alive:
            callback = llama_cpp.llama_log_callback(_on_log)
            _kept_alive.append(callback)  # the library keeps a bare pointer to it
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            with NotedInterrupt():
                llama_cpp.llama_backend_init()
    return llama_cpp


def _on_log(level: int, text: bytes | None, _: Any) -> None:
    line = (text or b"").decode("utf-8", "replace")
    if _verbose:
        sys.stderr.write(plain_text.printable(line))
    if line := line.strip():
        if level == 3:  # GGML_LOG_LEVEL_ERROR
            _log_tail.append(line)
        _log.debug("%s", line)


def _last_error() -> str:
    return _log_tail[-1] if _log_tail else "it gave no reason"


def cpu_threads(wanted: int | None = None) -> int:
    """Return how many threads to compute with: the physical cores this process may use, at most `wanted`.

    Examples
    --------
    >>> cpu_threads(1)
    1
    >>> cpu_threads(10_000) == cpu_threads()
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    cores = max(1, min(allowed, physical))
    return cores if wanted is None else max(1, min(wanted, cores))


def computing_threads(wanted: int) -> int:
    """Return how many threads a context made now may compute with.

    One in a process forked from one that has computed: the OpenMP runtime hangs there with more.
    No result depends on it.
    """
    global _computed_in
    if _computed_in not in (None, os.getpid()):
        return 1
    _computed_in = os.getpid()
    return wanted


class Weights:
    """The weights and the vocabulary of one GGUF file, mapped into memory.

    `load` gives them once for all who use them in this process; they are freed when nobody does.

    Parameters
    ----------
    path : Path
        An existing GGUF file.
    n_gpu_layers : int
        Layers kept on the GPU; -1 is all.
    repack : bool
        Let llama.cpp repack the weights for this CPU. Repacked kernels round differently for
        different numbers of rows, so canonical numerics go without.

    Raises
    ------
    ModelFileError
        If llama.cpp refuses the file, or it changes meanwhile.

    Attributes
    ----------
    stamp : FileStamp
        Of the file that was loaded.
    rewinds : bool
        Whether a sequence can forget its last tokens. What is recurrent (Mamba, and in part LFM2, Qwen3.5,
        Granite-4-H, Falcon-H1) keeps one state a sequence, which can be copied and dropped, not cut.
    has_experts : bool
        Whether each token is computed by a few experts of many. How many tokens one of them gets in a decode
        depends on all of them, and so do the kernels that compute them.
    """

    def __init__(
        self, path: Path, *, n_gpu_layers: int = 0, repack: bool = False, verbose: bool = False
    ) -> None:
        self.path = path
        self._lc = library(verbose=verbose)
        self.n_gpu_layers, self.repack = n_gpu_layers, repack
        self.stamp = file_stamp(path)
        params = self._lc.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = repack
        _log_tail.clear()
        with NotedInterrupt() as interrupt:
            progress = self._lc.llama_progress_callback(lambda share, _: not (interrupt.came or given_up()))
            params.progress_callback = progress
            self.pointer = self._lc.llama_model_load_from_file(os.fsencode(path), params)
            free = self._lc.llama_model_free if self.pointer else _nothing
            self._free = weakref.finalize(self, _free_in, os.getpid(), free, self.pointer)
            self._free.atexit = False  # the operating system is quicker, and the library may be gone by then
        if not self.pointer:
            raise ModelFileError(f"llama.cpp cannot load {path}: {_last_error()}")
        self.vocabulary = self._lc.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(self._lc.llama_vocab_n_tokens(self.vocabulary))
        self.n_ctx_train = int(self._lc.llama_model_n_ctx_train(self.pointer))
        self.rewinds = not (
            self._lc.llama_model_is_recurrent(self.pointer) or self._lc.llama_model_is_hybrid(self.pointer)
        )
        self.has_experts = self._number("expert_count") > 0
        tokenise = functools.partial(_tokenise, self._lc, self.vocabulary)  # no cycle through self
        self._tokenise = functools.lru_cache(maxsize=4096)(tokenise)  # prompts share most of their lines
        if file_stamp(path) != self.stamp:
            raise ModelFileError(f"{path} changed while it was loaded: wait until it is complete")

    def _number(self, key: str) -> int:
        """Return a whole number of the file's header, of those that are named after its architecture."""
        buffer = ctypes.create_string_buffer(64)
        self._lc.llama_model_meta_val_str(self.pointer, b"general.architecture", buffer, len(buffer))
        full = buffer.value + b"." + key.encode()
        count = self._lc.llama_model_meta_val_str(self.pointer, full, buffer, len(buffer))
        return int(buffer.value) if count > 0 and buffer.value.isdigit() else 0

    @classmethod
    def load(
        cls, path: Path, *, n_gpu_layers: int = 0, repack: bool = False, verbose: bool = False
    ) -> Weights:
        """Return the weights of a file, loaded unless somebody in this process has them already."""
        library(verbose=verbose)
        with _pool.lock:
            key = (path.resolve(), file_stamp(path), n_gpu_layers, repack)
            found = _pool.weights.get(key)
            if found is None:
                found = cls(path, n_gpu_layers=n_gpu_layers, repack=repack, verbose=verbose)
                _pool.weights[key] = found
            return found

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Tokenise a text on its own; `special` reads texts such as ``<|im_end|>`` as control tokens."""
        return list(self._tokenise(text, special))

    def opening(self, text: str) -> list[int]:
        """Tokenise the text that a prompt begins with, after exactly one BOS if the model wants one."""
        return self._begun(self.tokens(text, special=True))

    def whole(self, text: str) -> tuple[int, ...]:
        """Tokenise a whole prompt as `opening` does; nothing of it is remembered."""
        return tuple(self._begun(_tokenise(self._lc, self.vocabulary, text, True)))

    def _begun(self, text: Sequence[int]) -> list[int]:
        tokens = list(text)
        bos = int(self._lc.llama_vocab_bos(self.vocabulary))
        wanted = bool(self._lc.llama_vocab_get_add_bos(self.vocabulary)) and bos >= 0
        return [bos, *tokens] if wanted and tokens[:1] != [bos] else tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes a token stands for; control tokens are empty unless `special`."""
        buffer = ctypes.create_string_buffer(256)
        count = self._lc.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._lc.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        return bytes(buffer.raw[:count])

    def ends_generation(self, token: int) -> bool:
        """Whether a token ends an answer (EOS, EOT and their like)."""
        return bool(self._lc.llama_vocab_is_eog(self.vocabulary, token))


class _Pool:
    """The weights that are in use in this process; a forked child begins with none."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self.lock = ForkableLock()
        self.weights: weakref.WeakValueDictionary[tuple[Any, ...], Weights] = weakref.WeakValueDictionary()


_pool = _Pool()


class Watch:
    """While entered, has llama.cpp stop computing in a context at a deadline, and at Ctrl-C.

    Python runs no signal handler while llama.cpp computes, which can take minutes; but it does run
    one in the callback that llama.cpp asks between the nodes of its graph whether to go on. That tells
    how far the decode is, too.

    Parameters
    ----------
    pointer : pointer
        The context.
    deadline : float, optional
        Value of `time.monotonic` at which to stop.
    expected : int
        Nodes that the graph has, as far as is known; 0 is not at all.

    Attributes
    ----------
    late : bool
        Whether it was stopped at the deadline.
    nodes : int
        Nodes that were computed, where they were counted.
    """

    def __init__(self, pointer: Any, deadline: float | None, expected: int = 0) -> None:
        self._lc, self._pointer, self._deadline = library(), pointer, deadline
        self._interrupt = NotedInterrupt()
        self._expected, self._tell = expected, within()
        self._raised: BaseException | None = None
        self.late, self.nodes = False, 0

    def __enter__(self) -> Watch:
        """Begin to watch."""
        self._interrupt.__enter__()
        asks = self._deadline is not None or self._tell is not None or can_give_up()
        if self._interrupt.notes or asks:
            self._callback = self._lc.ggml_abort_callback(self._stop)  # kept: C has a bare pointer to it
            self._lc.llama_set_abort_callback(self._pointer, self._callback, None)
        return self

    def _stop(self, _: Any) -> bool:
        late = (self._deadline is not None and time.monotonic() > self._deadline) or given_up()
        self.late = self.late or late
        self.nodes += 1
        if self._tell is not None and self._raised is None:
            try:
                self._tell(min(1.0, self.nodes / self._expected) if self._expected else 0.0)
            except BaseException as error:  # ctypes would print and drop it: raised when C has returned
                self._raised = error
        return self.late or self._interrupt.came or self._raised is not None

    def __exit__(self, *error: Any) -> None:
        """End it; raises the KeyboardInterrupt that came meanwhile, or what whoever is told raised."""
        self._lc.llama_set_abort_callback(self._pointer, self._lc.ggml_abort_callback(), None)
        self._interrupt.__exit__(*error)
        if self._raised is not None:
            raise self._raised


def _tokenise(lc: Any, vocabulary: Any, text: str, special: bool) -> tuple[int, ...]:
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"a text cannot be written as UTF-8 ({error.reason}): {text[:40]!r}") from None
    size = len(raw) + 8
    buffer = (lc.llama_token * size)()
    count = lc.llama_tokenize(vocabulary, raw, len(raw), buffer, size, False, special)
    if count < 0:
        raise ModelError(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
    return tuple(buffer[:count])


def _nothing(_: Any) -> None:
    """Free what was never made."""


def _free_in(pid: int, free: Any, pointer: Any) -> None:
    if os.getpid() == pid:  # a forked child holds a copy of the pointer, and must not free what it never made
        free(pointer)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContextShape:
    """Sizes of a context: sequences, tokens each can hold, rows a decode, output rows a decode."""

    n_seq: int
    n_ctx_seq: int
    n_batch: int
    n_outputs: int

    def covers(self, other: ContextShape) -> bool:
        """Whether everything that fits the other shape fits this one."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(mine >= theirs for mine, theirs in pairs)

    def joined(self, other: ContextShape) -> ContextShape:
        """Return the smallest shape that covers both."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return ContextShape(**{name: max(size, theirs[name]) for name, size in mine.items()})


class Context:
    """A llama.cpp context whose sequences are decoded side by side, in equal lengths.

    Sequences of a decode have consecutive numbers and one length, because llama.cpp splits anything
    else over several micro-batches, of fewer rows, which ggml may compute with other kernels.

    Parameters
    ----------
    weights : Weights
        Must outlive the context.
    shape : ContextShape
        Sizes.
    numerics : {"canonical", "fast"}
        Canonical: flash attention off. Fast: llama.cpp's defaults.
    n_threads : int
        CPU threads, see `computing_threads`.

    Raises
    ------
    InsufficientMemoryError
        If llama.cpp cannot allocate it.
    """

    def __init__(self, weights: Weights, shape: ContextShape, *, numerics: Numerics, n_threads: int) -> None:
        self.weights, self.shape = weights, shape
        self.pid = os.getpid()
        self._lc = lc = weights._lc
        params = lc.llama_context_default_params()
        params.n_ctx = shape.n_seq * shape.n_ctx_seq  # not unified: split evenly over the sequences
        params.n_batch = params.n_ubatch = shape.n_batch
        params.n_seq_max = shape.n_seq
        params.n_outputs_max = shape.n_outputs
        params.n_threads = params.n_threads_batch = computing_threads(n_threads)
        params.kv_unified = False
        if numerics == "canonical":
            params.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # A GPU would take the large batches and leave the small ones; one that has no layer takes none.
        params.op_offload = numerics == "fast" and weights.n_gpu_layers != 0
        params.offload_kqv = weights.n_gpu_layers != 0
        _log_tail.clear()
        with NotedInterrupt():
            pointer = lc.llama_init_from_model(weights.pointer, params)
            self._free = weakref.finalize(
                self, _free_in, self.pid, lc.llama_free if pointer else _nothing, pointer
            )
            self._free.atexit = False
        if not pointer:
            raise InsufficientMemoryError(
                f"llama.cpp cannot create a context of {shape.n_seq} sequences of {shape.n_ctx_seq} tokens "
                f"for {weights.path}: {_last_error()}"
            )
        self._pointer = pointer
        self._memory = lc.llama_get_memory(pointer)
        self._nodes = 0  # of the graph of the last decode: the next one's is about as long
        self._make_batch(shape.n_batch)

    def _make_batch(self, size: int) -> None:
        """Make the arrays of a llama_batch once; numpy fills them, llama.cpp reads them."""
        lc = self._lc
        self._token, self._pos, self._seq = (np.zeros(size, dtype=np.int32) for _ in range(3))
        self._flags = np.zeros(size, dtype=np.int8)
        self._ones = np.ones(size, dtype=np.int32)
        self._seq_pointers = self._seq.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        self._batch = lc.llama_batch()
        int32_p = ctypes.POINTER(ctypes.c_int32)
        self._batch.token = self._token.ctypes.data_as(int32_p)
        self._batch.pos = self._pos.ctypes.data_as(int32_p)
        self._batch.n_seq_id = self._ones.ctypes.data_as(int32_p)
        self._batch.seq_id = self._seq_pointers.ctypes.data_as(ctypes.POINTER(int32_p))
        self._batch.logits = self._flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))

    def close(self) -> None:
        """Free the context; it cannot be used afterwards."""
        self._free()

    def decode(
        self,
        tokens: Tokens,
        starts: Tokens,
        outputs: npt.NDArray[np.bool_],
        *,
        first: int = 0,
        deadline: float | None = None,
    ) -> None:
        """Decode one block of tokens: row s goes to sequence ``first + s``, from position ``starts[s]`` on.

        Parameters
        ----------
        tokens : int32 array (sequences, length)
            All of one length; the caller pads.
        starts : int32 array (sequences,)
            First positions, each one after the last that its sequence holds.
        outputs : bool array (sequences, length)
            Positions after which the logits are computed, see `logits`.
        first : int
            Sequence of the first row.
        deadline : float, optional
            Value of `time.monotonic` at which to stop.

        Raises
        ------
        GenerationTimeout
            At the deadline. All sequences are then empty.
        ModelError
            If llama.cpp fails. All sequences are then empty.
        """
        count, length = tokens.shape
        size, shape = count * length, self.shape
        if size > shape.n_batch or first + count > shape.n_seq or outputs.sum() > shape.n_outputs:
            self.clear()  # llama.cpp would end the process
            raise ModelError(f"a decode of {count} sequences of {length} tokens does not fit {shape}")
        self._token[:size] = tokens.ravel()
        self._pos[:size] = (starts[:, None] + np.arange(length, dtype=np.int32)).ravel()
        self._seq[:size] = np.repeat(np.arange(first, first + count, dtype=np.int32), length)
        self._flags[:size] = outputs.ravel()
        self._batch.n_tokens = size
        self._first, self._length = first, length
        _log_tail.clear()
        with Watch(self._pointer, deadline, self._nodes) as watch:
            code = self._lc.llama_decode(self._pointer, self._batch)
            if code:
                self.clear()
        if code == 0:
            self._nodes = watch.nodes or self._nodes
            return
        if watch.late:
            raise GenerationTimeout("the time limit ran out inside a decode")
        raise ModelError(f"llama.cpp failed to decode {size} tokens (code {code}): {_last_error()}")

    def logits(self, sequence: int, column: int) -> npt.NDArray[np.float32]:
        """Return the logits after one token of the last decode: a view, valid until the next."""
        pointer = self._lc.llama_get_logits_ith(
            self._pointer, (sequence - self._first) * self._length + column
        )
        return np.ctypeslib.as_array(pointer, shape=(self.weights.n_vocab,))

    def sample(self, sampler: Any) -> int:
        """Return the token that a sampler chooses after the last token of the last decode."""
        return int(self._lc.llama_sampler_sample(sampler, self._pointer, -1))

    def fork(self, source: int, targets: Sequence[int]) -> None:
        """Make each target a copy of the source sequence."""
        for target in targets:
            self._lc.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def cut(self, sequence: int, start: int) -> None:
        """Forget what a sequence holds from a position on."""
        self._lc.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        """Forget everything."""
        self._lc.llama_memory_clear(self._memory, True)
