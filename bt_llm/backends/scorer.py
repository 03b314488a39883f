"""Scorer: log-probabilities of labels after many prompts, the same to the last bit in any company."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bt_llm.backends.base import LabelScores, Numerics, Prompt
from bt_llm.backends.native import MIN_ROWS, Context
from bt_llm.backends.session import Session, TokenisedPrompt, TokenPath, batches, decode_block
from bt_llm.exceptions import ConfigError, GenerationTimeout

__all__ = ["LabelTrie", "Scorer", "log_softmax_at"]


def log_softmax_at(logits: npt.NDArray[np.float32], tokens: Sequence[int]) -> list[float]:
    """Return the log-probabilities of some tokens, over the whole vocabulary, in double precision.

    Parameters
    ----------
    logits : float32 array (vocabulary,)
        One row at a time: the result then depends on nothing but the row.
    tokens : sequence of int
        Token numbers.

    Examples
    --------
    >>> [round(p, 4) for p in log_softmax_at(np.log(np.float32([1, 3, 4])), [0, 2])]
    [-2.0794, -0.6931]
    """
    row = logits.astype(np.float64)
    row -= row.max()
    normaliser = np.log(np.exp(row).sum())
    return [float(row[token] - normaliser) for token in tokens]


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """Labels as paths of tokens, and the branches that must be decoded to score them.

    `branches` are the longest proper beginnings of labels: decoding one gives the logits after each
    of its tokens, and with those after the prompt itself every token of every label is scored.

    Examples
    --------
    >>> LabelTrie.of([(7, 8, 9), (7, 5), (3,)]).branches
    ((7, 8),)
    >>> LabelTrie.of([(7,), (7, 5)])
    Traceback (most recent call last):
    bt_llm.exceptions.ConfigError: label 0 is the beginning of label 1 in tokens: their ...
    """

    labels: tuple[TokenPath, ...]
    branches: tuple[TokenPath, ...]

    @classmethod
    def of(cls, labels: Sequence[TokenPath]) -> LabelTrie:
        """Build the trie.

        Raises
        ------
        ConfigError
            If a label has no tokens, or is the beginning of another one.
        """
        for i, first in enumerate(labels):
            if not first:
                raise ConfigError(f"label {i} has no tokens: expected a word")
            for j, second in enumerate(labels):
                if i != j and second[: len(first)] == first:
                    raise ConfigError(
                        f"label {i} is the beginning of label {j} in tokens: their probabilities "
                        "overlap, so choose labels of which none begins another"
                    )
        inner = {label[:-1] for label in labels if len(label) > 1}
        branches = [a for a in inner if not any(a != b and b[: len(a)] == a for b in inner)]
        return cls(tuple(labels), tuple(sorted(branches)))

    @property
    def depth(self) -> int:
        """Tokens of the longest branch."""
        return max((len(branch) for branch in self.branches), default=0)

    @property
    def decoded(self) -> int:
        """Tokens decoded for the labels after one prompt."""
        return sum(len(branch) for branch in self.branches)

    def following(self, node: TokenPath) -> list[int]:
        """Tokens with which labels go on after a node, in order and without repetition."""
        depth = len(node)
        found = {label[depth] for label in self.labels if len(label) > depth and label[:depth] == node}
        return sorted(found)

    def totals(self, steps: dict[TokenPath, float]) -> tuple[float, ...]:
        """Log-probabilities of the labels, from those of each step (a node and the token after it)."""
        return tuple(sum(steps[label[:k]] for k in range(1, len(label) + 1)) for label in self.labels)


class Scorer:
    """Scores prompts with a session's model. Thread-safe.

    With canonical numerics a prompt's scores do not depend on what else is decoded with it, before
    it or after it, nor on the number of threads.

    Parameters
    ----------
    session : Session
        The model.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def trie(self, labels: Sequence[str], numerics: Numerics = "canonical") -> LabelTrie:
        """Tokenise the labels, each on its own and without reading control tokens in them."""
        weights = self.session.weights(numerics)
        if not labels:
            raise ConfigError("no labels: expected at least one")
        try:
            return LabelTrie.of([tuple(weights.tokens(label, special=False)) for label in labels])
        except ConfigError as error:
            raise ConfigError(f"labels {list(labels)}: {error}") from None

    def score(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        numerics: Numerics = "canonical",
        timeout_s: float | None = None,
    ) -> Iterator[list[LabelScores]]:
        """Yield the labels' log-probabilities in the prompts' order, batch by batch.

        Prompts with one first chunk are decoded together, after one decode of that chunk.

        Parameters
        ----------
        prompts : sequence of Prompt
            At least one token each.
        labels : sequence of str
            None of which begins another one, in tokens.
        numerics : {"canonical", "fast"}
            Going from one to the other loads the model again.
        timeout_s : float, optional
            Seconds that may be spent in here, over all batches; the caller's time between them does
            not count.

        Raises
        ------
        ConfigError
            For labels or prompts that cannot be scored.
        GenerationTimeout
            When `timeout_s` is over, inside a decode too. The scorer can be used again.
        """
        with self.session.lock:
            trie = self.trie(labels, numerics)
            tokenised = [self.session.tokenise(prompt, numerics) for prompt in prompts]
            if not tokenised:
                return
            shape = self.session.shape(tokenised, tail=trie.depth, outputs=trie.depth)
            n_seq = self.session.prepare(shape, numerics).shape.n_seq
            shape = replace(shape, n_seq=max(1, min(n_seq, shape.n_outputs // max(1, trie.depth))))
        spent, results, told = 0.0, dict[int, LabelScores](), 0
        for members in batches(tokenised, n_seq=shape.n_seq, n_batch=shape.n_batch, at_least=trie.depth):
            start = time.monotonic()
            deadline = None if timeout_s is None else start + timeout_s - spent
            try:
                with self.session.lock:
                    context = self.session.prepare(shape, numerics)
                    rows = self._score_batch(context, [tokenised[i] for i in members], trie, deadline)
            except GenerationTimeout:
                raise GenerationTimeout(
                    f"timeout_s={timeout_s:g}: over after {len(results)} of {len(tokenised)} prompts; "
                    "allow more time, or ask for fewer prompts"
                ) from None
            took = time.monotonic() - start
            spent += took
            for i, row in zip(members, rows, strict=True):
                count = len(tokenised[i].suffix) + trie.decoded
                results[i] = LabelScores(row, tokens=count, milliseconds=1e3 * took / len(members))
            done = told
            while done in results:
                done += 1
            if done > told:
                yield [results[i] for i in range(told, done)]
                told = done

    def _score_batch(
        self,
        context: Context,
        prompts: Sequence[TokenisedPrompt],
        trie: LabelTrie,
        deadline: float | None,
    ) -> list[tuple[float, ...]]:
        """Score prompts of one prefix that fit one decode."""
        count, prefix = len(prompts), prompts[0].prefix
        paths = [prompt.suffix for prompt in prompts]
        starts = np.full(count, len(prefix), dtype=np.int32)
        ends = starts + np.array([len(path) for path in paths], dtype=np.int32)
        steps: list[dict[TokenPath, float]] = [{} for _ in prompts]
        with self.session.holding(context, prefix, count, deadline):
            decode_block(context, paths, starts, rows="last", deadline=deadline)
            for s, path in enumerate(paths):
                _read(context, s, len(path) - 1, (), trie, steps[s])
                context.cut(s, int(ends[s]))
            self._score_branches(context, ends, trie, steps, deadline)
        return [trie.totals(step) for step in steps]

    def _score_branches(
        self,
        context: Context,
        ends: npt.NDArray[np.int32],
        trie: LabelTrie,
        steps: list[dict[TokenPath, float]],
        deadline: float | None,
    ) -> None:
        """Decode the branches of the trie after each prompt.

        One branch at a time, in the prompts' own sequences; or all at once on forks of them when
        there are so few prompts that each decode would be mostly padding.
        """
        count, branches = len(ends), trie.branches
        few = count * trie.depth < MIN_ROWS and count * len(branches) <= context.shape.n_seq
        together = len(branches) if few else 1
        for first in range(0, len(branches), together or 1):
            group = branches[first : first + together]
            for s in range(count):
                copies = [k * count + s for k in range(1, len(group))]
                self.session.fork(context, s, copies)
            paths = [branch for branch in group for _ in range(count)]
            decode_block(context, paths, np.tile(ends, len(group)), rows="all", deadline=deadline)
            for sequence, branch in enumerate(paths):
                s = sequence % count
                for depth in range(1, len(branch) + 1):
                    _read(context, sequence, depth - 1, branch[:depth], trie, steps[s])
                context.cut(sequence, int(ends[s]))


def _read(
    context: Context,
    sequence: int,
    column: int,
    node: TokenPath,
    trie: LabelTrie,
    steps: dict[TokenPath, float],
) -> None:
    """Note the log-probability of each token with which a label goes on after this node."""
    following = trie.following(node)
    if any((*node, token) not in steps for token in following):
        values = log_softmax_at(context.logits(sequence, column), following)
        steps.update(((*node, token), value) for token, value in zip(following, values, strict=True))
