"""Which models the folds of a study traded with, what they said, and how they were asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import pandas as pd

from bt_llm.advice import AdvisorConfig, Policy
from bt_llm.backtest import answers_of
from bt_llm.gates import AttachedAdviceGate, EntryGate, Gate, attached_gates
from bt_llm.indicators import LLMAdvice
from bt_llm.research.walk_forward._advice import Desk
from bt_llm.shown import Told
from bt_llm.verdicts import Prior

__all__ = ["AskedModel", "asked_models", "gate_answers", "how_calibrated"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AskedModel(Told):
    """A model, one way to ask it, and the folds that chose both and traded with them.

    Attributes
    ----------
    advisor : AdvisorConfig
        How it was asked; a prior of a fold's train stretch stands in `calibration`.
    name : str
        Of the model that answered.
    sha256 : str
        Of its file.
    folds : tuple of int
        Numbers of the folds.
    policy : Policy
        Its verdicts over the state space, as they were stored when the study was run; NaN for states that
        the study did not ask about.
    """

    advisor: AdvisorConfig
    name: str
    sha256: str
    folds: tuple[int, ...]
    policy: Policy

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without where verdicts are kept: they do not depend on it."""
        advisor = self.advisor
        calibration, source = advisor.calibration, advisor.template_source
        return {
            "model": self.name,
            "sha256": self.sha256,
            "folds": list(self.folds),
            "template": source if isinstance(source, str) else source.name,
            "reader": advisor.reader,
            "numerics": advisor.numerics,
            "label_mass": self.policy.masses.to_dict(),
            "calibration": calibration.to_dict() if isinstance(calibration, Prior) else calibration,
            "prior_cells": len(advisor.prior_cells),
            "cells": len(advisor.state_space),
        }


def asked_models(desk: Desk, gates: Mapping[int, EntryGate | None]) -> tuple[AskedModel, ...]:
    """Return the models that folds traded with, in the order of their first folds; none is asked.

    Parameters
    ----------
    desk : Desk
        Where they were asked before the search.
    gates : mapping of int to gate
        The gate that each fold chose, by the fold's number.
    """
    chosen: dict[tuple[AdvisorConfig, type[LLMAdvice]], dict[int, Gate]] = {}
    for number, gate in gates.items():
        if isinstance(gate, Gate):
            chosen.setdefault((gate.advisor, gate.indicator), {})[number] = gate
    found: list[AskedModel] = []
    for (advisor, _), those in chosen.items():
        found += [
            AskedModel(
                advisor=advisor,
                name=identity.name,
                sha256=identity.sha256,
                folds=tuple(those),
                policy=policy,
            )
            for identity, policy in desk.policies(next(iter(those.values())))
        ]
    return tuple(found)


def how_calibrated(models: Iterable[AskedModel]) -> list[str]:
    """Return what is to be said of the priors that models were calibrated with, each sentence once."""
    notes = dict.fromkeys(model.advisor.prior_note for model in models)
    return [note for note in notes if note]


def gate_answers(strategy: bt.Strategy, times: pd.Index) -> pd.DataFrame | None:
    """Return what the model told a strategy's gate, after the run; None without such a gate.

    Parameters
    ----------
    strategy : Strategy
        Its first gate on its first data counts.
    times : Index
        Of the bars of that data.

    Returns
    -------
    DataFrame or None
        As from `bt_llm.backtest.answers_of`.
    """
    for gate in attached_gates(strategy):
        if isinstance(gate, AttachedAdviceGate) and gate.data is strategy.data:
            return answers_of(gate.advice, times)
    return None
