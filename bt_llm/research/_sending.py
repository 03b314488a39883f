"""Classes, gates and set-ups on their way to other processes: by name, by the text of their file, or whole.

Backtrader's metaclasses take ``params`` and ``lines`` out of a class and put others in their place, so that a
class rebuilt from its members has lost them, or has its base's. Here they are declared anew, as the class's
own body did, and every class of Backtrader's kind is compared where it arrives.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import pickle
import sys
import types
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import cloudpickle  # type: ignore[import-untyped]

from bt_llm.exceptions import StrategyError
from bt_llm.gates import gated, ungated
from bt_llm.sources import SourceFiles, files_of, is_ours, source_sha256

__all__ = ["dumps", "loads", "made_sha256"]

_DERIVED = ("params", "lines", "plotinfo", "plotlines", "linealias")
"""What Backtrader's metaclasses make a class of, from a declaration of that name."""

_READ_EARLY = ("alias", "aliased", "_notregister")
"""What they read while they make a class, besides declarations."""

_keys: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_by_key: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_received: weakref.WeakSet[type] = weakref.WeakSet()


def dumps(value: object) -> bytes:
    """Return a value as bytes that `loads` makes it of, in any process.

    A class or function of a module travels by its name; one of a strategy file as the file's text; one that
    no import finds, such as a script's, a notebook's, or one made in a function, whole.

    Raises
    ------
    StrategyError
        If something in it cannot travel, such as a lock or an open file.
    """
    return _pickled(value, _key_of)


def made_sha256(made: Any) -> str:
    """Return the SHA-256 of all that a class or function does which no import finds.

    Hashed are its members and what they use of what lies beside it, by value: not their places, such as the
    cell of a notebook, and not the process.
    """
    return hashlib.sha256(_pickled(made, lambda _: "", _Hasher)).hexdigest()


def _pickled(value: object, key_of: Callable[[type], str], kind: type[_Pickler] | None = None) -> bytes:
    buffer = io.BytesIO()
    try:
        (kind or _Pickler)(buffer, key_of).dump(value)
    except (pickle.PicklingError, TypeError, RecursionError) as error:
        raise StrategyError(
            f"what the strategy uses cannot be sent to another process ({error}): make it in __init__, "
            f"or put the strategy into a file and name it by file.py:ClassName"
        ) from error
    return buffer.getvalue()


def loads(sent: bytes) -> Any:
    """Return what `dumps` was given.

    Raises
    ------
    StrategyError
        If this process lacks a module, or has another version of a class.
    """
    try:
        return pickle.loads(sent)
    except (ImportError, AttributeError) as error:
        raise StrategyError(
            f"a worker cannot load what it was sent ({error}): install that module there too, or name the "
            f"strategy by file.py:ClassName"
        ) from error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Cloudpickle's, but for classes of Backtrader's kind and for what is in strategy files."""

    def __init__(self, file: io.BytesIO, key_of: Callable[[type], str]) -> None:
        super().__init__(file)
        self.key_of = key_of
        self.owners: dict[type, tuple[type, str]] = {}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, bt.metabase.MetaBase):
            return self._backtraders(value)
        if isinstance(value, type) and value in self.owners:  # its name is taken by another class elsewhere
            return getattr, self.owners[value]
        how = super().reducer_override(value)
        if how is NotImplemented and isinstance(value, type | types.FunctionType):
            files = files_of(value)
            if files is not None:
                return _found, (files, value.__module__, value.__qualname__)
        return how

    def _backtraders(self, made: Any) -> Any:
        original = ungated(made)
        if original is not made:
            return gated, (original,)
        self.owners |= {vars(made)[name]: (made, name) for name in _DERIVED if _is_derived(made, name)}
        how = NotImplemented if _is_rerun(made) else super().reducer_override(made)
        if how is NotImplemented:
            place = (files_of(made), made.__module__, made.__qualname__)
            return _checked, (*place, _source(made), _Declared.of(made))
        members, slots = how[2]
        rest = {name: member for name, member in members.items() if not _is_derived(made, name)}
        making = (self.key_of(made), type(made), made.__name__, made.__bases__, _body(made))
        return _made, making, (how[5], (rest, slots), _Declared.of(made)), None, None, _completed


class _Hasher(_Pickler):
    """Writes what code does, the same in every process; what it writes is not for loading."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, types.CodeType):
            consts = [sorted(map(repr, c)) if isinstance(c, frozenset) else c for c in value.co_consts]
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
            counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
            return tuple, ((value.co_name, value.co_code, consts, names, counts),)
        how = super().reducer_override(value)
        if isinstance(value, type) and isinstance(how, tuple) and how[0] in _SKELETONS:
            make, (*given, _, last), *rest = how  # what stands before the last is drawn by each process
            return make, (*given, "", last), *rest
        return how


_SKELETONS = (cloudpickle.cloudpickle._make_skeleton_class, cloudpickle.cloudpickle._make_skeleton_enum)


