"""Forest: which tokens are decoded once for several prompts, level by level.

Prompts of one prefix that begin with the same lines share the decode of those lines. Where a prompt
is cut does not change its logits, as long as every decode has the canonical shape (`session`): on
K-quants too, provided that the sequences of a decode are numbered consecutively.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bt_llm.backends.native import MIN_ROWS, MIN_TOKENS, ContextShape

__all__ = ["Forest", "Limits", "Node", "TokenPath", "TokenisedPrompt", "forests", "tokens_decoded"]

TokenPath = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenisedPrompt:
    """A prompt in tokens: the kept prefix, shared with its neighbours, and one path a line, never none."""

    prefix: TokenPath
    paths: tuple[TokenPath, ...]

    @property
    def suffix(self) -> TokenPath:
        """Everything after the prefix."""
        return sum(self.paths, ())

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.paths))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one forest may take: sequences, tokens in each, rows a decode, output rows a decode.

    `head` tokens are decoded with each prompt, and up to `tail` after it, in a decode of their own.
    """

    n_seq: int
    n_ctx_seq: int
    n_batch: int
    n_outputs: int
    head: int = 0
    tail: int = 0

    @classmethod
    def of(cls, shape: ContextShape, *, head: int = 0, tail: int = 0) -> Limits:
        """Return the limits that a context of that shape sets."""
        return cls(**dataclasses.asdict(shape), head=head, tail=tail)


@dataclass(slots=True)
class Node:
    """Tokens that are decoded once, into a sequence of their own, after those of the parent.

    `members` are the numbers of the prompts that end here.
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


class Forest:
    """Prompts of one prefix that are decoded together.

    Parameters
    ----------
    prefix : tuple of int
        Tokens that all of them begin with.
    shared : bool
        Whether prompts share the decode of the lines that they have in common; else each is decoded
        whole.
    limits : Limits
        What may be taken.
    """

    def __init__(self, prefix: TokenPath, *, shared: bool, limits: Limits) -> None:
        self.prefix = prefix
        self._shared, self._limits = shared, limits
        self._nodes: dict[tuple[TokenPath, ...], Node] = {}
        self._members = 0
        self.new_tokens: dict[int, int] = {}

    def add(self, number: int, prompt: TokenisedPrompt) -> bool:
        """Take a prompt in, unless it would exceed the limits; the first one always fits."""
        paths = prompt.paths if self._shared else (prompt.suffix,)
        keys = [paths[: depth + 1] for depth in range(len(paths))]
        new = [key for key in keys if key not in self._nodes]
        if self._nodes and not self._has_room(new):
            return False
        for key in new:
            parent = self._nodes.get(key[:-1])
            self._nodes[key] = Node(key[-1], parent, parent.end if parent else len(self.prefix))
        self._nodes[keys[-1]].members.append(number)
        self._members += 1
        self.new_tokens[number] = sum(len(key[-1]) for key in new)
        return True

    def _has_room(self, new: Sequence[tuple[TokenPath, ...]]) -> bool:
        limits, keys = self._limits, [*self._nodes, *new]
        leaves = self._members + 1
        tail = leaves * max(limits.tail, MIN_TOKENS)
        if (
            len(keys) > limits.n_seq
            or tail > limits.n_batch
            or leaves * max(limits.tail, 1 + limits.head) > limits.n_outputs
        ):
            return False
        levels: dict[int, list[tuple[int, int]]] = {}
        for key in keys:
            levels.setdefault(len(key), []).append((len(self.prefix) + sum(map(len, key[:-1])), len(key[-1])))
        return all(self._fits(*zip(*level, strict=True)) for level in levels.values())

    def _fits(self, starts: Sequence[int], lengths: Sequence[int]) -> bool:
        """Whether nodes can be decoded side by side, all padded to the longest one."""
        longest = max(max(lengths) + self._limits.head, MIN_ROWS)
        return (
            len(lengths) * longest <= self._limits.n_batch and max(starts) + longest <= self._limits.n_ctx_seq
        )

    def levels(self) -> list[list[Node]]:
        """Nodes by depth, numbered consecutively; in each level those where prompts end come first."""
        levels: dict[int, list[Node]] = {}
        for key, node in self._nodes.items():
            levels.setdefault(len(key), []).append(node)
        ordered = [sorted(levels[depth], key=lambda node: not node.members) for depth in sorted(levels)]
        for sequence, node in enumerate(node for level in ordered for node in level):
            node.sequence = sequence
        return ordered


def forests(prompts: Sequence[TokenisedPrompt], *, shared: bool, limits: Limits) -> Iterator[Forest]:
    """Yield forests that take in all prompts, those of one prefix after each other and in their order.

    Parameters
    ----------
    prompts : sequence of TokenisedPrompt
        Their numbers in it are the forests' members.
    shared : bool
        Whether prompts share the decode of the lines that they have in common.
    limits : Limits
        What one forest may take.
    """
    groups: dict[TokenPath, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(prompt.prefix, []).append(number)
    for prefix, numbers in groups.items():
        forest = Forest(prefix, shared=shared, limits=limits)
        for number in numbers:
            if not forest.add(number, prompts[number]):
                yield forest
                forest = Forest(prefix, shared=shared, limits=limits)
                forest.add(number, prompts[number])
        yield forest


def tokens_decoded(prompts: Sequence[TokenisedPrompt], *, shared: bool, limits: Limits) -> int:
    """Count the tokens that are decoded for prompts, besides their prefixes.

    Examples
    --------
    >>> prompts = [TokenisedPrompt((1,), ((2, 3), (n,))) for n in (4, 5, 6)]
    >>> limits = Limits(n_seq=8, n_ctx_seq=256, n_batch=64, n_outputs=8)
    >>> [tokens_decoded(prompts, shared=shared, limits=limits) for shared in (False, True)]
    [9, 5]
    """
    return sum(sum(f.new_tokens.values()) for f in forests(prompts, shared=shared, limits=limits))
