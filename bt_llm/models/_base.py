"""What the rest of bt_llm asks of whatever answers prompts: the Backend protocol and its values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bt_llm.equality import nan_equal
from bt_llm.plain_json import canonical_json
from bt_llm.progress import Progress as Progress

__all__ = ["Answer", "Backend", "LabelScores", "ModelIdentity", "Numerics", "Prompt"]

Numerics = Literal["canonical", "fast"]

WHOLE_TEXT = "of the whole text"
"""How vocabularies that put a space before each text are used: lines of a prompt are not tokenised alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Who answers: everything of a model that a verdict depends on, and a name for people.

    Parameters
    ----------
    name : str
        For tables and logs, such as the file's stem; never part of a key.
    sha256 : str
        Hash of the GGUF's bytes (64 hex digits), or of whatever defines a backend without a file.
    chat_template : str
        Jinja source from the GGUF, empty if it has none: prompts are then plain text.
    bos_token, eos_token : str
        Texts of those tokens, which chat templates refer to.
    details : mapping
        Facts for people (architecture, parameters, quantization); not part of a key, save for ``tokens``:
        how text becomes tokens, where that is not as it was when keys were made.
    """

    name: str
    sha256: str
    chat_template: str = ""
    bos_token: str = ""
    eos_token: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def chat_template_sha256(self) -> str:
        """Hash of the chat template, of the tokens it refers to, and of how its text becomes tokens."""
        parts = [self.chat_template, self.bos_token, self.eos_token]
        parts += [self.details["tokens"]] if "tokens" in self.details else []
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, cut where it is decoded: the shared static part, then one chunk a line.

    Chunk boundaries may change how floating-point sums round, so they belong to the prompt and are the
    same whether it is scored alone, in a batch or in a tree. The tokens are those of the whole text.
    """

    chunks: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join(self.chunks)


@nan_equal
@dataclass(frozen=True, slots=True)
class LabelScores:
    """Log-probabilities of the labels after one prompt, over all their tokens, in the labels' order.

    `tokens` counts what was decoded for this prompt alone; `milliseconds` is its share of the batch. `mass`
    is the probability that the labels are known to hold together, where that is less than the sum of theirs:
    a server tells the most probable tokens only, and a label out of sight has an upper bound.
    """

    logprobs: tuple[float, ...]
    tokens: int = 0
    milliseconds: float = 0.0
    mass: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Text generated after one prompt; `finished` is False when max_tokens cut it off."""

    text: str
    finished: bool
    tokens: int = 0
    milliseconds: float = 0.0


class Backend(Protocol):
    """Something that answers prompts: llama.cpp, a server, or a script.

    An instance is used by one thread at a time, unless it says otherwise.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Who answers."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is worth writing beside an answer for an audit: build, CPU features, threads."""
        ...

    def score(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, numerics: Numerics = "canonical"
    ) -> Iterator[Sequence[LabelScores | None]]:
        """Yield the scores of the prompts in their order, batch by batch as they are decoded.

        None stands for a prompt that got no answer while a later one did; an error follows then.
        """
        ...

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int
    ) -> Iterator[Answer | None]:
        """Yield one answer a prompt, in order, constrained to the schema's grammar, decoded greedily.

        None as for `score`.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; it can be used again afterwards, at the cost of loading."""
        ...
