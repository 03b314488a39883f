"""From cells of a state space to the values that a template renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bt_llm.verdicts import Feature, StateSpace

__all__ = ["example_values", "state_values", "unsaid"]


def state_values(space: StateSpace, cell: int) -> dict[str, Any]:
    """Return a template's variables for a cell: ``features``, and each feature's label under its name.

    Examples
    --------
    >>> state_values(StateSpace(), 52)["features"][1]
    {'name': 'rsi', 'title': 'RSI', 'label': '45 to 55'}
    """
    described, titles = space.describe(cell), space.titles()
    features = [{"name": name, "title": titles[name], "label": label} for name, label in described.items()]
    return {"features": features, **described}


def example_values(space: StateSpace, state: Mapping[str, float]) -> dict[str, Any]:
    """Return the same for an example; a feature that it does not name takes its middle bucket."""
    return state_values(space, space.cell({f.name: state.get(f.name, _middle(f)) for f in space.features}))


def _middle(feature: Feature) -> float:
    """Return a value in the feature's middle bucket."""
    return feature.edges[(len(feature.labels) // 2) - 1] if feature.edges else 0.0


def unsaid(space: StateSpace, question: Callable[[Mapping[str, Any]], str]) -> tuple[str, ...]:
    """Return the features that change no question, each varied alone from the middle of the space.

    Parameters
    ----------
    space : StateSpace
        What is asked about.
    question : callable
        Returns what is asked with the values of a state, such as `PromptTemplate.question`.

    Examples
    --------
    >>> unsaid(StateSpace(), lambda values: f"{values['rsi']} and {values['trend']}")
    ('volatility',)
    """
    middle = [size // 2 for size in space.shape]

    def asked(at: int, bucket: int) -> str:
        buckets = [*middle[:at], bucket, *middle[at + 1 :]]
        return question(state_values(space, int(np.ravel_multi_index(buckets, space.shape))))

    varied = {name: {asked(at, one) for one in range(space.shape[at])} for at, name in enumerate(space.names)}
    return tuple(name for name, questions in varied.items() if len(questions) < 2)
