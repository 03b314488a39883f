"""Calibration: take out of raw probabilities the label that a small model prefers whatever the state.

A model that says "Neutral" for every state still says it with different probabilities, and those carry
what it knows. Dividing by a prior and normalising removes the constant and keeps the order::

    calibrated[label] = (raw[label] / prior[label]) / sum over labels of the same

The prior is the mean over the whole state grid by default (*grid*). The grid does not depend on the bars,
so nothing is learned from the future. In walk-forward a *fixed* prior can be given instead: the training
window's mean. It works on stored raw probabilities, so changing it asks the model nothing.

Sources: Zhao et al. 2021, "Calibrate Before Use" (contextual calibration: the prior is the answer to a
content-free prompt); Zhou et al. 2023, "Batch Calibration" (the prior is the mean over a batch of inputs).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from bt_llm.exceptions import ConfigError
from bt_llm.verdicts._verdict import Verdict

__all__ = ["Prior", "calibrated", "mean_prior"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What a model answers on average: three positive probabilities that sum to 1.

    Examples
    --------
    >>> Prior(bullish=0.2, neutral=0.7, bearish=0.1).neutral
    0.7
    """

    bullish: float
    neutral: float
    bearish: float

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        values = (self.bullish, self.neutral, self.bearish)
        if not all(0.0 < p < 1.0 for p in values) or abs(math.fsum(values) - 1.0) > 1e-6:
            raise ConfigError(f"prior {values}: expected three numbers between 0 and 1 that sum to 1")


def mean_prior(verdicts: Iterable[Verdict]) -> Prior | None:
    """Return the mean probabilities of the valid verdicts, or None if none is valid.

    The sum is exactly rounded (`math.fsum`), so that it does not depend on the order.

    Examples
    --------
    >>> mean_prior([Verdict(bullish=0.25, neutral=0.5, bearish=0.25),
    ...             Verdict(bullish=0.5, neutral=0.25, bearish=0.25)])
    Prior(bullish=0.375, neutral=0.375, bearish=0.25)
    """
    rows = [verdict.probabilities for verdict in verdicts if verdict.valid]
    if not rows:
        return None
    # A label that never gets any probability must not divide by zero; it stays at zero when calibrated.
    means = [max(math.fsum(column) / len(rows), 1e-300) for column in zip(*rows, strict=True)]
    bullish, neutral, bearish = (min(mean, 1.0 - 1e-15) for mean in means)
    return Prior(bullish=bullish, neutral=neutral, bearish=bearish)


def calibrated(verdict: Verdict, prior: Prior | None) -> Verdict:
    """Return the verdict with its probabilities divided by the prior and normalised.

    Invalid verdicts, and all of them when the prior is None, come back as they are.

    Examples
    --------
    >>> prior = Prior(bullish=0.2, neutral=0.6, bearish=0.2)
    >>> calibrated(Verdict(bullish=0.25, neutral=0.60, bearish=0.15), prior).action.name
    'BULLISH'
    """
    if prior is None or not verdict.valid:
        return verdict
    lifted = [
        p / q
        for p, q in zip(verdict.probabilities, (prior.bullish, prior.neutral, prior.bearish), strict=True)
    ]
    total = math.fsum(lifted)
    bullish, neutral, bearish = (value / total for value in lifted)
    return dataclasses.replace(verdict, bullish=bullish, neutral=neutral, bearish=bearish)
