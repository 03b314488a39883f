"""The counts as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.size.setting import Found, Goal, Rate, Setting, rates

__all__ = ["misses", "page"]

HEAD = """\
# How often the tool finds what is not there, and what is

This page is written by `make size`, which simulates markets, gates and strategies and counts what the tool
says of them. Nominal levels are 5 % for a test, 95 % for an interval, 2.5 % for an interval's side. ± is the
Monte Carlo standard error of a share. *Cannot tell* counts the studies in which the tool refused to answer;
shares are of the others. Every test has a control: a setting in which there is something to be found.
*Good news* is of timing: that a gated strategy is better than the ungated one *for whatever reason*, which
`test` says beside it, is true of gates that know nothing where being in the market less pays; the shares of
`compare` against ungated are that sentence's where nothing is to be found.

What is said of a change for whatever reason, such as that a panel's Sharpe ratio is another, has a goal where
nothing pays and no cost is saved. Rows without a goal describe, as the tool does. How often the probes for
leakage catch models that remember, and honest ones, stands in [leakage](leakage.md).
"""


def page(settings: Sequence[Setting], found: Mapping[str, Sequence[Found]]) -> str:
    """Return the page of what was found, by the settings' names."""
    lines = [HEAD]
    for group in dict.fromkeys(setting.group for setting in settings):
        lines += [f"## {group}", "", "| setting | sentence | share | goal | studies | cannot tell |"]
        lines += ["|---|---|---|---|---|---|"]
        for setting in settings:
            if setting.group == group:
                lines += _rows(setting, rates(found.get(setting.name, [])))
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(setting: Setting, counted: Mapping[str, Rate]) -> list[str]:
    rows, name = [], setting.name
    for sentence, rate in counted.items():
        goal = setting.goals.get(sentence)
        told = f"{100 * rate.share:.1f} ± {100 * rate.error:.1f} %" if rate.told else "-"
        rows.append(
            f"| {name} | {sentence} | {told} | {_judged(goal, rate)} | {rate.told + rate.refused:,} "
            f"| {rate.refused:,} |"
        )
        name = ""
    return rows


def _judged(goal: Goal | None, rate: Rate) -> str:
    if goal is None:
        return ""
    # Within two Monte Carlo errors a share may meet a goal that it misses by luck, and the reverse.
    missed = "" if rate.meets(goal) else " (missed)" if not rate.meets(goal, 2.0) else " (within error)"
    return f"{goal.kind}: {goal}{missed}"


def misses(setting: Setting, found: Sequence[Found], errors: float) -> list[str]:
    """Return the goals that a setting misses by more than so many Monte Carlo errors, in words."""
    counted = rates(found)
    return [
        f"{setting.name}: {sentence}: {100 * counted[sentence].share:.1f} %, expected {goal}"
        for sentence, goal in setting.goals.items()
        if sentence not in counted or not counted[sentence].meets(goal, errors)
    ]
