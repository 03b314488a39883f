"""What the market did after each verdict, and how good the verdicts were.

A bar's *outcome* is up, flat or down, by its close and the close `horizon` bars later::

    up      if  close[t + horizon] - close[t]  >   flat * ATR[t] * sqrt(horizon)
    down    if  close[t + horizon] - close[t]  <  -flat * ATR[t] * sqrt(horizon)
    flat    otherwise

The band is known at the close of bar t. The square root is how the moves of a random walk grow; with the
default `flat` about a third of its bars have each outcome. A verdict is *right* if its label is worth more
than nothing and the outcome is up, exactly nothing and flat, or less and down. Outcomes are worked out after
the run and never come near a verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.advice import Advisor, AdvisorConfig, Usage
from bt_llm.backtest import Market
from bt_llm.backtest import Source as DataSource
from bt_llm.exceptions import ConfigError, DataError, ModelError
from bt_llm.gates import Gate
from bt_llm.indicators import copy_values
from bt_llm.models import estimate_memory_mb, find_model, read_facts
from bt_llm.plain_json import plain
from bt_llm.research._answers import answers_of, counted
from bt_llm.research._runs import inspect_run
from bt_llm.settings import number, whole

__all__ = ["Judged", "ModelCost", "ModelScore", "judge", "model_cost", "score"]

_CONTEXT_TOKENS = 512  # holds the prompts of the templates that come with bt_llm


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One model's answers bar by bar, beside what the market did next.

    Attributes
    ----------
    bars : DataFrame
        One row for each bar that the model was asked about: the columns of `bt_llm.research.answers_of`,
        ``outcome`` (0 up, 1 flat, 2 down; NaN where `horizon` bars later there is none), and ``right`` (1.0,
        0.0 or NaN likewise).
    horizon : int
        Bars from the verdict to the outcome.
    flat : float
        Half the width of the band called flat, in ATR for a horizon of one bar.
    usage : Usage
        What asking cost this time.
    """

    bars: pd.DataFrame
    horizon: int
    flat: float
    usage: Usage


