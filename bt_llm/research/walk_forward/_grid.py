"""What a search tries: combinations of settings of a strategy and of its gate."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.backtest import source_sha256
from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.gates import Gate, GateProtocol
from bt_llm.models import canonical_json
from bt_llm.verdicts import Prior

__all__ = ["TRAIN", "Settings", "Space", "configure", "describe_gate", "describe_params"]

Settings: TypeAlias = dict[str, Any]
"""A combination: names as in a grid, such as ``fast`` and ``gate.min_confidence``, to values."""

TRAIN = "train"
"""The calibration whose prior is the mean of the raw verdicts over each fold's train window."""

_GATE, _ADVISOR, _CALIBRATION = "gate.", "gate.advisor.", "gate.advisor.calibration"
_NOT_SEARCHED = {"cache_dir", "cache_mode", "n_threads", "n_gpu_layers"}  # no verdict depends on them
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
    gate: GateProtocol | None
    grid: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    constraints: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the names and values, once."""
        if self.gate is not None and not self._has_gate():
            raise ConfigError(
                f"{self.strategy.__name__} has no parameter 'gate': add params = (('gate', None),) and ask "
                f"bt_llm.attach_gate(self.p.gate, self) before its entries"
            )
        known = self._known()
        for name in (*self.grid, *self.fixed):
            if name not in known:
                raise self._unknown(name, known)
        if both := sorted(set(self.grid) & set(self.fixed)):
            raise ConfigError(f"{both[0]!r} is in the grid and in params: expected one of the two")
        for name, values in self.grid.items():
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable) or not len(values):
                raise ConfigError(f"grid {name!r}={values!r}: expected a list of values to try")
            if any(a == b and type(a) is type(b) for a, b in itertools.combinations(values, 2)):
                raise ConfigError(f"grid {name!r}={list(values)!r}: expected each value once")

    def combinations(self) -> list[Settings]:
        """Return them, at least one, the values of the last name (in order of the alphabet) fastest."""
        names = sorted(self.grid)
        made = [
            {**self.fixed, **dict(zip(names, values, strict=True))}
            for values in itertools.product(*(self.grid[name] for name in names))
        ]
        for constraint in self.constraints:
            allows = self._constraint(constraint)
            made = [settings for settings in made if allows(settings)]
        if not made:
            raise ConfigError(f"constraints {list(self.constraints)} leave no combination of the grid")
        return made

    def _has_gate(self) -> bool:
        return "gate" in self.strategy.params._getkeys()

    def _known(self) -> list[str]:
        known = [name for name in self.strategy.params._getkeys() if name != "gate"]
        if dataclasses.is_dataclass(self.gate):
            known += [_GATE + f.name for f in dataclasses.fields(self.gate) if f.name != "advisor"]
        if isinstance(self.gate, Gate):
            fields = (f.name for f in dataclasses.fields(AdvisorConfig))
            known += [_ADVISOR + name for name in fields if name not in _NOT_SEARCHED]
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
        if name.startswith(_ADVISOR) and isinstance(self.gate, Gate):
            return getattr(self.gate.advisor, name.removeprefix(_ADVISOR))
        if name.startswith(_GATE):
            return getattr(self.gate, name.removeprefix(_GATE))
        return getattr(self.strategy.params, name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def configure(
    settings: Settings, gate: GateProtocol | None, prior: Prior | None = None
) -> tuple[Settings, GateProtocol | None, bool]:
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
    advisor: dict[str, Any] = {
        name.removeprefix(_ADVISOR): (prior or "none") if value == TRAIN and name == _CALIBRATION else value
        for name, value in settings.items()
        if name.startswith(_ADVISOR)
    }
    changes = {
        name.removeprefix(_GATE): value
        for name, value in settings.items()
        if name.startswith(_GATE) and not name.startswith(_ADVISOR)
    }
    if advisor and isinstance(gate, Gate):
        changes["advisor"] = dataclasses.replace(gate.advisor, **advisor)
    return params, dataclasses.replace(gate, **changes) if changes else gate, trained  # type: ignore[type-var]


def describe_params(strategy: type[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy's parameters, defaults included, as JSON values.

    A default that has no JSON form is left out: the hash of the strategy's source stands for it.

    Raises
    ------
    ConfigError
        If a given value has no JSON form.
    """
    found = {}
    for name in strategy.params._getkeys():
        if name == "gate":
            continue
        try:
            found[name] = _plain(params.get(name, getattr(strategy.params, name)))
        except ConfigError as error:
            if name in params:
                raise ConfigError(f"{name!r}: {error}") from None
    return found


def describe_gate(gate: GateProtocol | None, trained: bool) -> Any:
    """Return everything about a gate that its answers depend on, as JSON values.

    A model stands there by the hash of its bytes and a template by its words, so that neither a file that
    was moved nor one that was changed is taken for another.
    """
    found = _plain(gate)
    if trained:
        found["fields"]["advisor"]["calibration"] = TRAIN
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON values from which equal ones, and no others, give equal text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Enum):
        return {"enum": _name(type(value)), "value": value.name}
    if isinstance(value, AdvisorConfig):
        return _plain_advisor(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        return {"type": _name(type(value)), "fields": fields}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _plain(value[key]) for key in sorted(value)}}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if hasattr(value, "__qualname__"):
        return {"code": _name(value)}
    raise ConfigError(
        f"a value of type {type(value).__name__} cannot be written into the ledger: expected numbers, text, "
        f"lists, classes or dataclasses of these"
    )


def _plain_advisor(config: AdvisorConfig) -> dict[str, Any]:
    advisor = Advisor(config)
    return {
        "model": advisor.identity.sha256,
        "chat_template": advisor.identity.chat_template_sha256,
        "template": _plain(advisor.template),
        "state_space": _plain(config.state_space),
        "reader": config.reader,
        "calibration": _plain(config.calibration),
        "numerics": advisor.numerics,
        **({"identify": config.identify} if config.identify else {}),  # without it, as in older ledgers
    }


def _name(code: Any) -> list[str]:
    """Return the name of a class or function, and the hash of the file of one that is not of this package."""
    name = f"{code.__module__}.{code.__qualname__}"
    if code.__module__.partition(".")[0] in ("bt_llm", "backtrader", "builtins"):
        return [name]
    try:
        return [name, source_sha256(code)]
    except StrategyError:
        return [name]


def sha256_of(description: Any) -> str:
    """Return the SHA-256, in hex, of JSON values."""
    return hashlib.sha256(canonical_json(description).encode()).hexdigest()
