"""Calibration: take out of raw probabilities the label that a small model prefers whatever the state.

A model that says "Neutral" for every state still says it with different probabilities, and those carry
what it knows. Dividing by a prior and normalising removes the constant and keeps the order::

    calibrated[label] = (raw[label] / prior[label]) / sum over labels of the same

The prior is the mean over the state grid by default (*grid*): over all of it, or over a fixed sample of one
of more than 512 cells (`prior_cells`). Neither depends on the bars, so nothing is learned from the future. In
walk-forward a *fixed* prior can be given instead: the training window's mean. It works on stored raw
probabilities, so changing it asks the model nothing.

Sources: Zhao et al. 2021, "Calibrate Before Use" (contextual calibration: the prior is the answer to a
content-free prompt); Zhou et al. 2023, "Batch Calibration" (the prior is the mean over a batch of inputs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bt_llm.exceptions import ConfigError
from bt_llm.settings import instance
from bt_llm.verdicts._labels import DEFAULT_LABELS, LabelSet
from bt_llm.verdicts._verdict import Verdict

__all__ = ["Prior", "calibrated", "mean_prior"]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Prior:
    """What a model answers on average: a positive probability of each label, which sum to 1.

    Parameters
    ----------
    labels : LabelSet
        By default bullish, neutral and bearish.
    probabilities : sequence of float, optional
        Of the labels, in their order.
    **named : float
        The same by the labels' names, instead of `probabilities`.

    Raises
    ------
    ConfigError
        If it is not one number above 0 and below 1 for each label, or they do not sum to 1.

    Examples
    --------
    >>> Prior(bullish=0.2, neutral=0.7, bearish=0.1).to_dict()["neutral"]
    0.7
    """

    labels: LabelSet
    probabilities: tuple[float, ...]

    def __init__(
        self,
        *,
        labels: LabelSet = DEFAULT_LABELS,
        probabilities: Sequence[float] | None = None,
        **named: float,
    ) -> None:
        instance("labels", labels, LabelSet, "a LabelSet")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "probabilities", labels.in_order(probabilities, named, "prior"))
        values = self.probabilities
        proper = len(values) == len(labels) and all(0.0 < p < 1.0 for p in values)
        if not proper or abs(math.fsum(values) - 1.0) > 1e-6:
            raise ConfigError(
                f"prior {values} of {', '.join(labels.names)}: expected {len(labels)} numbers between 0 and "
                "1 that sum to 1"
            )

    def __repr__(self) -> str:
        """Return the probabilities by name."""
        return f"Prior({', '.join(f'{name}={p!r}' for name, p in self.to_dict().items())})"

    def to_dict(self) -> dict[str, float]:
        """Return the probabilities by their labels' names."""
        return dict(zip(self.labels.names, self.probabilities, strict=True))


def mean_prior(verdicts: Iterable[Verdict]) -> Prior | None:
    """Return the mean probabilities of the valid verdicts, or None if none is valid.

    The sum is exactly rounded (`math.fsum`), so that it does not depend on the order.

    Raises
    ------
    ConfigError
        If they are verdicts on different labels.

    Examples
    --------
    >>> mean_prior([Verdict(bullish=0.25, neutral=0.5, bearish=0.25),
    ...             Verdict(bullish=0.5, neutral=0.25, bearish=0.25)])
    Prior(bullish=0.375, neutral=0.375, bearish=0.25)
    """
    valid = [verdict for verdict in verdicts if verdict.valid]
    if not valid:
        return None
    labels = valid[0].labels
    if other := next((verdict.labels for verdict in valid if verdict.labels.names != labels.names), None):
        raise ConfigError(f"verdicts on {labels.names} and on {other.names}: one prior is of one label set")
    columns = zip(*(verdict.probabilities for verdict in valid), strict=True)
    # A label that never gets any probability must not divide by zero; it stays at zero when calibrated.
    means = [max(math.fsum(column) / len(valid), 1e-300) for column in columns]
    return Prior(labels=labels, probabilities=[min(mean, 1.0 - 1e-15) for mean in means])


def calibrated(verdict: Verdict, prior: Prior | None) -> Verdict:
    """Return the verdict with its probabilities divided by the prior and normalised.

    Invalid verdicts, and all of them when the prior is None, come back as they are.

    Raises
    ------
    ConfigError
        If the prior is of other labels.

    Examples
    --------
    >>> prior = Prior(bullish=0.2, neutral=0.6, bearish=0.2)
    >>> calibrated(Verdict(bullish=0.25, neutral=0.60, bearish=0.15), prior).action.name
    'BULLISH'
    """
    if prior is None or not verdict.valid:
        return verdict
    if prior.labels.names != verdict.labels.names:
        raise ConfigError(
            f"prior of {', '.join(prior.labels.names)} for a verdict on {', '.join(verdict.labels.names)}: "
            "expected one of the template's labels"
        )
    lifted = [p / q for p, q in zip(verdict.probabilities, prior.probabilities, strict=True)]
    total = math.fsum(lifted)
    return replace(verdict, probabilities=tuple(value / total for value in lifted))
