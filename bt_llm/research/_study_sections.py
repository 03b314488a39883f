"""The tables of a study file: what each may hold, and nothing else."""

from __future__ import annotations

from typing import Literal

from bt_llm.exceptions import MissingExtraError

try:
    import pydantic
    from pydantic import Field, PrivateAttr, ValidationError
except ImportError as error:
    raise MissingExtraError("study files need pydantic: pip install 'bt-llm[research]'") from error

__all__ = [
    "AccountSection",
    "AdvisorSection",
    "BarsSection",
    "BudgetSection",
    "CompareSection",
    "Field",
    "GateSection",
    "PrivateAttr",
    "Section",
    "UniverseSection",
    "ValidationError",
    "WalkForwardSection",
]


class Section(pydantic.BaseModel):
    """A table of a study file: nothing is converted, and nothing unknown is let through."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class AdvisorSection(Section):
    """``[gate.advisor]``: the arguments of `AdvisorConfig`; those left out keep their defaults.

    The calibration may also be ``"train"``, in a walk-forward; see `WalkForward.run`.
    """

    model: str | None = None
    fallbacks: list[str] | None = None
    template: str | None = None
    reader: Literal["logprobs", "json", "contrast"] | None = None
    calibration: Literal["grid", "none", "train"] | None = None
    numerics: Literal["canonical", "fast"] | None = None
    cache_dir: str | None = Field(default=None, min_length=1)
    cache_mode: Literal["record", "replay", "refresh", "off"] | None = None
    n_threads: int | None = None
    n_gpu_layers: int | None = None
    identify: str | None = None
    min_label_mass: float | None = None


class GateSection(Section):
    """``[gate]``: the arguments of `Gate`; those left out keep their defaults."""

    min_confidence: float = 0.0
    require: Literal["agree", "not_against"] = "agree"
    on_missing: Literal["block", "pass"] = "block"
    advisor: AdvisorSection = AdvisorSection()


class AccountSection(Section):
    """``[account]``: what a backtest starts with and pays; see `run_backtest`."""

    cash: float = 10_000.0
    commission: float = 0.0
    slippage: float = 0.0
    percent: float = 95.0
    sizer: str | None = None
    setup: str | None = None


class WalkForwardSection(Section):
    """``[walk_forward]``: how the bars are cut, and what the folds choose by; see `WalkForward`."""

    train_size: int | str
    test_size: int | str
    expand_train: bool = False
    purged_size: int | str = 0
    embargo: int | str = 0
    reduce_test: bool = False
    warm_up: int | None = None
    metric: Literal["sharpe", "sortino", "calmar", "return", "max_drawdown"] = "sharpe"
    min_trades: int = 1
    constraints: list[str] = []


class CompareSection(Section):
    """``[compare]``: the models, and how differences are judged; see `compare_models`."""

    models: list[str] | dict[str, str]
    horizon: int = 5
    flat: float = 0.25
    resamples: int = 2000
    seed: int = 0
    block_length: int | None = None


class BarsSection(Section):
    """``[bars]``: what is stated of the bars, where their source does not say it; see `BarFormat`.

    ``after_cutoff = true`` leaves only the bars after the training data of all models of the study ends.
    """

    time_format: str | None = None
    day_first: bool | None = None
    zone: str | None = None
    columns: dict[str, str] = {}
    decimal: Literal[".", ","] | None = None
    adjusted: bool | None = None
    symbol: str | None = None
    stamp: Literal["open", "close"] | None = None
    repair: Literal["drop", "widen", "fill"] | None = None
    after: str | None = None
    after_cutoff: bool = False
    max_megabytes: int = 2048


class UniverseSection(Section):
    """``[universe]``: the data are the symbols of a panel, a run each; see `Universe`.

    `parameters` says whether a walk-forward chooses one set of settings for the whole ``panel`` or one for
    each ``symbol``; ``weights``, what symbols weigh in the pooled record, those left out 1.
    """

    weights: dict[str, float] = {}
    parameters: Literal["panel", "symbol"] = "panel"


class BudgetSection(Section):
    """``[budget]``: what the command line may spend on servers without asking, and what they take."""

    money: float = Field(ge=0, allow_inf_nan=False)
    price_per_mtok: float | None = None
