"""LabelSet: the answers that a model chooses from, their words, and what each is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError
from bt_llm.settings import instance, several

__all__ = ["DEFAULT_LABELS", "INVALID", "Label", "LabelSet"]

INVALID = "invalid"
"""What an answer that cannot be read is called where answers are called by their labels' names."""

_RESERVED = frozenset(
    {INVALID, "not_asked", "all", "labels", "probabilities", "label_mass", "reason", "cached", "model"}
)
"""Names that verdicts and tables have for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One answer.

    Parameters
    ----------
    name : str
        A Python identifier: what tables, examples and stored verdicts call it.
    word : str
        What the model says.
    worth : float
        Above 0 it speaks for the long side, below 0 for the short side; the size is yours to give a meaning.

    Raises
    ------
    ConfigError
        If the name is no identifier or has another meaning, the word is blank, or the worth is not finite.
    """

    name: str
    word: str
    worth: float

    def __post_init__(self) -> None:
        """Check the three, once."""
        if not isinstance(self.name, str) or not self.name.isidentifier() or self.name in _RESERVED:
            raise ConfigError(
                f"label name {self.name!r}: expected a Python identifier that is none of {sorted(_RESERVED)}"
            )
        if not isinstance(self.word, str) or not self.word.strip():
            raise ConfigError(f"label {self.name!r}: word {self.word!r}: expected a text that is not blank")
        number = isinstance(self.worth, int | float) and not isinstance(self.worth, bool)
        if not number or not math.isfinite(self.worth):
            raise ConfigError(f"label {self.name!r}: worth {self.worth!r}: expected a finite number")
        object.__setattr__(self, "worth", float(self.worth))


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The answers that a model chooses from, in the order that their probabilities are kept in everywhere.

    Parameters
    ----------
    labels : sequence of Label
        Two or more, of different names and words. Two may be worth the same.

    Raises
    ------
    ConfigError
        If there are fewer than two, or two have one name or one word.

    Examples
    --------
    >>> words = {"Full": 1, "Half": 0.5, "Zero": 0}
    >>> sizes = LabelSet([Label(name=w.lower(), word=w, worth=worth) for w, worth in words.items()])
    >>> sizes.names, sizes["half"].worth, sizes.least.name
    (('full', 'half', 'zero'), 0.5, 'zero')
    """

    labels: Sequence[Label]

    def __post_init__(self) -> None:
        """Check that they can be told apart, once."""
        object.__setattr__(self, "labels", several("labels", self.labels, "Label"))
        for label in self.labels:
            instance("labels", label, Label, "a list of Label")
        for what, values in (("names", self.names), ("words", self.words)):
            if len(values) < 2 or len(set(values)) < len(values):
                raise ConfigError(f"labels with {what} {values}: expected two or more, all different")

    def __iter__(self) -> Iterator[Label]:
        """Iterate over the labels in their order."""
        return iter(self.labels)

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self.labels)

    def __getitem__(self, name: str) -> Label:
        """Return the label of that name."""
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(f"no label {name!r}, only {list(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def words(self) -> tuple[str, ...]:
        """Their words, in order."""
        return tuple(label.word for label in self.labels)

    @property
    def worths(self) -> tuple[float, ...]:
        """Their worths, in order."""
        return tuple(label.worth for label in self.labels)

    @property
    def least(self) -> Label:
        """The label that does least: of the smallest worth, be it above or below 0; the first of several."""
        return min(self.labels, key=lambda label: abs(label.worth))

    @property
    def meaning(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Names and worths: what the labels are, in whatever words a model is asked for them."""
        return self.names, self.worths

    @property
    def is_default(self) -> bool:
        """Whether they mean what `DEFAULT_LABELS` do; the words may be others."""
        return self.meaning == DEFAULT_LABELS.meaning

    def with_words(self, words: Sequence[str]) -> LabelSet:
        """Return the same labels with other words.

        Raises
        ------
        ConfigError
            If there are not as many.
        """
        if len(words) != len(self):
            raise ConfigError(f"{len(words)} words {tuple(words)} for {len(self)} labels {self.names}")
        return LabelSet([replace(label, word=word) for label, word in zip(self, words, strict=True)])

    def in_order(
        self, given: Sequence[float] | None, named: Mapping[str, float], what: str
    ) -> tuple[float, ...]:
        """Return numbers in the labels' order that are given so, or by name, as floats; `what` they are.

        Raises
        ------
        ConfigError
            If both ways are used, the names are not exactly those of the labels, or one is no number.
        """
        if given is not None and not named:
            found = several(what, given, "numbers")
        elif given is not None or set(named) != set(self.names):
            both = " beside those in order" if given is not None else ""
            raise ConfigError(
                f"{what} of {sorted(named)}{both}: expected one of each label, {list(self.names)}"
            )
        else:
            found = tuple(named[name] for name in self.names)
        if not all(isinstance(one, Real) for one in found):
            raise ConfigError(f"{what}={found!r:.60}: expected a list of numbers")
        return tuple(map(float, found))  # a 1 that is stored as such is not read back

    def answers(self, label: NDArray[np.float64], confidence: NDArray[np.float64]) -> NDArray[np.str_]:
        """Return the names of the answers on an indicator's lines.

        Parameters
        ----------
        label, confidence : array of float, shape (bars,)
            The lines of those names.

        Returns
        -------
        array of str, shape (bars,)
            The label's name, `INVALID`, or an empty text where there is no answer.
        """
        said: NDArray[np.str_] = np.array(self.possible_answers)[self.places(label, confidence)]
        return said

    @property
    def possible_answers(self) -> tuple[str, ...]:
        """All that can be on a line: the names in order, `INVALID`, and an empty text for no answer."""
        return (*self.names, INVALID, "")

    def places(self, label: NDArray[np.float64], confidence: NDArray[np.float64]) -> NDArray[np.int16]:
        """Return the place of each answer in `possible_answers`; parameters as in `answers`."""
        at = np.where(np.isnan(label), len(self), label)
        at[np.isnan(confidence)] = len(self) + 1
        return at.astype(np.int16)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the labels as JSON values, in order."""
        return [{"name": label.name, "word": label.word, "worth": label.worth} for label in self]

    @classmethod
    def from_dict(cls, stored: Any) -> LabelSet:
        """Read what `to_dict` gave; the input is untrusted.

        Raises
        ------
        ConfigError
            If it is no list of labels, each with a name, a word and a worth.

        Examples
        --------
        >>> LabelSet.from_dict(DEFAULT_LABELS.to_dict()) == DEFAULT_LABELS
        True
        """
        fields = {"name", "word", "worth"}
        if not isinstance(stored, list) or not all(isinstance(e, dict) and set(e) == fields for e in stored):
            raise ConfigError(f"labels {stored!r:.80}: expected a list of tables of name, word and worth")
        return cls([Label(**entry) for entry in stored])


DEFAULT_LABELS = LabelSet(
    [
        Label(name="bullish", word="Bullish", worth=1.0),
        Label(name="neutral", word="Neutral", worth=0.0),
        Label(name="bearish", word="Bearish", worth=-1.0),
    ]
)
"""Up, nowhere, down: the labels of the templates that come with bt_llm."""
