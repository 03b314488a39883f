"""Jinja for templates of strangers: no way out, and a bound on steps and on characters, counted, not timed.

Jinja's own sandbox keeps a template from Python's insides; it may still loop for days or ask for a terabyte.
Here every iteration, call, filter, test and comparison is charged for before it is made, by the size of what
goes into it, and what could make more out of that is computed first. So the same template always comes
to the same end, on any machine.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Undefined, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["MAX_CHARACTERS", "MAX_SOURCE", "MAX_STEPS", "BoundedEnvironment"]

MAX_STEPS = 250_000
"""Steps of one rendering; a text of a chat takes some hundreds."""

MAX_CHARACTERS = 2**20
"""Characters that one rendering writes, and of any text in it on the way."""

MAX_SOURCE = 2**18
"""Characters of a template's source."""

_MAX_BITS = 8192
_MAX_PRECISION = 1000
_LEFT_OUT = ("pprint", "random", "urlize")  # without a bound, or without a rule
_WIDTHS = {"center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice"}
_REPEATING = {"expandtabs", "indent", "translate", "wordwrap"}
_FORMATS = {"format", "format_map"}
_LONG_NUMBER = re.compile(r"\d{5}")

_left: ContextVar[list[int] | None] = ContextVar("what is left: steps, characters", default=None)


class _TooMuchError(jinja2.TemplateError):
    """A bound is reached."""


def _spend(steps: int, characters: int = 0) -> None:
    left = _left.get()
    if left is None:  # nothing is rendered
        return
    left[0] -= steps
    left[1] -= characters
    if left[0] < 0:
        raise _TooMuchError(f"it takes over {MAX_STEPS:,} steps")
    if left[1] < 0:
        raise _long()


def _long() -> _TooMuchError:
    return _TooMuchError(f"it makes a text of over {MAX_CHARACTERS:,} characters")


def _weight(*values: Any) -> int:
    """Return the characters in values, through all that they hold; charges for the look."""
    size = looked = 0
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        looked += 1
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, int):
            size += value.bit_length() // 3
        elif isinstance(value, dict):
            size += 2 * len(value)
            waiting += [*value.keys(), *value.values()] if size <= MAX_CHARACTERS else []
        elif isinstance(value, list | tuple | set | frozenset):
            size += len(value)
            waiting += value if size <= MAX_CHARACTERS else ()
        if size > MAX_CHARACTERS:
            raise _long()
        if not looked % 4096:
            _spend(4096)
    _spend(looked % 4096 + size // 64)
    return size


def _fits(size: int) -> None:
    if size > MAX_CHARACTERS:
        raise _long()


def _check_growth(name: str, subject: Any, arguments: list[Any]) -> None:
    """Refuse what would make a long text, or number, out of short ones."""
    numbers = [abs(value) for value in arguments if isinstance(value, int)]
    texts = [value for value in arguments if isinstance(value, str)]
    if name in _WIDTHS:
        _fits(max(numbers, default=0))
    elif name in _REPEATING:
        _fits((1 + _weight(subject)) * max([1, *numbers, _weight(*arguments)]))
    elif name == "round" and max(numbers, default=0) > _MAX_PRECISION:
        raise _TooMuchError(f"it rounds to over {_MAX_PRECISION} places")
    elif name == "replace" and isinstance(subject, str) and len(texts) >= 2:
        _fits(len(subject) + subject.count(texts[0]) * len(texts[1]))
    elif name == "join":
        sides = [subject, *arguments]
        _fits(
            _weight(*sides)
            + max(map(_length, sides)) * max((len(t) for t in sides if isinstance(t, str)), default=0)
        )
    elif name in _FORMATS and isinstance(subject, str):
        _check_format(subject, arguments)


def _check_format(form: str, arguments: Any) -> None:
    """Refuse a format with a great width, be it from an argument, or with many places for a long text."""
    if _LONG_NUMBER.search(form) or (("*" in form or form.count("{") > 1) and _has_great_number(arguments)):
        raise _long()
    places = 1 + form.count("{") + form.count("%")
    _fits(len(form) + places * _weight(arguments))


def _has_great_number(values: Any) -> bool:
    if isinstance(values, Mapping):
        values = [*values.values()]
    many = isinstance(values, list | tuple)
    return any(map(_has_great_number, values)) if many else isinstance(values, int) and abs(values) > 9999


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) and not isinstance(value, Undefined) else 0


class _Counted:
    """Something of a known length, each step through which is charged for."""

    def __init__(self, items: Any, text: int) -> None:
        self._items, self._text = items, text

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return _charged(self._items, self._text)


def _charged(items: Iterable[Any], text: int) -> Iterator[Any]:
    for item in items:
        _spend(1, text)
        yield item


def _loop(items: Any, text: int) -> Any:
    known = isinstance(items, Sized) and not isinstance(items, Undefined)
    return _Counted(items, text) if known else _charged(items, text)


def _looked_at(value: Any) -> Any:
    _weight(value)
    return value


def _text(size: int) -> str:
    _spend(1, size)
    return ""


def _joined(*parts: Any) -> str:
    _fits(_weight(*parts))
    return str_join(parts)


