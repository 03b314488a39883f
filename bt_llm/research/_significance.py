"""Does the gate add anything? Its result among those of gates that know nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from bt_llm.backtest import (
    DESCRIPTIVE,
    Backtest,
    BacktestResult,
    Bootstrap,
    Effect,
    ManyRuns,
    Market,
    Primary,
    Section,
    added_sections,
    advice_sections,
    bars_section,
    equity_section,
    gate_study,
    metrics_section,
    problems_in,
    refusal,
    run_backtest,
    sentences_section,
    trades_section,
)
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import (
    LONG,
    SHORT,
    Answers,
    Describer,
    EntryGate,
    NeverOpen,
    Per,
    check_gate,
)
from bt_llm.models import Progress
from bt_llm.plain_json import plain
from bt_llm.plain_text import counted
from bt_llm.progress import shows_progress
from bt_llm.research._against import Against, against
from bt_llm.research._gate_runs import GateRuns, HowRun
from bt_llm.research._kept_runs import KeptRuns, legs_sha256, made_of, place_of_runs
from bt_llm.research._moments import Moments
from bt_llm.research._null_runs import (
    MOST_NULLS,
    Evaluate,
    NullRuns,
    bar_answers,
    dated_bars,
    dated_entries,
    entry_log,
    random_runs,
    rank_sentence,
    ranks_section,
    shifted_runs,
)
from bt_llm.research._runs import Source, plain_rule, returns_of_runs
from bt_llm.research._timing import TimingOf, timing_question
from bt_llm.research._tried import Tried, check_ledger, count_trials
from bt_llm.settings import flag, number, one_of, whole

__all__ = ["GateTest", "gate_test"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GateTest(ManyRuns):
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
    question : Primary
        Whether the gate's timing is better than that of random gates: the one question, with its p-value.
    effect : Effect
        What the gate is worth, taken apart.
    against : Against
        How the gated run stands to the ungated one and to the rule's, judged together.
    null_gates : HowRun
        How many null gates were replayed and how many were run, and how far the two are apart.
    tried : Tried or None
        How many configurations were tried, where the test was written into a ledger.

    Notes
    -----
    `question` is the one test of the gate. `against` is adjusted for its own comparisons, and says better for
    whatever reason: a gate may be worth much for one that is no skill, such as that it blocks entries of a
    strategy that loses. All else describes: of several intervals one leaves out zero by luck more often than
    each says.
    """

    gated: BacktestResult
    ungated: BacktestResult
    closed: BacktestResult
    buy_and_hold: BacktestResult
    rule: BacktestResult | None
    random: NullRuns
    shifted: NullRuns | None
    entries: Answers
    question: Primary
    effect: Effect
    against: Against
    null_gates: HowRun
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
        """Whether the gate's timing is better than luck; never where there are `problems`."""
        return not self.problems and bool(self.question.found)

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words, that of the one question first."""
        answers = self.entries.long + self.entries.short
        allowed = sum(answers)
        share = f"{100 * allowed / len(answers):.0f} %"
        if allowed in (0, len(answers)):
            share = "every one" if allowed else "none"
        figures = f"The gate let {share} of {counted(len(answers), 'entry')} through."
        if refused := refusal(self.problems):
            return [*refused, figures]
        found = [self.question.sentence, self.against.sentence, DESCRIPTIVE, figures, *self.effect.sentences]
        found += [rank_sentence(runs) for runs in (self.random, self.shifted) if runs is not None]
        return found + ([self.tried.sentence] if self.tried else [])

    def sections(self) -> Iterator[Section]:
        """Yield the parts of what is shown of it, the findings first."""
        yield sentences_section(self.sentences)
        yield from bars_section(self.gated.notes)
        yield metrics_section({name: run.metrics for name, run in self.runs.items()})
        if not self.problems:
            yield from self.against.sections()
            yield from self.effect.sections()
            for nulls in (self.random, self.shifted):
                if nulls is not None and nulls.n and not nulls.refused:
                    yield ranks_section(nulls, self.null_gates.sentence)
        yield equity_section({name: run.equity for name, run in self.runs.items()})
        if self.gated.advice is not None:
            yield from advice_sections(self.gated.advice)
        yield trades_section(self.gated.trades)
        yield from added_sections(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; NaN is None, and so is what `problems` forbid to conclude."""
        concluded = {
            "question": self.question.to_dict(),
            "effect": self.effect.to_dict(),
            "random": self.random.to_dict(),
            "shifted": self.shifted.to_dict() if self.shifted is not None else None,
            "against": self.against.to_dict(),
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
                "null_gates": self.null_gates.to_dict(),
                **(dict.fromkeys(concluded) if self.problems else concluded),
                "tried": self.tried and self.tried.to_dict(),
                "problems": self.problems,
                "sentences": self.sentences,
            }
        )
        return found


