"""Policy: what a model believes over the whole state space, as a table that can be drawn and compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.advice._advisor import Advisor
from bt_llm.advice._asker import Usage
from bt_llm.exceptions import ConfigError
from bt_llm.progress import shows_progress
from bt_llm.settings import instance, several, whole
from bt_llm.shown import Shown, Told
from bt_llm.verdicts import (
    INVALID,
    PRIOR_CELLS,
    Feature,
    LabelMasses,
    LabelSet,
    StateSpace,
    Verdict,
    prior_source,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Panel", "Policy", "PolicyComparison", "drift_of", "panels", "signed"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a policy: two features as rows and columns, the others held.

    Attributes
    ----------
    title : str
        The labels of the features that are held, such as ``Volatility: low``; empty if there are none.
    values : array of float, shape (rows, columns)
        Rows from the feature's highest bucket down, as a chart's y-axis is read.
    """

    title: str
    row_title: str
    row_labels: tuple[str, ...]
    column_title: str
    column_labels: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Policy(Shown):
    """The verdicts of one model on every cell of a state space.

    Attributes
    ----------
    model : str
        Name of the model.
    space : StateSpace
        What the cells mean.
    labels : LabelSet
        What the model chooses from.
    raw, calibrated : array of float, shape (cells, labels)
        Probabilities of the labels, in their order; NaN in the rows of invalid verdicts, and of cells that
        were left out.
    prior_cells : int
        How many cells the prior of the calibrated verdicts is the mean over: all, or a sample of a large
        space; 0 where the grid does not calibrate them.
    label_mass : array of float, shape (cells,)
        Share of the probability that the labels hold together; NaN where it is not known.
    floor : float
        What of it they must hold, or the verdict is invalid.
    usage : Usage
        What it cost to ask.

    Examples
    --------
    >>> from bt_llm.advice import AdvisorConfig
    >>> policy = Policy.of(Advisor(AdvisorConfig(model="scripted:trend", cache_mode="off")))
    >>> policy.bias().shape
    (3, 7, 5)
    >>> [round(float(x), 2) for x in policy.bias(calibrated=False)[1, 3]]
    [-0.56, -0.56, 0.0, 0.56, 0.56]
    """

    model: str
    space: StateSpace
    labels: LabelSet
    raw: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    prior_cells: int
    label_mass: NDArray[np.float64]
    floor: float
    usage: Usage

    def _told(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        return f"{self.model} on {len(self.space):,} cells: {counts}"

    @property
    def sentences(self) -> list[str]:
        """What it says, in plain words."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        found = [f"Of {len(self.space):,} market states, {self.model} calls {counts} (calibrated)."]
        return found + ([self.prior_note] if self.prior_note else [])

    def summary(self) -> pd.DataFrame:
        """Return the table, one row a cell: its features, the answer, and the probabilities of the labels."""
        import pandas as pd

        rows = [self.space.describe(cell) for cell in range(len(self.space))]
        table = pd.DataFrame(rows).assign(answer=self.answers())
        for place, name in enumerate(self.labels.names):
            table[name] = self.calibrated[:, place]
        return table.rename_axis("cell")

    @classmethod
    @shows_progress("asking")
    def of(cls, advisor: Advisor, cells: Iterable[int] | None = None) -> Policy:
        """Return the policy of an advisor's model; computed once and cached like any verdict.

        Parameters
        ----------
        advisor : Advisor
            Asked about what it does not know.
        cells : iterable of int, optional
            Leave out all others; calibration by the grid asks about those that its prior comes from all the
            same. By default the whole space, however large: of one of many thousand cells give some, such as
            `bt_llm.verdicts.prior_cells`.
        """
        instance("advisor", advisor, Advisor, "an Advisor, such as Advisor(AdvisorConfig(model=...))")
        usage, count = Usage(), len(advisor.space)
        kept = range(count) if cells is None else _checked(cells)
        calibrated = _table(count, kept, advisor.advise_cells(kept, usage), advisor.labels)
        raw, masses = advisor.raw_cells(kept), np.full(count, math.nan)
        for cell, verdict in zip(kept, raw, strict=True):
            masses[cell] = verdict.label_mass
        return cls(
            model=advisor.identity.name,
            space=advisor.space,
            labels=advisor.labels,
            raw=_table(count, kept, raw, advisor.labels),
            calibrated=calibrated,
            prior_cells=len(advisor.config.prior_cells),
            label_mass=masses,
            floor=advisor.config.floor,
            usage=usage,
        )

    @property
    def measure(self) -> str:
        """What `bias` is called."""
        plain = {abs(worth) for worth in self.labels.worths} <= {0.0, 1.0}
        return "bullish minus bearish probability" if plain else "expected worth of the verdict"

    @property
    def prior_note(self) -> str:
        """What is to be said where the prior comes from a sample of the space; else empty."""
        return f"The prior is the mean over {prior_source(self.space)}." if self._is_sampled else ""

    @property
    def _is_sampled(self) -> bool:
        return 0 < self.prior_cells < len(self.space)

    def bias(self, *, calibrated: bool = True) -> NDArray[np.float64]:
        """Return the expected worth of each cell, in the space's shape.

        That is the sum of the labels' worths times their probabilities: by the default labels, and all that
        are worth 1, 0 or -1, the bullish minus the bearish probability.
        """
        table = self.calibrated if calibrated else self.raw
        bias: NDArray[np.float64] = (table @ np.array(self.labels.worths)).reshape(self.space.shape)
        return bias

    def answers(self, *, calibrated: bool = True) -> NDArray[np.str_]:
        """Return the name of each cell's label, or ``invalid``, shape (cells,)."""
        table = self.calibrated if calibrated else self.raw
        return np.array([Verdict(labels=self.labels, probabilities=row).answer for row in table.tolist()])

    def counts(self) -> dict[str, int]:
        """Return the number of cells by their calibrated answers, those that no cell has included."""
        answers = self.answers()
        return {name: int(np.count_nonzero(answers == name)) for name in (*self.labels.names, INVALID)}

    @property
    def masses(self) -> LabelMasses:
        """What share of the probability the labels hold, over the cells."""
        return LabelMasses.of(self.label_mass.tolist(), self.floor)

    def panels(self, *, calibrated: bool = True) -> list[Panel]:
        """Return the policy's bias as pictures: RSI by trend, one for each level of the rest."""
        return panels(self.space, self.bias(calibrated=calibrated))

    def answer_panels(self, *, calibrated: bool = True) -> list[NDArray[np.str_]]:
        """Return the names of the labels as `panels` lays them out, which are what trades.

        Empty where those are means over many cells, which have no one label.
        """
        names = np.array([*self.labels.names, INVALID])
        if len(self.space) > PRIOR_CELLS:
            return []
        places = {name: float(place) for place, name in enumerate(names.tolist())}
        numbers = np.array([places[name] for name in self.answers(calibrated=calibrated).tolist()])
        return [
            names[panel.values.astype(int)] for panel in panels(self.space, numbers.reshape(self.space.shape))
        ]

    def compare(self, other: Policy) -> PolicyComparison:
        """Return where two models differ over the same space.

        Raises
        ------
        ConfigError
            If the spaces or the labels differ.
        """
        if other.space != self.space:
            raise ConfigError(
                f"policies of {self.model} and {other.model} are over two state spaces; use one for both"
            )
        if other.labels.meaning != self.labels.meaning:
            raise ConfigError(
                f"policies of {self.model} and {other.model} are on two label sets, {self.labels.names} of "
                f"{self.labels.worths} and {other.labels.names} of {other.labels.worths}; use one for both"
            )
        mine, theirs = self.answers(), other.answers()
        return PolicyComparison(
            models=(self.model, other.model),
            space=self.space,
            difference=self.bias() - other.bias(),
            agreement=float(np.mean(mine == theirs)),
            kappa=statistics.cohens_kappa(mine.tolist(), theirs.tolist()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the table for JSON, one entry a cell."""
        cells = [
            {
                "state": self.space.describe(cell),
                "answer": answer,
                "raw": [None if math.isnan(p) else p for p in self.raw[cell].tolist()],
                "calibrated": [None if math.isnan(p) else p for p in self.calibrated[cell].tolist()],
                "label_mass": None if math.isnan(self.label_mass[cell]) else float(self.label_mass[cell]),
            }
            for cell, answer in enumerate(self.answers().tolist())
        ]
        masses = self.masses.to_dict()
        return {
            "model": self.model,
            "labels": self.labels.to_dict(),
            "label_mass": masses,
            "prior_cells": self.prior_cells,
            "cells": cells,
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PolicyComparison(Told):
    """Where two policies differ.

    Attributes
    ----------
    models : (str, str)
        Their names; `difference` is the first minus the second.
    difference : array of float
        Of the biases, in the space's shape.
    agreement : float
        Share of cells with the same answer.
    kappa : float
        Cohen's kappa of the answers: agreement beyond that of two models which say the same labels as
        often but at random; NaN when both say one label only.
    """

    models: tuple[str, str]
    space: StateSpace
    difference: NDArray[np.float64]
    agreement: float
    kappa: float

    def panels(self) -> list[Panel]:
        """Return the difference as pictures."""
        return panels(self.space, self.difference)

    def to_dict(self) -> dict[str, Any]:
        """Return how much they agree, for JSON."""
        return {
            "models": list(self.models),
            "agreement": self.agreement,
            "kappa": None if math.isnan(self.kappa) else self.kappa,
        }


def drift_of(policies: Sequence[Policy]) -> list[PolicyComparison]:
    """Return how each of several policies differs from the one before it: the later less the earlier.

    Parameters
    ----------
    policies : sequence of Policy
        Of the members of a dated family, by their days.
    """
    return [later.compare(earlier) for earlier, later in itertools.pairwise(policies)]


def _checked(cells: Iterable[int]) -> list[int]:
    """Return cells once each, in order."""
    return sorted({whole("cells", cell, 0) for cell in several("cells", cells, "whole numbers")})


def _table(
    count: int, cells: Sequence[int], verdicts: list[Verdict], labels: LabelSet
) -> NDArray[np.float64]:
    table = np.full((count, len(labels)), math.nan)
    for cell, verdict in zip(cells, verdicts, strict=True):
        table[cell] = verdict.probabilities
    return table


def panels(space: StateSpace, values: NDArray[np.float64]) -> list[Panel]:
    """Cut values over a state space into pictures of two features, the others held.

    Rows are RSI and columns the trend where the space has them, else the last two features. A space of more
    than `PRIOR_CELLS` cells is one picture: the means over the other features, of the values that are there.
    """
    preferred = [name for name in ("trend", "rsi") if name in space.names]
    others = [name for name in reversed(space.names) if name not in preferred]
    column, *more = (space.names.index(name) for name in [*preferred, *others])
    row = more[0] if more else None
    held = [i for i in range(len(space.features)) if i not in (row, column)]
    ordered = np.transpose(values, [*held, column] if row is None else [*held, row, column])
    rows = None if row is None else space.features[row]
    drawn = []
    if held and len(space) > PRIOR_CELLS:
        over = ", ".join(space.features[i].title for i in held)
        means = _means(ordered.reshape(-1, *ordered.shape[len(held) :]))
        return [_panel(f"Mean over {over}", rows, space.features[column], means)]
    for levels in itertools.product(*(range(space.shape[i]) for i in held)):
        title = ", ".join(
            f"{space.features[i].title}: {space.features[i].labels[level]}"
            for i, level in zip(held, levels, strict=True)
        )
        drawn.append(_panel(title, rows, space.features[column], ordered[levels]))
    return drawn


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means over the first axis of the values that are there; NaN where none is."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    means: NDArray[np.float64] = np.full(counts.shape, math.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _panel(title: str, rows: Feature | None, columns: Feature, values: NDArray[np.float64]) -> Panel:
    table = values if rows is not None else values.reshape(1, -1)
    return Panel(
        title=title,
        row_title=rows.title if rows else "",
        row_labels=tuple(reversed(rows.labels)) if rows else ("",),
        column_title=columns.title,
        column_labels=columns.labels,
        values=table[::-1],
    )


def signed(value: float) -> str:
    """Return a bias, or a difference of two, in hundredths with its sign; a dash for NaN.

    Examples
    --------
    >>> signed(0.184), signed(-0.001), signed(math.nan)
    ('+18', '0', '-')
    """
    return "-" if math.isnan(value) else f"{hundredths:+d}" if (hundredths := round(100 * value)) else "0"