@jinja2.pass_context  # so that Jinja computes no constant while it compiles
def _written(_: Any, value: Any) -> Any:
    """Charge for a value that is written; it comes out as it is."""
    _spend(1, _weight(value))
    return value


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter, or a test, that is charged for."""
    skipped = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(function)
    def work(*given: Any, **named: Any) -> Any:
        subject, *others = [*given[skipped:], None]
        arguments = [*others[:-1], *named.values()]
        _spend(1)
        _weight(subject, *arguments)
        _check_growth(name, subject, arguments)
        return _looked_at(function(*given, **named))

    work.is_charged = True  # type: ignore[attr-defined]
    return work


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose templates end, within `MAX_STEPS` and `MAX_CHARACTERS`.

    Whatever goes wrong in a template is a `jinja2.TemplateError`. The arguments are Jinja's.

    Examples
    --------
    >>> sandbox = BoundedEnvironment()
    >>> sandbox.rendered(sandbox.compiled("{{ side }}!"), {"side": "Buy"})
    'Buy!'
    >>> sandbox.rendered(sandbox.compiled("{{ 'x' * 10 ** 11 }}"), {})
    Traceback (most recent call last):
    bt_llm.models._sandbox._TooMuchError: it makes a text of over 1,048,576 characters
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, optimized=False, finalize=_written)
        for name in _LEFT_OUT:
            del self.filters[name]
        for name in ("lipsum", "cycler"):
            del self.globals[name]
        self.looped, self.looked_at, self.text, self.joined = _loop, _looked_at, _text, _joined
        self._hooks = {_loop, _looked_at, _text, _joined}
        self.bound()

    def bound(self) -> None:
        """Have every filter and test charged for, those that were added since included."""
        tables: tuple[dict[str, Any], ...] = (self.filters, self.tests)
        for table in tables:
            for name, function in table.items():
                if not hasattr(function, "is_charged"):
                    table[name] = _bounded(name, function)

    def compiled(self, source: str) -> jinja2.Template:
        """Return a template, ready to be rendered.

        Raises
        ------
        jinja2.TemplateError
            If it is none.
        """
        if len(source) > MAX_SOURCE:
            raise jinja2.TemplateError(f"{len(source):,} characters: expected at most {MAX_SOURCE:,}")
        with _own_errors():
            made: jinja2.Template = self.from_string(source)
        return made

    def rendered(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        """Return the text that a template makes of values.

        Raises
        ------
        jinja2.TemplateError
            If it fails, or would go over a bound.
        """
        token = _left.set([MAX_STEPS, MAX_CHARACTERS])
        try:
            with _own_errors():
                return template.render(**values)
        finally:
            _left.reset(token)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        charged: nodes.Template = _Charging().visit(super()._parse(source, name, filename))
        return charged

    def call(self, context: Any, function: Any, /, *given: Any, **named: Any) -> Any:
        """Call what a template calls, and charge for it."""
        if function in self._hooks if callable(function) and function.__hash__ else False:
            return function(*given)
        arguments = [*given, *named.values()]
        _spend(1)
        _weight(*arguments)
        subject = getattr(getattr(function, "__wrapped__", function), "__self__", None)  # format is wrapped
        if subject is not None:
            _weight(subject)
        _check_growth(getattr(function, "__name__", ""), subject, arguments)
        return _looked_at(super().call(context, function, *given, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what could become long."""
        _spend(1)
        size = _weight(left, right)
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and not whole:
            number = next((side for side in (left, right) if isinstance(side, int)), 0)
            _fits(size * max(number, 1))
        elif whole and operator == "**":
            self._check_bits(left.bit_length() * max(right, 0))
        elif whole:
            self._check_bits(left.bit_length() + right.bit_length())
        elif operator == "%" and isinstance(left, str | bytes):
            _check_format(str(left), right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def _check_bits(bits: int) -> None:
        if bits > _MAX_BITS:
            raise _TooMuchError(f"it makes a number of over {_MAX_BITS:,} bits")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up what a template subscripts."""
        _weight(argument)
        return super().getitem(obj, argument)


class _Charging(jinja2.visitor.NodeTransformer):
    """Puts the charges into a template where Jinja offers no other place for them."""

    @staticmethod
    def _call(hook: str, *arguments: Any) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(hook), list(arguments), [], None, None)

    @staticmethod
    def _static(node: nodes.Node) -> nodes.Const:
        return nodes.Const(sum(len(data.data) for data in node.find_all(nodes.TemplateData)))

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's form of a name
        text = self._static(node)
        self.generic_visit(node)
        node.iter = self._call("looped", node.iter, text)
        return node

    def _visit_body(self, node: Any) -> Any:
        text = self._static(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([self._call("text", text)]))
        return node

    visit_Macro = visit_CallBlock = visit_Block = _visit_body  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._call("joined", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = self._call("looked_at", node.expr)
        for operand in node.ops:
            operand.expr = self._call("looked_at", operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = self._call("looked_at", node.key)
        return node


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Take what goes wrong in here for an error of the template: it is a program of somebody else's."""
    try:
        yield
    except jinja2.TemplateError:
        raise
    except RecursionError:
        raise jinja2.TemplateRuntimeError("it is nested too deeply") from None
    except Exception as error:
        said = f": {error}" if str(error) else ""
        raise jinja2.TemplateRuntimeError(f"{type(error).__name__}{said}") from error
