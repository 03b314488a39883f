"""The specification curve: results in their order, and below them what was chosen in each, as geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bt_llm.backtest import percent
from bt_llm.report._pictures import ticks

if TYPE_CHECKING:
    from bt_llm.research import Multiverse

__all__ = ["specification_curve"]

TOP, CURVE, ROW, GAP, SIDE = 14, 200, 17, 10, 6


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Width, room for what stands on the left, characters of a level, and the size of a point.

    The marks of a level stand beside its name, or, where there is no room, below it.
    """

    name: str
    width: int
    start: int
    named: int
    dot: float
    below: int = 0


_FORMS = (
    _Form(name="wide", width=960, start=210, named=30, dot=3.0),
    _Form(name="slim", width=360, start=58, named=48, dot=2.0, below=14),
)


def specification_curve(result: Multiverse) -> list[dict[str, Any]]:
    """Return the places of a multiverse's returns, lowest first, and of a mark for each of its choices.

    Once for a screen, and once for a telephone. The headline's column is marked. Of equal returns the
    specification that stands first comes first.
    """
    return [_drawn(result, form) for form in _FORMS]


def _drawn(result: Multiverse, form: _Form) -> dict[str, Any]:
    traded, space = result.traded, result.policies.space
    assert traded is not None  # a curve is drawn of what was traded
    returns = traded.table["return"].to_numpy(dtype=float)
    ungated = float(traded.ungated.metrics["return"])
    order = np.argsort(returns, kind="stable")
    low, high = float(min(returns.min(), ungated, 0.0)), float(max(returns.max(), ungated, 0.0))
    end = form.width - SIDE
    step = (end - form.start) / len(order)

    def across(column: int) -> float:
        return round(form.start + (column + 0.5) * step, 1)

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
            rows.append(
                {
                    "kind": "level",
                    "y": y,
                    "text": name if len(name) <= form.named else f"{name[: form.named - 1]}\u2026",
                    "told": f"{name}: median return {percent(float(np.median(returns[own])))}",
                    "marks": sorted(across(places[number]) for number in own),
                    "marks_y": y - 4 + form.below,
                }
            )
            y += ROW + form.below
        y += GAP
    found = ticks(low, high, 4)
    beside = returns[order][len(order) * 2 // 3 :]  # the points that the line's name stands among
    above = bool(np.median(beside) < ungated)
    return {
        "name": form.name,
        "points": points,
        "rows": rows,
        "dot": form.dot,
        "mark": round(min(4.0, max(1.0, 0.7 * step)), 1),
        "headline": across(places[0]),
        "ticks": [{"y": down(at), "text": percent(at, 1), "zero": at == 0.0} for at in found],
        "ungated": down(ungated),
        "ungated_y": down(ungated) + (-5 if above else 15),
        "ungated_text": f"ungated {percent(ungated)}",
        "start": form.start,
        "end": end,
        "width": form.width,
        "height": round(y, 1),
        "label": f"Return of {len(order)} specifications, lowest first; the headline is place "
        f"{traded.place} from the top",
    }
