"""TextWriter: free text after a prompt, drawn token by token with llama.cpp's samplers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bt_llm.exceptions import ConfigError
from bt_llm.models._config import ModelConfig
from bt_llm.models.llama._context import Context, ContextShape
from bt_llm.models.llama._native import library
from bt_llm.models.llama._weights import Weights

__all__ = ["TextWriter"]

_N_BATCH = 512
_LAST_SEED = 2**32 - 2  # the one after it asks llama.cpp for a random seed
_REMEMBERED = 64  # tokens of the answer that repeat_penalty looks at


class TextWriter:
    """Writes text with a model's weights in a context of its own, made when first used.

    Parameters
    ----------
    weights : Weights
        The model's, as canonical numerics have them: whoever scores with the same file uses the same.
    n_ctx : int
        Tokens that a prompt and its answer may have.
    n_threads : int
        CPU threads.
    """

    def __init__(self, weights: Weights, *, n_ctx: int, n_threads: int) -> None:
        self.weights = weights
        self.n_ctx = n_ctx
        self._n_threads = n_threads
        self._context: Context | None = None

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            self._context.close()
            self._context = None

    def tokens(self, text: str) -> list[int]:
        """Tokenise a prompt.

        Raises
        ------
        ConfigError
            If there is no room for an answer after it.
        """
        tokens = self.weights.opening(text)
        if len(tokens) >= self.n_ctx:
            raise ConfigError(
                f"a prompt of {len(tokens)} tokens does not fit n_ctx={self.n_ctx} with room for an "
                "answer: shorten it, or load the model with a larger n_ctx"
            )
        return tokens

    def write(
        self, text: str, sampling: ModelConfig, stop: Sequence[str] = (), deadline: float | None = None
    ) -> str:
        """Return what follows a text; the same for the same text and sampling, whatever was written before.

        Parameters
        ----------
        text : str
            The prompt; names of control tokens are read as such.
        sampling : ModelConfig
            Its temperature, top_p, top_k, repeat_penalty, seed and max_tokens.
        stop : sequence of str
            Texts before which the answer ends.
        deadline : float, optional
            Value of `time.monotonic` at which to give up.

        Raises
        ------
        ConfigError
            If the prompt does not fit.
        InsufficientMemoryError
            If the context does not fit the memory.
        GenerationTimeout
            At the deadline, inside a decode too.
        """
        tokens = self.tokens(text)
        context = self._prepared()
        context.clear()
        self._decode(context, tokens, 0, deadline)
        ends, written = [text.encode() for text in stop], b""
        with _sampler(self.weights, sampling) as sampler:
            token = -1
            for end in range(len(tokens), min(len(tokens) + sampling.max_tokens, self.n_ctx)):
                if token >= 0:
                    self._decode(context, [token], end - 1, deadline)
                token = context.sample(sampler)
                if self.weights.ends_generation(token):
                    break
                written += self.weights.piece(token)
                if found := [place for text in ends if (place := written.find(text)) >= 0]:
                    written = written[: min(found)]
                    break
        return written.decode("utf-8", "ignore")  # the last letter may be half

    def _prepared(self) -> Context:
        if self._context is None:
            shape = ContextShape(n_seq=1, n_ctx_seq=self.n_ctx, n_batch=_N_BATCH, n_outputs=1)
            self._context = Context(self.weights, shape, numerics="canonical", n_threads=self._n_threads)
        return self._context

    def _decode(self, context: Context, tokens: Sequence[int], start: int, deadline: float | None) -> None:
        """Decode tokens in pieces that fit; the logits are those after the last one."""
        for at in range(0, len(tokens), _N_BATCH):
            piece = np.array([tokens[at : at + _N_BATCH]], dtype=np.int32)
            outputs = np.zeros(piece.shape, dtype=np.bool_)
            outputs[0, -1] = at + piece.shape[1] == len(tokens)
            context.decode(piece, np.array([start + at], dtype=np.int32), outputs, deadline=deadline)


@contextlib.contextmanager
def _sampler(weights: Weights, sampling: ModelConfig) -> Iterator[Any]:
    """Give a chain of llama.cpp's samplers: penalty, top_k, top_p, temperature, and the draw."""
    lc = library()
    chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
    try:
        penalty = float(sampling.repeat_penalty)
        parts = [lc.llama_sampler_init_penalties(weights.n_vocab, _REMEMBERED, penalty, 0.0, 0.0)]
        if sampling.temperature == 0:
            parts.append(lc.llama_sampler_init_greedy())
        else:
            parts += [
                lc.llama_sampler_init_top_k(sampling.top_k),
                lc.llama_sampler_init_top_p(float(sampling.top_p), 1),
                lc.llama_sampler_init_temp(float(sampling.temperature)),
                lc.llama_sampler_init_dist(min(sampling.seed, _LAST_SEED)),
            ]
        for part in parts:
            lc.llama_sampler_chain_add(chain, part)  # which frees it
        yield chain
    finally:
        lc.llama_sampler_free(chain)
