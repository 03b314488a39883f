"""Plans: what a study will ask of its models, before it does, in prompts, tokens, seconds and money.

The bill is short, because a verdict is a function of the market's state: whatever the symbols, the bars and
the parameters, a model is asked at most once for each cell of the state space; of a space of more than 512
cells about those that the prior comes from, and those that bars are in: at most one more a bar. Constants,
measured on 2 cores with AVX-512 (they stand in `Rates`, and are replaced by what the cache has seen of a
model):

=====================================  ==============================================================
letters a token                        3.7 (SmolLM2 and Llama 3.2 on the market template)
a token on the CPU                     5.3 ms for each 1,000 million parameters, 2 ms at least
a request of a server                  200 ms, assumed: give your own
requests a prompt                      3: labels of two tokens are asked for again after the first one
a backtest                             10,000 bars a second and process
=====================================  ==============================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bt_llm.advice import Advisor, AdvisorConfig, Supplied, member_configs
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.models import ModelIdentity, Rates, kind_of
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import prior_cells

__all__ = ["ModelPlan", "Plan", "Rates", "plan"]

_UNKNOWN = "0" * 64
_LOOKED_UP = 100_000  # cells; those of a larger space count as left, for to look takes a minute a million


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What one model will be asked.

    Parameters
    ----------
    model : str
        Its name.
    prompts : int
        Distinct prompts, at most; the bars may be in fewer states.
    cached : int
        Of these, how many the cache answers at least, whichever states the bars are in.
    tokens_per_prompt : float
        Decoded on this machine (what prompts share counts once), or sent to a server in all its requests.
    ms_per_prompt : float or None
        Milliseconds, with as many prompts at a time as the model takes; None if its size is not known.
    money_per_prompt : float or None
        Zero on this machine; None for a server whose price is not known.
    source : str
        Where these numbers come from.
    """

    model: str
    prompts: int
    cached: int
    tokens_per_prompt: float
    ms_per_prompt: float | None
    money_per_prompt: float | None
    source: str

    @property
    def left(self) -> int:
        """Prompts to ask."""
        return self.prompts - self.cached

    def tokens(self, prompts: int) -> int:
        """Tokens of so many prompts."""
        return round(prompts * self.tokens_per_prompt)

    def seconds(self, prompts: int) -> float | None:
        """Seconds that so many prompts take, or None."""
        return None if self.ms_per_prompt is None else prompts * self.ms_per_prompt / 1e3

    def money(self, prompts: int) -> float | None:
        """Money that so many prompts cost, or None."""
        return None if self.money_per_prompt is None else prompts * self.money_per_prompt

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for JSON, cold and what is left."""
        return {
            **dataclasses.asdict(self),
            "left": self.left,
            **{
                f"{what}_{when}": getattr(self, what)(count)
                for what in ("tokens", "seconds", "money")
                for when, count in (("cold", self.prompts), ("left", self.left))
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a study takes: its models' prompts, and its backtests.

    Parameters
    ----------
    models : tuple of ModelPlan
        One for each model; of a dated family one for each member, which may be asked about any of the bars.
    symbols, bars : int
        Symbols, and bars of each.
    backtest_bars : int
        Bars that all backtests of a symbol run over, together.
    backtest_seconds : float
        What the backtests of all symbols take in one process.
    """

    models: tuple[ModelPlan, ...]
    symbols: int
    bars: int
    backtest_bars: int
    backtest_seconds: float

    def total(self, what: str, when: str = "left") -> float | None:
        """Return the sum over the models, or None if one of its parts is not known.

        Parameters
        ----------
        what : {'prompts', 'tokens', 'seconds', 'money'}
            Of what.
        when : {'cold', 'left'}
            With an empty cache, or with what it holds.
        """
        parts = []
        for model in self.models:
            count = model.prompts if when == "cold" else model.left
            parts.append(count if what == "prompts" else getattr(model, what)(count))
        return None if any(part is None for part in parts) else sum(parts)

    def over(self, budget: float) -> str:
        """Return why what is left may cost more than a budget, or an empty text if it does not."""
        money = self.total("money")
        if money is None:
            return "the price of a server is not known: give --price-per-mtok"
        # A budget that is no number allows nothing.
        return "" if money <= budget else f"{money:,.2f} is over the budget of {budget:,.2f}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        totals = {
            f"{what}_{when}": self.total(what, when)
            for what in ("prompts", "tokens", "seconds", "money")
            for when in ("cold", "left")
        }
        return {
            "symbols": self.symbols,
            "bars": self.bars,
            "backtest_bars": self.backtest_bars,
            "backtest_seconds": self.backtest_seconds,
            "models": [model.to_dict() for model in self.models],
            "total": totals,
        }


