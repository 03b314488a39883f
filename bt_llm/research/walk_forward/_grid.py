"""What a search tries: combinations of settings of a strategy and of its gate."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from bt_llm.exceptions import ConfigError
from bt_llm.gates import NO_ANSWER_DEPENDS_ON, AskingGate, Describer, EntryGate
from bt_llm.research._workers import code_sha256
from bt_llm.settings import instance, python_scalar, several
from bt_llm.sources import code_name, is_ours
from bt_llm.verdicts import Prior

__all__ = ["TRAIN", "Settings", "Space", "configure", "describe_gate", "describe_params"]

Settings: TypeAlias = dict[str, Any]
"""A combination: names as in a grid, such as ``fast`` and ``gate.min_confidence``, to values."""

TRAIN = "train"
"""The calibration whose prior is the mean of the raw verdicts over each fold's train window."""

_GATE, _CALIBRATION = "gate.", "gate.advisor.calibration"
_LONGEST_PATH = 4096
_CONSTRAINT = re.compile(r"\s*([\w.]+)\s*(<=|>=|==|!=|<|>)\s*([\w.+-]+)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, kw_only=True)
class Space:
    """All combinations of a grid, in an order that does not depend on how the grid was written.

    Parameters
    ----------
    strategy : type
        Whose parameters the names refer to.
    gate : gate or None
        Whose fields the names that begin with ``gate.`` refer to.
    grid : mapping
        Name to the values to try.
    fixed : mapping
        Name to the one value that all combinations have.
    constraints : sequence of str
        Such as ``fast < slow``; combinations that break one are left out.

    Raises
    ------
    ConfigError
        If a name is unknown or given twice, values are missing or repeated, a constraint cannot be read,
        or no combination is left.
    """

    strategy: type[Any]
    gate: EntryGate | None
    grid: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    constraints: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the names and values, once."""
        instance("grid", self.grid, Mapping, "a mapping of names to values to try")
        instance("params", self.fixed, Mapping, "a mapping of names to values")
        object.__setattr__(self, "constraints", several("constraints", self.constraints, "constraints"))
        known = self._known()
        for name in (*self.grid, *self.fixed):
            instance("the name of a parameter", name, str, "a text")
            if name not in known:
                raise self._unknown(name, known)
        if both := sorted(set(self.grid) & set(self.fixed)):
            raise ConfigError(f"{both[0]!r} is in the grid and in params: expected one of the two")
        for name, values in self.grid.items():
            if isinstance(values, str | Mapping | Set) or not isinstance(values, Iterable) or not len(values):
                raise ConfigError(f"grid {name!r}={values!r}: expected a list of values to try")
            given = [python_scalar(value) for value in values]
            if any(a == b and type(a) is type(b) for a, b in itertools.combinations(given, 2)):
                raise ConfigError(f"grid {name!r}={list(values)!r}: expected each value once")

    def combinations(self) -> list[Settings]:
        """Return them, at least one, the values of the last name (in order of the alphabet) fastest."""
        names = sorted(self.grid)
        fixed = {name: python_scalar(value) for name, value in self.fixed.items()}
        made = [
            {**fixed, **dict(zip(names, map(python_scalar, values), strict=True))}
            for values in itertools.product(*(self.grid[name] for name in names))
        ]
        for constraint in self.constraints:
            allows = self._constraint(constraint)
            made = [settings for settings in made if allows(settings)]
        if not made:
            raise ConfigError(f"constraints {list(self.constraints)} leave no combination of the grid")
        return made

    def _known(self) -> list[str]:
        known = [name for name in self.strategy.params._getkeys() if name != "gate"]
        if dataclasses.is_dataclass(self.gate):
            known += [_GATE + f.name for f in dataclasses.fields(self.gate)]
        if isinstance(self.gate, AskingGate):
            known.remove(_GATE + self.gate.config_name)
            fields = (f.name for f in dataclasses.fields(self.gate.config))
            known += [_config(self.gate) + name for name in fields if name not in NO_ANSWER_DEPENDS_ON]
        return known

    def _unknown(self, name: str, known: list[str]) -> ConfigError:
        if name.startswith(_GATE) and self.gate is None:
            return ConfigError(f"{name!r} without a gate: give one, such as gate=Gate(advisor=...)")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return ConfigError(
            f"{name!r} is no parameter of {self.strategy.__name__} or of its gate, only {known}{hint}"
        )

    def _constraint(self, text: str) -> Callable[[Settings], bool]:
        match = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
        known = self._known()
        number = None if match is None or match[3] in known else _number(match[3])
        if match is None or match[1] not in known or (match[3] not in known and number is None):
            raise ConfigError(
                f"constraint {text!r}: expected a name, one of < <= > >= == !=, and a name or a number; "
                f"names are {known}"
            )
        left, compare, right = match[1], _OPERATORS[match[2]], match[3]

        def allows(settings: Settings) -> bool:
            value = self._value(settings, left)
            other = self._value(settings, right) if number is None else number
            try:
                return compare(value, other)
            except TypeError:
                raise ConfigError(f"constraint {text!r}: cannot compare {value!r} with {other!r}") from None

        return allows

    def _value(self, settings: Settings, name: str) -> Any:
        if name in settings:
            return settings[name]
        if isinstance(self.gate, AskingGate) and name.startswith(_config(self.gate)):
            return getattr(self.gate.config, name.removeprefix(_config(self.gate)))
        if name.startswith(_GATE):
            return getattr(self.gate, name.removeprefix(_GATE))
        return getattr(self.strategy.params, name)


def _config(gate: AskingGate) -> str:
    """Return how the names begin of the fields that say how a gate's model is asked."""
    return f"{_GATE}{gate.config_name}."


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def configure(
    settings: Settings, gate: EntryGate | None, prior: Prior | None = None
) -> tuple[Settings, EntryGate | None, bool]:
    """Return a combination as a strategy's parameters and a gate, and whether it wants a train prior.

    Parameters
    ----------
    settings : dict
        A combination.
    gate : gate or None
        What the ``gate.`` names change.
    prior : Prior, optional
        For calibration 'train'; without one the gate comes back with raw verdicts.

    Raises
    ------
    ConfigError
        If the gate refuses a value.
    """
    params = {name: value for name, value in settings.items() if not name.startswith(_GATE)}
    trained = settings.get(_CALIBRATION) == TRAIN
    if gate is None:
        return params, None, False
    prefix = _config(gate) if isinstance(gate, AskingGate) else "\0"
    asked: dict[str, Any] = {
        name.removeprefix(prefix): (prior or "none") if value == TRAIN and name == _CALIBRATION else value
        for name, value in settings.items()
        if name.startswith(prefix)
    }
    changes = {
        name.removeprefix(_GATE): value
        for name, value in settings.items()
        if name.startswith(_GATE) and not name.startswith(prefix)
    }
    if asked and isinstance(gate, AskingGate):
        gate = gate.with_config(dataclasses.replace(gate.config, **asked))
    return params, dataclasses.replace(gate, **changes) if changes else gate, trained  # type: ignore[type-var]


class _ByContent(Describer):
    """Hashes code that no import finds too: a gate of a notebook is what it does."""

    def code(self, where: str, code: Any) -> dict[str, Any]:
        named = {"name": code_name(code)}
        return named if is_ours(code) else {**named, "source": code_sha256(code)}


def describe_params(strategy: type[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy's parameters, defaults included, by content, as JSON values.

    A default that has no such form is left out: the hash of the strategy's source stands for it. A text or
    path that names a file stands for what is in the file.

    Raises
    ------
    ConfigError
        If a given value has no such form.
    """
    by, found = _ByContent(), {}
    for name in strategy.params._getkeys():
        if name == "gate":
            continue
        try:
            value = params.get(name, getattr(strategy.params, name))
            found[name] = by.describe(repr(name), _with_files(value))
        except ConfigError:
            if name in params:
                raise
    return found


def _with_files(value: Any) -> Any:
    """Return a value with paths for the texts in it that name a file."""
    if isinstance(value, str):
        return Path(value) if _names_file(value) else value
    if type(value) in (list, tuple):
        return type(value)(_with_files(item) for item in value)
    if type(value) is dict:
        return {key: _with_files(item) for key, item in value.items()}
    return value


def _names_file(text: str) -> bool:
    """Return whether a text is the path of a file; a bare word is a word, whatever lies beside it."""
    looks_so = (
        len(text) < _LONGEST_PATH and "\0" not in text and (Path(text).suffix or len(Path(text).parts) > 1)
    )
    return bool(looks_so) and Path(text).is_file()


def describe_gate(gate: EntryGate | None, trained: bool) -> Any:
    """Return everything about a gate that its answers depend on, as JSON values; see `EntryGate.describe`."""
    if gate is None:
        return None
    found = gate.describe(_ByContent())
    if trained:
        found["advisor"]["calibration"] = TRAIN
    return found
