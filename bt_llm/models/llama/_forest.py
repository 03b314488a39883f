"""Forest: which tokens are decoded once for several prompts, level by level.

Prompts of one prefix that begin with the same lines share the decode of those lines. Where a prompt
is cut does not change its logits, as long as every decode has the canonical shape (`session`): on
K-quants too, provided that the sequences of a decode are numbered consecutively.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bt_llm.models.llama._context import MIN_ROWS, ContextShape

__all__ = ["Forest", "Node", "TokenPath", "TokenisedPrompt", "decodes", "forests", "tokens_decoded"]

TokenPath = tuple[int, ...]

_ROWS_OF_A_DECODE = 32
"""Rows of padding that cost about as much as another decode, whatever is in it: 10 (135M) to 35 (1B)."""


@dataclass(frozen=True, slots=True)
class TokenisedPrompt:
    """A prompt in tokens: the kept prefix, shared with its neighbours, and one path a line, never none."""

    prefix: TokenPath
    paths: tuple[TokenPath, ...]

    @property
    def suffix(self) -> TokenPath:
        """Everything after the prefix."""
        return sum(self.paths, ())

    def joined(self) -> TokenisedPrompt:
        """Return the same without a prefix and uncut."""
        return TokenisedPrompt((), (self.prefix + self.suffix,))

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.paths))


@dataclass(slots=True)
class Node:
    """Tokens that are decoded once, after those of the parent.

    `members` are the numbers of the prompts that end here, `sequence` is where they are decoded.
    """

    path: TokenPath
    parent: Node | None
    start: int
    members: list[int] = field(default_factory=list)
    sequence: int = -1

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.path)

    def then(self, head: TokenPath) -> TokenPath:
        """Return the tokens to decode, where `head` follows every prompt."""
        return self.path + head if self.members else self.path


class Forest:
    """Prompts of one prefix that are decoded together.

    Parameters
    ----------
    prefix : tuple of int
        Tokens that all of them begin with.
    shared : bool
        Whether prompts share the decode of the lines that they have in common; else each is decoded
        whole.
    n_seq : int
        Different prompts that it may hold: each ends in a sequence of its own.
    """

    def __init__(self, prefix: TokenPath, *, shared: bool, n_seq: int) -> None:
        self.prefix = prefix
        self._shared, self._n_seq = shared, n_seq
        self._nodes: dict[tuple[TokenPath, ...], Node] = {}
        self._ends = 0
        self.new_tokens: dict[int, int] = {}

    def add(self, number: int, prompt: TokenisedPrompt) -> bool:
        """Take a prompt in, unless the forest is full."""
        paths = prompt.paths if self._shared else (prompt.suffix,)
        known = self._nodes.get(paths)
        if known is None or not known.members:
            if self._ends == self._n_seq:
                return False
            self._ends += 1
        new = 0
        for depth in range(1, len(paths) + 1):
            if paths[:depth] not in self._nodes:
                parent = self._nodes.get(paths[: depth - 1])
                start = parent.end if parent else len(self.prefix)
                self._nodes[paths[:depth]] = Node(paths[depth - 1], parent, start)
                new += len(paths[depth - 1])
        self._nodes[paths].members.append(number)
        self.new_tokens[number] = new
        return True

    def levels(self) -> list[list[Node]]:
        """Return the nodes by depth, those of a level in the order of their sequences.

        A node where no prompt ends leaves its sequence to its shortest child. The others get new
        sequences, shorter nodes first: side by side they need less padding. In the end every sequence
        holds one prompt, and the sequences are numbered from 0 without gaps.
        """
        levels: dict[int, list[Node]] = {}
        for key, node in self._nodes.items():
            levels.setdefault(len(key), []).append(node)
        used = 0
        for depth in sorted(levels):
            left = {id(n.parent): n.parent for n in levels[depth] if n.parent and not n.parent.members}
            levels[depth].sort(key=lambda node: len(node.path))
            for node in levels[depth]:
                parent = left.pop(id(node.parent), None)
                node.sequence = used if parent is None else parent.sequence
                used += parent is None
            levels[depth].sort(key=lambda node: node.sequence)
        return [levels[depth] for depth in sorted(levels)]


def forests(prompts: Sequence[TokenisedPrompt], *, shared: bool, n_seq: int) -> Iterator[Forest]:
    """Yield forests that take in all prompts, those of one prefix after each other and in their order.

    Parameters
    ----------
    prompts : sequence of TokenisedPrompt
        Their numbers in it are the forests' members.
    shared : bool
        Whether prompts share the decode of the lines that they have in common.
    n_seq : int
        Different prompts a forest.
    """
    groups: dict[TokenPath, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(prompt.prefix, []).append(number)
    for prefix, numbers in groups.items():
        forest = Forest(prefix, shared=shared, n_seq=n_seq)
        for number in numbers:
            if not forest.add(number, prompts[number]):
                yield forest
                forest = Forest(prefix, shared=shared, n_seq=n_seq)
                forest.add(number, prompts[number])
        yield forest


def decodes(
    level: Sequence[Node], shape: ContextShape, *, head: TokenPath = (), rows: int = 1
) -> Iterator[list[Node]]:
    """Cut a level into the nodes that are decoded side by side, all padded to the longest of them.

    A decode ends where the context's sizes say so, where sequences are not consecutive, and where the
    nodes become so much longer that padding would cost more than another decode.

    Parameters
    ----------
    level : sequence of Node
        In the order of their sequences.
    shape : ContextShape
        Of the context; one node alone is taken to fit.
    head : tuple of int
        Tokens that follow each prompt in the same decode.
    rows : int
        Rows of logits a node.
    """
    group: list[Node] = []
    longest = start = 0
    for node in level:
        length = len(node.then(head))
        count, padded, latest = len(group) + 1, max(longest, length), max(start, node.start)
        full = count * max(padded, MIN_ROWS) > shape.n_batch or count * rows > shape.n_outputs
        crowded = latest + max(padded, MIN_ROWS) > shape.n_ctx_seq
        longer = len(group) * (length - longest) > _ROWS_OF_A_DECODE
        if group and (full or crowded or longer or node.sequence != group[-1].sequence + 1):
            yield group
            group, padded, latest = [], length, node.start
        group.append(node)
        longest, start = padded, latest
    if group:
        yield group


def tokens_decoded(prompts: Sequence[TokenisedPrompt], *, shared: bool, n_seq: int) -> int:
    """Count the tokens that are decoded for prompts, besides their prefixes.

    Examples
    --------
    >>> prompts = [TokenisedPrompt((1,), ((2, 3), (n,))) for n in (4, 5, 6)]
    >>> [tokens_decoded(prompts, shared=shared, n_seq=8) for shared in (False, True)]
    [9, 5]
    """
    return sum(sum(f.new_tokens.values()) for f in forests(prompts, shared=shared, n_seq=n_seq))