def plan(
    configs: Sequence[AdvisorConfig],
    *,
    symbols: int = 1,
    bars: int,
    backtest_bars: int | None = None,
    rates: Rates | None = None,
) -> Plan:
    """Return what a study takes; no model is loaded and no server is asked.

    Parameters
    ----------
    configs : sequence of AdvisorConfig
        How the models are asked.
    symbols, bars : int
        Symbols, and bars of each.
    backtest_bars : int, optional
        Bars that all backtests of a symbol run over, together; by default one backtest over all of them.
    rates : Rates, optional
        Instead of the measured constants.

    Raises
    ------
    ConfigError
        If a number is below 1.

    Examples
    --------
    >>> config = AdvisorConfig(model="scripted:trend", cache_mode="off")
    >>> made = plan([config], symbols=50, bars=5_000)
    >>> made.total("prompts"), made.backtest_seconds
    (105, 25.0)
    """
    run_over = bars if backtest_bars is None else backtest_bars
    for name, value in (("symbols", symbols), ("bars", bars), ("backtest_bars", run_over)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name}={value!r}: expected a whole number of at least 1")
    rates = rates or Rates()
    return Plan(
        models=tuple(
            _plan_model(one, symbols * bars, rates) for config in configs for one in member_configs(config)
        ),
        symbols=symbols,
        bars=bars,
        backtest_bars=run_over,
        backtest_seconds=symbols * run_over / rates.bars_per_second,
    )


def _plan_model(config: AdvisorConfig, bars: int, rates: Rates) -> ModelPlan:
    if config.by_bar:
        return ModelPlan(
            model=str(config.model),
            prompts=0,
            cached=0,
            tokens_per_prompt=0.0,
            ms_per_prompt=0.0,
            money_per_prompt=0.0,
            source="a file: nobody is asked",
        )
    cache = VerdictCache(config.cache_dir, config.cache_mode)
    model = kind_of(str(config.model))
    identity = model.recall(cache)
    advisor = _knowing(config, cache, identity)
    cells = _cells_of(advisor)
    reads = identity is not None and cache.mode in (CacheMode.RECORD, CacheMode.REPLAY)
    records = [cache.get_many(advisor.keys(part)) if identity is not None else {} for part in cells]
    stored = [record for part in records for record in part.values()]
    sure, others = (len(part) - len(found) * reads for part, found in zip(cells, records, strict=True))
    size = len(advisor.space)
    prompts = len(cells[0]) + min(size - len(cells[0]), bars)
    left = sure + min(others + size - len(cells[0]) - len(cells[1]), bars)
    cost = model.cost(advisor.prompts(prior_cells(advisor.space)), identity, rates)
    tokens, ms, source = cost.tokens, cost.milliseconds, cost.source
    seen = [record.provenance for record in stored]
    counts = [float(p["tokens"]) for p in seen if type(p.get("tokens")) is int and p["tokens"] > 0]
    times = [float(p["milliseconds"]) for p in seen if type(p.get("milliseconds")) is float]
    if counts and times:
        tokens, ms = sum(counts) / len(counts), sum(times) / len(times) / cost.at_once
        source = f"mean of {len(times)} stored answers"
    price = rates.price_per_mtok
    money = 0.0 if not cost.paid else None if price is None else price * tokens / 1e6
    return ModelPlan(
        model=str(config.model),
        prompts=prompts,
        cached=prompts - left,
        tokens_per_prompt=tokens,
        ms_per_prompt=ms,
        money_per_prompt=money,
        source=source if identity is not None else f"{source}; model not known here yet",
    )


def _cells_of(advisor: Advisor) -> tuple[Sequence[int], Sequence[int]]:
    """Return the cells that are asked about whatever the bars, and the others that the cache is asked for."""
    sure, size = advisor.config.prior_cells, len(advisor.space)
    if len(sure) == size or size > _LOOKED_UP:
        return sure, ()
    return sure, sorted(set(range(size)) - set(sure))


def _knowing(config: AdvisorConfig, cache: VerdictCache, identity: ModelIdentity | None) -> Advisor:
    """Return an advisor that knows its model as far as that is known, and asks nobody."""
    unknown = ModelIdentity(name=str(config.model), sha256=_UNKNOWN)
    template = PromptTemplate.load(config.template_source)
    device = kind_of(str(config.model)).device(config.n_gpu_layers)
    supplied = Supplied(identity=identity or unknown, template=template, cache=cache, device=device)
    return Advisor(dataclasses.replace(config, supplied=supplied))
