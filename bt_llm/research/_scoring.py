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
from typing import Any, TypeAlias

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm import statistics
from bt_llm.advice import AdvisorConfig, AnalystConfig, Usage
from bt_llm.backtest import COLUMNS, Market, answers_of, counted
from bt_llm.backtest import Source as DataSource
from bt_llm.equality import nan_equal
from bt_llm.exceptions import DataError
from bt_llm.gates import LONG, SHORT, AskingGate, AttachedAdviceGate, AttachedGate, Decision, Gate, Questions
from bt_llm.indicators import copy_values
from bt_llm.models import kind_of
from bt_llm.plain_json import plain
from bt_llm.progress import shows_progress
from bt_llm.research._runs import inspect_run
from bt_llm.settings import instance, number, whole
from bt_llm.shown import Told
from bt_llm.verdicts import DEFAULT_LABELS, INVALID

__all__ = ["FORECAST", "Judged", "ModelCost", "ModelScore", "judge", "model_cost", "score"]

_ATR = 14  # bars, as LLMAdvice has it by default
_CONTEXT_TOKENS = 512  # holds the prompts of the templates that come with bt_llm

FORECAST = ["bullish", "neutral", "bearish"]
"""The columns of a forecast, in the order of the outcomes up, flat and down."""

_Told: TypeAlias = dict[int, tuple[Decision, Decision]]
"""What a gate decided at each bar, for the long and the short side."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Judged(Told):
    """One model's answers bar by bar, beside what the market did next.

    Attributes
    ----------
    bars : DataFrame
        One row for each bar that the model was asked about: the columns of `bt_llm.backtest.answers_of`,
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
    """Has a gate judge every bar, for both sides, and trades nothing."""

    params = (("gate", None),)

    def __init__(self) -> None:
        self.gates = [self.p.gate.attach(self, data) for data in self.datas]
        periods = [gate.advice.p.atr if isinstance(self.p.gate, Gate) else _ATR for gate in self.gates]
        self.range = [bt.ind.ATR(data, period=n) for data, n in zip(self.datas, periods, strict=True)]
        self.told: list[_Told] = [{} for _ in self.datas]

    def prenext(self) -> None:
        """Judge each data from its own warm-up on."""
        self.next()

    def next(self) -> None:
        if isinstance(self.p.gate, Gate):  # its verdicts stand on lines
            return
        for gate, told in zip(self.gates, self.told, strict=True):
            if gate.bar >= self.p.gate.warm_up_bars:
                told[gate.bar] = gate.decide(LONG), gate.decide(SHORT)


def _answers(gate: AttachedGate, told: _Told, times: pd.Index) -> pd.DataFrame:
    """Return what a gate's model said of each bar of its data, as `answers_of` does."""
    if isinstance(gate, AttachedAdviceGate):
        return answers_of(gate.advice, times)
    lines = np.full((5, len(times)), np.nan)
    answers = [""] * len(times)
    for bar, (long, short) in told.items():
        side = long.verdict + short.verdict  # each is its side, the other one, 0 or unknown
        known = not math.isnan(side)
        answers[bar - 1] = DEFAULT_LABELS.names[1 - int(np.sign(side))] if known else INVALID
        lines[:2, bar - 1] = side, max(long.confidence, short.confidence) if known else 0.0
    answer = pd.Categorical(answers, categories=[*DEFAULT_LABELS.names, INVALID, ""])
    numbers = dict(zip(COLUMNS[1:], np.sign(lines[:1]).tolist() + lines[1:].tolist(), strict=True))
    return pd.DataFrame({"answer": answer, **numbers}, index=times)


def _usage(gate: AttachedGate) -> Usage:
    """Return what answering a gate cost."""
    if isinstance(gate, AttachedAdviceGate):
        usage: Usage = gate.advice.usage
        return usage
    asked = gate.questions() or Questions()
    return Usage(
        distinct=asked.asked,
        cache_hits=asked.cache_hits,
        model_calls=asked.model_calls,
        model_seconds=asked.model_seconds,
        tokens=asked.tokens,
    )