_CONCLUDED_FROM = ("gated", "ungated", "rule")


@shows_progress("gates that know nothing")
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
    strata: bool = True,
    rule: EntryGate | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    block_length: int | None = None,
    on_progress: Progress | None = None,
    evaluate: Evaluate | None = None,
    episodes: bool = True,
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
        Whether random gates have what the gate answered to the strategy's *entries*, or what it would at
        all *bars*. Entries by default: a gate that follows the trend passes most entries of a strategy that
        follows it too, and gates with its answers to all bars pass fewer, so that what would be compared is
        mostly how much was traded.
    strata : bool
        Whether random gates answer as the gate did in a market as volatile; a gate that is open in quiet
        markets is then compared with gates that are as well.
    rule : gate, optional
        The plain rule to compare with; by default `RuleGate` on the features of a `Gate`.
    alpha : float
        Level of the test.
    resamples : int
        Of the bootstrap.
    block_length : int, optional
        Of the bootstrap, in bars; see `bt_llm.statistics.paired_bootstrap`.
    on_progress : callable, optional
        Called with (null gates done, null gates in all).
    evaluate : callable, optional
        Runs the null gates instead of Backtrader, for strategies whose result can be worked out faster. Of
        each it gives ``timing``, the score of `bt_llm.statistics.timing_of`, and ``trades``.
    episodes : bool
        Whether null gates may be replayed from the strategy's episodes where that gives Backtrader's figures
        to 1e-9, in a few hundredths of the time; ``null_gates`` of the result says what was done. False runs
        all of them in Backtrader.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    output : path, optional
        Folder of a ledger, into which the gated run is written as a trial; see `WalkForward.run`. Null gates
        that Backtrader has run are kept there until the test has ended, without one beside the stored
        verdicts: a test that was stopped, and is run again, goes on where it was.
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
    One question is answered, by one p-value: is the gate's timing better than that of gates that know
    nothing? It is one-sided, and comes in steps of ``1 / (1 + n)``. Random gates give the same answers at
    other times: stretches of time, twice as long as an answer or a trade lasts on average, have changed
    places with others in which the market moved as much. What is compared is the *score* of the timing, in
    its own standard errors; so it holds too where random gates make more or fewer trades than the gate, as
    they do in a strategy that asks again after a veto. A strategy, gate or model that was chosen because of
    its result on these bars makes p too small: test the one, or use bars that the choice did not see. How
    often it finds what is not there, and what is, is simulated in ``docs/size.md``.

    References
    ----------
    P. Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 3rd edition, 2005. A. C. Davison
    and D. V. Hinkley, "Bootstrap Methods and Their Application", 1997, section 4.2 (the 1 in the p-value).
    E. Chung and J. P. Romano, "Exact and Asymptotically Robust Permutation Tests", Annals of Statistics 41,
    2013 (why the score).

    Examples
    --------
    >>> from bt_llm import AdvisorConfig, Gate
    >>> from bt_llm.data import load_bars, shipped
    >>> gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_mode="off"))
    >>> strategy = f"{shipped('rsi_reversion.py')}:GatedRsiReversion"
    >>> test = gate_test(strategy, load_bars(shipped("sp500_daily.csv"))[-700:], gate, n=9, shifts=0,
    ...                  resamples=99)
    >>> test.random.n, test.question.found  # nine gates cannot tell
    (9, None)
    """
    market = Market.of(data, format=format)
    n, resamples = whole("n", n, 1, MOST_NULLS), whole("resamples", resamples, 1)
    shifts = (50 if len(market) == 1 else 0) if shifts is None else whole("shifts", shifts, 0)
    seed = whole("seed", seed, 0)
    check_ledger(output)
    gate = check_gate(gate)
    if not 0.0 < (alpha := number("alpha", alpha)) < 1.0:
        raise ConfigError(f"alpha={alpha!r}: expected a number between 0 and 1")
    strata, episodes = flag("strata", strata), flag("episodes", episodes)
    one_of("per", per, get_args(Per))
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)
    study = gate_study(strategy, market, gate, **settings)
    effect = Effect.of(study.gated, study.ungated, market, bootstrap)
    log = entry_log(strategy, market, gate, **settings)
    entries = Answers.of_log((told for _, _, told in log), warm_up=gate.warm_up_bars)
    line = bar_answers(market, gate) if shifts or per == "bar" else None
    timing = None if effect.ungated is None else TimingOf(ungated=effect.ungated, market=market)
    observed = {**study.gated.metrics, **(timing(study.gated) if timing is not None else {})}
    if per == "bar" and line is not None:
        answers, told = line, dated_bars(line, market)
    else:
        answers, told = entries, dated_entries(log)

    def made() -> Any:
        return {
            "runs": made_of(Backtest.of(strategy, market, **settings)),
            "answers": Describer().describe("answers", [told, line if shifts else None]),
            "timing": None if timing is None else legs_sha256(timing.ungated),
            "drawn": [seed, strata],
        }

    kept = KeptRuns(place_of_runs(gate, output), made, total=n + shifts)
    runs = GateRuns(
        strategy,
        market,
        episodes=episodes,
        n_jobs=n_jobs,
        total=n + shifts,
        on_progress=on_progress,
        timing=timing,
        kept=kept,
        **settings,
    )
    nulls = evaluate or runs
    moments = Moments.of(market, gate.warm_up_bars)
    ways: dict[str, Any] = {
        "moments": moments,
        "block": moments.block(told, study.gated.trades),
        "n": n,
        "seed": seed,
        "warm_up": gate.warm_up_bars,
        "strata": strata,
    }
    with kept:
        random = random_runs(told, observed, nulls, **ways)
        shifted = shifted_runs(line, observed, nulls, n=shifts) if shifts and line is not None else None
        if runs.withdrawn:
            random = random_runs(told, observed, nulls, **ways)

        warm_up = gate.warm_up_bars
        closed = run_backtest(strategy, market, gate=NeverOpen(warm_up=warm_up), name="closed", **settings)
        ruled: BacktestResult | None = None
        if (ruling := plain_rule(gate, rule)) is not None:
            ruled = run_backtest(strategy, market, gate=ruling, name="rule", **settings)
        if ruled is not None and ruled.equity.index[0] != study.gated.equity.index[0]:
            raise ConfigError(
                f"the rule's run starts at {ruled.equity.index[0]}, the gated one at "
                f"{study.gated.equity.index[0]}: give a rule that warms up in the gate's {warm_up} bars"
            )
        if not min(answers.contested()):
            random = replace(random, refused="it had one answer only to the entries of a side")
        trial = {"gated": (study.gated, gate)}
        compared = {
            "gated": study.gated,
            "ungated": study.ungated,
            **({} if ruled is None else {"rule": ruled}),
        }
        return GateTest(
            gated=study.gated,
            ungated=study.ungated,
            closed=closed,
            buy_and_hold=study.buy_and_hold,
            rule=ruled,
            random=random,
            shifted=shifted,
            entries=entries,
            question=timing_question(
                random,
                answers,
                effect.error,
                alpha=alpha,
                problem=effect.problem,
            ),
            effect=effect,
            against=against(
                returns_of_runs(compared),
                bootstrap,
                {name: run.trades for name, run in compared.items()},
            ),
            null_gates=runs.how,
            tried=None if output is None else count_trials(output, strategy, market, trial, settings),
        )
