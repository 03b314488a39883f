"""Models that know nothing, and models that do: what `bt-llm compare` and the leakage probes say of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Bootstrap
from bt_llm.research._scoring import outcomes
from bt_llm.statistics import change_of_effect, model_confidence_set, rolled_skill
from tests.size.markets import SIGMA, blink, garch, iid, smooth, walk, words
from tests.size.setting import Found, Goal, Setting

__all__ = ["SETTINGS"]

Floats = NDArray[np.float64]
Labels = Callable[[int, np.random.Generator], NDArray[np.int64]]

RESAMPLES, WARM_UP, HORIZON, FLAT = 199, 114, 5, 0.25
DAYS, HOURS = 252, 6_200
"""Bars in a year."""

BETTER = "compare: one model is better than another"
AGAINST = "compare: a model is better or worse than ungated"
EXCLUDED = "compare: a model is out of the model confidence set"
RIGHT = "compare: a model, or one more than another, is right at the right times"
PAIR = "compare: one model more than another is right at the right times"
REMEMBERED = "cut-off: it may have remembered"
CHANGED = "cut-off: the interval of the change leaves out 0"

FALSE = Goal("false positives", most=0.06)
POWER = Goal("power", least=0.8)


# Profit and loss


def compared(
    seed: int,
    *,
    models: int,
    market: Callable[..., Floats] = iid,
    bars: int = 1000,
    symbols: int = 1,
    alike: float = 0.0,
    edge: float = 0.0,
    year: int = DAYS,
) -> Found:
    """Return what is said of models that let an alternating strategy in at random; the first has an edge.

    `edge` is the Sharpe ratio a year that it adds in each symbol; `alike` is the correlation of the symbols.
    """
    rng = np.random.default_rng([seed, models, bars, symbols])
    common = market(bars, rng)
    columns: dict[tuple[str, str], Floats] = {}
    for symbol in range(symbols):
        moves = np.sqrt(alike) * common + np.sqrt(1.0 - alike) * (
            market(bars, rng) if symbols > 1 else common
        )
        side = np.where(blink(bars, rng, 20, 20), 1.0, -1.0)
        for number in range(models):
            lets = blink(bars, rng, 20, 20)
            # Half of the bars are traded: an edge on these is worth the root of a half of it a year.
            gain = edge / np.sqrt(year) / np.sqrt(0.5) if number == 0 else 0.0
            columns[f"model {number}", f"s{symbol}"] = SIGMA * lets * (side * moves + gain)
        columns["ungated", f"s{symbol}"] = SIGMA * side * moves
    index = pd.date_range("2000-01-03", periods=bars, freq="B")
    names = [f"model {number}" for number in range(models)]
    # What `standing` says, less what it describes.
    bootstrap = Bootstrap(resamples=RESAMPLES, seed=seed)
    pooled = bootstrap.pooled(pd.DataFrame(columns, index=index)[[*names, "ungated"]])
    pairs = list(itertools.combinations(names, 2))
    between = bootstrap.jointly(pooled, pairs)
    against = bootstrap.jointly(pooled, [*pairs, *((name, "ungated") for name in names)])
    inside = model_confidence_set(pooled[names], n=RESAMPLES, seed=seed)
    return {
        BETTER: any(map(between.shown, between.pairs)),
        AGAINST: any(against.shown(one) for one in against.pairs if one.second == "ungated"),
        EXCLUDED: any(p <= 0.05 for p in inside.values()),
    }


# Verdicts


def _outcomes(market: Callable[..., Floats], bars: int, rng: np.random.Generator) -> Floats:
    prices = walk(market(bars, rng), rng)
    before = np.concatenate([prices.open[:1], prices.close[:-1]])
    true_range = np.maximum(prices.high, before) - np.minimum(prices.low, before)
    return outcomes(prices.close, smooth(true_range, 1 / 14), HORIZON, FLAT)


def judged(
    seed: int,
    *,
    market: Callable[..., Floats],
    first: Labels,
    second: Labels,
    bars: int = 1000,
    knows: float = 0.0,
) -> Found:
    """Return what is said of two models' verdicts; the first knows the outcome on a share of the bars."""
    rng = np.random.default_rng([seed, bars])
    came = _outcomes(market, bars, rng)
    known = np.flatnonzero(np.isfinite(came) & (np.arange(bars) >= WARM_UP))
    told = first(bars, rng)
    if knows:
        told = np.where(blink(bars, rng, 5, 5.0 * (1.0 - knows) / knows), np.nan_to_num(came), told).astype(
            int
        )
    labels = {"first": told[known], "second": second(bars, rng)[known]}
    found = rolled_skill({name: np.eye(3)[one] for name, one in labels.items()}, came[known])
    pair = found.pairs["first", "second"]
    return {RIGHT: any(map(found.shown, (*found.each.values(), pair))), PAIR: found.shown(pair)}


def said(run: float, *shares: float) -> Labels:
    """Return a model's labels (up, flat, down), each kept for `run` bars in the mean."""
    return lambda bars, rng: words(bars, rng, run, shares)


