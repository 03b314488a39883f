"""Which specifications there are: the dimensions of a multiverse, and how the model is asked in each."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.prompts import (
    PromptTemplate,
    example_order,
    label_order,
    orders,
    with_example_order,
    with_label_order,
    wordings,
)
from bt_llm.settings import flag, one_of, path_text, several
from bt_llm.verdicts import PRIOR_CELLS

__all__ = ["Dimension", "Space", "Specification", "Template", "specifications_of"]

Template = str | os.PathLike[str] | PromptTemplate
Model = str | os.PathLike[str]

_CALIBRATIONS = ("grid", "none")
_AS_WRITTEN = "as written"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One choice that could have been made otherwise.

    Parameters
    ----------
    name : str
        ``model``, ``wording``, ``labels``, ``examples`` or ``calibration``.
    levels : tuple of str
        What it could be, the headline's first.
    reasons : tuple of str
        Why each is there, where that is known; else empty texts.
    """

    name: str
    levels: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        reasons = self.reasons or ("",) * len(self.levels)
        return {
            "name": self.name,
            "levels": [
                {"name": level, "reason": reason} for level, reason in zip(self.levels, reasons, strict=True)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Specification:
    """One way to ask: a level of each dimension, and the configuration that they make.

    Parameters
    ----------
    levels : tuple of int
        Of each dimension, in their order.
    config : AdvisorConfig
        How the model is asked.
    """

    levels: tuple[int, ...]
    config: AdvisorConfig


@dataclass(frozen=True, kw_only=True)
class Space:
    """All specifications: every combination of the levels, the headline first.

    Parameters
    ----------
    dimensions : tuple of Dimension
        The last changes fastest.
    specifications : tuple of Specification
        One for each combination.
    """

    dimensions: tuple[Dimension, ...]
    specifications: tuple[Specification, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of levels of each dimension."""
        return tuple(len(one.levels) for one in self.dimensions)

    def __len__(self) -> int:
        """Return the number of specifications."""
        return len(self.specifications)

    def __iter__(self) -> Iterator[Specification]:
        """Iterate over the specifications."""
        return iter(self.specifications)

    def named(self, number: int) -> dict[str, str]:
        """Return the levels of a specification by their dimensions."""
        levels = self.specifications[number].levels
        return {one.name: one.levels[at] for one, at in zip(self.dimensions, levels, strict=True)}


def specifications_of(
    config: AdvisorConfig,
    *,
    models: Sequence[Model] = (),
    templates: Sequence[Template] | None = None,
    label_orders: bool = True,
    example_orders: bool = False,
    calibrations: Sequence[str] = _CALIBRATIONS,
) -> Space:
    """Return all combinations of what is varied; see `multiverse` for the arguments.

    Raises
    ------
    ConfigError
        If a level is there twice, templates have other answers than the headline's, or the state space is
        too large to ask about all of it.
    PromptError
        If a template cannot be read, or an order that is to be varied is not a matter of order in it.
    """
    flag("label_orders", label_orders), flag("example_orders", example_orders)
    if len(config.state_space) > PRIOR_CELLS:
        raise ConfigError(
            f"a state space of {len(config.state_space):,} cells: a multiverse asks about every cell "
            f"in every "
            f"specification; expected at most {PRIOR_CELLS}, with fewer features or buckets"
        )
    given = wordings() if templates is None else several("templates", templates, "templates")
    asked = [PromptTemplate.load(one) for one in given]
    if not asked:
        raise ConfigError("templates=[]: expected at least one")
    _check_alike(asked)
    first, names = asked[0], asked[0].choices.names
    listed = orders(names, label_order(first)) if label_orders else [()]
    shown = orders(names, example_order(first)) if example_orders else [()]
    given = several("models", models, "models")
    who = [path_text("models", one, expected="names of models") for one in given] or [str(config.model)]
    chosen = [_calibration(one) for one in several("calibrations", calibrations, "calibrations")]
    dimensions = (
        Dimension(name="model", levels=tuple(_short(model) for model in who)),
        Dimension(
            name="wording",
            levels=tuple(one.name for one in asked),
            reasons=tuple(one.reason for one in asked),
        ),
        Dimension(name="labels", levels=tuple(map(_row, listed))),
        Dimension(name="examples", levels=tuple(map(_row, shown))),
        Dimension(name="calibration", levels=tuple(chosen)),
    )
    _check_distinct(dimensions)
    found = []
    sizes = [range(len(one.levels)) for one in dimensions]
    words = {
        (word, row, turn): _varied(asked[word], listed[row], shown[turn])
        for word, row, turn in itertools.product(*sizes[1:4])
    }
    for levels in itertools.product(*sizes):
        model, *template, calibration = levels
        made = dataclasses.replace(
            config,
            model=who[model],
            template=words[tuple(template)],  # type: ignore[index]
            calibration=chosen[calibration],  # type: ignore[arg-type]
        )
        found.append(Specification(levels=levels, config=made))
    return Space(dimensions=dimensions, specifications=tuple(found))


def _varied(template: PromptTemplate, listed: Sequence[str], shown: Sequence[str]) -> PromptTemplate:
    changed = with_label_order(template, listed) if listed else template
    return with_example_order(changed, shown) if shown else changed


def _check_alike(templates: Sequence[PromptTemplate]) -> None:
    first = templates[0]
    for one in templates[1:]:
        if one.choices.meaning != first.choices.meaning:
            raise ConfigError(
                f"template {one.name!r} has the answers {one.choices.names} of {one.choices.worths}, and "
                f"{first.name!r} {first.choices.names} of {first.choices.worths}: expected wordings of one "
                "question, whose answers mean the same"
            )


def _calibration(given: str) -> str:
    one_of("calibrations", given, _CALIBRATIONS)
    return given


def _check_distinct(dimensions: Sequence[Dimension]) -> None:
    for one in dimensions:
        twice = next((level for level in one.levels if one.levels.count(level) > 1), None)
        if twice is not None:
            raise ConfigError(f"{one.name} {twice!r} is given twice: expected different ones")
        if not one.levels:
            raise ConfigError(f"no {one.name} is given: expected at least one")


def _short(model: str) -> str:
    return Path(model).stem if model.lower().endswith(".gguf") else model


def _row(order: Sequence[str]) -> str:
    return ", ".join(order) or _AS_WRITTEN
