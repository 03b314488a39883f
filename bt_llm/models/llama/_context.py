"""A context of llama.cpp: many sequences, decoded side by side until a deadline or Ctrl-C.

Nothing here knows of prompts, labels or verdicts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bt_llm.exceptions import GenerationTimeout, InsufficientMemoryError, ModelError
from bt_llm.models._base import Numerics
from bt_llm.models._interrupts import NotedInterrupt, can_give_up, given_up
from bt_llm.models.llama._native import (
    computing_threads,
    forget_errors,
    free_in,
    free_nothing,
    last_error,
    library,
)
from bt_llm.models.llama._weights import Weights
from bt_llm.progress import within

__all__ = ["MIN_ROWS", "MIN_TOKENS", "Context", "ContextShape"]

Tokens = npt.NDArray[np.int32]

MIN_ROWS = 8
"""Rows from which ggml's tiled kernels compute a matrix product, whatever else is in the batch."""

MIN_TOKENS = 2 if platform.machine().lower() in ("x86_64", "amd64") else 8
"""Tokens a sequence from which the attention products are computed by ggml's matrix kernels: these see
each sequence on its own. tinyBLAS asks for 2 rows on x86 and for up to 8 elsewhere."""


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
        forget_errors()
        with NotedInterrupt():
            pointer = lc.llama_init_from_model(weights.pointer, params)
            self._free = weakref.finalize(
                self, free_in, self.pid, lc.llama_free if pointer else free_nothing, pointer
            )
            self._free.atexit = False
        if not pointer:
            raise InsufficientMemoryError(
                f"llama.cpp cannot create a context of {shape.n_seq} sequences of {shape.n_ctx_seq} tokens "
                f"for {weights.path}: {last_error()}"
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
        forget_errors()
        with Watch(self._pointer, deadline, self._nodes) as watch:
            code = self._lc.llama_decode(self._pointer, self._batch)
            if code:
                self.clear()
        if code == 0:
            self._nodes = watch.nodes or self._nodes
            return
        if watch.late:
            raise GenerationTimeout("the time limit ran out inside a decode")
        raise ModelError(f"llama.cpp failed to decode {size} tokens (code {code}): {last_error()}")

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
