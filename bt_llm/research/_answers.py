"""What a model answered bar by bar, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bt_llm.indicators import LLMAdvice, copy_values

__all__ = ["LABELS", "answers_of"]

LABELS = ("bullish", "neutral", "bearish", "invalid")
"""What a model can answer."""

_CODES = (1.0, 0.0, -1.0)
_LINES = ("confidence", "bullish", "neutral", "bearish")


def answers_of(advice: LLMAdvice, times: pd.Index) -> pd.DataFrame:
    """Return the answers that stand on an indicator's lines after its run.

    Parameters
    ----------
    advice : LLMAdvice
        Of a run that is over, all of whose bars it still holds, as vectorised runs do.
    times : Index
        Of these bars.

    Returns
    -------
    DataFrame
        One row a bar, known at its close: ``answer`` (of `LABELS`; empty where there is none),
        ``confidence``, ``bullish``, ``neutral`` and ``bearish`` (NaN where there is none; the three also for
        an invalid answer).
    """
    verdict = copy_values(advice.lines.verdict)
    lines = {name: copy_values(getattr(advice.lines, name)) for name in _LINES}
    said = np.select([verdict == code for code in _CODES], LABELS[:3], default=LABELS[3])
    answer = np.where(np.isnan(lines["confidence"]), "", said)
    return pd.DataFrame({"answer": answer, **lines}, index=times)
