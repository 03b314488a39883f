"""LabelTrie: labels as paths of tokens, and what of them must be decoded to score them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bt_llm.exceptions import ConfigError
from bt_llm.models.llama._forest import TokenPath

__all__ = ["LabelTrie", "Steps"]

Steps = dict[TokenPath, float]
"""Log-probability of each step into a label: of its last token, after those before it."""


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
    def head(self) -> TokenPath:
        """The branch that is decoded with a prompt, as its last tokens: that spares a decode."""
        return max(self.branches, key=len, default=())

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

    def totals(self, steps: Steps) -> tuple[float, ...]:
        """Log-probabilities of the labels, from those of each step (a node and the token after it)."""
        return tuple(sum(steps[label[:k]] for k in range(1, len(label) + 1)) for label in self.labels)
