"""Does the gate add anything? Its result among those of gates that know nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from bt_llm.backtest import (
    BacktestResult,
    Bootstrap,
    Market,
    Section,
    added_sections,
    advice_sections,
    bars_section,
    equity_section,
    gate_study,
    interval,
    is_shown,
    metrics_section,
    percent,
    problems_in,
    refusal,
    run_backtest,
    sentences_section,
    table_of,
    trades_section,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import LONG, SHORT, Answers, EntryGate, Gate, NeverOpen, Per, RuleGate
from bt_llm.models import Progress
from bt_llm.plain_json import plain
from bt_llm.research._null_runs import (
    Evaluate,
    NullRuns,
    bar_answers,
    entry_answers,
    random_runs,
    shifted_runs,
)
from bt_llm.research._runs import Source, run_many
from bt_llm.research._tried import Tried, count_trials
from bt_llm.settings import number, whole
from bt_llm.statistics import BootstrapResult

__all__ = ["GateTest", "gate_test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GateTest:
    """Whether a gate adds anything to a strategy.

    Attributes
    ----------
    gated, ungated, closed, buy_and_hold : BacktestResult
        The strategy with the gate, with an open gate, with a closed one; and holding the market. All start
        at the same bar.
    rule : BacktestResult or None
        The strategy with a plain rule in the gate's place.
    random, shifted : NullRuns
        The gate among random ones, and among itself at other bars.
    entries : Answers
        What the gate answered to the strategy's entries.
    share : float
        Share of the ungated strategy's exposure that the gate left.
    exposure_matched : BootstrapResult
        Mean return a year of the gated strategy less that of `share` of the ungated one; see Notes.
    over_rule, over_ungated : dict of str to BootstrapResult
        The gated less the other's Sharpe ratio and return, both a year; `over_rule` is empty without a rule.
    alpha : float
        Level below which a p-value is called more than luck.
    tried : Tried or None
        How many configurations were tried, where the test was written into a ledger.

    Notes
    -----
    *Exposure-matched.* Blocking entries takes a strategy off the market, which helps any strategy that
    loses. With r the ungated strategy's returns and w its share of them that the gate keeps, the gated mean
    return is about ``cov(w, r) + mean(w) * mean(r)``. The second term needs no knowledge: whoever runs the
    whole strategy with the share ``mean(w)`` of the money gets it. The first is what the gate's timing adds,
    and that is what is estimated here, as ``mean(gated) - share * mean(ungated)``. It is the active part of
    Lo's decomposition ("Where Do Alphas Come From? A Measure of the Value of Active Investment Management",
    Journal of Investment Management 6(2), 2008), with the strategy as the asset. `share` is the ratio of the
    two exposures, bars with a position over all bars.
    """

    gated: BacktestResult
    ungated: BacktestResult
    closed: BacktestResult
    buy_and_hold: BacktestResult
    rule: BacktestResult | None
    random: NullRuns
    shifted: NullRuns | None
    entries: Answers
    share: float
    exposure_matched: BootstrapResult
    over_rule: dict[str, BootstrapResult]
    over_ungated: dict[str, BootstrapResult]
    alpha: float
    tried: Tried | None = None

    @property
    def runs(self) -> dict[str, BacktestResult]:
        """The results by name."""
        runs = {"gated": self.gated, "ungated": self.ungated, "rule": self.rule, "closed": self.closed}
        return {
            **{name: run for name, run in runs.items() if run is not None},
            "buy_and_hold": self.buy_and_hold,
        }

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against concluding anything, one line each, with the runs that it is of."""
        return problems_in({name: run for name, run in self.runs.items() if name in _CONCLUDED_FROM})

    @property
    def beats_random(self) -> bool:
        """Whether the Sharpe ratio's rank among random gates is more than luck, at the level `alpha`.

        Never where there are `problems`.
        """
        return not self.problems and self.random.p_value("sharpe") <= self.alpha

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words."""
        answers = self.entries.long + self.entries.short
        allowed = sum(answers)
        if allowed in (0, len(answers)):
            every = "every one" if allowed else "none"
            found = [f"The gate let {every} of {len(answers)} entries through: there is no order to test."]
        else:
            share = f"{100 * allowed / len(answers):.0f} %"
            found = [f"The gate let {share} of {len(answers)} entries through."]
        if refused := refusal(self.problems):
            return [*refused, *found]
        if 0 < allowed < len(answers):
            found += [_rank(runs, self.alpha) for runs in (self.random, self.shifted) if runs is not None]
        found.append(
            f"At {100 * self.share:.0f} % of the ungated strategy's exposure, the gate's timing is worth "
            f"{interval(self.exposure_matched, 'return')} a year: {_shown(self.exposure_matched)}."
        )
        for name, over in (("the plain rule", self.over_rule), ("the ungated strategy", self.over_ungated)):
            if over:
                found.append(
                    f"Its Sharpe ratio less that of {name} is {interval(over['sharpe'], 'sharpe')}: "
                    f"{_shown(over['sharpe'])}."
                )
        return found + ([self.tried.sentence] if self.tried else [])

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.gated.notes)
        yield metrics_section({name: run.metrics for name, run in self.runs.items()})
        for nulls in (self.random, self.shifted):
            if nulls is not None and not self.problems:
                yield _ranks(nulls)
        yield equity_section({name: run.equity for name, run in self.runs.items()})
        if self.gated.advice is not None:
            yield from advice_sections(self.gated.advice)
        yield trades_section(self.gated.trades)
        yield from added_sections(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {
            "random": self.random.to_dict(),
            "shifted": self.shifted.to_dict() if self.shifted is not None else None,
            "exposure_matched": self.exposure_matched,
            "over_rule": self.over_rule,
            "over_ungated": self.over_ungated,
            "beats_random": self.beats_random,
        }
        found: dict[str, Any] = plain(
            {
                "runs": {name: run.to_dict() for name, run in self.runs.items()},
                "entries": {
                    "asked": len(self.entries.long) + len(self.entries.short),
                    "pass_rate": self.entries.pass_rate(),
                    "pass_rate_long": self.entries.pass_rate(LONG),
                    "pass_rate_short": self.entries.pass_rate(SHORT),
                },
                "exposure_share": self.share,
                "alpha": self.alpha,
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "tried": self.tried and self.tried.to_dict(),
                "problems": self.problems,
                "sentences": self.sentences,
            }
        )
        return found


_CONCLUDED_FROM = ("gated", "ungated", "rule")


def _ranks(nulls: NullRuns) -> Section:
    rows = [
        [name, percent(nulls.share_below(metric), 0), f"{nulls.p_value(metric):.3g}"]
        for metric, name in (("sharpe", "Sharpe ratio"), ("return", "return"))
    ]
    return Section(
        kind="histograms",
        title=f"The gate among {nulls.n} {nulls.kind}",
        text="These gates know nothing. Where it stands among them, luck is enough to explain it; p is the "
        "share of them that did at least as well, the gate itself counted in.",
        table=table_of(["", "above", "p"], rows),
        content=nulls,
    )


def _rank(runs: NullRuns, alpha: float) -> str:
    """Return the rank of the Sharpe ratio in words."""
    p = runs.p_value("sharpe")
    luck = "more than luck explains" if p <= alpha else "not distinguishable from luck"
    return (
        f"The gate's Sharpe ratio is higher than {100 * runs.share_below('sharpe'):.0f} % of {runs.n} "
        f"{runs.kind} (p = {p:.3g}): {luck}."
    )


def _shown(result: BootstrapResult) -> str:
    if not is_shown(result):
        return "no difference shown"
    return "better" if result.estimate > 0.0 else "worse"


def gate_test(
    strategy: Source,
    data: DataSource,
    gate: EntryGate,
    *,
    n: int = 200,
    seed: int = 0,
    n_jobs: int | None = None,
    shifts: int | None = None,
    per: Per = "entry",
    rule: EntryGate | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    block_length: int | None = None,
    on_progress: Progress | None = None,
    evaluate: Evaluate | None = None,
    format: BarFormat | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> GateTest:
    """Test whether a gate adds anything to a strategy, against gates that know nothing.

    Parameters
    ----------
    strategy : type or str
        See `run_backtest`; one that attaches no gate has its orders judged.
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one or several datas; see `Market.of`.
    gate : gate
        Under test. The model is asked here, once; the null gates need none.
    n : int
        Random gates. Each is one backtest. The smallest possible p-value is ``1 / (1 + n)``.
    seed : int
        Of the random gates and the bootstrap: the same arguments give the same result.
    n_jobs : int, optional
        Processes for the null gates; -1 is one for each CPU. Results do not depend on it.
    shifts : int, optional
        Shifted gates, spaced evenly over the bars; 0 for none. By default 50 on one data, and none on
        several, which have no bars in common to shift by.
    per : {'entry', 'bar'}
        Whether random gates keep the share of *entries* that the gate passed, or that of *bars*; see
        `RandomGate`. Entries by default: a gate that follows the trend passes most entries of a strategy
        that follows it too, and a random gate at the share of its bars passes fewer, so that what would be
        compared is mostly how much was traded.
    rule : gate, optional
        The plain rule to compare with; by default `RuleGate` on the features of a `Gate`.
    alpha : float
        Level below which a p-value is called more than luck.
    resamples : int
        Of the bootstrap.
    block_length : int, optional
        Of the bootstrap, in bars; by default by Politis and White's rule.
    on_progress : callable, optional
        Called with (null gates done, null gates in all).
    evaluate : callable, optional
        Runs the null gates instead of Backtrader, for strategies whose result can be worked out faster.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    output : path, optional
        Folder of a ledger, into which the gated run is written as a trial; see `WalkForward.run`.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If a setting is out of range, or a run starts at another bar than the gated one.
    DataError
        If the strategy asks the gate for no entry.
    MissingExtraError
        If ``arch`` is not installed, or joblib where `n_jobs` asks for it.

    Notes
    -----
    The p-values are one-sided: are fewer null gates as good than luck explains? They are exact where the
    entries' results do not depend on what was answered before, and come in steps of ``1 / (1 + n)``. A
    strategy, gate or model that was chosen because of its result on these bars makes them too small: test
    the one, or use bars that the choice did not see.

    References
    ----------
    P. Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 3rd edition, 2005. A. C. Davison
    and D. V. Hinkley, "Bootstrap Methods and Their Application", 1997, section 4.2 (the 1 in the p-value).

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> strategy = f"{shipped('rsi_reversion.py')}:GatedRsiReversion"
    >>> test = gate_test(strategy, load_bars(shipped("sp500_daily.csv"))[-700:], gate, n=9, shifts=0,
    ...                  resamples=99)
    >>> test.random.n, 0.1 <= test.random.p_value("sharpe") <= 1.0
    (9, True)
    """
    market = Market.of(data, format=format)
    n, resamples = whole("n", n, 1), whole("resamples", resamples, 1)
    shifts = (50 if len(market) == 1 else 0) if shifts is None else whole("shifts", shifts, 0)
    seed = whole("seed", seed, 0)
    if not 0.0 < (alpha := number("alpha", alpha)) < 1.0:
        raise ConfigError(f"alpha={alpha!r}: expected a number between 0 and 1")
    if per not in get_args(Per):
        raise ConfigError(f"per={per!r}: expected one of {list(get_args(Per))}")
    study = gate_study(strategy, market, gate, **settings)
    entries = entry_answers(strategy, market, gate, **settings)
    line = bar_answers(market, gate) if shifts or per == "bar" else None
    observed = study.gated.metrics
    nulls = evaluate or _Counted(strategy, market, n_jobs, n + shifts, on_progress, settings)
    answers = line if per == "bar" and line is not None else entries
    random = random_runs(answers, observed, nulls, n=n, seed=seed)
    shifted = shifted_runs(line, observed, nulls, n=shifts) if shifts and line is not None else None

    warm_up = gate.warm_up_bars
    closed = run_backtest(strategy, market, gate=NeverOpen(warm_up=warm_up), name="closed", **settings)
    ruled = _rule_run(strategy, market, gate, rule, settings)
    if ruled is not None and ruled.equity.index[0] != study.gated.equity.index[0]:
        raise ConfigError(
            f"the rule's run starts at {ruled.equity.index[0]}, the gated one at "
            f"{study.gated.equity.index[0]}: give a rule that warms up in the gate's {warm_up} bars"
        )
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    ungated = study.ungated
    share = observed["exposure"] / ungated.metrics["exposure"] if ungated.metrics["exposure"] else 0.0
    runs = {"gated": (study.gated, gate)}
    return GateTest(
        gated=study.gated,
        ungated=ungated,
        closed=closed,
        buy_and_hold=study.buy_and_hold,
        rule=ruled,
        random=random,
        shifted=shifted,
        entries=entries,
        share=share,
        exposure_matched=bootstrap.difference(study.gated.returns, share * ungated.returns, "return"),
        over_rule=bootstrap.between(study.gated, ruled) if ruled is not None else {},
        over_ungated=bootstrap.between(study.gated, ungated),
        alpha=alpha,
        tried=None if output is None else count_trials(output, strategy, market, runs, settings),
    )


class _Counted:
    """Runs null gates in Backtrader, and counts them over several calls."""

    def __init__(
        self,
        strategy: Source,
        market: Market,
        n_jobs: int | None,
        total: int,
        on_progress: Progress | None,
        settings: dict[str, Any],
    ) -> None:
        self.strategy, self.market = strategy, market
        self.settings = {**settings, "n_jobs": n_jobs}
        self.on_progress = on_progress
        self.done, self.total = 0, total

    def __call__(self, gates: Sequence[EntryGate]) -> list[dict[str, float]]:
        found = run_many(self.strategy, self.market, gates, on_progress=self._progress, **self.settings)
        self.done += len(gates)
        return found

    def _progress(self, done: int, _: int) -> None:
        if self.on_progress is not None:
            self.on_progress(self.done + done, self.total)


def _rule_run(
    strategy: Source,
    market: Market,
    gate: EntryGate,
    rule: EntryGate | None,
    settings: dict[str, Any],
) -> BacktestResult | None:
    if rule is None and isinstance(gate, Gate):
        rule = RuleGate(indicator=gate.indicator, advisor=gate.advisor)
    return run_backtest(strategy, market, gate=rule, name="rule", **settings) if rule is not None else None