@shows_progress("bars")
def judge(data: DataSource, gate: AskingGate, *, horizon: int = 5, flat: float = 0.25) -> Judged:
    """Have a gate's model judge every bar, and look up what the market did next.

    Of a gate without a verdict for each bar, such as one of news or of trades, an answer is what it lets in:
    bullish if that is longs and not shorts, bearish if it is the reverse, else neutral. It has no
    probabilities.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars; of several datas the rows come one data after the other, and are indexed by data and time.
    gate : AskingGate
        Names the model, and what it is asked about.
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
    instance("gate", gate, AskingGate, "a gate whose model can be asked, such as a Gate")
    horizon, flat = whole("horizon", horizon, 1, of=" of bars"), number("flat", flat, 0, of=" of ATR")
    market = Market.of(data)
    _, ran = inspect_run(_Watch, market, gate=gate)
    frames = {
        name: _beside_outcomes(
            _answers(attached, told, bars.index), bars, copy_values(true_range.lines.atr), horizon, flat
        )
        for (name, bars), attached, told, true_range in zip(
            market.items(), ran.gates, ran.told, ran.range, strict=True
        )
    }
    frame = pd.concat(frames, names=["data", "time"]) if len(frames) > 1 else next(iter(frames.values()))
    asked = frame[frame["confidence"].notna()]
    if not asked["outcome"].count():
        raise DataError(
            f"{len(market.index)} bars: no verdict has an outcome {horizon} bars later; give more bars"
        )
    usage = sum(map(_usage, ran.gates), Usage())
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
    move, band = close[horizon:] - close[:known], flat * atr[:known] * math.sqrt(min(horizon, len(close)))
    outcome[:known] = np.where(move > band, 0.0, np.where(move < -band, 2.0, 1.0))
    outcome[:known][~np.isfinite(band)] = np.nan
    return outcome


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ModelScore(Told):
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
        answers; equal probabilities score 2/3. NaN if there is no valid answer, or answers have no
        probabilities.
    brier_constant : float
        That of a forecast which always gives the outcomes' own frequencies, known only afterwards.
    log : float
        Logarithmic score of the same probabilities: the mean of minus the logarithm of what was given to
        what happened, 0 being perfect; equal probabilities score 1.1. NaN likewise.
    reliability : DataFrame
        Stated confidence against how often it was right; see `statistics.reliability_table`.
    """

    bars: int
    answers: dict[str, int]
    accuracy: float
    base_rate: float
    brier: float
    brier_constant: float
    log: float
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
    has_forecast = len(valid) > 0 and bool(np.isfinite(valid["neutral"]).all())
    of_valid = np.bincount(outcome.astype(int), minlength=3) / max(1, len(valid))
    return ModelScore(
        bars=len(known),
        answers=counted(known["answer"]),
        accuracy=float(known["right"].mean()),
        base_rate=float(shares.max()),
        brier=_brier(valid, outcome) if has_forecast else math.nan,
        brier_constant=1.0 - float(np.sum(of_valid**2)) if has_forecast else math.nan,
        log=_log(valid, outcome) if has_forecast else math.nan,
        reliability=statistics.reliability_table(known["confidence"], known["right"], bins=bins),
    )


def _brier(valid: pd.DataFrame, outcome: NDArray[np.float64]) -> float:
    if not len(valid):
        return math.nan
    return statistics.brier_score(valid[FORECAST].to_numpy(), outcome)


def _log(valid: pd.DataFrame, outcome: NDArray[np.float64]) -> float:
    rows = statistics.log_rows(valid[FORECAST].to_numpy())
    return -float(rows[np.arange(len(valid)), outcome.astype(np.intp)].mean())


@nan_equal
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


def model_cost(gate: AskingGate, usage: Usage) -> ModelCost:
    """Return what a model took to give its verdicts.

    Parameters
    ----------
    gate : AskingGate
        Names the model.
    usage : Usage
        Of this time.
    """
    stored = _stored(gate)
    return ModelCost(
        prompts=usage.distinct,
        cache_hits=usage.cache_hits,
        model_calls=usage.model_calls,
        tokens=usage.tokens,
        model_seconds=usage.model_seconds,
        stored_ms=_mean([found.get("milliseconds") for found in stored]),
        stored_tokens=_mean([found.get("tokens") for found in stored]),
        memory_mb=_memory_mb(gate.config),
    )


def _stored(gate: AskingGate) -> list[Any]:
    """Return what is stored beside the answers of a model, as it is asked by a gate."""
    asker = gate.asker()
    reader = getattr(gate.config, "reader", "text")
    wanted = {(one.identity.sha256, reader, one.numerics) for one in asker.everyone}
    records = asker.cache.records()
    return [
        record.provenance
        for record in records
        if (record.question.model_sha256, record.question.reader, record.question.numerics) in wanted
    ]


def _mean(values: list[Any]) -> float:
    numbers = [value for value in values if isinstance(value, int | float)]
    return float(np.mean(numbers)) if numbers else math.nan


def _memory_mb(config: AdvisorConfig | AnalystConfig) -> float:
    memory_mb = kind_of(str(config.model)).memory_mb(_CONTEXT_TOKENS)
    return math.nan if memory_mb is None else memory_mb
