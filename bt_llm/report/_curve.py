"""The specification curve: results in their order, and below them what was chosen in each, as geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bt_llm.backtest import percent

if TYPE_CHECKING:
    from bt_llm.research import Multiverse

__all__ = ["specification_curve"]

WIDTH, LABELS, TOP, CURVE, ROW, GAP = 960, 210, 14, 200, 17, 10
_NAMED = 30  # characters of a level beside its marks


def specification_curve(result: Multiverse) -> dict[str, Any]:
    """Return the places of a multiverse's returns, lowest first, and of a mark for each of its choices.

    The headline's column is marked. Of equal returns the specification that stands first comes first.
    """
    traded, space = result.traded, result.policies.space
    assert traded is not None  # a curve is drawn of what was traded
    returns = traded.table["return"].to_numpy(dtype=float)
    ungated = float(traded.ungated.metrics["return"])
    order = np.argsort(returns, kind="stable")
    low, high = float(min(returns.min(), ungated, 0.0)), float(max(returns.max(), ungated, 0.0))
    step = (WIDTH - LABELS) / len(order)

    def across(column: int) -> float:
        return round(LABELS + (column + 0.5) * step, 1)

    def down(value: float) -> float:
        return round(TOP + (high - value) / ((high - low) or 1.0) * CURVE, 1)

    places = {int(number): column for column, number in enumerate(order)}
    points = [
        {
            "x": across(column),
            "y": down(returns[number]),
            "headline": number == 0,
            "text": f"{percent(returns[number])}: "
            + ", ".join(f"{name} {level}" for name, level in space.named(int(number)).items()),
        }
        for column, number in enumerate(order)
    ]
    rows: list[dict[str, Any]] = []
    y = TOP + CURVE + 22.0
    for axis, dimension in enumerate(space.dimensions):
        if len(dimension.levels) < 2:
            continue
        rows.append({"kind": "title", "y": y, "text": dimension.name})
        y += ROW
        for level, name in enumerate(dimension.levels):
            own = [n for n, one in enumerate(space.specifications) if one.levels[axis] == level]
            marks = sorted(across(places[number]) for number in own)
            median = float(np.median(returns[own]))
            short = name if len(name) <= _NAMED else f"{name[: _NAMED - 1]}\u2026"
            told = f"{name}: median return {percent(median)}"
            rows.append({"kind": "level", "y": y, "text": short, "told": told, "marks": marks})
            y += ROW
        y += GAP
    return {
        "points": points,
        "rows": rows,
        "mark": round(min(4.0, max(1.0, 0.7 * step)), 1),
        "headline": across(places[0]),
        "zero": down(0.0),
        "ungated": down(ungated),
        "ungated_text": f"ungated {percent(ungated)}",
        "top": percent(high),
        "bottom": percent(low),
        "floor": TOP + CURVE,
        "start": LABELS,
        "width": WIDTH,
        "height": round(y, 1),
        "label": f"Return of {len(order)} specifications, lowest first; the headline is place "
        f"{traded.place} from the top",
    }