class _Watch(bt.Strategy):  # type: ignore[misc]
    """Has a model judge every bar, and trades nothing."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.advice = [self.p.gate.attach(self, data).advice for data in self.datas]
        self.range = [bt.ind.ATR(advice.data, period=advice.p.atr) for advice in self.advice]

    def prenext(self) -> None:
        """Judge each data from its own warm-up on."""


def judge(data: DataSource, gate: Gate, *, horizon: int = 5, flat: float = 0.25) -> Judged:
    """Have a gate's model judge every bar, and look up what the market did next.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars; of several datas the rows come one data after the other, and are indexed by data and time.
    gate : Gate
        Names the model, and the indicator that makes the states.
    horizon : int
        Bars from the verdict to the outcome.
    flat : float
        Half the width of the band called flat, in ATR for a horizon of one bar; 0 or more.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If no bar is left after the warm-up and the horizon.

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> judged = judge(load_bars(shipped("sp500_daily.csv"))[-200:], gate, horizon=5)
    >>> len(judged.bars), int(judged.bars["outcome"].count())
    (87, 82)
    """
    if not isinstance(gate, Gate):
        raise ConfigError(f"gate={gate!r:.60}: expected a Gate, whose model can be asked")
    horizon, flat = whole("horizon", horizon, 1, of=" of bars"), number("flat", flat, 0, of=" of ATR")
    market = Market.of(data)
    _, ran = inspect_run(_Watch, market, gate=gate)
    frames = {
        name: _beside_outcomes(
            answers_of(advice, bars.index), bars, copy_values(true_range.lines.atr), horizon, flat
        )
        for (name, bars), advice, true_range in zip(market.items(), ran.advice, ran.range, strict=True)
    }
    frame = pd.concat(frames, names=["data", "time"]) if len(frames) > 1 else next(iter(frames.values()))
    asked = frame[frame["confidence"].notna()]
    if not asked["outcome"].count():
        raise DataError(
            f"{len(market.index)} bars: no verdict has an outcome {horizon} bars later; give more bars"
        )
    usage = sum((advice.usage for advice in ran.advice), Usage())
    return Judged(bars=asked, horizon=horizon, flat=flat, usage=usage)


def _beside_outcomes(
    answers: pd.DataFrame, bars: pd.DataFrame, atr: NDArray[np.float64], horizon: int, flat: float
) -> pd.DataFrame:
    outcome = outcomes(bars["close"].to_numpy(), atr, horizon, flat)
    right = np.where(np.isnan(outcome), np.nan, np.sign(answers["worth"].to_numpy()) == 1.0 - outcome)
    return answers.assign(outcome=outcome, right=right)


def outcomes(
    close: NDArray[np.float64], atr: NDArray[np.float64], horizon: int, flat: float
) -> NDArray[np.float64]:
    """Return the outcome of each bar: 0 up, 1 flat, 2 down, NaN where it is not known.

    Parameters
    ----------
    close, atr : array of float, shape (bars,)
        Of the same bars.
    horizon, flat
        As in `judge`.

    Examples
    --------
    >>> outcomes(np.array([10.0, 12.0, 12.1, 11.0]), np.ones(4), horizon=1, flat=0.25).tolist()
    [0.0, 1.0, 2.0, nan]
    """
    outcome = np.full(len(close), np.nan)
    known = max(0, len(close) - horizon)
    move, band = close[horizon:] - close[:known], flat * atr[:known] * math.sqrt(horizon)
    outcome[:known] = np.where(move > band, 0.0, np.where(move < -band, 2.0, 1.0))
    outcome[:known][~np.isfinite(band)] = np.nan
    return outcome


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelScore:
    """How good a model's verdicts were.

    Attributes
    ----------
    bars : int
        Bars with a verdict and an outcome.
    answers : dict of str to int
        Of these, how many by each label's name, and ``invalid``.
    accuracy : float
        Share that was right; an invalid answer is wrong.
    base_rate : float
        Share of the commonest outcome: what always giving that one answer would score.
    brier : float
        Brier score of the probabilities of bullish, neutral and bearish, 0 (perfect) to 2, over the valid
        answers; equal
        probabilities score 2/3. NaN if there is no valid answer.
    brier_constant : float
        That of a forecast which always gives the outcomes' own frequencies, known only afterwards.
    reliability : DataFrame
        Stated confidence against how often it was right; see `statistics.reliability_table`.
    """

    bars: int
    answers: dict[str, int]
    accuracy: float
    base_rate: float
    brier: float
    brier_constant: float
    reliability: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(vars(self))
        return found


def score(judged: Judged, *, bins: int = 10) -> ModelScore:
    """Return how good a model's verdicts were.

    Parameters
    ----------
    judged : Judged
        By `judge`.
    bins : int
        Of the reliability table.
    """
    known = judged.bars[judged.bars["outcome"].notna()]
    valid = known[known["worth"].notna()]
    outcome = valid["outcome"].to_numpy()
    shares = np.bincount(known["outcome"].astype(int), minlength=3) / len(known)
    of_valid = np.bincount(outcome.astype(int), minlength=3) / max(1, len(valid))
    return ModelScore(
        bars=len(known),
        answers=counted(known["answer"]),
        accuracy=float(known["right"].mean()),
        base_rate=float(shares.max()),
        brier=_brier(valid, outcome),
        brier_constant=1.0 - float(np.sum(of_valid**2)) if len(valid) else math.nan,
        reliability=statistics.reliability_table(known["confidence"], known["right"], bins=bins),
    )


def _brier(valid: pd.DataFrame, outcome: NDArray[np.float64]) -> float:
    if not len(valid):
        return math.nan
    return statistics.brier_score(valid[["bullish", "neutral", "bearish"]].to_numpy(), outcome)


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What a model takes.

    Attributes
    ----------
    prompts : int
        Distinct market states in the bars.
    cache_hits, model_calls, tokens : int
        Of this time: prompts answered from the cache; prompts the model was asked, those of the calibration
        included; tokens decoded for them.
    model_seconds : float
        Wall time in the model, this time.
    stored_ms, stored_tokens : float
        Mean milliseconds and tokens of one verdict as they were stored with the verdicts of this model,
        whenever that was; NaN if none says.
    memory_mb : float
        Estimate of what it takes in memory (2**20 bytes) with 512 tokens of context; NaN without a file.
    """

    prompts: int
    cache_hits: int
    model_calls: int
    tokens: int
    model_seconds: float
    stored_ms: float
    stored_tokens: float
    memory_mb: float


def model_cost(config: AdvisorConfig, usage: Usage) -> ModelCost:
    """Return what a model took to give its verdicts.

    Parameters
    ----------
    config : AdvisorConfig
        Names the model.
    usage : Usage
        Of this time.
    """
    stored = _stored(config)
    return ModelCost(
        prompts=usage.distinct,
        cache_hits=usage.cache_hits,
        model_calls=usage.model_calls,
        tokens=usage.tokens,
        model_seconds=usage.model_seconds,
        stored_ms=_mean([found.get("milliseconds") for found in stored]),
        stored_tokens=_mean([found.get("tokens") for found in stored]),
        memory_mb=_memory_mb(config),
    )


def _stored(config: AdvisorConfig) -> list[Any]:
    """Return what is stored beside the verdicts of a model, as it is asked by a configuration."""
    advisor = Advisor.shared(config)
    wanted = (advisor.identity.sha256, config.reader, config.numerics)
    records = advisor.cache.records()
    return [
        record.provenance
        for record in records
        if (record.question.model_sha256, record.question.reader, record.question.numerics) == wanted
    ]


def _mean(values: list[Any]) -> float:
    numbers = [value for value in values if isinstance(value, int | float)]
    return float(np.mean(numbers)) if numbers else math.nan


def _memory_mb(config: AdvisorConfig) -> float:
    if str(config.model).startswith("scripted"):
        return math.nan
    try:
        return estimate_memory_mb(read_facts(find_model(config.model)), n_ctx=_CONTEXT_TOKENS)
    except ModelError:  # a replay needs no file
        return math.nan
