"""Plans: what a study will ask of its models, before it does, in prompts, tokens, seconds and money.

The bill is short, because a verdict is a function of the market's state: whatever the symbols, the bars and
the parameters, a model is asked at most once for each cell of the state space. Constants, measured on 2
cores with AVX-512 (they stand in `Rates`, and are replaced by what the cache has seen of a model):

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
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models import PREFIX, ModelIdentity, Prompt, RemoteBackend, RemoteConfig, ScriptedBackend

__all__ = ["ModelPlan", "Plan", "Rates", "plan"]

_UNKNOWN = "0" * 64
_BILLIONS = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*b(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What things take and cost; the defaults are the constants at the top of `bt_llm.research`.

    Parameters
    ----------
    letters_per_token : float
        Of prompts.
    token_ms_per_billion : float
        Milliseconds a token on this machine, for each 1,000 million parameters.
    least_token_ms : float
        Milliseconds a token of the smallest models.
    request_ms : float
        Milliseconds a request to a server.
    requests_per_prompt : float
        Requests to a server for each prompt.
    bars_per_second : float
        Of a backtest in one process.
    price_per_mtok : float, optional
        Money for a million tokens of a server; None if it is not known.

    Examples
    --------
    >>> Rates(request_ms=50).bars_per_second
    10000.0
    """

    letters_per_token: float = 3.7
    token_ms_per_billion: float = 5.3
    least_token_ms: float = 2.0
    request_ms: float = 200.0
    requests_per_prompt: float = 3.0
    bars_per_second: float = 10_000.0
    price_per_mtok: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or (field.name == "price_per_mtok" and value == 0):
                continue
            if type(value) not in (int, float) or not 0 < value < 1e12:
                raise ConfigError(f"{field.name}={value!r}: expected a number above 0")


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
        Of these, how many the cache answers.
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
        One for each model.
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
        models=tuple(_plan_model(config, symbols * bars, rates) for config in configs),
        symbols=symbols,
        bars=bars,
        backtest_bars=run_over,
        backtest_seconds=symbols * run_over / rates.bars_per_second,
    )


def _plan_model(config: AdvisorConfig, bars: int, rates: Rates) -> ModelPlan:
    cache = VerdictCache(config.cache_dir, config.cache_mode)
    advisor, found = _advisor(config, cache)
    cells = range(len(advisor.space))
    prompts = len(cells) if config.calibration == "grid" else min(len(cells), bars)
    asked = advisor.prompts(cells)
    keys = [advisor._question(prompt).key for prompt in asked]
    stored = list(cache.get_many(keys).values()) if found else []
    reads = cache.mode in (CacheMode.RECORD, CacheMode.REPLAY)
    remote = str(config.model).startswith(PREFIX)
    tokens, ms, source = _estimated(config, advisor.identity, asked, rates, remote=remote)
    seen = [record.provenance for record in stored]
    counts = [float(p["tokens"]) for p in seen if type(p.get("tokens")) is int and p["tokens"] > 0]
    times = [float(p["milliseconds"]) for p in seen if type(p.get("milliseconds")) is float]
    if counts and times:
        at_once = _at_once(str(config.model)) if remote else 1
        tokens, ms = sum(counts) / len(counts), sum(times) / len(times) / at_once
        source = f"mean of {len(times)} stored answers"
    price = rates.price_per_mtok
    money = 0.0 if not remote else None if price is None else price * tokens / 1e6
    return ModelPlan(
        model=str(config.model),
        prompts=prompts,
        cached=min(len(stored), prompts) if reads else 0,
        tokens_per_prompt=tokens,
        ms_per_prompt=ms,
        money_per_prompt=money,
        source=source if found else f"{source}; model not known here yet",
    )


def _advisor(config: AdvisorConfig, cache: VerdictCache) -> tuple[Advisor, bool]:
    """Return an advisor that knows its model as far as that is known without asking, and whether it is."""
    name = str(config.model)
    if not name.startswith(PREFIX):
        advisor = Advisor(config, cache=cache)
        try:
            _ = advisor.identity
        except ModelNotFoundError:
            unknown = ScriptedBackend.named("scripted:trend")
            return Advisor(config, cache=cache, backend=unknown), False
        return advisor, True
    remote = RemoteConfig.parse(name)
    known = cache.find_models(remote.name)
    identity = known[0] if len(known) == 1 else ModelIdentity(name=remote.name, sha256=_UNKNOWN)
    backend = RemoteBackend(remote, identity=identity)
    return Advisor(config, cache=cache, backend=backend), len(known) == 1


def _at_once(name: str) -> int:
    """Return how many requests the servers of a name are sent at a time.

    Examples
    --------
    >>> _at_once("openai:http://a:8000,http://b:8000?connections=4&sha256=" + "ab" * 32)
    8
    """
    remote = RemoteConfig.parse(name)
    return remote.connections * (1 + len(remote.replicas))


def _estimated(
    config: AdvisorConfig, identity: ModelIdentity, prompts: Sequence[Prompt], rates: Rates, *, remote: bool
) -> tuple[float, float | None, str]:
    """Return tokens and milliseconds a prompt from constants, and what they rest on."""
    name = str(config.model)
    whole = sum(len(prompt.text) for prompt in prompts) / len(prompts) / rates.letters_per_token
    if name.startswith("scripted"):
        return 0.0, 0.0, "a script"
    if remote:
        requests = rates.requests_per_prompt
        return requests * (whole + 1), requests * rates.request_ms / _at_once(name), "constants"
    shared = len(prompts[0].chunks[0]) / rates.letters_per_token
    tokens = whole - shared + shared / len(prompts) + 2
    billions = _billions(identity, name)
    if billions is None:
        return tokens, None, "constants; size of the model unknown"
    token_ms = max(rates.least_token_ms, billions * rates.token_ms_per_billion)
    return tokens, tokens * token_ms, f"constants for {billions:.2g} billion parameters"


def _billions(identity: ModelIdentity, name: str) -> float | None:
    """Return the size of a model from its file, or from a name such as ``llama-3.2-1b``.

    Examples
    --------
    >>> _billions(ModelIdentity(name="x", sha256="0" * 64), "llama-3.2-1b.gguf")
    1.0
    """
    parameters = identity.details.get("parameters")
    if type(parameters) is int and parameters > 0:
        return parameters / 1e9
    match = _BILLIONS.search(name)
    return float(match[1]) if match else None
