"""Who answers in a run: a model, or the first of its fallbacks that can, decided before the first answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bt_llm import plain_text
from bt_llm.exceptions import ModelError, ModelFileError, ModelNotFoundError
from bt_llm.models._base import ModelIdentity
from bt_llm.models._registry import KnownModels, ModelKind, kind_of

__all__ = ["Answerer", "Succession"]

_log = plain_text.logger("bt_llm.manager")


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers a manager's questions, as `ModelManager.look_up` has found.

    Parameters
    ----------
    model : ModelKind
        By its name.
    identity : ModelIdentity
        Everything of it that an answer depends on.
    place : int
        0 for the manager's model, 1 for its first fallback, and so on.
    run : int
        The manager's run in which it was found; see `ModelManager.begin_run`.
    """

    model: ModelKind
    identity: ModelIdentity
    place: int
    run: int


class Succession:
    """A model and its fallbacks, and which of them answers in this run; guarded by the lock of its owner.

    Parameters
    ----------
    names : sequence of str or path
        The model, then its fallbacks.

    Attributes
    ----------
    place : int
        Of the one that answers: 0 for the model, 1 for its first fallback.
    run : int
        Number of the run.
    settled : bool
        Whether it has answered in this run, so that no other one takes over.
    """

    def __init__(self, names: Sequence[str | os.PathLike[str]]) -> None:
        self.place, self.run, self.settled = 0, 0, False
        self._names = list(names)
        self._kinds: dict[int, ModelKind] = {}
        self._errors: list[ModelError] = []

    def rename(self, name: str | os.PathLike[str]) -> None:
        """Have another model, with the same fallbacks."""
        self._names[0] = name
        self._kinds.clear()

    def model(self, place: int) -> ModelKind:
        """Return the model at a place, by its name."""
        if place not in self._kinds:
            self._kinds[place] = kind_of(os.fspath(self._names[place]))
        return self._kinds[place]

    def look_up(self, known: KnownModels, *, replay: bool, leave: Callable[[], None]) -> Answerer:
        """Return the first from the present place on that is there.

        Parameters
        ----------
        known, replay
            As of `ModelKind.identify`.
        leave : callable
            As of `fall_back`.
        """
        while True:
            place = self.place
            try:
                model = self.model(place)
                return Answerer(model, model.identify(known, replay=replay), place, self.run)
            except (ModelNotFoundError, ModelFileError) as error:
                self.fall_back(place, error, leave)

    def begin_run(self) -> None:
        """Decide anew who answers."""
        self.place, self._errors = 0, []
        self.run, self.settled = self.run + 1, False

    def stands(self, who: Answerer) -> bool:
        """Return whether a model still is the one that answers."""
        return (self.place, self.run) == (who.place, who.run)

    def fall_back(self, place: int, error: ModelError, leave: Callable[[], None]) -> None:
        """Go on with the next model, after what came of the one at a place; `leave` lets that one go."""
        if self.place != place:
            return  # somebody else has seen the same
        if self.settled:
            raise self.refusal(place, error) from None
        self._errors.append(error)
        leave()
        if self._is_last(place):
            errors, self._errors, self.place = self._errors, [], 0
            if len(errors) == 1:
                raise error
            reasons = "; ".join(map(str, errors))
            raise type(errors[0])(f"none of {len(errors)} models can be used: {reasons}") from error
        self.place += 1
        _log.warning("%s; using the fallback %s", error, self.model(self.place).name)

    def refusal(self, place: int, error: ModelError) -> ModelError:
        """Return an error that says why no fallback follows a model that has answered."""
        if self._is_last(place):
            return error
        return type(error)(
            f"{error}. {self.model(place).name} has answered earlier in this run, so that no fallback takes "
            "over: answers of two models are never mixed. Run again, or name the fallback as the model"
        )

    def _is_last(self, place: int) -> bool:
        return place == len(self._names) - 1
