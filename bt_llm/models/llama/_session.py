"""Session: one model in memory, its context of many sequences, and the prompt prefix that it keeps.

Floating-point sums depend on the kernel that computes them, and ggml chooses kernels by the shape of
a product. So that a prompt's logits are the same to the last bit in any company, every decode here
has one canonical shape (`decode_block`):

- flash attention off, one KV stream a sequence, weights not repacked;
- all sequences of a decode padded at the tail to one length (later tokens cannot touch earlier ones)
  and numbered consecutively, so that llama.cpp makes one micro-batch of them;
- at least `MIN_ROWS` rows, at least as many output rows, at least `MIN_TOKENS` tokens a sequence;
- or, for a token that follows a prompt by itself, exactly one token a sequence (`Session.step`), as
  many sequences as rows.

A model that is recurrent, in part or whole, cannot be cut back: its prefix is kept in a sequence of its own,
the last one, from which the others are copied for each decode. One of experts is treated so too, and decodes
one prompt at a time: how many rows an expert gets, and so its kernel, depends on everything in a decode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError, InsufficientMemoryError
from bt_llm.locks import ForkableLock
from bt_llm.models._base import Numerics, Prompt
from bt_llm.models._gguf import ModelFacts
from bt_llm.models.llama._context import MIN_ROWS, MIN_TOKENS, Context, ContextShape
from bt_llm.models.llama._device import compute_device
from bt_llm.models.llama._forest import Node, TokenisedPrompt, TokenPath
from bt_llm.models.llama._memory import check_fits
from bt_llm.models.llama._native import cpu_threads
from bt_llm.models.llama._tokens import tokenised
from bt_llm.models.llama._weights import Weights

__all__ = ["Session", "decode_block"]

_log = plain_text.logger("bt_llm.llama")

_STEP = 512  # tokens of a prefix that are decoded at once where it cannot be cut back
_OUTPUTS = 128  # rows of logits a decode, unless more are needed: each is as long as the vocabulary


class Session:
    """One model and what is decoded with it; loads it at the first question.

    Callers hold `lock` from `prepare` until they have read what they decoded.

    Parameters
    ----------
    path : Path
        A GGUF file.
    n_threads : int, optional
        CPU threads; by default one for each physical core this process may use.
    n_gpu_layers : int
        Layers kept on the GPU; -1 is all. With canonical numerics prompts are then decoded one by one.
    n_seq : int
        Prompts decoded side by side.
    n_batch : int
        Rows a decode; prompts that do not fit go to the next one. No result depends on it.
    facts : ModelFacts, optional
        Of the file. With them, memory is estimated before it is taken: fewer prompts are decoded
        side by side where it is short, and there is a clear error where it does not suffice.
    memory_threshold_mb : float
        Memory to keep free, if `facts` are given.
    load : callable, optional
        From the numerics to the weights; by default `Weights.load` of the file.
    lock : ForkableLock, optional
        Held while something is decoded; by default one of its own.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        n_seq: int = 128,
        n_batch: int = 2048,
        facts: ModelFacts | None = None,
        memory_threshold_mb: float = 0.0,
        load: Callable[[Numerics], Weights] | None = None,
        lock: ForkableLock | None = None,
    ) -> None:
        if n_seq < 1 or n_batch < MIN_ROWS:
            raise ConfigError(f"n_seq={n_seq}, n_batch={n_batch}: expected at least 1 and {MIN_ROWS}")
        self.path = path
        self.n_threads = cpu_threads(n_threads)
        self.n_gpu_layers, self.n_seq, self.n_batch = n_gpu_layers, n_seq, n_batch
        self.facts = facts if n_gpu_layers == 0 else None  # the estimate is of this machine's memory only
        self.memory_threshold_mb = memory_threshold_mb
        self.lock = lock or ForkableLock()
        self._load = load or self._load_file
        self._cuts_back, self._has_experts = True, False  # of the model, also while it is out of memory
        self._forget()

    def _load_file(self, numerics: Numerics) -> Weights:
        return Weights.load(self.path, n_gpu_layers=self.n_gpu_layers, repack=numerics == "fast")

    def _forget(self) -> None:
        self._weights: Weights | None = None
        self._context: Context | None = None
        self._numerics: Numerics | None = None
        self._kept: TokenPath | None = None  # the prefix that sequence 0 holds
        self._ready: set[int] = set()  # sequences that hold exactly the kept prefix between batches
        self.sharing_is_exact: bool | None = None  # as the scorer finds out, see there
        self.company_is_exact: bool | None = None  # the same, of models that cannot be cut back
        self._most = max(self.n_seq, MIN_ROWS)  # sequences that memory allows
        self._pid = os.getpid()

    def close(self) -> None:
        """Free the context, and the weights unless somebody else uses them; the next question loads again."""
        with self.lock:
            if self._pid == os.getpid() and self._context is not None:
                self._context.close()
            self._forget()

    @property
    def loaded(self) -> Weights | None:
        """The weights, if they are in memory."""
        return self._weights if self._pid == os.getpid() else None

    def weights(self, numerics: Numerics = "canonical") -> Weights:
        """Return the model, loaded for these numerics; the other ones need another load."""
        with self.lock:
            if self._pid != os.getpid() or self._numerics not in (None, numerics):
                self.close()  # after a fork, what the parent made is not ours to use
            if self._weights is None:
                self._check(ContextShape(n_seq=MIN_ROWS, n_ctx_seq=256, n_batch=256, n_outputs=MIN_ROWS))
                self._weights, self._numerics = self._load(numerics), numerics
                self._cuts_back, self._has_experts = self._weights.rewinds, self._weights.has_experts
            return self._weights

    def tokenise(self, prompt: Prompt, numerics: Numerics = "canonical", *, room: int = 0) -> TokenisedPrompt:
        """Return a prompt's tokens, see `tokenised`."""
        return self.fitted(tokenised(self.weights(numerics), prompt, room=room))

    def fitted(self, prompt: TokenisedPrompt) -> TokenisedPrompt:
        """Return a prompt cut so that no decode of it needs padding that stays."""
        if self.rewinds:
            return prompt
        prefix, suffix = prompt.prefix, prompt.suffix
        if (short := MIN_ROWS - len(suffix)) > 0:
            prefix, suffix = prefix[:-short], prefix[-short:] + suffix
        return TokenisedPrompt(prefix, (suffix,)) if len(prefix) >= MIN_ROWS else prompt.joined()

    @property
    def rewinds(self) -> bool:
        """Whether prompts share lines, and sequences are cut back to the prefix they share."""
        return self._cuts_back and not self._has_experts

    @property
    def _one_by_one(self) -> bool:
        """Whether each prompt is decoded alone: experts and a GPU round by how many rows there are."""
        on_gpu = self._numerics == "canonical" and bool(compute_device(self.n_gpu_layers))
        return self._has_experts or on_gpu

    @property
    def _spare(self) -> int:
        """Sequences that hold no prompt."""
        return 0 if self.rewinds else 1

    def prepare(self, wanted: ContextShape, numerics: Numerics, *, fewer: bool = False) -> Context:
        """Return a context of at least that shape; a larger one is made when longer or more prompts come.

        Parameters
        ----------
        wanted : ContextShape
            Sizes.
        numerics : {"canonical", "fast"}
            Which the model is loaded for.
        fewer : bool
            Whether fewer sequences will do, where memory is short.

        Raises
        ------
        InsufficientMemoryError
            If not even `MIN_ROWS` sequences fit, or without `fewer`, not all of them.
        """
        context = self._prepare(wanted, numerics)
        if context.shape.n_seq < wanted.n_seq and not fewer:
            raise InsufficientMemoryError("memory became short between two decodes: ask again")
        return context

    def _prepare(self, wanted: ContextShape, numerics: Numerics) -> Context:
        weights = self.weights(numerics)
        wanted = replace(wanted, n_seq=min(wanted.n_seq, self._most + self._spare))
        if self._context is not None:
            if self._context.shape.covers(wanted):
                return self._context
            wanted = self._context.shape.joined(wanted)  # or callers of different shapes would take turns
            self._context.close()
        self._context, self._kept, self._ready = None, None, set()
        while self._context is None:
            try:
                self._check(wanted)
                self._context = Context(weights, wanted, numerics=numerics, n_threads=self.n_threads)
            except InsufficientMemoryError:
                if wanted.n_seq <= MIN_ROWS + self._spare:
                    raise
                self._most = max(wanted.n_seq // 2, MIN_ROWS)
                wanted = replace(wanted, n_seq=self._most + self._spare)
                _log.info("memory is short: %d prompts side by side", self._most)
        return self._context

    def _check(self, shape: ContextShape) -> None:
        if self.facts is not None:
            check_fits(
                self.facts,
                shape.n_ctx_seq,
                keep_free_mb=self.memory_threshold_mb,
                n_seq_max=shape.n_seq,
                n_batch=shape.n_batch,
                n_outputs=shape.n_outputs,
            )

    def shape(self, prompts: Sequence[TokenisedPrompt], *, tail: int, outputs: int) -> ContextShape:
        """Sizes that suffice for prompts followed by up to `tail` tokens, with `outputs` rows each.

        Sequences are for so many prompts, rounded up: what one prompt does not need is not allocated.
        """
        count = 1 if self._one_by_one else len(prompts)
        n_seq = min(MIN_ROWS if count <= MIN_ROWS else _round_up(count, 16), self._most)
        suffix = max(len(prompt.suffix) for prompt in prompts)
        prefix = max(len(prompt.prefix) for prompt in prompts)
        return ContextShape(
            n_seq=n_seq + self._spare,
            n_ctx_seq=_round_up(prefix + max(suffix, MIN_ROWS) + max(tail, MIN_ROWS), 256),
            n_batch=max(self.n_batch, _round_up(suffix, 256)),
            n_outputs=max(n_seq, min(2 * n_seq, _OUTPUTS), outputs),
        )

    def side_by_side(self, shape: ContextShape) -> int:
        """Return how many prompts a context of that shape may hold."""
        return 1 if self._one_by_one else min(self.n_seq, shape.n_seq - self._spare)

    @contextlib.contextmanager
    def holding(
        self, context: Context, prefix: TokenPath, count: int, deadline: float | None
    ) -> Iterator[None]:
        """Have sequences 0 to `count` - 1 hold exactly the prefix, decoding it at most once.

        Afterwards every sequence is cut back to the prefix, for the next batch; after an error,
        nothing is kept.
        """
        try:
            if not self.rewinds:
                self._keep_apart(context, prefix, count, deadline)
                yield
                return
            self._keep(context, prefix, count, deadline)
            yield
            for s in self._ready:
                context.cut(s, len(prefix))
        except BaseException:
            context.clear()  # whatever a sequence holds now, it is not what `_ready` promises
            self._kept, self._ready = None, set()
            raise

    def _keep(self, context: Context, prefix: TokenPath, count: int, deadline: float | None) -> None:
        if self._kept != prefix:
            context.clear()
            self._kept, self._ready = None, set()
            size = context.shape.n_batch
            for start in range(0, len(prefix), size):
                piece = prefix[start : start + size]
                decode_block(context, [piece], np.array([start], np.int32), rows=0, deadline=deadline)
                context.cut(0, start + len(piece))
            self._kept, self._ready = prefix, {0}
        self.fork(context, 0, [s for s in range(count) if s not in self._ready])

    def _keep_apart(self, context: Context, prefix: TokenPath, count: int, deadline: float | None) -> None:
        """Keep the prefix in the last sequence, and make the first ones copies of it.

        Where it is cut depends on nothing but its length: a state is another one after other steps.
        """
        last = context.shape.n_seq - 1
        if self._kept != prefix:
            context.clear()
            self._kept, start = None, 0
            for end in _steps(len(prefix)):
                piece, at = prefix[start:end], np.array([start], np.int32)
                decode_block(context, [piece], at, first=last, rows=0, deadline=deadline)
                start = end
            self._kept = prefix
        for s in range(count):
            context.cut(s, 0)
        if prefix:
            context.fork(last, range(count))

    def fork(self, context: Context, source: int, targets: Sequence[int]) -> None:
        """Make each target a copy of the source, which begins with the prefix."""
        context.fork(source, targets)
        self._ready.update(targets)

    def grow(self, context: Context, level: Sequence[Node]) -> None:
        """Have the sequence of each node hold what its parent holds."""
        for node in level:
            if node.parent is not None and node.parent.sequence != node.sequence:
                self.fork(context, node.parent.sequence, [node.sequence])

    def step(
        self,
        context: Context,
        tokens: Sequence[int],
        starts: Sequence[int],
        *,
        deadline: float | None,
    ) -> None:
        """Decode one token for each of the first sequences, and have the logits after each.

        The attention of a single token is computed by other kernels than that of several, which see
        one row whatever the company. Where there are too few rows for the weights' kernels, the
        sequences that follow take a token too, after the prefix, and forget all else. The caller cuts
        off what it decoded.

        Parameters
        ----------
        context : Context
            Of at least `MIN_ROWS` sequences, in `holding`.
        tokens, starts : sequences of int
            One token each for sequences 0, 1, 2, ..., and its position.
        deadline : float, optional
            Value of `time.monotonic` at which to stop.
        """
        idle = {s: len(self._kept or ()) if s in self._ready else 0 for s in range(len(tokens), MIN_ROWS)}
        for s, position in idle.items():
            context.cut(s, position)
        block = np.array([*tokens, *(tokens[0] for _ in idle)], dtype=np.int32)[:, None]
        positions = np.array([*starts, *idle.values()], dtype=np.int32)
        context.decode(block, positions, np.ones(block.shape, dtype=np.bool_), deadline=deadline)
        for s, position in idle.items():
            context.cut(s, position)


def decode_block(
    context: Context,
    paths: Sequence[TokenPath],
    starts: npt.NDArray[np.int32],
    *,
    first: int = 0,
    rows: int,
    deadline: float | None,
) -> None:
    """Decode one path a sequence in the canonical shape.

    The caller cuts off what was padded, before it decodes more.

    Parameters
    ----------
    context : Context
        Large enough.
    paths : sequence of tuples of int
        Tokens, at least one each.
    starts : int32 array (sequences,)
        Position of each path's first token.
    first : int
        Sequence of the first path; the others follow.
    rows : int
        Have logits after so many tokens of each path, counted from its end; 0 is none.
    deadline : float, optional
        Value of `time.monotonic` at which to stop.
    """
    count = len(paths)
    lengths = np.array([len(path) for path in paths], dtype=np.int32)[:, None]
    length = max(int(lengths.max()), MIN_TOKENS, -(-MIN_ROWS // count))
    tokens = np.empty((count, length), dtype=np.int32)
    for row, path in zip(tokens, paths, strict=True):
        row[: len(path)], row[len(path) :] = path, path[0]
    columns = np.arange(length, dtype=np.int32)
    outputs = (columns < lengths) & (columns >= lengths - rows)
    if rows and (short := MIN_ROWS - int(outputs.sum())) > 0:
        outputs.flat[np.flatnonzero(~outputs)[:short]] = True
    context.decode(tokens, starts, outputs, first=first, deadline=deadline)


def _steps(length: int) -> list[int]:
    """Return where a prefix is cut: every 512 tokens, and no piece shorter than a decode must be.

    Examples
    --------
    >>> _steps(1030), _steps(0)
    ([512, 1022, 1030], [])
    """
    ends = list(range(_STEP, length, _STEP))
    if ends and length - ends[-1] < MIN_ROWS:
        ends[-1] = length - MIN_ROWS
    return [*ends, length] if length else []


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
