"""What a model answered bar by bar, as a table."""

from __future__ import annotations

import pandas as pd

from bt_llm.indicators import LLMAdvice, copy_values
from bt_llm.verdicts import INVALID

__all__ = ["COLUMNS", "answer_names", "answers_of", "counted"]

_LINES = ("confidence", "bullish", "neutral", "bearish")
COLUMNS = ("answer", "worth", *_LINES)
"""Of the table of `answers_of`."""


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
        One row a bar, known at its close: ``answer`` (the label's name or ``invalid``, empty where there is
        none; categorical, with all that it could be in the labels' order), ``worth`` (of the label),
        ``confidence``, ``bullish``, ``neutral`` and ``bearish`` (NaN where there is none; all but the
        confidence also for an invalid answer).
    """
    lines = {name: copy_values(getattr(advice.lines, name)) for name in ("label", "verdict", *_LINES)}
    places = advice.labels.places(lines["label"], lines["confidence"])
    answer = pd.Categorical.from_codes(places, categories=pd.Index(advice.labels.possible_answers))
    numbers = {name: lines[name] for name in _LINES}
    return pd.DataFrame({"answer": answer, "worth": lines["verdict"], **numbers}, index=times, copy=False)


def answer_names(*answers: pd.Series) -> list[str]:
    """Return what the answers of tables could be, in the order of their labels; invalid comes last."""
    names = dict.fromkeys(str(name) for one in answers for name in one.cat.categories)
    return [name for name in names if name not in (INVALID, "")] + [INVALID]


def counted(answers: pd.Series) -> dict[str, int]:
    """Return how many there are of each answer, by its name."""
    return {name: int((answers == name).sum()) for name in answer_names(answers)}
