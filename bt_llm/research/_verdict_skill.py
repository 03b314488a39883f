"""How good several models' verdicts are on the same bars: at the right times, and by their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bt_llm import statistics
from bt_llm.exceptions import DataError
from bt_llm.plain_json import plain
from bt_llm.research._scoring import FORECAST, Judged
from bt_llm.shown import Told
from bt_llm.statistics import PairDifference, RolledScore, RolledSkill, StepwiseDifferences

__all__ = ["VerdictSkill", "verdict_skill"]

_FEWEST_BARS = 30


@dataclass(frozen=True, kw_only=True, repr=False)
class VerdictSkill(Told):
    """Several models' verdicts on the bars that all of them judged.

    Attributes
    ----------
    bars : int
        Bars with a verdict of every model, and an outcome.
    right : RolledSkill
        How often each is right, against how often its words would be at other times; and each two models.
        See `rolled_skill`.
    brier, log : StepwiseDifferences or None
        Mean Brier and logarithmic scores (minus the logarithm of what was given to what happened) of each two
        models, the first less the second, less being better; None where answers have no probabilities. They
        measure base rates too: who says the commonest word scores well without knowing anything.
    """

    bars: int
    right: RolledSkill
    brier: StepwiseDifferences | None
    log: StepwiseDifferences | None

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        right = self.right
        shown = [
            f"{name} {100 * one.observed:.1f} % (the same words at other times: {100 * one.expected:.1f} %, "
            f"adjusted p = {one.p_value:.3g})"
            for name, one in right.each.items()
            if right.shown(one)
        ]
        apart = [
            f"{first if one.skill > 0.0 else second} more than {second if one.skill > 0.0 else first} "
            f"(adjusted p = {one.p_value:.3g})"
            for (first, second), one in right.pairs.items()
            if right.shown(one)
        ]
        least = min(one.p_value for one in (*right.each.values(), *right.pairs.values()))
        if not shown and not apart:
            return (
                f"On {self.bars:,} bars no model is shown to be right at the right times, and no two to "
                f"differ in that (smallest adjusted p = {least:.3g}): each is right about as often as its "
                "words are at other times."
            )
        alone = (
            f"right at the right times: {', '.join(shown)}" if shown else "none is right at the right times"
        )
        return f"On {self.bars:,} bars {'; '.join([alone, *apart])}."

    def scores(self, first: str, second: str) -> dict[str, PairDifference]:
        """Return how two models differ by their probabilities; empty where there are none."""
        families = {"brier": self.brier, "log": self.log}
        return {name: one.of(first, second) for name, one in families.items() if one is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(
            {
                "bars": self.bars,
                "smallest_p": self.right.smallest_p,
                "models": {name: _plain(one) for name, one in self.right.each.items()},
                "pairs": [
                    {
                        "models": pair,
                        **_plain(one),
                        **{
                            name: {key: getattr(score, key) for key in ("estimate", "low", "high")}
                            for name, score in self.scores(*pair).items()
                        },
                    }
                    for pair, one in self.right.pairs.items()
                ],
                "sentence": self.sentence,
            }
        )
        return found


def _plain(one: RolledScore) -> dict[str, float]:
    return {
        "right": one.observed,
        "right_at_other_times": one.expected,
        "skill": one.skill,
        "p_value": one.p_value,
        "detectable": one.detectable,
    }


def verdict_skill(
    judged: Mapping[str, Judged],
    *,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
) -> VerdictSkill:
    """Compare the verdicts of one or several models with what the market did.

    Parameters
    ----------
    judged : mapping of str to Judged
        By model, all of the same market and horizon; from `judge`.
    resamples, seed, block_length
        Of the block bootstrap of the probabilities' scores; see `stepwise_differences`.

    Raises
    ------
    DataError
        If the models have fewer than 30 bars with an outcome in common.

    Notes
    -----
    An invalid answer is right at no time. Of several datas the outcomes of each are rolled within it, by the
    same number of bars in all, and scores are pooled by time: what datas have in common stays in common.

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> from bt_llm.research import judge
    >>> bars = load_bars(shipped("sp500_daily.csv"))[-400:]
    >>> gates = {name: Gate(advisor=AdvisorConfig(model=f"scripted:{name}", cache_mode="off"))
    ...          for name in ("trend", "contrarian")}
    >>> found = verdict_skill({name: judge(bars, gate) for name, gate in gates.items()}, resamples=99)
    >>> found.bars, list(found.right.pairs)
    (282, [('trend', 'contrarian')])
    """
    known = {name: one.bars[one.bars["outcome"].notna()] for name, one in judged.items()}
    first, *others = known.values()
    common = first.index
    for other in others:
        common = common.intersection(other.index)
    if len(common) < _FEWEST_BARS:
        raise DataError(
            f"{len(common)} bars with a verdict of {', '.join(judged)} and an outcome: expected at least "
            f"{_FEWEST_BARS}"
        )
    frames = {name: frame.loc[common] for name, frame in known.items()}
    outcome = first.loc[common, "outcome"].to_numpy()
    levels = [common.get_level_values(number) for number in range(common.nlevels - 1)]
    symbols = list(zip(*levels, strict=True)) if levels else None
    options = {"n": resamples, "seed": seed, "block_length": block_length}
    return VerdictSkill(
        bars=len(common),
        right=statistics.rolled_skill(
            {name: _right_rows(frame) for name, frame in frames.items()}, outcome, groups=symbols
        ),
        brier=_scored(frames, outcome, "brier", options),
        log=_scored(frames, outcome, "log", options),
    )


def _right_rows(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return 1 in the column of the outcome under which an answer is right: up, flat, down."""
    side = np.sign(frame["worth"].to_numpy(dtype=np.float64))
    return np.column_stack([side > 0.0, side == 0.0, side < 0.0]).astype(np.float64)


def _scored(
    frames: Mapping[str, pd.DataFrame],
    outcome: np.ndarray[Any, Any],
    score: str,
    options: Mapping[str, Any],
) -> StepwiseDifferences | None:
    """Return how models differ by their probabilities, on the bars where all have them."""
    valid = np.all([np.isfinite(frame[FORECAST]).all(axis=1) for frame in frames.values()], axis=0)
    if len(frames) < 2 or valid.sum() < _FEWEST_BARS:
        return None
    rows = statistics.brier_rows if score == "brier" else statistics.log_rows
    came = np.arange(int(valid.sum())), outcome[valid].astype(np.intp)
    losses: Any = pd.DataFrame(
        {name: -rows(frame.loc[valid, FORECAST].to_numpy())[came] for name, frame in frames.items()},
        index=next(iter(frames.values())).index[valid],
    )
    if losses.index.nlevels > 1:
        losses = losses.unstack(list(range(losses.index.nlevels - 1))).sort_index()
    return statistics.stepwise_differences(losses, None, "return", **options)
