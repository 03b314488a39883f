"""Scorer: log-probabilities of labels after many prompts, the same to the last bit in any company."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError, GenerationTimeout, ModelError
from bt_llm.models._base import LabelScores, Numerics, Prompt
from bt_llm.models.llama._context import Context, ContextShape
from bt_llm.models.llama._forest import (
    Forest,
    Node,
    TokenisedPrompt,
    TokenPath,
    decodes,
    forests,
    tokens_decoded,
)
from bt_llm.models.llama._label_trie import LabelTrie, Steps
from bt_llm.models.llama._session import Session, decode_block
from bt_llm.models.llama._tokens import continued
from bt_llm.progress import part

__all__ = ["Scorer", "log_softmax_at"]

_log = plain_text.logger("bt_llm.llama")

_WORTH_SHARING = 0.8  # of the tokens; forks and smaller decodes cost a little
_ENOUGH_TO_CHECK = 16  # prompts; for fewer, finding out whether it is exact costs more than it saves


def log_softmax_at(logits: npt.NDArray[np.float32], tokens: Sequence[int]) -> list[float]:
    """Return the log-probabilities of some tokens, over the whole vocabulary, summed in double precision.

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
    row = logits - logits.max()
    normaliser = float(np.log(np.exp(row).sum(dtype=np.float64)))
    return [float(row[token]) - normaliser for token in tokens]


@dataclass(slots=True)
class _Asked:
    """One call's questions with one trie, and the answers so far; `numbers` are theirs in the call."""

    numbers: Sequence[int]
    prompts: Sequence[TokenisedPrompt]
    trie: LabelTrie
    numerics: Numerics
    shape: ContextShape
    n_seq: int
    timeout_s: float | None
    spent: float = 0.0
    results: dict[int, LabelScores] = field(default_factory=dict)

    def share(self, more: float) -> float:
        """Return what share of the prompts is answered, if so many more are about to be."""
        return min(1.0, (len(self.results) + more) / len(self.prompts))


