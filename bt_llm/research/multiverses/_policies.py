"""The policies of a multiverse: where they agree, by what they differ, and what each depends on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.advice import Advisor, Panel, Policy, Usage, panels
from bt_llm.exceptions import ConfigError
from bt_llm.models import Progress
from bt_llm.research.multiverses._specifications import Space
from bt_llm.shown import Told
from bt_llm.verdicts import INVALID, LabelSet, StateSpace, Verdict

__all__ = ["Policies", "ask_all"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Policies(Told):
    """The verdicts of every specification on every cell of one state space.

    Attributes
    ----------
    space : Space
        The specifications; the first is the headline.
    states : StateSpace
        What the cells mean.
    labels : LabelSet
        What the models choose from.
    probabilities : array of float, shape (specifications, cells, labels)
        NaN in the rows of invalid verdicts.
    answers : array of int, shape (specifications, cells)
        Place of the label among `labels`; -1 for an invalid verdict.
    usage : Usage
        What it cost to ask.
    """

    space: Space
    states: StateSpace
    labels: LabelSet
    probabilities: Floats
    answers: NDArray[np.int64]
    usage: Usage

    def verdicts(self, number: int) -> list[Verdict]:
        """Return the verdicts of a specification, one a cell."""
        return [Verdict(labels=self.labels, probabilities=row) for row in self.probabilities[number].tolist()]

    # Agreement

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many specifications give each label to a cell, shape (cells, labels and invalid)."""
        codes = range(-1, len(self.labels))
        counted = np.stack([(self.answers == code).sum(axis=0) for code in codes], axis=1)
        return np.roll(counted, -1, axis=1)

    @property
    def unanimous(self) -> int:
        """Number of cells on which all specifications agree."""
        return int((self.counts.max(axis=1) == len(self.space)).sum())

    @property
    def same_as_headline(self) -> Floats:
        """Share of the specifications that say what the headline says, by cell."""
        same: Floats = (self.answers == self.answers[0]).mean(axis=0)
        return same

    def leaning(self) -> Floats:
        """Return, by cell, the share of specifications that speak for the long side less that for the short.

        1 is all for long, -1 all for short; 0 is all neutral, or as many for either side.
        """
        sides = np.sign([*self.labels.worths, 0.0])
        found: Floats = self.counts @ sides / len(self.space)
        return found

    def majority(self) -> Floats:
        """Return, by cell, the share of specifications with the commonest answer."""
        found: Floats = self.counts.max(axis=1) / len(self.space)
        return found

    def panels(self, values: Floats) -> list[Panel]:
        """Return a value a cell as pictures, laid out as a policy's."""
        return panels(self.states, values.reshape(self.states.shape))

    # Dimensions

    def _pairs(self, axis: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of specifications that differ in one dimension alone."""
        numbers = np.arange(len(self.space)).reshape(self.space.shape)
        for line in np.moveaxis(numbers, axis, -1).reshape(-1, self.space.shape[axis]).tolist():
            yield from itertools.combinations(line, 2)

    @cached_property
    def by_dimension(self) -> pd.DataFrame:
        """How much hangs on each dimension that has two levels or more.

        ``pairs`` (of specifications that differ in it alone), ``kappa`` (their mean Cohen's kappa, of those
        that have one), ``no_kappa`` (pairs without: both say one and the same label everywhere),
        ``changed`` (mean share of cells with another answer), ``most`` (the largest), ``main`` and ``total``
        (shares of the variance of the probabilities, see `bt_llm.statistics.factor_shares`).
        """
        rows = {}
        shares = self._variance_shares()
        for axis, dimension in enumerate(self.space.dimensions):
            if len(dimension.levels) < 2:
                continue
            pairs = list(self._pairs(axis))
            kappas = [self._kappa(*pair) for pair in pairs]
            known = [kappa for kappa in kappas if not math.isnan(kappa)]
            changed = [float((self.answers[a] != self.answers[b]).mean()) for a, b in pairs]
            rows[dimension.name] = {
                "levels": len(dimension.levels),
                "pairs": len(pairs),
                "kappa": math.fsum(known) / len(known) if known else math.nan,
                "no_kappa": len(pairs) - len(known),
                "changed": math.fsum(changed) / len(changed),
                "most": max(changed),
                "main": shares[axis].main,
                "total": shares[axis].total,
            }
        return pd.DataFrame(rows).T

    @cached_property
    def decomposed_cells(self) -> int:
        """Number of cells whose verdicts are valid in every specification: those of the decomposition."""
        return int(self._all_valid.sum())

    @cached_property
    def _all_valid(self) -> NDArray[np.bool_]:
        return np.asarray((self.answers >= 0).all(axis=0), dtype=np.bool_)

    def _variance_shares(self) -> list[statistics.FactorShare]:
        known = self.probabilities[:, self._all_valid]
        factors = len(self.space.dimensions)
        if not known.size:
            return [statistics.FactorShare(math.nan, math.nan)] * factors
        return statistics.factor_shares(known.reshape(*self.space.shape, *known.shape[1:]), factors)

    def _kappa(self, first: int, second: int) -> float:
        kinds = len(self.labels) + 1
        codes = (self.answers[first] + 1) * kinds + self.answers[second] + 1
        return statistics.cohens_kappa(np.bincount(codes, minlength=kinds**2).reshape(kinds, kinds))

    @cached_property
    def by_level(self) -> pd.DataFrame:
        """The headline with one level changed: ``changed`` cells, and ``kappa`` with the headline."""
        strides = np.arange(len(self.space)).reshape(self.space.shape)
        rows = []
        for axis, dimension in enumerate(self.space.dimensions):
            for level, name in enumerate(dimension.levels):
                if level == 0:
                    continue
                place = [0] * len(self.space.dimensions)
                place[axis] = level
                other = int(strides[tuple(place)])
                changed = int((self.answers[other] != self.answers[0]).sum())
                rows.append((dimension.name, name, changed, self._kappa(0, other)))
        return pd.DataFrame(rows, columns=["dimension", "level", "changed", "kappa"])

    # Features

    @cached_property
    def by_feature(self) -> pd.DataFrame:
        """What the policies depend on: a row a feature and specification.

        ``changed``: of all pairs of cells that differ in the feature alone, the share with different answers.
        ``main`` and ``total``: Sobol's indices of the expected worth, every cell as likely. Exact: every cell
        is known, and nothing is sampled. NaN where a verdict is invalid, or nothing varies.
        """
        rows = []
        worths = np.array(self.labels.worths)
        shape, names = self.states.shape, self.states.names
        for number in range(len(self.space)):
            changed = statistics.changed_share(self.answers[number].reshape(shape))
            bias = (self.probabilities[number] @ worths).reshape(shape)
            shares = (
                statistics.factor_shares(bias, len(shape))
                if np.isfinite(bias).all()
                else [statistics.FactorShare(math.nan, math.nan)] * len(shape)
            )
            rows += [
                (number, name, share, *indices)
                for name, share, indices in zip(names, changed, shares, strict=True)
            ]
        return pd.DataFrame(rows, columns=["specification", "feature", "changed", "main", "total"])

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        names = [*self.labels.names, INVALID]
        cells = [
            {
                "state": self.states.describe(cell),
                "headline": names[int(self.answers[0, cell])],
                "answers": dict(zip(names, counts, strict=True)),
            }
            for cell, counts in enumerate(self.counts.tolist())
        ]
        return {
            "cells": cells,
            "unanimous": self.unanimous,
            "by_dimension": self.by_dimension.to_dict("index"),
            "decomposed_cells": self.decomposed_cells,
            "by_level": self.by_level.to_dict("records"),
            "by_feature": self.by_feature.to_dict("records"),
        }


def ask_all(space: Space, on_progress: Progress | None = None) -> Policies:
    """Ask about every cell in every specification; calibrations of one question share its answers.

    Parameters
    ----------
    space : Space
        One model is in memory at a time.
    on_progress : callable, optional
        Called with (questions answered, questions in all).
    """
    usage, cells = Usage(), len(space.specifications[0].config.state_space)
    calibrations = space.shape[-1]
    total, tables, answers = len(space) // calibrations * cells, [], []
    before: Advisor | None = None
    policy: Policy | None = None
    for number, one in enumerate(space):
        if before is not None and before.config.model != one.config.model:
            before.close()
        before = Advisor(one.config)
        asked = number // calibrations * cells
        before.raw_cells(range(cells), usage, on_progress=_counting(on_progress, asked, cells, total))
        policy = Policy.of(before)
        tables.append(policy.calibrated)
        names = {name: at for at, name in enumerate(policy.labels.names)}
        answers.append([names.get(answer, -1) for answer in policy.answers().tolist()])
        if on_progress is not None:
            on_progress(asked + cells, total)
    if before is None or policy is None:
        raise ConfigError("no specification: expected at least one")
    before.close()
    return Policies(
        space=space,
        states=policy.space,
        labels=policy.labels,
        probabilities=np.stack(tables),
        answers=np.array(answers, dtype=np.int64),
        usage=usage,
    )


def _counting(
    on_progress: Progress | None, before: int, cells: int, total: int
) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, to_ask: on_progress(before + cells - to_ask + done, total)
