"""Indicators' lines, kept for the next run over the same bars.

Trials of a study differ in a gate, or in one of several parameters; most of their indicators are those of
the trial before. What Backtrader's own indicators give is a function of their class, parameters and inputs,
so their lines are kept under these and the content of the bars; those of others are worked out in every
run. The lines inside of an indicator that nobody can see are let go when it has been worked out.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

import backtrader as bt
from backtrader import linebuffer

from bt_llm.locks import ForkableLock

__all__ = ["fill_lines", "forget_lines"]

_MOST_BYTES = 48 * 2**20
"""What is kept at most, and of one indicator an eighth of it; the least recently used goes first."""

_KNOWN = ("backtrader.indicators.", "bt_llm.indicators._lines")
_PLAIN = (bool, int, float, str, type(None))


class _Store:
    """Arrays by what they depend on."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, list[array[float]]] = OrderedDict()
        self._bytes = 0
        self._lock = ForkableLock()

    def get(self, key: Hashable) -> list[array[float]] | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, arrays: list[array[float]]) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = arrays
                self._bytes += _size(arrays)
            while self._bytes > _MOST_BYTES:
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0


def _size(arrays: list[array[float]]) -> int:
    return sum(8 * len(one) for one in arrays)


_store = _Store()


def forget_lines() -> None:
    """Let go of all lines that are kept."""
    _store.clear()


def fill_lines(strategy: bt.Strategy, data: Any) -> None:
    """Fill the lines of a strategy's indicators, as ``Strategy._once`` does; its own stay empty."""
    filling = _Filling(data)
    indicators = strategy._lineiterators[strategy.IndType]
    for one in indicators:
        filling.fill(one)
    for one in strategy.datas:
        one.home()
    for one in indicators:
        one.home()


class _Filling:
    """One run's lines."""

    def __init__(self, data: Any) -> None:
        digest = hashlib.blake2b(digest_size=16)
        for name, line in zip(data.getlinealiases(), data.lines.lines, strict=False):
            digest.update(name.encode() + memoryview(line.array))
        digest.update(repr((data._tz, data._timeframe, data._compression)).encode())
        self.bars = digest.digest()
        self.missing = array("d", [math.nan]) * data.buflen()
        self.keys: dict[int, Hashable] = {id(data): "data"}
        self.keys |= {id(line): number for number, line in enumerate(data.lines.lines)}
        self.alive: list[Any] = []  # whose `id` is a key above

    def fill(self, one: Any, hidden: bool = False) -> None:
        """Fill the lines of an indicator and those inside of it, which are let go if nobody can see them."""
        key = self.key(one)
        nodes = [one] if hidden else list(_tree(one))
        lines = [line for node in nodes for line in _lines(node)]
        too_long = 8 * len(self.missing) * len(lines) > _MOST_BYTES // 8
        if key is None or too_long or any(len(line.array) for line in lines):
            self._work_out(one, hidden)
            return
        whole = (self.bars, key, hidden)
        kept = _store.get(whole)
        if kept is None:
            self._work_out(one, hidden)
            _store.put(whole, [array("d", line.array) for line in lines])
            return
        for line, values in zip(lines, kept, strict=True):
            line.array = array("d", values)
            line.home()
        for line in _lines(one):
            line.oncebinding()

    def _work_out(self, one: Any, hidden: bool) -> None:
        kind = type(one)
        plain = kind._once is bt.Indicator._once and kind.forward is bt.Indicator.forward
        if not plain or one._lineiterators[one.ObsType] or one._clock.buflen() != len(self.missing):
            one._once()
            return
        for line in _lines(one):
            if line.mode == line.UnBounded:  # as `forward`, at once
                line.array.extend(self.missing)
            else:
                line.forward(size=len(self.missing))
        children = one._lineiterators[one.IndType]
        unseen = _unseen(one, hidden)
        for child in children:
            self.fill(child, any(child is other for other in unseen))
        for source in one.datas:
            source.home()
        for child in children:
            child.home()
        one.home()
        one.preonce(0, one._minperiod - 1)
        one.oncestart(one._minperiod - 1, one._minperiod)
        one.once(one._minperiod, one.buflen())
        for line in _lines(one):
            line.oncebinding()
        for child in unseen:
            for line in _lines(child):
                line.array = array("d")

    def key(self, source: Any) -> Hashable | None:
        """Return what a source of values depends on besides the bars; None if that is not known."""
        if id(source) not in self.keys:
            self.alive.append(source)
            self.keys[id(source)] = None  # for what depends on itself
            self.keys[id(source)] = self._key(source)
        return self.keys[id(source)]

    def _key(self, source: Any) -> Hashable | None:
        kind = type(source)
        inner: tuple[Hashable, ...]
        if isinstance(source, bt.lineseries.LineSeriesStub):
            return self.key(source.lines[0])
        if isinstance(source, bt.Indicator) and kind.__module__.startswith(_KNOWN):
            params = tuple((name, _value(value)) for name, value in source.p._getitems())
            inputs = tuple(self.key(one) for one in source.datas)
            inner = (*params, *inputs)
            if None in inputs or any(value is None for _, value in params):
                return None
            for number, line in enumerate(_lines(source)):
                self.alive.append(line)
                self.keys[id(line)] = (kind, inner, source._minperiod, number)
        elif kind in (linebuffer._LineDelay, linebuffer._LineForward):
            inner = (self.key(source.a), source.ago)
        elif kind is linebuffer.LinesOperation:
            operands = [self._operand(one) for one in (source.a, source.b)]
            inner = (*operands, source.operation, source.r)
        elif kind is linebuffer.LineOwnOperation:
            inner = (self.key(source.a), source.operation)
        else:
            return None
        return None if None in inner else (kind, inner, source._minperiod)

    def _operand(self, one: Any) -> Hashable | None:
        if isinstance(one, linebuffer.LineBuffer):
            return self.key(one)
        return _value(one)


def _value(value: Any) -> Hashable | None:
    """Return a parameter's value with its type; None if it may be anything."""
    if isinstance(value, type):
        return value if value.__module__.startswith(_KNOWN) else None
    return (type(value), repr(value)) if type(value) in _PLAIN else None


def _lines(one: Any) -> list[Any]:
    lines = one.lines
    return list(getattr(lines, "lines", lines))


def _unseen(one: Any, hidden: bool) -> list[Any]:
    """Return the indicators inside of one that no strategy can get at: they are no attributes of it."""
    children: list[Any] = one._lineiterators[one.IndType]
    if type(one)._icacheuse:  # an indicator inside of one may be another one's, too
        return []
    if hidden or getattr(one, "hides_states", False):
        return children
    if not type(one).__module__.startswith("backtrader.indicators."):
        return []
    named = {id(value) for value in vars(one).values()}
    return [child for child in children if named.isdisjoint(_ids(child))]


def _ids(one: Any) -> Iterator[int]:
    """Yield what tells apart an indicator, all inside of it, and their lines."""
    for node in _tree(one):
        yield id(node)
        yield from map(id, _lines(node))


def _tree(one: Any) -> Iterator[Any]:
    """Yield an indicator and all inside of it."""
    yield one
    for child in getattr(one, "_lineiterators", {}).get(bt.Indicator._ltype, ()):
        yield from _tree(child)