class _Told:
    """Tells what share of a call's prompts is answered while a forest of them is decoded, by its tokens."""

    def __init__(self, asked: _Asked, forest: Forest, rewinds: bool) -> None:
        self._asked, self._prompts = asked, len(forest.new_tokens)
        levels, trie = forest.levels(), asked.trie
        lines = sum(len(node.path) for level in levels for node in level)
        leaves = sum(bool(node.members) for level in levels for node in level)
        again = 1 if rewinds else max(1, len(trie.branches))  # a model that cannot be cut back begins anew
        self._total = again * lines + leaves * trie.decoded
        self._done = self._coming = 0

    def next(self, tokens: int) -> None:
        """Tell that what was announced before is decoded, and that so many tokens are decoded now."""
        self._done, self._coming = self._done + self._coming, tokens
        part(self._share(self._done), until=self._share(self._done + tokens))

    def _share(self, tokens: int) -> float:
        return self._asked.share(tokens / self._total * self._prompts)


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

    def questions(
        self, prompts: Sequence[Prompt], labels: Sequence[str], numerics: Numerics = "canonical"
    ) -> dict[LabelTrie, dict[int, TokenisedPrompt]]:
        """Return the prompts' tokens by their numbers, for each way in which the labels go on from them.

        That is one way for all of them, unless a vocabulary joins the ends of some prompts with the labels.
        """
        weights = self.session.weights(numerics)
        if not labels:
            raise ConfigError("no labels: expected at least one")
        tries: dict[tuple[TokenPath, ...], LabelTrie] = {}
        found: dict[LabelTrie, dict[int, TokenisedPrompt]] = {}
        for number, prompt in enumerate(prompts):
            tokens, after = continued(weights, prompt, labels)
            if after not in tries:
                try:
                    tries[after] = LabelTrie.of(after)
                except ConfigError as error:
                    raise ConfigError(f"labels {list(labels)}: {error}") from None
            found.setdefault(tries[after], {})[number] = self.session.fitted(tokens)
        return found

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
            questions = self.questions(prompts, labels, numerics)
        found: dict[int, LabelScores] = {}
        spent, told = 0.0, 0
        for trie, tokens in questions.items():
            asked = self._asked(trie, tokens, numerics, timeout_s, spent)
            for _ in self._batches(asked):
                found.update((asked.numbers[place], scores) for place, scores in asked.results.items())
                ready = []
                while told in found:
                    ready.append(found[told])
                    told += 1
                if ready:
                    yield ready
            spent = asked.spent

    def _asked(
        self,
        trie: LabelTrie,
        tokens: Mapping[int, TokenisedPrompt],
        numerics: Numerics,
        timeout_s: float | None,
        spent: float,
    ) -> _Asked:
        prompts = list(tokens.values())
        with self.session.lock:
            shape = self.session.shape(prompts, tail=trie.depth, outputs=1 + trie.depth)
            shape = replace(shape, n_seq=self.session.prepare(shape, numerics, fewer=True).shape.n_seq)
        n_seq = self.session.side_by_side(shape)
        return _Asked(list(tokens), prompts, trie, numerics, shape, n_seq, timeout_s, spent)

    def _batches(self, asked: _Asked) -> Iterator[None]:
        """Score prompts, forest by forest, by sharing lines where that pays and is exact.

        Whether it is exact for this file on this machine is found out, not hoped for: of the first
        forest, three prompts are scored alone as well.
        """
        prompts = asked.prompts
        counts = [tokens_decoded(prompts, shared=shared, n_seq=asked.n_seq) for shared in (False, True)]
        shared = asked.numerics == "canonical" and counts[1] <= _WORTH_SHARING * counts[0]
        if not self.session.rewinds:
            shared = False
            if asked.numerics == "canonical":
                self._check_company(asked)
        if shared and self.session.sharing_is_exact is None and len(prompts) >= _ENOUGH_TO_CHECK:
            first = next(forests(prompts, shared=True, n_seq=asked.n_seq))
            self._score_forest(asked, first)
            self._check_sharing(asked, sorted(first.new_tokens))
        shared = shared and self.session.sharing_is_exact is True
        yield
        for forest in forests(prompts, shared=shared, n_seq=asked.n_seq):
            if not forest.new_tokens.keys() <= asked.results.keys():
                self._score_forest(asked, forest)
                yield

    def _check_company(self, asked: _Asked) -> None:
        """Find out, once, whether a model that cannot be cut back gives the same alone and in company.

        Raises
        ------
        ModelError
            If it does not.
        """
        if self.session.company_is_exact or min(len(asked.prompts), asked.n_seq) < 2:
            return
        first = next(forests(asked.prompts, shared=False, n_seq=asked.n_seq))
        self._score_forest(asked, first)
        number = max(first.new_tokens, key=lambda one: (-len(asked.prompts[one]), one))
        together = asked.results[number].logprobs
        alone = Forest(asked.prompts[number].prefix, shared=False, n_seq=asked.n_seq)
        alone.add(number, asked.prompts[number])
        self._score_forest(asked, alone)
        if asked.results[number].logprobs != together:
            raise ModelError(
                f"{self.session.path}: a prompt of this recurrent model has other probabilities alone than "
                "in company, so that no verdict would be told twice; use numerics='fast', or another model"
            )
        self.session.company_is_exact = True

    def _check_sharing(self, asked: _Asked, members: Sequence[int]) -> None:
        """Compare prompts of a forest with the same ones alone; after a difference, forget the forest's."""
        together = dict(asked.results)
        for number in {members[0], members[len(members) // 2], members[-1]}:
            alone = Forest(asked.prompts[number].prefix, shared=False, n_seq=asked.n_seq)
            alone.add(number, asked.prompts[number])
            self._score_forest(asked, alone)
        exact = all(asked.results[number].logprobs == together[number].logprobs for number in members)
        asked.results.clear()
        if exact:
            asked.results.update(together)
        else:
            _log.warning("%s: decoding shared lines once changes the scores; not done", self.session.path)
        self.session.sharing_is_exact = exact

    def _score_forest(self, asked: _Asked, forest: Forest) -> None:
        """Score the prompts of a forest and note the results."""
        start = time.monotonic()
        deadline = None if asked.timeout_s is None else start + asked.timeout_s - asked.spent
        try:
            with self.session.lock:
                context = self.session.prepare(asked.shape, asked.numerics)
                rows = self._decode_forest(context, forest, asked, deadline)
        except GenerationTimeout:
            if asked.timeout_s is None:  # whoever asked has given up
                raise
            raise GenerationTimeout(
                f"timeout_s={asked.timeout_s:g}: over after {len(asked.results)} of {len(asked.prompts)} "
                "prompts; allow more time, or ask for fewer prompts"
            ) from None
        took = time.monotonic() - start
        asked.spent += took
        for number, row in rows.items():
            tokens = forest.new_tokens[number] + asked.trie.decoded
            asked.results[number] = LabelScores(row, tokens=tokens, milliseconds=1e3 * took / len(rows))

    def _decode_forest(
        self, context: Context, forest: Forest, asked: _Asked, deadline: float | None
    ) -> dict[int, tuple[float, ...]]:
        levels, trie = forest.levels(), asked.trie
        told = _Told(asked, forest, self.session.rewinds)
        leaves = sorted((n for level in levels for n in level if n.members), key=lambda n: n.sequence)
        steps: list[Steps] = [{} for _ in leaves]
        for head in [trie.head] if self.session.rewinds else trie.branches or [()]:
            with self.session.holding(context, forest.prefix, len(levels[0]), deadline):
                for level in levels:
                    self.session.grow(context, level)
                    for nodes in decodes(level, context.shape, head=head, rows=1 + len(head)):
                        told.next(sum(len(node.then(head)) for node in nodes))
                        self._decode_nodes(context, nodes, head, trie, steps, deadline)
                if self.session.rewinds:
                    self._score_branches(context, leaves, trie, steps, told, deadline)
                told.next(0)
        rows: dict[int, tuple[float, ...]] = {}
        for leaf, found in zip(leaves, steps, strict=True):
            rows.update(dict.fromkeys(leaf.members, trie.totals(found)))
        return rows

    def _decode_nodes(
        self,
        context: Context,
        nodes: Sequence[Node],
        head: TokenPath,
        trie: LabelTrie,
        steps: Sequence[Steps],
        deadline: float | None,
    ) -> None:
        """Decode nodes side by side, and with the prompts that end there the head of the labels."""
        decode_block(
            context,
            [node.then(head) for node in nodes],
            np.array([node.start for node in nodes], dtype=np.int32),
            first=nodes[0].sequence,
            rows=1 + len(head) if any(node.members for node in nodes) else 0,
            deadline=deadline,
        )
        for node in nodes:
            if node.members:
                for depth in range(len(head) + 1):
                    column = len(node.path) - 1 + depth
                    _read(context, node.sequence, column, head[:depth], trie, steps[node.sequence])
            if self.session.rewinds:
                context.cut(node.sequence, node.end)

    def _score_branches(
        self,
        context: Context,
        leaves: Sequence[Node],
        trie: LabelTrie,
        steps: Sequence[Steps],
        told: _Told,
        deadline: float | None,
    ) -> None:
        """Decode the other branches of the trie after all prompts, one token of each at a time."""
        for branch in trie.branches:
            if branch == trie.head:
                continue
            for depth, token in enumerate(branch):
                starts = [leaf.end + depth for leaf in leaves]
                told.next(len(leaves))
                self.session.step(context, [token] * len(leaves), starts, deadline=deadline)
                for leaf, found in zip(leaves, steps, strict=True):
                    _read(context, leaf.sequence, 0, branch[: depth + 1], trie, found)
            for leaf in leaves:
                context.cut(leaf.sequence, leaf.end)


def _read(
    context: Context,
    sequence: int,
    column: int,
    node: TokenPath,
    trie: LabelTrie,
    steps: Steps,
) -> None:
    """Note the log-probability of each token with which a label goes on after this node."""
    following = trie.following(node)
    if any((*node, token) not in steps for token in following):
        values = log_softmax_at(context.logits(sequence, column), following)
        steps.update(((*node, token), value) for token, value in zip(following, values, strict=True))
