"""The parts of what is shown of a multiverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bt_llm.backtest import (
    Section,
    added_sections,
    bars_section,
    count,
    equity_section,
    metrics_section,
    number,
    percent,
    sentences_section,
    table_section,
    trades_section,
)
from bt_llm.research.multiverses._policies import Policies

if TYPE_CHECKING:
    from bt_llm.research.multiverses._results import Multiverse, Traded

__all__ = ["sections"]

_QUANTILES = (("lowest", 0.0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95))


def sections(result: Multiverse) -> Iterator[Section]:
    """Yield them, the findings first."""
    traded, policies = result.traded, result.policies
    yield sentences_section(result.sentences)
    if traded is not None:
        yield from bars_section(traded.gated.notes)
        if not traded.problems:
            yield _curve(result)
            yield _distribution(traded)
            yield from _luck(traded)
    yield from _agreement(policies)
    yield from _dimensions(policies)
    yield _features(policies)
    if traded is not None:
        yield metrics_section({name: run.metrics for name, run in result.runs.items()})
        yield equity_section({name: run.equity for name, run in result.runs.items()})
        yield trades_section(traded.gated.trades, "Trades of the headline")
    yield _levels(policies)
    yield _all(result)
    yield from added_sections(result)


def _curve(result: Multiverse) -> Section:
    return Section(
        kind="curve",
        title="Specification curve",
        text="Each column is a specification, from the lowest return to the highest: its return "
        "above, and below "
        "a mark for each of its choices. A choice whose marks lie on one side makes the result. The "
        "best is the "
        "best of many, and no finding.",
        content=result,
    )


def _distribution(traded: Traded) -> Section:
    names = [
        ("return", "return", percent),
        ("sharpe", "Sharpe ratio", number),
        ("max_drawdown", "drawdown", percent),
        ("trades", "trades", count),
    ]
    rows = []
    for name, title, shown in names:
        values = traded.table[name].to_numpy(dtype=float)
        known = values[np.isfinite(values)]
        spread = [shown(float(np.quantile(known, q))) if len(known) else "-" for _, q in _QUANTILES]
        highest = shown(float(known.max())) if len(known) else "-"
        rest = [shown(float(values[0])), shown(traded.ungated.metrics[name])]
        rows.append([title, *spread, highest, *rest])
    head = ["", *(name for name, _ in _QUANTILES), "highest", "headline", "ungated"]
    return table_section("Results over all specifications", head, rows)


def _luck(traded: Traded) -> Iterator[Section]:
    if (runs := traded.null_runs) is None or traded.joint is None:
        return
    joint = traded.joint
    yield Section(
        kind="histograms",
        title=f"The median timing among {runs.n} {runs.kind}",
        text="In each, the answers of all specifications were moved to other times together, "
        f"{joint.block} bars in a row, among markets as volatile. The score is that of the median "
        f"specification. Its rank is tested: p = {joint.question.p_value:.3g}. {traded.how}".rstrip(),
        content=runs,
    )


def _agreement(policies: Policies) -> Iterator[Section]:
    agreed = policies.majority()
    edges = [
        (1.0, "all"),
        (0.9, "90 % or more"),
        (2 / 3, "two thirds or more"),
        (0.5, "half or more"),
        (0.0, "fewer"),
    ]
    rows, above = [], np.inf
    for low, name in edges:
        rows.append([name, count(int(((agreed >= low) & (agreed < above)).sum()))])
        above = low
    yield table_section(
        "Market states by how many specifications agree",
        ["agree", "states"],
        rows,
        "By the commonest answer.",
    )
    yield Section(
        kind="policy",
        title="Where the specifications lean",
        text="Share of them that speak for the long side less that for the short side, in "
        "hundredths: 100 is all "
        "for long, -100 all for short. 0 is all neutral, or as many for either side.",
        content=_map(policies, policies.leaning()),
    )
    yield Section(
        kind="policy",
        title="Where they say what the headline says",
        text="Share of the specifications with the headline's answer, in hundredths.",
        content=_map(policies, policies.same_as_headline),
    )


def _map(policies: Policies, values: NDArray[np.float64]) -> dict[str, Any]:
    """Return a value a cell as a page draws it, from -1 to 1 and without signs for the labels."""
    panels = policies.panels(values)
    return {"panels": panels, "scale": 1.0, "marks": [[] for _ in panels]}


def _dimensions(policies: Policies) -> Iterator[Section]:
    frame = policies.by_dimension
    rows = [
        [
            str(name),
            count(row["levels"]),
            percent(row["changed"], 0),
            percent(row["most"], 0),
            number(row["kappa"]),
            percent(row["main"], 0),
            percent(row["total"], 0),
        ]
        for name, row in frame.iterrows()
    ]
    text = (
        "Answers changed: of the states, when this choice alone is another one; on average, and at "
        "most. Kappa: "
        "agreement beyond chance, 1 is full. Variance: share of that of the probabilities which this "
        "choice has "
        "alone, and with its part in interactions; exact over all combinations."
    )
    without = int(frame["no_kappa"].sum()) if len(frame) else 0
    if without:
        text += f" {without:,} pairs have no kappa: both say one and the same word everywhere."
    if policies.decomposed_cells < len(policies.states):
        text += f" The variance is of the {policies.decomposed_cells} states with no invalid verdict."
    head = ["", "levels", "changed", "at most", "kappa", "variance alone", "in all"]
    yield table_section("What hangs on each choice", head, rows, text)
    cells = len(policies.states)
    levels = [
        [str(row["dimension"]), str(row["level"]), f"{row['changed']} of {cells}", number(row["kappa"])]
        for _, row in policies.by_level.iterrows()
    ]
    yield table_section(
        "The headline with one choice changed",
        ["choice", "instead", "answers changed", "kappa"],
        levels,
        f"The headline is {_named(policies, 0)}.",
    )


def _features(policies: Policies) -> Section:
    rows = []
    for name, group in policies.by_feature.groupby("feature", sort=False):
        own, values = group.iloc[0], group["changed"].to_numpy()
        rows.append(
            [
                policies.states[str(name)].title,
                percent(own["changed"], 0),
                *(percent(float(np.quantile(values, q)), 0) for q in (0.0, 0.5, 1.0)),
                number(own["main"]),
                number(own["total"]),
            ]
        )
    head = ["", "headline", "least", "median", "most", "index alone", "in all"]
    return table_section(
        "What the answers depend on",
        head,
        rows,
        "How often the answer changes when this feature alone is in another bucket: of the headline, "
        "and over "
        "the specifications. The indices are Sobol's, of the headline's expected worth. All exact, "
        "every state as "
        "likely.",
    )


def _levels(policies: Policies) -> Section:
    rows = []
    for dimension in policies.space.dimensions:
        reasons = dimension.reasons or ("",) * len(dimension.levels)
        rows += [
            [dimension.name, level, reason] for level, reason in zip(dimension.levels, reasons, strict=True)
        ]
    return table_section(
        "The choices, and why each is there", ["choice", "level", "reason"], rows, folded=True
    )


def _all(result: Multiverse) -> Section:
    table = result.table
    dimensions = [one.name for one in result.policies.space.dimensions if len(one.levels) > 1]
    shown: dict[str, Callable[[float], str]] = {
        "return": percent,
        "sharpe": number,
        "trades": count,
        "timing": number,
        "p_value": lambda value: number(value, 3),
    }
    known = [name for name in shown if name in table]
    rows = [
        [
            str(at + 1),
            *(str(row[name]) for name in dimensions),
            percent(row["as_headline"], 0),
            *(shown[name](row[name]) for name in known),
        ]
        for at, (_, row) in enumerate(table.iterrows())
    ]
    head = ["", *dimensions, "as the headline", *(name.replace("p_value", "p alone") for name in known)]
    return table_section(f"All {len(table)} specifications", head, rows, folded=True)


def _named(policies: Policies, number_of: int) -> str:
    return ", ".join(f"{name} {level}" for name, level in policies.space.named(number_of).items())