# Memory


def cut(
    seed: int,
    *,
    market: Callable[..., Floats],
    before: int,
    after: int,
    edge: float,
    kept: float = 1.0,
) -> Found:
    """Return what is said of a gate whose edge, in deviations a bar, is `kept` of it after a cut-off."""
    rng = np.random.default_rng([seed, before, after])
    bars = before + after
    moves = market(bars, rng)
    gain = edge * np.where(np.arange(bars) < before, 1.0, kept)
    gated, ungated = SIGMA * blink(bars, rng, 20, 20) * (moves + gain), SIGMA * moves
    parts = [(gated[part], ungated[part]) for part in (slice(before), slice(before, None))]
    change = change_of_effect(parts[0], parts[1], n=RESAMPLES, seed=seed)
    shown = change.p_value <= 0.05
    return {REMEMBERED: shown and change.estimate < 0.0, CHANGED: shown}


def _models(models: int, name: str, market: Callable[..., Floats]) -> Setting:
    goals = {BETTER: FALSE, AGAINST: FALSE, EXCLUDED: FALSE}
    study = partial(compared, models=models, market=market)
    return Setting(group="Several models", name=name, study=study, goals=goals, repeats=500)


def _verdicts(name: str, market: Callable[..., Floats], first: Labels, second: Labels, bars: int) -> Setting:
    return Setting(
        group="Verdicts",
        name=f"{name}; {bars:,} bars",
        study=partial(judged, market=market, first=first, second=second, bars=bars),
        goals={RIGHT: FALSE, PAIR: FALSE},
    )


def _cut(name: str, market: Callable[..., Floats], before: int, after: int) -> Setting:
    return Setting(
        group="Before and after a cut-off",
        name=f"one constant edge; {name}; {before:,} bars before and {after:,} after",
        study=partial(cut, market=market, before=before, after=after, edge=0.08),
        goals={REMEMBERED: FALSE},  # the interval is printed, and nothing is said of a gain
    )


EVEN = (1 / 3, 1 / 3, 1 / 3)
FLATTERER, BULL, BEAR = said(50, 0.1, 0.8, 0.1), said(50, 0.8, 0.1, 0.1), said(50, 0.1, 0.1, 0.8)

SETTINGS = [
    _models(2, "two that know nothing, random walk", iid),
    _models(4, "four that know nothing, random walk", iid),
    _models(6, "six that know nothing, random walk", iid),
    _models(4, "four that know nothing, GARCH", garch),
    _verdicts("even words at random, random walk", iid, said(1, *EVEN), said(1, *EVEN), 1000),
    _verdicts("even words kept for 50 bars, random walk", iid, said(50, *EVEN), said(50, *EVEN), 1000),
    _verdicts("even words kept for 50 bars, GARCH", garch, said(50, *EVEN), said(50, *EVEN), 5000),
    _verdicts("even words kept for 200 bars, GARCH", garch, said(200, *EVEN), said(200, *EVEN), 1000),
    _verdicts("mostly neutral against mostly bullish, random walk", iid, FLATTERER, BULL, 1000),
    _verdicts("mostly neutral against mostly bullish, GARCH", garch, FLATTERER, BULL, 5000),
    _verdicts("mostly bullish against mostly bearish, rising", partial(iid, drift=0.05), BULL, BEAR, 5000),
    _cut("random walk", iid, 5000, 500),
    _cut("random walk", iid, 1000, 1000),
    _cut("GARCH", garch, 5000, 500),
    Setting(
        group="Several models",
        name="two on ten symbols (correlation 0.3), a year of hours, a Sharpe ratio of 1 a year between them",
        study=partial(compared, models=2, bars=HOURS, symbols=10, alike=0.3, edge=1.0, year=HOURS),
        goals={BETTER: POWER, AGAINST: POWER, EXCLUDED: POWER},
        repeats=200,
        control=True,
    ),
    Setting(
        group="Several models",
        name="four on one symbol for five years, one of them with a Sharpe ratio of 2 a year more",
        study=partial(compared, models=4, bars=5 * DAYS, edge=2.0),
        goals=dict.fromkeys((BETTER, AGAINST, EXCLUDED), Goal("power", least=0.6)),
        repeats=300,
        control=True,
    ),
    Setting(
        group="Verdicts",
        name="the first knows the outcome on a tenth of the bars, the second nothing; 1,000 bars",
        study=partial(judged, market=iid, first=said(20, *EVEN), second=said(20, *EVEN), knows=0.1),
        goals={RIGHT: Goal("power", least=0.6), PAIR: Goal("power", least=0.3)},
        repeats=300,
        control=True,
    ),
    Setting(
        group="Before and after a cut-off",
        name="an edge of 0.2 deviations a bar that is lost; 2,000 bars before and 1,000 after",
        study=partial(cut, market=iid, before=2000, after=1000, edge=0.2, kept=0.0),
        goals={REMEMBERED: POWER},
        repeats=300,
        control=True,
    ),
]