def _is_rerun(made: type) -> bool:
    """Return whether a class is of a strategy file that has been run again since: its name has a twin."""
    if files_of(made) is None or "<locals>" in made.__qualname__:
        return False
    try:
        twin = _found(None, made.__module__, made.__qualname__)
    except (ImportError, AttributeError):
        return False
    return twin is not made and isinstance(twin, bt.metabase.MetaBase)


def _key_of(made: type) -> str:
    key = _keys.setdefault(made, uuid.uuid4().hex)
    _by_key[key] = made
    return key


def _is_derived(made: type, name: str) -> bool:
    kinds = (bt.metabase.AutoInfoClass, bt.lineseries.Lines)
    member = vars(made).get(name)
    return name in _DERIVED and isinstance(member, type) and issubclass(member, kinds)


def _body(made: Any) -> dict[str, Any]:
    """Return what the class's own body declared, for its metaclass to read again."""
    body = {"__module__": made.__module__, "__qualname__": made.__qualname__}
    body |= {name: vars(made)[name] for name in _READ_EARLY if name in vars(made)}
    for name in _DERIVED:
        if not _is_derived(made, name):
            continue
        if name == "lines":
            body |= _own_lines(made)
        else:
            base, pairs = getattr(made, name)._getpairsbase(), getattr(made, name)._getpairs()
            body[name] = {k: v for k, v in pairs.items() if k not in base or base[k] is not v}
    return body


def _own_lines(made: Any) -> dict[str, Any]:
    lines = made.lines
    inherited = next((base.lines for base in made.__mro__[1:] if hasattr(base, "lines")), lines.__base__)
    return {
        "lines": lines._getlines()[len(lines._getlinesbase()) :],
        "extralines": lines._getlinesextra() - lines._getlinesextrabase(),
        "linesoverride": lines.__base__ is not inherited,
    }


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a class of Backtrader's kind must have wherever it runs, its bases' share included."""

    params: dict[str, Any]
    lines: tuple[Any, ...]

    @classmethod
    def of(cls, made: Any) -> _Declared:
        params = made.params._getpairs() if hasattr(made, "params") else {}
        lines = getattr(made, "lines", None)
        return cls(dict(params), () if lines is None else (*lines._getlines(), lines._getlinesextra()))

    def check(self, made: type) -> None:
        """Raise a StrategyError if the class that arrived has others."""
        found = _Declared.of(made)
        name = f"class {made.__module__}.{made.__qualname__}"
        if found.lines != self.lines or list(found.params) != list(self.params):
            raise StrategyError(
                f"{name} has other parameters or lines on a worker ({[*found.params]}, {found.lines}; "
                f"expected {[*self.params]}, {self.lines}): install the same version there"
            )
        for param, value in self.params.items():
            if not _same(found.params[param], value):
                raise StrategyError(
                    f"{name} has {param}={found.params[param]!r:.40} on a worker, expected {value!r:.40}: "
                    f"install the same version there"
                )


def _same(found: Any, expected: Any) -> bool:
    """Return whether two values are equal, or, where they do not say so, are made of the same."""
    if found is expected:
        return True
    try:
        if bool(found == expected):
            return True
    except ValueError:  # arrays and frames have no one answer
        pass
    return type(found) is type(expected) and _pickled(found, _key_of) == _pickled(expected, _key_of)


def _source(made: Any) -> str | None:
    """Return the SHA-256 of a class's source, if it is the user's and has one."""
    if is_ours(made) or files_of(made) is not None:
        return None
    try:
        return source_sha256(made)
    except StrategyError:
        return None


def _found(files: SourceFiles | None, module: str, name: str) -> Any:
    """Return what a module has by a name; a file's texts were registered when they arrived."""
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def _checked(
    files: SourceFiles | None, module: str, name: str, source: str | None, declared: _Declared
) -> Any:
    made = _found(files, module, name)
    if source is not None and (found := source_sha256(made)) != source:
        raise StrategyError(
            f"strategy {module}.{name} is another version on a worker (source {found[:12]}, expected "
            f"{source[:12]}): install the same there, or name it by file.py:ClassName"
        )
    declared.check(made)
    return made


def _made(key: str, kind: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """Return the class of a key: the original where it comes from, else one, however often it arrives."""
    known = _by_key.get(key)
    if known is not None:
        return known
    if body["__module__"] not in sys.modules:  # where Backtrader looks for it when it is called
        importlib.import_module(body["__module__"])
    made = types.new_class(name, bases, {"metaclass": kind}, lambda space: space.update(body))
    _keys[made], _by_key[key] = key, made
    _received.add(made)
    return made


def _completed(made: type, state: tuple[Callable[..., Any], Any, _Declared]) -> None:
    """Give a class its members, anew each time: a notebook's globals may have changed since."""
    complete, members, declared = state
    if made in _received:
        complete(made, members)
    declared.check(made)
