"""Pictures that need no script: a histogram, folds, and the steadiness of choices, as geometry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.backtest import number, percent

if TYPE_CHECKING:
    from bt_llm.backtest import PanelEffect
    from bt_llm.research import FoldResult, NullRuns, ParameterStability
    from bt_llm.statistics import CostPoint

__all__ = ["bars_of", "cost_curve", "fold_strips", "forest", "histogram", "stability", "ticks"]

WIDTH, HEIGHT, FLOOR, BINS = 480, 220, 180, 24
LABELS, ROW = 150, 20
DIGIT = 10.5  # of a figure beside an axis, on a telephone


def histogram(runs: NullRuns, metric: str) -> dict[str, Any]:
    """Return the bars of a histogram of null gates and where the observed one stands among them."""
    values = runs.values(metric)
    values = values[np.isfinite(values)]  # a ruined account has no place on the scale
    seen = runs.seen(metric)
    drawn = [*values.tolist(), seen] if math.isfinite(seen) else values.tolist() or [0.0]
    low, high = float(min(drawn)), float(max(drawn))
    margin = (high - low) * 0.04 or 1.0
    low, high = low - margin, high + margin
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    scale = (FLOOR - 30) / max(1, int(counts.max()))
    shown = percent if metric == "return" else number
    tested = f"; p = {runs.p_value(metric):.3g}" if metric == runs.tested else ""

    def across(value: float) -> float:
        return round((value - low) / (high - low) * WIDTH, 1)

    return {
        "bars": [
            {
                "x": across(left) + 1,
                "width": round(WIDTH / BINS - 2, 1),
                "y": round(FLOOR - found * scale, 1),
                "height": round(found * scale, 1),
                "count": int(found),
                "span": f"{shown(left)} to {shown(right)}",
            }
            for left, right, found in zip(
                edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True
            )
        ],
        "observed": across(seen) if math.isfinite(seen) else None,
        "anchor": "end" if math.isfinite(seen) and across(seen) > WIDTH / 2 else "start",
        "label": f"{runs.subject}: {shown(seen) if math.isfinite(seen) else 'ruined'}",
        "ticks": [{"x": across(at), "text": shown(at)} for at in ticks(low, high, 5)],
        "most": f"{int(counts.max()):,}",
        "margin": _margin(f"{int(counts.max()):,}"),
        "name": {"timing": "Score of the timing", "return": "Return", "sharpe": "Sharpe ratio"}[metric],
        "text": f"Above {percent(runs.share_below(metric), 0)} of {runs.n}{tested}.",
    }


def cost_curve(points: Sequence[CostPoint]) -> dict[str, Any] | None:
    """Return a curve of an effect against cost, and the band of its intervals; None without points."""
    if not points:
        return None
    effects = [point.effect for point in points]
    low, high = min(0.0, *(one.low for one in effects)), max(0.0, *(one.high for one in effects))
    most, span = points[-1].cost or 1.0, (high - low) or 1.0

    def place(cost: float, value: float) -> str:
        return f"{cost / most * WIDTH:.1f},{FLOOR - (value - low) / span * FLOOR:.1f}"

    upper = [place(point.cost, point.effect.high) for point in points]
    lower = [place(point.cost, point.effect.low) for point in reversed(points)]
    up = [(at, percent(at, 1)) for at in ticks(low, high, 4)]
    return {
        "margin": _margin(*(text for _, text in up)),
        "line": " ".join(place(point.cost, point.effect.estimate) for point in points),
        "band": " ".join([*upper, *lower]),
        "zero": round(FLOOR + low / span * FLOOR, 1),
        "up": [{"y": round(FLOOR - (at - low) / span * FLOOR, 1), "text": text} for at, text in up],
        "across": [{"x": round(at / most * WIDTH, 1), "text": percent(at, 3)} for at in ticks(0.0, most, 4)],
    }


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return about so many round values between two; of two that are the same, that one."""
    if low == high:
        return [low]
    step = _step((high - low) / wanted)
    return [place * step for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def fold_strips(folds: Sequence[FoldResult]) -> list[dict[str, Any]]:
    """Return the folds as strips, in percent of the bars from the first train to the last test."""
    bars = max(one.fold.test.stop for one in folds)
    found = []
    for one in folds:
        fold = one.fold
        parts = [("train", fold.train), ("test", fold.test)]
        parts += [("embargoed", part) for part in fold.embargoed]
        found.append(
            {
                "number": fold.number,
                "parts": [
                    {
                        "kind": kind,
                        "left": round(100 * part.start / bars, 3),
                        "width": round(100 * (part.stop - part.start) / bars, 3),
                    }
                    for kind, part in parts
                ],
                "train": f"{fold.train_start} to {fold.train_end}",
                "test": f"{fold.test_start} to {fold.test_end}",
                "in": number(one.in_sample["sharpe"]),
                "out": number(one.out_of_sample["sharpe"]),
                "in_return": percent(one.in_sample["annual_return"], 1),
                "out_return": percent(one.out_of_sample["annual_return"], 1),
                "trades": int(one.out_of_sample["trades"]),
            }
        )
    return found


def stability(folds: Sequence[int], parameters: Sequence[ParameterStability]) -> dict[str, Any]:
    """Return each fold's choices; `tone` numbers the distinct values of a parameter."""
    found = []
    for one in parameters:
        distinct = list(dict.fromkeys(map(str, one.chosen)))
        found.append([{"value": str(v), "tone": distinct.index(str(v)) % 6} for v in one.chosen])
    return {
        "names": [one.name for one in parameters],
        "folds": list(zip(folds, zip(*found, strict=True), strict=True)),
    }


def forest(effect: PanelEffect) -> dict[str, Any]:
    """Return a difference symbol by symbol, and pooled below, as points with their intervals."""
    shown = percent if str(effect.statistic) == "return" else number
    named = [*effect.symbols.items(), ("pooled", effect.pooled)]
    ends = [end for _, one in named for end in (one.low, one.high, 0.0)]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.04 or 1.0
    low, high = low - margin, high + margin
    largest = max(effect.weights.values(), default=1.0)

    def across(value: float) -> float:
        return round(LABELS + (value - low) / (high - low) * (WIDTH - LABELS), 1)

    rows = []
    for place, (name, one) in enumerate(named):
        pooled = place == len(named) - 1
        share = 1.0 if pooled else effect.weights.get(name, 0.0) / largest
        rows.append(
            {
                "name": name if len(name) < 19 else f"{name[:17]}\u2026",
                "pooled": pooled,
                "y": ROW * place + ROW / 2 + (8 if pooled else 0),
                "low": across(one.low),
                "high": across(one.high),
                "at": across(one.estimate),
                "half": round(3.0 + 3.0 * share**0.5, 1),
                "text": f"{name}: {shown(one.estimate)} ({shown(one.low)} to {shown(one.high)})",
            }
        )
    height = ROW * len(named) + 8
    marks = [{"x": across(at), "text": shown(at)} for at in ticks(low, high, 4)]
    return {"rows": rows, "height": height, "zero": across(0.0), "ticks": marks}


def bars_of(
    values: NDArray[np.float64], name: str, text: str, shown: Callable[[float], str]
) -> dict[str, Any]:
    """Return a histogram of values: those of either side of 0 are drawn apart.

    The outermost hundredth at each end is joined into the last bar of its side, which says so.
    """
    low, high = (float(one) for one in np.quantile(values, [0.01, 0.99]))
    if low == high:
        low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    step = _step((high - low) / BINS)
    edges = np.arange(math.floor(low / step), math.ceil(high / step) + 1) * step
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    outside = int((values < edges[0]).sum() + (values > edges[-1]).sum())
    most, width = max(1, int(counts.max())), WIDTH / len(counts)
    bars = [
        {
            "x": round(place * width + 1, 1),
            "width": round(max(1.0, width - 2), 1),
            "y": round(FLOOR - count * (FLOOR - 20) / most, 1),
            "height": round(count * (FLOOR - 20) / most, 1),
            "count": int(count),
            "span": f"{shown(left)} to {shown(right)}",
            "gains": left >= -1e-12,
        }
        for place, (left, right, count) in enumerate(
            zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        )
    ]
    every = max(1, math.ceil(len(counts) / 5))
    first = round(-edges[0] / step) % every  # so that 0 is one of them
    marks = range(first, len(edges), every)
    ticks = [{"x": round(place * width, 1), "text": shown(float(edges[place]))} for place in marks]
    if outside:
        text = f"{text[:-1]}; {outside} beyond the ends are in the last bars."
    found = f"{most:,}"
    return {"name": name, "text": text, "bars": bars, "ticks": ticks, "most": found, "margin": _margin(found)}


def _margin(*texts: str) -> int:
    """Return the room that figures take on the left of an axis, or half of the first below it."""
    return max(42, round(12 + DIGIT * max(map(len, texts), default=0)))


def _step(rough: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
