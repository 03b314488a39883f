"""`leakage_probes`: could the model have known? All five probes on one market."""

from __future__ import annotations

import datetime
from typing import Any

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market
from bt_llm.backtest import Source as DataSource
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.gates import Gate
from bt_llm.models import Progress
from bt_llm.progress import shows_progress
from bt_llm.prompts import PromptTemplate
from bt_llm.research._cutoff_table import latest_cutoff
from bt_llm.research._cutoffs import day_of, models_asked
from bt_llm.research._leakage import perturbation_check
from bt_llm.research._runs import Source
from bt_llm.research.leakage._asking import ask
from bt_llm.research.leakage._controls import run_controls
from bt_llm.research.leakage._points import look_ahead, points_of, states_of
from bt_llm.research.leakage._probes import probe
from bt_llm.research.leakage._result import LeakageResult
from bt_llm.research.leakage._synthetic import synthetic_histories
from bt_llm.settings import flag, instance, number, whole

__all__ = ["leakage_probes"]


@shows_progress("asking")
def leakage_probes(
    data: DataSource,
    gate: Gate | AdvisorConfig,
    *,
    name: str | None = None,
    cutoff: datetime.date | str | None = None,
    points: int = 400,
    horizon: int = 5,
    exchanges: int = 999,
    seed: int = 0,
    alpha: float = 0.01,
    controls: bool = True,
    strategy: Source | None = None,
    synthetic: int = 0,
    format: BarFormat | None = None,
    on_progress: Progress | None = None,
    **settings: Any,
) -> LeakageResult:
    """Look for what a model knows of a market's future, in five ways.

    Each bar of a sample is asked about four times: on its state alone (masked), with the market's name and
    the bar's time before it, with another bar's time, and with name and time alone. Then the future of each
    bar is exchanged for that of another bar that the model was told the same of, many times over: verdicts
    that follow the real future more than exchanged ones follow something that is not in what could be seen.

    Parameters
    ----------
    data : path, DataFrame, feed, mapping, sequence or Market
        Bars of one data.
    gate : Gate or AdvisorConfig
        The model, how it is asked, and what it is told of a bar. Verdicts are read before calibration.
    name : str, optional
        What the model is told that the market is called, such as ``"EUR/USD"``; by default the data's name.
    cutoff : date or text, optional
        Last day that the model may have read about; by default as `latest_cutoff` knows it.
    points : int
        Bars that are asked about, at most.
    horizon : int
        Bars from a verdict to what it is judged by. Outcomes do not overlap.
    exchanges : int
        Exchanges of futures that are drawn.
    seed : int
        Which bars, which other times, and which exchanges.
    alpha : float
        Level at which something is found, all probes together; low, because a finding is an accusation.
    controls : bool
        Whether scripted models, one that remembers and two that do not, are probed on the same bars.
    strategy : type or str, optional
        Also looked at for look-ahead, gated, by `perturbation_check`.
    synthetic : int
        Histories of each kind that never happened, on which `strategy` is run too; see `synthetic_histories`.
    format : BarFormat, optional
        What is stated of the bars, where their source does not say it.
    on_progress : callable, optional
        Called with (answered, to ask) while the model is asked.
    **settings
        Other arguments of `run_backtest`, for `strategy`; it stays at its defaults else.

    Raises
    ------
    ConfigError
        If a setting is out of range, or the market's name is no printable line.
    DataError
        If the bars cannot be used, or are too few.

    Notes
    -----
    What is probed is what the model could recall, and so it is told market and time, whether or not it is
    told when it trades: what masking takes away is in the second probe. A model that is told nothing cannot
    look up a date; nothing here shows that it does not recognise one by the state.

    The probes, with s the verdict's expected worth, y the move of the next bars, all less their means among
    bars that looked alike, and each tested by its correlation with y under exchanges of y:

    - *future*: no state up to a bar may change when later bars do, which needs no p-value; and s.
    - *identified*: s with the right time less s with another bar's time.
    - *cutoff*: s up to the cut-off less s after it; y is exchanged on each side of it.
    - *recall*: s times the distance of the answer to market and time alone from that to the market alone.
    - *contrast*: s less the verdict that `bt_llm.verdicts.contrasted` gives.

    References
    ----------
    X. Li, Y. Zeng, X. Xing, J. Xu, X. Xu, "Profit Mirage: Revisiting Information Leakage in LLM-based
    Financial Agents", arXiv 2510.07920, 2025 (inputs perturbed, before against after the end of knowledge).
    Z. Gao, W. Jiang, Y. Yan, "Detecting Lookahead Bias in LLM Forecasts", arXiv 2512.23847, 2025, revised
    2026 (date-only recall and accuracy). W. W. Li, M. Wang, T. Ma, "Summoning the Oracle to Slay It", arXiv
    2605.24564, 2026 (contrast).

    Examples
    --------
    >>> from bt_llm.data import load_bars, shipped
    >>> bars = load_bars(shipped("sp500_daily.csv"))
    >>> leaky = AdvisorConfig(model=f"memory:{shipped('sp500_daily.csv')}?until=2012-12-31", cache_mode="off")
    >>> found = leakage_probes(bars, leaky, name="S&P 500", cutoff="2012-12-31", points=200, controls=False)
    >>> len(found.caught)
    5
    >>> honest = AdvisorConfig(model="scripted:trend", cache_mode="off")
    >>> found = leakage_probes(bars, honest, name="S&P 500", cutoff="2012-12-31", points=200, controls=False)
    >>> found.caught
    ()
    """
    gate = Gate(advisor=gate) if isinstance(gate, AdvisorConfig) else gate
    instance("gate", gate, Gate, "a Gate or an AdvisorConfig, whose model can be told")
    flag("controls", controls)
    config = gate.advisor
    points, horizon = whole("points", points, 1), whole("horizon", horizon, 1, of=" of bars")
    synthetic, seed = whole("synthetic", synthetic, 0), whole("seed", seed, 0)
    exchanges, alpha = whole("exchanges", exchanges, 1), number("alpha", alpha, 0, 0.5, above=0.0)
    market = Market.of(data, format=format)
    bars = market.alone("a probe for leakage")
    told = market.label if name is None else name
    if not told or not told.isprintable() or told != told.strip() or len(told) > 100:
        raise ConfigError(
            f"name={told!r:.60}: expected one printable line of at most 100 characters, such as 'EUR/USD'"
        )
    last, why = _cutoff(config, cutoff)
    states = states_of(market, gate)
    chosen = points_of(
        market,
        states,
        name=told,
        points=points,
        horizon=horizon,
        seed=seed,
        cutoff=last,
        why_no_cutoff=why if last is None else "",
    )
    looked = look_ahead(market, gate, chosen, states.warm_up, seed=seed)
    if synthetic and strategy is None:
        raise ConfigError(
            f"synthetic={synthetic!r} without a strategy: expected one that is run on these histories"
        )
    said = ask(chosen, config, seed=seed, on_progress=on_progress)
    drawn: dict[str, Any] = {"exchanges": exchanges, "seed": seed, "alpha": alpha}
    return LeakageResult(
        model=said.model,
        market=told,
        bars=len(chosen),
        horizon=horizon,
        settings={
            "cutoff": "not known" if last is None else f"{last}: {why}",
            "template": PromptTemplate.load(config.template_source).name,
            "reader": config.reader,
            **drawn,
            "SHA-256 of the bars": market.sha256,
        },
        probes=probe(chosen, said, looked, **drawn),
        controls=run_controls(bars, chosen, looked, config, **drawn) if controls else (),
        changed=said.changed,
        answers=said.table(chosen),
        strategy=None
        if strategy is None
        else perturbation_check(strategy, market, gate=gate, points=3, seed=seed, **settings),
        synthetic=synthetic_histories(
            strategy, market, gate, n=synthetic, seed=seed, on_progress=on_progress, **settings
        )
        if strategy is not None and synthetic
        else None,
        usage=said.usage,
        notes=market.notes,
    )


def _cutoff(config: AdvisorConfig, given: datetime.date | str | None) -> tuple[datetime.date | None, str]:
    """Return the last day that the model may have read about, where it comes from, or why it is not known."""
    if given is not None:
        return day_of(given), "given"
    try:
        last, why = latest_cutoff(models_asked(config))
    except ConfigError:
        return (
            None,
            f"no cut-off is known of {config.model}; give one (cutoff='2023-12-31', --cutoff 2023-12-31)",
        )
    return last, "; ".join(why)
