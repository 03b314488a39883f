"""Contrast: take out of a verdict what the name of the market and the time say by themselves.

The verdict on a question is divided by the verdict on the same question without the state, which only names
market and time, and normalised::

    contrasted[label] = (full[label] / named[label]) / sum over labels of the same

A label that the model gives for the name alone, because it remembers what happened, counts for nothing then;
what the state adds stays. Where the state adds nothing all labels are as likely: no advice.

That is context-aware decoding (Shi et al. 2024, "Trusting Your Evidence": the logits with a context, weighted
``1 + a``, less ``a`` times those without it) for a large ``a``, up to the temperature: the order of the
labels is that of ``full * (full / named) ** a`` as ``a`` grows. Li, Wang and Ma 2026 (arXiv 2605.24564,
FinCAD) use it against what language models remember of markets; their prompt is learned, and their strength
differs from date to date by how much is remembered there. Neither is done here: the prompt names time and
market and the strength is the same everywhere, so nothing is fitted.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bt_llm.exceptions import ConfigError
from bt_llm.verdicts._verdict import Verdict

__all__ = ["contrasted"]

_LEAST = 1e-6
"""What a label has at least: a model that excludes one for a name alone does not make it certain."""


def contrasted(full: Verdict, named: Verdict) -> Verdict:
    """Return a verdict less what a prompt that only names market and time gets; invalid if either is.

    Parameters
    ----------
    full : Verdict
        On the whole question.
    named : Verdict
        Of the same model, on the question without the state.

    Raises
    ------
    ConfigError
        If they are verdicts on different labels.

    Examples
    --------
    >>> remembered = Verdict(bullish=0.8, neutral=0.1, bearish=0.1)
    >>> contrasted(remembered, remembered).answer
    'neutral'
    >>> flat = Verdict(bullish=0.25, neutral=0.5, bearish=0.25)
    >>> found = contrasted(Verdict(bullish=0.5, neutral=0.25, bearish=0.25), flat)
    >>> [round(p, 3) for p in found.probabilities]
    [0.571, 0.143, 0.286]
    """
    if full.labels.names != named.labels.names:
        raise ConfigError(
            f"verdicts on {full.labels.names} and on {named.labels.names}: expected one label set"
        )
    if not full.valid:
        return full
    if not named.valid:
        return replace(
            full,
            probabilities=(math.nan,) * len(full.labels),
            reason=f"market and time alone have no verdict to contrast with: {named.reason}",
        )
    pairs = zip(full.probabilities, named.probabilities, strict=True)
    weights = [max(one, _LEAST) / max(other, _LEAST) for one, other in pairs]
    total = math.fsum(weights)
    return replace(full, probabilities=tuple(weight / total for weight in weights))
