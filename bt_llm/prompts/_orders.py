"""The same question with its answers named, or its examples shown, in another order."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

from bt_llm.exceptions import PromptError
from bt_llm.prompts._template import PromptTemplate

__all__ = ["example_order", "label_order", "orders", "with_example_order", "with_label_order"]

_ALL = 3  # labels of which every order is tried; of more there are too many
_BETWEEN = re.compile(
    r"[\s,;:/|\"'`*()\[\]<>\u3001\uff0c\uff1b\uff1a\u201c\u201d\u2018\u2019\u300c\u300d-]*"
    r"(?:(?:or|and|\u6216\u8005|\u6216|\u548c|\u4ee5\u53ca)"
    r"[\s\"'`*()\[\]<>\u201c\u201d\u2018\u2019\u300c\u300d]*)?"
)
"""What may stand between the answers of a list: signs, and the words for *or* and *and*."""


def orders(names: Sequence[str], first: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the orders of labels that are compared, the given one first.

    All of two or three labels; of more those in which the row, or its reverse, begins at another place, so
    that every label stands at every place as often.

    Examples
    --------
    >>> orders(("a", "b"), ("b", "a")), len(orders("abc", "abc")), len(orders("abcde", "abcde"))
    ([('b', 'a'), ('a', 'b')], 6, 10)
    """
    row = tuple(first)
    if len(names) <= _ALL:
        found = sorted(itertools.permutations(names), key=lambda one: [names.index(name) for name in one])
    else:
        rows = (row, row[::-1])
        found = [(*one[at:], *one[:at]) for one in rows for at in range(len(row))]
    return [row, *(one for one in found if one != row)]


def label_order(template: PromptTemplate) -> tuple[str, ...]:
    """Return the names of a template's labels in the order in which its words list them.

    Raises
    ------
    PromptError
        If they stand in no list, with nothing but signs and *or* or *and* between them: moved about, they
        would say something else.

    Examples
    --------
    >>> label_order(PromptTemplate.load("market"))
    ('bullish', 'bearish', 'neutral')
    """
    listed = [names for text in _texts(template) for _, names in _lists(template, text)]
    if not listed:
        words = ", ".join(template.choices.words)
        raise PromptError(
            f"template {template.name!r} lists its labels nowhere, so that there is no order to change: "
            f"write {words} in a row, or leave the order as it is"
        )
    return listed[0]


def with_label_order(template: PromptTemplate, order: Sequence[str]) -> PromptTemplate:
    """Return a template that lists its labels in another order; all else is the same.

    Raises
    ------
    PromptError
        As `label_order`.

    Examples
    --------
    >>> market = PromptTemplate.load("market")
    >>> with_label_order(market, ("neutral", "bearish", "bullish")).system[-34:]
    'word: Neutral, Bearish or Bullish.'
    """
    if label_order(template) == tuple(order):
        return template
    system, user = (_reordered(template, text, order) for text in _texts(template))
    return dataclasses.replace(template, system=system, user=user, text="")


def example_order(template: PromptTemplate) -> tuple[str, ...]:
    """Return the names of a template's labels in the order in which its examples first have them.

    Labels without an example come last.

    Examples
    --------
    >>> example_order(PromptTemplate.load("market"))
    ('bullish', 'neutral', 'bearish')
    """
    return tuple(dict.fromkeys([*(one.answer for one in template.examples), *template.choices.names]))


def with_example_order(template: PromptTemplate, order: Sequence[str]) -> PromptTemplate:
    """Return a template whose examples come in the order of their labels; those of one label stay in theirs.

    Examples
    --------
    >>> turned = with_example_order(PromptTemplate.load("market"), ("bearish", "neutral", "bullish"))
    >>> [one.answer for one in turned.examples]
    ['bearish', 'neutral', 'bullish']
    """
    if example_order(template) == tuple(order):
        return template
    places = {name: at for at, name in enumerate(order)}
    examples = tuple(sorted(template.examples, key=lambda one: places[one.answer]))
    return dataclasses.replace(template, examples=examples, text="")


def _texts(template: PromptTemplate) -> tuple[str, str]:
    return template.system, template.user


def _lists(template: PromptTemplate, text: str) -> list[tuple[list[re.Match[str]], tuple[str, ...]]]:
    """Return where a text lists the labels, and in which order.

    Raises
    ------
    PromptError
        If it names one outside of a list.
    """
    labels = template.choices
    names = dict(zip(labels.words, labels.names, strict=True))
    found = list(re.finditer("|".join(map(_bounded, sorted(names, key=len, reverse=True))), text))
    rows = [found[at : at + len(labels)] for at in range(0, len(found), len(labels))]
    for row in rows:
        told = {one.group() for one in row}
        gaps = (text[one.end() : two.start()] for one, two in itertools.pairwise(row))
        if len(told) < len(labels) or not all(_BETWEEN.fullmatch(gap) for gap in gaps):
            raise PromptError(
                f"template {template.name!r} names the label {row[0].group()!r} outside of a list of them "
                f"all ({text[max(0, row[0].start() - 20) : row[-1].end() + 20]!r}): in another order its "
                "words would say something else; leave the order as it is"
            )
    return [(row, tuple(names[one.group()] for one in row)) for row in rows]


def _bounded(word: str) -> str:
    """Return a pattern for a word that is not part of another one; Chinese has no spaces to tell by."""
    before = r"(?<![A-Za-z0-9_])" if word[0].isascii() else ""
    after = r"(?![A-Za-z0-9_])" if word[-1].isascii() else ""
    return f"{before}{re.escape(word)}{after}"


def _reordered(template: PromptTemplate, text: str, order: Sequence[str]) -> str:
    words = dict(zip(template.choices.names, template.choices.words, strict=True))
    pieces, at = [], 0
    for row, _ in _lists(template, text):
        for place, name in zip(row, order, strict=True):
            pieces += [text[at : place.start()], words[name]]
            at = place.end()
    return "".join([*pieces, text[at:]])
