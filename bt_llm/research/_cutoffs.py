"""Does a model remember the market? What its gate adds before and after the end of its training data."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.backtest import Bootstrap, gate_study, interval, is_shown
from bt_llm.backtest import Source as DataSource
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import AskingGate, EntryGate
from bt_llm.plain_json import plain
from bt_llm.research._runs import Source
from bt_llm.statistics import BootstrapResult

__all__ = ["CUTOFFS", "CutoffComparison", "TrainingCutoff", "before_after_cutoff", "training_cutoff"]


@dataclass(frozen=True, kw_only=True)
class TrainingCutoff:
    """How far a family of models has seen the world.

    Attributes
    ----------
    family : str
        Its name.
    names : tuple of str
        Starts of model names that mean it, lower case, letters and digits only.
    cutoff : datetime.date or None
        Last day of the period that the training data reaches to, as its makers say; None if they do not.
    released : datetime.date
        No model has seen what came after its release.
    source : str
        Who says so, and where.
    """

    family: str
    names: tuple[str, ...]
    cutoff: datetime.date | None
    released: datetime.date
    source: str

    @property
    def latest(self) -> datetime.date:
        """The cut-off, or the day of the release where it is not known."""
        return self.cutoff or self.released


CUTOFFS = (
    TrainingCutoff(
        family="Llama 3.2",
        names=("llama32", "metallama32"),
        cutoff=datetime.date(2023, 12, 31),
        released=datetime.date(2024, 9, 25),
        source="Meta's model card, 'Knowledge cutoff: December 2023': "
        "https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/MODEL_CARD.md",
    ),
    TrainingCutoff(
        family="Gemma 3",
        names=("gemma3",),
        cutoff=datetime.date(2024, 8, 31),
        released=datetime.date(2025, 3, 12),
        source="Google's model card, 'The knowledge cutoff date for the training data was August 2024': "
        "https://ai.google.dev/gemma/docs/core/model_card_3",
    ),
    TrainingCutoff(
        family="Phi-3.5",
        names=("phi35",),
        cutoff=datetime.date(2023, 10, 31),
        released=datetime.date(2024, 8, 20),
        source="Microsoft's model card, 'cutoff date October 2023 for publicly available data': "
        "https://huggingface.co/microsoft/Phi-3.5-mini-instruct",
    ),
    TrainingCutoff(
        family="SmolLM2",
        names=("smollm2",),
        cutoff=None,
        released=datetime.date(2024, 11, 1),
        source="not stated in the model card, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
)
"""What makers of models say about the end of their training data; `before_after_cutoff` uses it."""


def training_cutoff(model: str | os.PathLike[str]) -> TrainingCutoff | None:
    """Return what is known of a model's training cut-off by its name or path; None for other models.

    Examples
    --------
    >>> training_cutoff("models/Llama-3.2-1B-Instruct-Q4_K_M.gguf").latest
    datetime.date(2023, 12, 31)
    >>> training_cutoff("smollm2").cutoff is None, training_cutoff("scripted:trend")
    (True, None)
    """
    stem = os.path.basename(os.fspath(model)).lower()
    name = "".join(letter for letter in stem if letter.isalnum())
    return next((known for known in CUTOFFS if name.startswith(known.names)), None)


@dataclass(frozen=True, kw_only=True)
class CutoffComparison:
    """What a gate adds on bars that its model may have read about, and on bars it cannot have.

    Attributes
    ----------
    cutoff : datetime.date
        Last day of the first stretch.
    bars_before, bars_after : int
        Bars of the two.
    before, after : dict of str to BootstrapResult
        Sharpe ratio and mean return of the gated strategy less those of the ungated one, both a year.
    """

    cutoff: datetime.date
    bars_before: int
    bars_after: int
    before: dict[str, BootstrapResult]
    after: dict[str, BootstrapResult]

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        parts = [
            f"{name} {self.cutoff} the gate changes the Sharpe ratio by {interval(found['sharpe'], 'sharpe')}"
            for name, found in (("Up to", self.before), ("after", self.after))
        ]
        suspicious = (
            is_shown(self.before["sharpe"])
            and self.before["sharpe"].estimate > 0.0
            and self.after["sharpe"].estimate < self.before["sharpe"].low
        )
        end = "it may have remembered" if suspicious else "no sign that it remembered"
        return f"{', '.join(parts)}: {end}."

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN is None."""
        found: dict[str, Any] = plain(vars(self))
        return {**found, "sentence": self.sentence}


def before_after_cutoff(
    strategy: Source,
    data: DataSource,
    gate: EntryGate,
    *,
    cutoff: datetime.date | str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    block_length: int | None = None,
    **settings: Any,
) -> CutoffComparison:
    """Compare what a gate adds before and after its model's training data ends.

    A model that remembers what the market did helps on the bars it has read about, and no longer after
    them. Prompts that name neither instrument nor date leave little to remember by; this is the check.

    Parameters
    ----------
    strategy, data, gate
        As in `gate_study`.
    cutoff : date or text, optional
        Last day that the model may have seen; by default what `training_cutoff` knows of the gate's model,
        and the day of its release where the makers do not say.
    resamples, seed, block_length
        Of the bootstrap; see `Bootstrap`.
    **settings
        Other arguments of `run_backtest`.

    Raises
    ------
    ConfigError
        If the cut-off is not known.
    DataError
        If there are fewer than 30 bars on one side of it.

    Notes
    -----
    The market before and after differs in more than what the model has read: a difference is a reason to
    look, not a proof. One backtest is cut in two, so positions run through the cut.
    """
    last = _cutoff_day(gate, cutoff)
    study = gate_study(strategy, data, gate, **settings)
    gated, ungated = study.gated.returns, study.ungated.returns
    seen = np.asarray(pd.DatetimeIndex(gated.index).normalize() <= pd.Timestamp(last))
    before, after = int(seen.sum()), int((~seen).sum())
    if min(before, after) < 30:
        raise DataError(
            f"cut-off {last}: {before} bars up to it and {after} after; expected at least 30 of each. They "
            f"go from {gated.index[0]} to {gated.index[-1]}: give other bars, or another cutoff"
        )
    bootstrap = Bootstrap(resamples=resamples, seed=seed, block_length=block_length)

    def effect(chosen: NDArray[np.bool_]) -> dict[str, BootstrapResult]:
        return {
            name: bootstrap.difference(gated[chosen], ungated[chosen], name) for name in ("sharpe", "return")
        }

    return CutoffComparison(
        cutoff=last, bars_before=before, bars_after=after, before=effect(seen), after=effect(~seen)
    )


def _cutoff_day(gate: EntryGate, cutoff: datetime.date | str | None) -> datetime.date:
    if cutoff is not None:
        try:
            return pd.Timestamp(cutoff).date()
        except (TypeError, ValueError):
            raise ConfigError(f"cutoff={cutoff!r}: expected a date, such as '2023-12-31'") from None
    known = training_cutoff(str(gate.config.model)) if isinstance(gate, AskingGate) else None
    if known is None:
        name = repr(gate.config.model) if isinstance(gate, AskingGate) else type(gate).__name__
        families = [entry.family for entry in CUTOFFS]
        raise ConfigError(
            f"training cut-off of {name} is not known, only of {families}: give cutoff='YYYY-MM-DD'"
        )
    return known.latest
