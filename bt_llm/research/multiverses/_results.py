"""What a multiverse found: how far its specifications agree, and what trading each of them came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bt_llm.backtest import BacktestResult, percent, refusal
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.research._null_runs import NullRuns
from bt_llm.research._tried import Tried
from bt_llm.research.multiverses._joint import JointNull
from bt_llm.research.multiverses._policies import Policies
from bt_llm.shown import Shown, Told

__all__ = ["Multiverse", "Traded"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Traded(Told):
    """A strategy gated by every specification of a multiverse, on the same bars.

    Attributes
    ----------
    gated, ungated, buy_and_hold : BacktestResult
        With the headline's gate, without one, and holding the market.
    table : DataFrame
        A row a specification: ``pnl`` (account currency), ``return``, ``sharpe``, ``max_drawdown``,
        ``trades``, ``win_rate``, and with a joint null ``timing`` (its score) and ``p_value`` (of it alone).
    joint : JointNull or None
        All of them among multiverses that know nothing.
    how : str
        How the null gates were run, or why there are none.
    problems : tuple of str
        What speaks against any conclusion, one line each.
    tried : Tried or None
        How many configurations were tried, where they were written into a ledger.
    """

    gated: BacktestResult
    ungated: BacktestResult
    buy_and_hold: BacktestResult
    table: pd.DataFrame
    joint: JointNull | None
    how: str
    problems: tuple[str, ...]
    tried: Tried | None

    @property
    def place(self) -> int:
        """Place of the headline by its return, 1 for the best; of equals the best place."""
        returns = self.table["return"].to_numpy()
        return 1 + int((returns > returns[0]).sum())

    @property
    def null_runs(self) -> NullRuns | None:
        """The median timing among the medians of the draws, as other tests have it."""
        if self.joint is None or self.joint.refused or not len(self.joint.nulls):
            return None
        return NullRuns(
            kind="multiverses that know nothing",
            observed={"timing": self.joint.median},
            nulls=pd.DataFrame({"timing": self.joint.medians}),
            tested="timing",
            subject="the median",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; what `problems` forbid to conclude is None."""
        joint = self.joint
        concluded = {
            "question": None if joint is None else joint.question.to_dict(),
            "joint_null": joint
            and {
                "statistic": "median score of the timing over the informative specifications",
                "observed": joint.median,
                "nulls": joint.medians,
                "informative": int(joint.informative.sum()),
                "block": joint.block,
                "significant": joint.significant,
                "significant_by_luck": joint.significant_by_luck,
            },
            "headline_place": self.place,
        }
        return {
            "runs": {
                name: run.to_dict()
                for name, run in (
                    ("headline", self.gated),
                    ("ungated", self.ungated),
                    ("buy_and_hold", self.buy_and_hold),
                )
            },
            **(dict.fromkeys(concluded) if self.problems else concluded),
            "null_gates": self.how,
            "problems": self.problems,
            "tried": self.tried and self.tried.to_dict(),
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Multiverse(Shown):
    """One verdict asked for in every way that would have been as good.

    Attributes
    ----------
    policies : Policies
        What each specification says of every market state.
    traded : Traded or None
        What trading each came to; None where no strategy was given.

    Notes
    -----
    All but the joint test describes. The best specification is the best of many, and no result.
    """

    policies: Policies
    traded: Traded | None = None

    @property
    def model(self) -> str:
        """Name of the headline's model."""
        return self.policies.space.dimensions[0].levels[0]

    @property
    def gated(self) -> BacktestResult | None:
        """The headline's run."""
        return None if self.traded is None else self.traded.gated

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The headline, the ungated strategy, and buy and hold, by name; empty without a strategy."""
        if self.traded is None:
            return {}
        one = self.traded
        return {"headline": one.gated, "ungated": one.ungated, "buy_and_hold": one.buy_and_hold}

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything from trading."""
        return () if self.traded is None else self.traded.problems

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        said = [*_of_policies(self.policies)]
        if self.traded is None:
            return said
        if refused := refusal(self.problems):
            return [*refused, *said]
        return [*_of_joint(self.traded), *_of_returns(self.traded), *said]

    @property
    def table(self) -> pd.DataFrame:
        """A row a specification: its levels, and what trading it came to."""
        space = self.policies.space
        frame = pd.DataFrame([space.named(number) for number in range(len(space))])
        frame["as_headline"] = (self.policies.answers == self.policies.answers[0]).mean(axis=1)
        return frame if self.traded is None else pd.concat([frame, self.traded.table], axis=1)

    def sections(self) -> Iterator[Any]:
        """Yield the parts of what is shown of it, the findings first."""
        from bt_llm.research.multiverses._sections import sections

        return sections(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None."""
        space = self.policies.space
        found: dict[str, Any] = plain(
            {
                "specifications": len(space),
                "dimensions": [one.to_dict() for one in space.dimensions],
                "policies": self.policies.to_dict(),
                "table": self.table.to_dict("records"),
                "traded": None if self.traded is None else self.traded.to_dict(),
                "sentences": self.sentences,
            }
        )
        return found


_FEWEST_OF_A_SHARE = 20
"""Specifications of which 5 % are at least one; of fewer all are told."""


def _of_policies(policies: Policies) -> Iterator[str]:
    count, cells = len(policies.space), len(policies.states)
    yield (
        f"{count} specifications, {cells} market states: on {policies.unanimous} of them all "
        f"specifications say "
        f"the same. On an average state {percent(policies.same_as_headline.mean(), 0)} of them say what the "
        "headline says."
    )
    frame = policies.by_dimension
    if len(frame):
        most = str(frame["changed"].astype(float).idxmax())
        row = frame.loc[most]
        yield (
            f"Most hangs on the {most}: another one alone changes {row['changed'] * cells:.0f} of "
            f"{cells} answers "
            f"on average, and {row['most'] * cells:.0f} at most."
        )
    features = policies.by_feature
    headline = features[features["specification"] == 0].set_index("feature")["changed"]
    said = ", ".join(
        f"{policies.states[str(name)].title} {percent(value, 0)}" for name, value in headline.items()
    )
    yield f"Another bucket of one feature alone changes the headline's answer in: {said} of the cases."
    invalid = int((policies.answers < 0).sum())
    if invalid:
        yield (
            f"{invalid:,} of {policies.answers.size:,} verdicts are invalid; here they are an answer like "
            "any other."
        )


def _of_joint(traded: Traded) -> Iterator[str]:
    joint = traded.joint
    if joint is None:
        if traded.how:
            yield f"There is no joint test: {traded.how}."
        return
    yield joint.question.sentence
    told, count = int(joint.informative.sum()), len(joint.informative)
    if joint.refused or not len(joint.nulls):
        return
    luck = joint.significant_by_luck
    others = "; the others let through, or blocked, too few entries to tell" if told < count else ""
    yield (
        f"It is the median over {told} of {count} specifications{others}. Alone {joint.significant} of the "
        f"{told} have p of {joint.alpha:g} or less: luck shows {np.median(luck):.0f}, and up to "
        f"{np.quantile(luck, 0.95, method='higher'):.0f} in 19 of 20 multiverses that know nothing."
    )


def _of_returns(traded: Traded) -> Iterator[str]:
    returns = traded.table["return"].to_numpy(dtype=float)
    few = len(returns) < _FEWEST_OF_A_SHARE
    low, middle, high = np.quantile(returns, [0.0, 0.5, 1.0] if few else [0.05, 0.5, 0.95])
    which = f"the {counted(len(returns), 'specification')}" if few else "9 of 10 specifications"
    yield (
        f"The strategy returned {percent(low, 2)} to {percent(high, 2)} in {which}, "
        f"{percent(middle, 2)} in the middle, and {percent(traded.ungated.metrics['return'], 2)} "
        f"ungated. "
        f"The headline's {percent(returns[0], 2)} is place {traded.place} of {len(returns)} from the top."
    )
    if traded.tried is not None:
        yield traded.tried.sentence
