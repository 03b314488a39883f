"""What a model says of each bar: masked, told market and time, told another time, and told nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.advice import Advisor, AdvisorConfig, Usage
from bt_llm.models import Backend, Progress
from bt_llm.research.leakage._points import Points
from bt_llm.shown import Told
from bt_llm.verdicts import Verdict, contrasted

__all__ = ["Said", "ask"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Said(Told):
    """A model's answers on the points, as expected worths: by the default labels bullish less bearish.

    Attributes
    ----------
    model : str
        Who answered.
    masked, named, misdated, contrasted : array of shape (points,)
        On the state alone; with market and time before it; with another point's time instead; and `named`
        with what market and time alone get taken out. NaN where an answer is invalid.
    recall : array of shape (points,)
        How far the answer to market and time alone, without a state, lies from that to the market alone:
        total variation, 0 to 1.
    changed : float
        Share of the points where telling market and time changes the most probable label.
    usage : Usage
        What asking took this time.
    """

    model: str
    masked: Floats
    named: Floats
    misdated: Floats
    contrasted: Floats
    recall: Floats
    changed: float
    usage: Usage

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where every answer could be read."""
        rows = (self.masked, self.named, self.misdated, self.contrasted, self.recall)
        return np.asarray(np.isfinite(np.stack(rows)).all(axis=0), dtype=bool)

    def table(self, points: Points) -> pd.DataFrame:
        """Return the answers by time, beside what was seen of each bar and what came."""
        names = ("masked", "named", "misdated", "contrasted", "recall")
        seen = {"cell": points.cells, "outcome": points.outcome}
        return pd.DataFrame({**seen, **{name: getattr(self, name) for name in names}}, index=points.times)


def ask(
    points: Points,
    config: AdvisorConfig,
    *,
    seed: int = 0,
    backend: Backend | None = None,
    on_progress: Progress | None = None,
) -> Said:
    """Ask about all points, three prompts a point beside the masked ones, which the points share.

    Parameters
    ----------
    points : Points
        The bars.
    config : AdvisorConfig
        How; verdicts are read before calibration, which would ask much more.
    seed : int
        Which other time a point gets.
    backend : Backend, optional
        Who answers, instead of the configuration's model.
    on_progress : callable, optional
        Called with (answered, to ask).
    """
    plain: dict[str, Any] = {"identify": "", "calibration": "none"}
    if config.reader == "contrast":
        plain["reader"] = "logprobs"
    usage = Usage()
    with Advisor(dataclasses.replace(config, **plain), backend=backend) as advisor:
        cells: list[int | None] = points.cells.tolist()
        asked = [
            *zip(cells, points.lines, strict=True),
            *zip(cells, points.other_lines(seed), strict=True),
            *((None, line) for line in points.lines),
            (None, points.market),
        ]
        prompts = advisor.template.named_prompts(
            advisor.space, [cell for cell, _ in asked], advisor.identity, [line for _, line in asked]
        )
        told = advisor.verdicts_on(prompts, usage, on_progress=on_progress)
        masked = advisor.raw_cells(points.cells.tolist(), usage, on_progress=on_progress)
        usage.distinct += len(set(points.cells.tolist()))
        usage.cache_hits = usage.distinct - usage.model_calls
        model, worths = advisor.identity.name, np.array(advisor.labels.worths)
    n = len(points)
    named, misdated, alone, nothing = told[:n], told[n : 2 * n], told[2 * n : 3 * n], told[3 * n]
    less = [contrasted(one, other) for one, other in zip(named, alone, strict=True)]
    apart = np.abs(_table(alone) - np.array(nothing.probabilities)).sum(axis=1) / 2.0
    both = zip(masked, named, strict=True)
    return Said(
        model=model,
        masked=_table(masked) @ worths,
        named=_table(named) @ worths,
        misdated=_table(misdated) @ worths,
        contrasted=_table(less) @ worths,
        recall=apart,
        changed=float(np.mean([one.answer != other.answer for one, other in both])),
        usage=usage,
    )


def _table(verdicts: Sequence[Verdict]) -> Floats:
    return np.array([verdict.probabilities for verdict in verdicts], dtype=np.float64)
