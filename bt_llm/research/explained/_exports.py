"""A tree over market states as code that needs neither model nor bt_llm: Python, and Pine Script v6."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import printable
from bt_llm.research.explained._trees import Leaf, Tree, leaves
from bt_llm.verdicts import StateSpace

__all__ = ["Rule", "to_pine", "to_python"]

_PINE = {
    "trend": "safe_ratio(average - average[3], 3 * span)",
    "rsi": "ta.rsi(close, 14)",
    "volatility": "safe_ratio(100 * span / close, middle)",
}
_PINE_PARTS = [
    "average = ta.ema(close, 20)",
    "span = ta.atr(14)",
    "middle = ta.median(100 * span / close, 100)",
]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A tree, and what its features and answers mean.

    Parameters
    ----------
    tree : Tree
        Its answers are places among `answers`.
    space : StateSpace
        The features.
    answers, worths : sequence
        Names of the labels with ``invalid`` last, and what each is worth; NaN for that.
    about : sequence of str
        Where it comes from, a line each, for the head of a file.
    """

    tree: Tree
    space: StateSpace
    answers: Sequence[str]
    worths: Sequence[float]
    about: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Return the rule as a list for people: a line a leaf, the features in words.

        A feature that may be anything is left out.
        """
        found = []
        for leaf in leaves(self.tree):
            parts = [
                f"{feature.title} {_stretch(feature.labels[low:high])}"
                for feature, (low, high) in zip(self.space.features, leaf.box, strict=True)
                if high - low < len(feature.labels)
            ]
            found.append(f"{' and '.join(parts) or 'always'}: {self.answers[leaf.answer]}")
        return found


def _stretch(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} \u2026 {labels[-1]}"


def to_python(rule: Rule) -> str:
    """Return a module with one pure function, ``verdict``, of the features' numbers.

    It imports nothing but ``math``. The function returns what the answer is worth, as a gate or a strategy
    takes it: above 0 for the long side, below 0 for the short one, NaN for none.

    Examples
    --------
    >>> rule = Rule(tree=Leaf(((0, 3), (0, 7), (0, 5)), 0), space=StateSpace(), answers=["bullish"],
    ...             worths=[1.0])
    >>> to_python(rule).splitlines()[-1]
    '    return 1.0  # bullish'
    """
    names = rule.space.names
    finite = ", ".join(names) + ("," if len(names) == 1 else "")

    def leaf(one: Leaf) -> str:
        worth = rule.worths[one.answer]
        return f"return {'math.nan' if math.isnan(worth) else repr(worth)}  # {rule.answers[one.answer]}"

    def cut(name: str, edge: float) -> str:
        return f"if {name} < {edge!r}:"

    body = _branches(rule, rule.tree, 1, leaf, cut, "else:")
    head = "\n".join(_comment("#", rule.about))
    return (
        f"{head}\n" * bool(head)
        + '"""The rule of a language model on market states, without the model."""\n\n'
        + "import math\n\n"
        + f"FEATURES = {tuple(names)!r}\n\n\n"
        + f"def verdict({', '.join(names)}):\n"
        + '    """Return what the answer is worth: its sign is the side that it speaks for, NaN is none."""\n'
        + f"    if not all(map(math.isfinite, ({finite}))):\n"
        + "        return math.nan\n"
        + "\n".join(body)
        + "\n"
    )


def to_pine(rule: Rule) -> str:
    """Return an indicator in Pine Script v6 that plots the answer's worth at each bar's close.

    Trend, RSI and volatility are computed as bt_llm does, but for the first bars, where averages begin
    otherwise. A feature of your own becomes an input: choose what gives its numbers.
    """
    names = rule.space.names

    def leaf(one: Leaf) -> str:
        worth = rule.worths[one.answer]
        return f"{'float(na)' if math.isnan(worth) else repr(worth)} // {rule.answers[one.answer]}"

    def cut(name: str, edge: float) -> str:
        return f"if {name} < {edge!r}"

    body = _branches(rule, rule.tree, 2, leaf, cut, "else")
    missing = " or ".join(f"na({name})" for name in names)
    inputs = [
        f"{name} = {_PINE[name]}"
        if name in _PINE
        else f'{name} = input.source(close, "{_quoted(rule.space[name].title)}")'
        for name in names
    ]
    return "\n".join(
        [
            "//@version=6",
            *_comment("//", rule.about),
            'indicator("Rule of a language model", overlay = false)',
            "",
            "safe_ratio(float part, float whole) =>",
            "    whole == 0 ? 0.0 : part / whole",
            "",
            f"verdict({', '.join(f'float {name}' for name in names)}) =>",
            f"    if {missing}",
            "        float(na)",
            "    else",
            *body,
            "",
            *_PINE_PARTS,
            *inputs,
            f"worth = verdict({', '.join(names)})",
            'plot(worth, "worth", style = plot.style_stepline)',
            'hline(0, "no side")',
            "",
        ]
    )


def _branches(
    rule: Rule,
    tree: Tree,
    depth: int,
    leaf: Callable[[Leaf], str],
    cut: Callable[[str, float], str],
    otherwise: str,
) -> Iterator[str]:
    space = "    " * depth
    if isinstance(tree, Leaf):
        yield f"{space}{leaf(tree)}"
        return
    feature = rule.space.features[tree.feature]
    yield f"{space}{cut(feature.name, feature.edges[tree.bucket - 1])}"
    yield from _branches(rule, tree.below, depth + 1, leaf, cut, otherwise)
    yield f"{space}{otherwise}"
    yield from _branches(rule, tree.above, depth + 1, leaf, cut, otherwise)


def _comment(sign: str, lines: Sequence[str]) -> list[str]:
    return [f"{sign} {printable(line)}" for line in lines]


def _quoted(text: str) -> str:
    if '"' in text or "\\" in text:
        raise ConfigError(f"feature title {text!r}: a quote or backslash has no place in Pine's text")
    return text
