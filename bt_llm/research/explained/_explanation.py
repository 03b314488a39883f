"""Explain a policy: the smallest rule that says the same, how much smaller ones say, and its shape."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.advice import AdvisorConfig, Policy
from bt_llm.backtest import (
    Market,
    Section,
    count,
    percent,
    sentences_section,
    table_section,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import save_csv
from bt_llm.exceptions import ConfigError
from bt_llm.indicators import LLMAdvice, copy_values
from bt_llm.plain_json import plain
from bt_llm.research._runs import inspect_run
from bt_llm.research.explained._exports import Rule, to_pine, to_python
from bt_llm.research.explained._shape import Monotonicity, Symmetry, monotonicity, symmetry
from bt_llm.research.explained._trees import Tree, best_tree, depth_of, leaves, smallest_tree, told
from bt_llm.settings import in_short, instance, whole
from bt_llm.shown import Shown
from bt_llm.verdicts import INVALID, LabelSet, StateSpace
from bt_llm.writing import refuse_others, write_whole

__all__ = ["Explanation", "cell_visits", "explain"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation(Shown):
    """A policy as a rule.

    Attributes
    ----------
    model : str
        Whose policy it is.
    space : StateSpace
        What its cells mean.
    labels : LabelSet
        What the model chooses from.
    answers : array of int, in the space's shape
        Place of the label, or the number of labels for an invalid verdict.
    bias : array of float, in the space's shape
        Expected worth of the calibrated verdicts.
    visits : array of int, in the space's shape, or None
        Bars in each cell, where bars were given.
    tree : Tree
        The rule: the smallest that agrees on every cell, or the best of a depth.
    depths : sequence of Tree
        The best trees of depth 0, 1, 2 and so on, up to one that agrees on every cell.
    """

    model: str
    space: StateSpace
    labels: LabelSet
    answers: Ints
    bias: Floats
    visits: Ints | None
    tree: Tree
    depths: Sequence[Tree]

    gated = None
    runs: Any = dataclasses.field(default_factory=dict, init=False)

    @property
    def names(self) -> list[str]:
        """What the answers are called."""
        return [*self.labels.names, INVALID]

    @property
    def rule(self) -> Rule:
        """The tree with what it means, to be exported."""
        return Rule(
            tree=self.tree,
            space=self.space,
            answers=self.names,
            worths=[*self.labels.worths, float("nan")],
            about=[
                f"Rule of {self.model} over {len(self.space)} market states, as bt-llm explain wrote it:",
                f"{len(list(leaves(self.tree)))} leaves; it says what the policy says on "
                f"{percent(self.agreement(self.tree), 1)} of the states.",
            ],
        )

    def agreement(self, tree: Tree, *, visited: bool = False) -> float:
        """Return the share of cells, or of the bars that visited them, on which a tree agrees."""
        same = told(tree, self.space.shape) == self.answers
        if not visited:
            return float(same.mean())
        if self.visits is None or not self.visits.sum():
            return float("nan")
        return float((same * self.visits).sum() / self.visits.sum())

    def _agreed(self, tree: Tree) -> str:
        return percent(self.agreement(tree), 1)

    @property
    def is_exact(self) -> bool:
        """Whether the rule agrees on every cell."""
        return self.agreement(self.tree) == 1.0

    @cached_property
    def disagreeing(self) -> list[int]:
        """Cells on which the rule says something else."""
        return np.flatnonzero((told(self.tree, self.space.shape) != self.answers).ravel()).tolist()

    @cached_property
    def monotone(self) -> list[Monotonicity]:
        """Of each feature, whether the answers' worth goes one way along it."""
        worths = np.array([*self.labels.worths, np.nan])
        return monotonicity(self.space, worths[self.answers], self.bias)

    @cached_property
    def mirror(self) -> Symmetry | None:
        """Whether the rule for shorts is that for longs, mirrored; None without a feature that has sides."""
        worths = np.array([*self.labels.worths, np.nan])
        return symmetry(self.space, worths[self.answers], self.bias)

    def cells(self) -> pd.DataFrame:
        """Return a row a cell: its buckets in words and numbers, what the policy and the rule say of it."""
        said = told(self.tree, self.space.shape).ravel().tolist()
        rows = []
        for cell, (own, rule) in enumerate(zip(self.answers.ravel().tolist(), said, strict=True)):
            row: dict[str, Any] = {"cell": cell}
            for feature, bucket in zip(self.space.features, self.space.buckets(cell), strict=True):
                edges = [-np.inf, *feature.edges, np.inf]
                row |= {
                    feature.name: feature.labels[bucket],
                    f"{feature.name}_from": edges[bucket],
                    f"{feature.name}_below": edges[bucket + 1],
                }
            worth = [*self.labels.worths, np.nan][rule]
            row |= {"policy": self.names[own], "rule": self.names[rule], "worth": worth}
            if self.visits is not None:
                row["bars"] = int(self.visits.ravel()[cell])
            rows.append(row)
        return pd.DataFrame(rows)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the rule to a file: ``.py``, ``.pine`` or ``.csv``.

        Raises
        ------
        ConfigError
            If the file has another ending, or cannot be written.
        """
        target = Path(path)
        made = {
            ".py": lambda: to_python(self.rule),
            ".pine": lambda: to_pine(self.rule),
        }
        if target.suffix not in (*made, ".csv"):
            raise ConfigError(f"{str(target)!r}: expected a file that ends in {', '.join((*made, '.csv'))}")
        try:
            refuse_others(target)
            if target.suffix == ".csv":
                save_csv(self.cells(), target, index=False)
            else:
                write_whole(target, made[target.suffix]())
        except OSError as error:
            raise ConfigError(
                f"{str(target)!r} cannot be written ({error.strerror or error}); name another file"
            ) from error

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        size, cells = len(list(leaves(self.tree))), len(self.space)
        visited = (
            ""
            if self.visits is None
            else f", and {percent(self.agreement(self.tree, visited=True), 1)} of the bars"
        )
        found = []
        if self.is_exact:
            found.append(
                f"{self.model} on {cells} market states is a tree of {size} leaves, "
                f"{depth_of(self.tree)} cuts deep: no smaller one says the same everywhere."
            )
        else:
            found.append(
                f"A tree of {size} leaves says what {self.model} says on {self._agreed(self.tree)} of "
                f"{cells} market states{visited}; no tree of its depth says more."
            )
        enough = next((tree for tree in self.depths if self.agreement(tree) >= 0.9), self.tree)
        if enough is not self.tree:
            found.append(f"{len(list(leaves(enough)))} leaves are enough for {self._agreed(enough)} of them.")
        for one in self.monotone:
            found.append(one.sentence)
        if self.mirror is not None:
            found.append(self.mirror.sentence)
        return found

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        rows = [
            [
                count(depth),
                count(len(list(leaves(tree)))),
                percent(self.agreement(tree), 1),
                percent(self.agreement(tree, visited=True), 1),
            ]
            for depth, tree in enumerate(self.depths)
        ]
        head = ["depth", "leaves", "of the states", "of the bars"]
        text = "The best tree of each depth, and on how much it says what the policy says."
        if self.visits is None:
            head, rows = head[:-1], [row[:-1] for row in rows]
        yield table_section("How much a rule of a size explains", head, rows, text)
        yield table_section(
            "The rule", ["", "then"], [line.rsplit(": ", 1) for line in self.rule.lines()], "A line a leaf."
        )
        yield table_section(
            "Along each feature",
            ["", "goes", "pairs against", "of", "by expected worth"],
            [
                [one.title, one.direction, count(one.against), count(one.pairs), count(one.bias_against)]
                for one in self.monotone
            ],
            "Pairs of neighbouring states that differ in this feature alone, whose answers go the other way.",
        )
        if self.disagreeing:
            frame = self.cells().iloc[self.disagreeing]
            named = [*self.space.names, "policy", "rule"]
            yield table_section(
                f"Where the rule says something else ({len(frame)})",
                named,
                [[str(row[name]) for name in named] for _, row in frame.iterrows()],
                folded=True,
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "model": self.model,
                "exact": self.is_exact,
                "leaves": len(list(leaves(self.tree))),
                "depth": depth_of(self.tree),
                "agreement": self.agreement(self.tree),
                "agreement_of_bars": self.agreement(self.tree, visited=True),
                "depths": [
                    {
                        "depth": depth,
                        "leaves": len(list(leaves(tree))),
                        "agreement": self.agreement(tree),
                        "agreement_of_bars": self.agreement(tree, visited=True),
                    }
                    for depth, tree in enumerate(self.depths)
                ],
                "rule": self.rule.lines(),
                "disagreeing": [self.space.describe(cell) for cell in self.disagreeing],
                "monotonicity": [dataclasses.asdict(one) for one in self.monotone],
                "symmetry": self.mirror and dataclasses.asdict(self.mirror),
                "sentences": self.sentences,
            }
        )
        return found


def explain(policy: Policy, *, visits: Ints | None = None, depth: int | None = None) -> Explanation:
    """Explain a policy by a rule.

    Parameters
    ----------
    policy : Policy
        Over every cell of a state space.
    visits : array of int, shape (cells,), optional
        Bars in each cell; see `cell_visits`.
    depth : int, optional
        Of the rule, at most. By default it is the smallest that agrees on every cell.

    Raises
    ------
    ConfigError
        If there are too many cells to search for the smallest tree.

    Notes
    -----
    The trees are the best there are, found by dynamic programming and not greedily; which of several equal
    ones is fixed, and nothing is random. Agreement is of the answers, not of their probabilities: a gate with
    a threshold on confidence needs these.

    Examples
    --------
    >>> from bt_llm.advice import Advisor
    >>> advisor = Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> found = explain(Policy.of(advisor))
    >>> found.rule.lines()
    ['Trend strong down … down: bearish', 'Trend flat: neutral', 'Trend up … strong up: bullish']
    """
    instance("policy", policy, Policy, "a Policy, such as Policy.of(Advisor(AdvisorConfig(model=...)))")
    names = policy.labels.names
    places = {name: at for at, name in enumerate(names)}
    answers = np.array([places.get(name, len(names)) for name in policy.answers().tolist()])
    table = answers.reshape(policy.space.shape)
    exact = smallest_tree(table)
    trees: list[Tree] = []
    while not trees or (told(trees[-1], table.shape) != table).any():
        trees.append(best_tree(table, len(trees)))
    chosen = exact if depth is None else best_tree(table, whole("depth", depth, 0))
    return Explanation(
        model=policy.model,
        space=policy.space,
        labels=policy.labels,
        answers=table,
        bias=policy.bias(),
        visits=None if visits is None else _counts(visits, table.shape),
        tree=chosen,
        depths=trees,
    )


def _counts(visits: Ints, shape: tuple[int, ...]) -> Ints:
    found, cells = np.asarray(visits), math.prod(shape)
    if found.dtype.kind not in "iu" or found.size != cells:
        raise ConfigError(f"visits={in_short(visits)}: expected {cells} whole numbers, as cell_visits gives")
    return found.astype(np.int64).reshape(shape)


class _Watch(bt.Strategy):  # type: ignore[misc]
    """Look at the features, and trade nothing."""

    params = (("gate", None), ("indicator", LLMAdvice), ("advisor", None))

    def __init__(self) -> None:
        never = self.data.close - self.data.close  # a trigger that never fires: features, and no question
        self.features = self.p.indicator(self.data, never, advisor=self.p.advisor)


def cell_visits(
    data: DataSource, advisor: AdvisorConfig | None = None, indicator: type[LLMAdvice] = LLMAdvice
) -> Ints:
    """Return the number of bars in each cell of a state space; no model is asked.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one data.
    advisor : AdvisorConfig, optional
        Has the state space.
    indicator : type
        Computes the features.
    """
    config = advisor or AdvisorConfig()
    market = Market.of(data).alone("counting the bars of each market state")
    watched = {"indicator": indicator, "advisor": config}
    _, ran = inspect_run(_Watch, market, params=watched, engine="plain")
    space = config.state_space
    cells = space.cells([copy_values(getattr(ran.features.lines, name)) for name in space.names])
    return np.bincount(cells[cells >= 0], minlength=len(space))
