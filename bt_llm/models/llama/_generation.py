"""Grammar: text under a grammar, decoded greedily, the same to the last letter in any company."""

from __future__ import annotations

import contextlib
import ctypes
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bt_llm.exceptions import ConfigError, GenerationTimeout
from bt_llm.models._base import Answer, Numerics, Prompt
from bt_llm.models.llama._context import MIN_ROWS, Context
from bt_llm.models.llama._forest import Forest, Node, decodes, forests
from bt_llm.models.llama._native import library
from bt_llm.models.llama._session import Session, decode_block
from bt_llm.models.llama._weights import Weights

__all__ = ["Grammar", "GrammarWriter", "json_grammar"]

_FIRST_LOOK = 64  # candidates shown to the grammar before the whole vocabulary is

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return the GBNF grammar of the JSON texts that a schema allows.

    Raises
    ------
    ConfigError
        If llama.cpp's converter cannot express the schema.
    """
    library()
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except Exception as error:  # the converter raises whatever it trips over
        raise ConfigError(f"schema cannot be turned into a grammar: {error!r}") from error


class Grammar:
    """Where one answer stands in a grammar: says which tokens may come next.

    Parameters
    ----------
    weights : Weights
        Whose vocabulary is used; must outlive the grammar.
    text : str
        GBNF, with the rule ``root``.

    Raises
    ------
    ConfigError
        If llama.cpp cannot parse it.
    """

    def __init__(self, weights: Weights, text: str) -> None:
        self._lc = library()
        self._sampler = self._lc.llama_sampler_init_grammar(weights.vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise ConfigError("llama.cpp cannot parse the grammar")

    def close(self) -> None:
        """Free it."""
        self._lc.llama_sampler_free(self._sampler)

    def best(self, logits: npt.NDArray[np.float32]) -> int:
        """Return the allowed token with the highest logit; of equal ones, the lowest number.

        The grammar sees the highest few first, since asking it about a whole vocabulary is slow.
        """
        count = min(_FIRST_LOOK, len(logits))
        bound = np.partition(logits, len(logits) - count)[len(logits) - count]
        for chosen in (np.flatnonzero(logits >= bound), np.arange(len(logits))):
            allowed = self._allowed(chosen.astype(np.int32), logits)
            if allowed.size:
                return int(allowed[np.argmax(logits[allowed])])
        raise ConfigError("the grammar allows no token: it has a dead end")

    def _allowed(
        self, tokens: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int32]:
        lc = self._lc
        candidates = np.zeros(len(tokens), dtype=_CANDIDATE)
        candidates["id"], candidates["logit"] = tokens, logits[tokens]
        array = lc.llama_token_data_array()
        array.data = candidates.ctypes.data_as(ctypes.POINTER(lc.llama_token_data))
        array.size, array.selected, array.sorted = len(tokens), -1, False
        lc.llama_sampler_apply(self._sampler, ctypes.byref(array))
        kept = candidates[: array.size]
        return np.sort(kept["id"][np.isfinite(kept["logit"])])

    def accept(self, token: int) -> None:
        """Go on after a token."""
        self._lc.llama_sampler_accept(self._sampler, token)


class _Answering:
    """One prompt being answered."""

    def __init__(self, prompt: Node, grammar: Grammar) -> None:
        self.prompt, self.grammar = prompt, grammar
        self.end = prompt.end  # position of the next token
        self.tokens: list[int] = []
        self.finished = False


class GrammarWriter:
    """Writes answers with a session's model, many side by side. Thread-safe.

    With canonical numerics an answer does not depend on the others.

    Parameters
    ----------
    session : Session
        The model.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def write(
        self,
        prompts: Sequence[Prompt],
        grammar: str,
        *,
        max_tokens: int,
        numerics: Numerics = "canonical",
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """Yield one answer a prompt, in order.

        Parameters
        ----------
        prompts : sequence of Prompt
            At least one token each.
        grammar : str
            GBNF, with the rule ``root``.
        max_tokens : int
            Longest answer.
        numerics : {"canonical", "fast"}
            Going from one to the other loads the model again.
        timeout_s : float, optional
            Seconds that may be spent in here, over all answers.

        Raises
        ------
        ConfigError
            For prompts or grammars that cannot be used.
        GenerationTimeout
            When `timeout_s` is over, inside a decode too. The session can be used again.
        """
        if max_tokens < 1:
            raise ConfigError(f"max_tokens={max_tokens}: expected a whole number of at least 1")
        with self.session.lock:
            tokenised = [self.session.tokenise(p, numerics, room=max_tokens) for p in prompts]
            if not tokenised:
                return
            shape = self.session.shape(tokenised, tail=max_tokens, outputs=1)
            shape = replace(shape, n_seq=self.session.prepare(shape, numerics, fewer=True).shape.n_seq)
        spent, answers, told = 0.0, dict[int, Answer](), 0
        n_seq = self.session.side_by_side(shape) if self.session.rewinds else 1
        for forest in forests(tokenised, shared=False, n_seq=n_seq):
            start = time.monotonic()
            deadline = None if timeout_s is None else start + timeout_s - spent
            try:
                with self.session.lock:
                    context = self.session.prepare(shape, numerics)
                    write = self._write_forest if self.session.rewinds else self._write_alone
                    written = write(context, forest, grammar, max_tokens, deadline)
            except GenerationTimeout:
                if timeout_s is None:  # whoever asked has given up
                    raise
                raise GenerationTimeout(
                    f"timeout_s={timeout_s:g}: over after {len(answers)} of {len(tokenised)} answers; "
                    "allow more time, or ask for fewer"
                ) from None
            took = time.monotonic() - start
            spent += took
            for one in written:
                text = b"".join(map(context.weights.piece, one.tokens)).decode("utf-8", "replace")
                for number in one.prompt.members:
                    count = forest.new_tokens[number] + len(one.tokens)
                    share = 1e3 * took / len(forest.new_tokens)
                    answers[number] = Answer(text, one.finished, count, share)
            while told in answers:
                yield answers[told]
                told += 1

    def _write_forest(
        self, context: Context, forest: Forest, grammar: str, max_tokens: int, deadline: float | None
    ) -> list[_Answering]:
        (nodes,) = forest.levels()  # each prompt whole, in sequences 0, 1, 2, ...
        with contextlib.ExitStack() as stack:
            everyone = []
            for node in nodes:
                state = Grammar(context.weights, grammar)
                stack.callback(state.close)
                everyone.append(_Answering(node, state))
            stack.enter_context(self.session.holding(context, forest.prefix, len(nodes), deadline))
            for group in decodes(nodes, context.shape):
                paths = [node.path for node in group]
                starts = np.array([node.start for node in group], dtype=np.int32)
                decode_block(context, paths, starts, first=group[0].sequence, rows=1, deadline=deadline)
                for node in group:
                    logits = context.logits(node.sequence, len(node.path) - 1)
                    _choose(context.weights, everyone[node.sequence], logits)
                    context.cut(node.sequence, node.end)
            active = list(everyone)
            while True:
                self._close_ranks(context, active, max_tokens)
                if not active:
                    return everyone
                last, ends = [one.tokens[-1] for one in active], [one.end for one in active]
                self.session.step(context, last, ends, deadline=deadline)
                for s, one in enumerate(active):
                    one.end += 1
                    _choose(context.weights, one, context.logits(s, 0))

    def _write_alone(
        self, context: Context, forest: Forest, grammar: str, max_tokens: int, deadline: float | None
    ) -> list[_Answering]:
        """Write one answer with a model that cannot be cut back, in as many equal sequences as rows."""
        ((node,),) = forest.levels()
        state = Grammar(context.weights, grammar)
        with contextlib.closing(state):
            one = _Answering(node, state)
            with self.session.holding(context, forest.prefix, MIN_ROWS, deadline):
                starts = np.full(MIN_ROWS, node.start, dtype=np.int32)
                decode_block(context, [node.path] * MIN_ROWS, starts, rows=1, deadline=deadline)
                _choose(context.weights, one, context.logits(0, len(node.path) - 1))
                while not one.finished and len(one.tokens) < max_tokens:
                    last, ends = [one.tokens[-1]] * MIN_ROWS, [one.end] * MIN_ROWS
                    self.session.step(context, last, ends, deadline=deadline)
                    one.end += 1
                    _choose(context.weights, one, context.logits(0, 0))
        return [one]

    def _close_ranks(self, context: Context, active: list[_Answering], max_tokens: int) -> None:
        """Drop the answers that are done, so that the others stand in sequences 0, 1, 2, ... again."""

        def done(one: _Answering) -> bool:
            return one.finished or len(one.tokens) == max_tokens

        while active and done(active[-1]):
            active.pop()
        for s in range(len(active) - 1, -1, -1):
            if done(active[s]):
                moved = active.pop()
                if s < len(active):
                    self.session.fork(context, len(active), [s])
                    active[s] = moved


def _choose(weights: Weights, one: _Answering, logits: npt.NDArray[np.float32]) -> None:
    token = one.grammar.best(logits)
    if weights.ends_generation(token):
        one.finished = True
    else:
        one.grammar.accept(token)
        one.tokens.append(token)
