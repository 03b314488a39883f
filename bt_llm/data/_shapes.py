"""The shapes of times as text: where in it year, month, day and clock stand.

A shape is a text with every digit replaced by ``0``. A file has few of them, so a shape is matched once and
the numbers of all its rows are computed together.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

__all__ = ["Shape", "clock_shape", "compile_format", "read_shape", "stated_shape"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<M>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
_DATES = (
    r"(?P<Y>0000)(?P<s>[-/.])(?P<m>00?)(?P=s)(?P<d>00?)",
    r"(?P<Y>0000)(?P<m>00)(?P<d>00)",
    r"(?P<Y>0000)年(?P<m>00?)月(?P<d>00?)日",
    r"(?P<a>00?)(?P<s>[-/.])(?P<b>00?)(?P=s)(?P<Y>0000)",
    r"(?P<a>00?)(?P<s>[-/.])(?P<b>00?)(?P=s)(?P<c>00)",
    rf"{_WEEKDAY}(?P<d>00?)(?P<s>[-/. ]){_MONTH}(?P=s)(?:(?P<Y>0000)|(?P<y>00))",
    rf"(?P<Y>0000)(?P<s>[-/. ]){_MONTH}(?P=s)(?P<d>00?)",
    rf"{_WEEKDAY}{_MONTH}[-/. ](?P<d>00?)(?:, ?|[-/. ])(?P<Y>0000)",
)
_CLOCKS = (
    r"(?P<H>00?):(?P<i>00)(?::(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?(?: ?(?P<p>[ap])\.?m\.?)?",
    r"(?P<H>00)(?P<i>00)(?:(?P<S>00)(?:\.(?P<f>0{1,9}))?)?",
    r"(?P<H>00?)[- ]?(?P<p>[ap])\.?m\.?",
    r"(?P<H>0)(?P<i>00)(?P<S>00)?",  # the leading zero of a number is lost
)
_ZONE = (
    r"(?: ?(?:(?P<utc>z|utc|gmt)?(?P<sign>[+-])(?P<oh>00)(?::?(?P<om>00))?|(?P<z>z|utc|gmt))"
    r"| (?P<name>[a-z][a-z_]+(?:/[a-z_+\-0]+)*))?"
)
_RUN = (  # one run of digits
    r"(?P<Y>0000)(?P<m>00)(?P<d>00)(?P<H>00)(?P<i>00)(?:(?P<S>00)(?P<f>000)?)?",
    r"(?P<E>0{10}|0{13}|0{16}|0{19})(?:\.(?P<f>0{1,9}))?",
)
_PATTERNS = tuple(
    re.compile(text, re.ASCII | re.IGNORECASE)
    for text in (
        *_DATES,
        *_RUN,
        *(f"{date}(?:[t,] ?| +){clock}{_ZONE}" for date, clock in product(_DATES, _CLOCKS[:3])),
        *(f"{date} {_CLOCKS[3]}" for date in _DATES),
    )
)
_CLOCK_ALONE = tuple(re.compile(clock, re.ASCII | re.IGNORECASE) for clock in _CLOCKS)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where the parts of a time stand.

    Parameters
    ----------
    parts : dict
        Start and stop of each run of digits, by `strptime`-like letter: ``Y m d H i S f``; ``a b c`` where
        the order of day, month and year is open; ``y`` a year of two digits; ``E`` seconds since 1970 or a
        thousandth, millionth or billionth of it, by its length; ``j`` the day of the year.
    month : int
        Month written as a word; 0 if it is not.
    half : str
        ``a`` or ``p`` of am and pm; empty on a clock of 24 hours.
    zone : str
        A zone's name, ``UTC`` included; ``+`` or ``-`` if an offset stands in ``oh`` and ``om``.
    literals : tuple
        Start and text of digits that the format fixes.
    """

    parts: dict[str, tuple[int, int]]
    month: int = 0
    half: str = ""
    zone: str = ""
    literals: tuple[tuple[int, str], ...] = ()

    @property
    def family(self) -> str:
        """What the shapes of one source have to have in common: how its dates are written."""
        if "E" in self.parts:
            return "seconds since 1970"
        if "a" in self.parts:
            return "two-digit years" if "c" in self.parts else "year last"
        return "month by name" if self.month else "year first"


@functools.lru_cache(maxsize=4096)
def read_shape(shape: str) -> Shape | None:
    """Return the parts of a shape; None if it is no time.

    Examples
    --------
    >>> read_shape("0000-00-00 00:00").parts["H"]
    (11, 13)
    >>> read_shape("00/00/0000").family
    'year last'
    """
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(shape):
            return _made(found, shape)
    return None


def clock_shape(shape: str) -> bool:
    """Return whether a shape is a time of day."""
    return any(pattern.fullmatch(shape) for pattern in _CLOCK_ALONE)


def _made(found: re.Match[str], shape: str, literals: tuple[tuple[int, str], ...] = ()) -> Shape:
    spans = {name: found.span(name) for name, text in found.groupdict().items() if text}
    words = {
        name: shape[slice(*spans.pop(name))]
        for name in ("M", "p", "sign", "z", "name", "utc")
        if name in spans
    }
    spans.pop("s", None)
    zone = words.get("sign") or ("UTC" if "z" in words else words.get("name", ""))
    return Shape(
        parts=spans,
        month=_MONTHS.index(words["M"][:3].lower()) + 1 if "M" in words else 0,
        half=words.get("p", "").lower(),
        zone=zone,
        literals=literals,
    )


_DIRECTIVES = {
    "Y": "(?P<Y>0000)",
    "y": "(?P<y>00)",
    "m": "(?P<m>00?)",
    "d": "(?P<d>00?)",
    "e": "(?P<d>00?)",
    "j": "(?P<j>0{1,3})",
    "H": "(?P<H>00?)",
    "I": "(?P<H>00?)",
    "M": "(?P<i>00?)",
    "S": "(?P<S>00?)",
    "f": "(?P<f>0{1,9})",
    "p": r"(?P<p>[ap])\.?m\.?",
    "b": _MONTH,
    "B": _MONTH,
    "h": _MONTH,
    "a": "[a-z]+",
    "A": "[a-z]+",
    "z": r"(?:(?P<z>z|utc)|(?P<sign>[+-])(?P<oh>00):?(?P<om>00))",
    "Z": r"(?P<name>[a-z][a-z_]*(?:/[a-z_+\-0]+)*)",
    "s": "(?P<E>0{10})",
    "%": "%",
}
_COMPOUND = {"%T": "%H:%M:%S", "%R": "%H:%M", "%F": "%Y-%m-%d", "%D": "%m/%d/%y"}


@functools.lru_cache(maxsize=64)
def compile_format(time_format: str) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]] | str:
    """Return the pattern of a `strptime` format over shapes, and its fixed digits; a text if it has an error.

    The month's names are English and zones are looked up by name, so that neither depends on the machine.
    """
    for short, long in _COMPOUND.items():
        time_format = time_format.replace(short, long)
    pattern = ""
    literals: list[tuple[str, str]] = []
    for directive, text in _pieces(time_format):
        if directive and text not in _DIRECTIVES:
            return f"%{text} is not supported"
        if directive:
            pattern += _DIRECTIVES[text]
        elif text.isspace():
            pattern += r"\s+"
        elif text.isdigit():
            literals.append((f"x{len(literals)}", text))
            pattern += f"(?P<{literals[-1][0]}>0)"
        else:
            pattern += re.escape(text)
    try:
        return re.compile(pattern, re.ASCII | re.IGNORECASE), tuple(literals)
    except re.error:
        return "a directive occurs twice"


def _pieces(time_format: str) -> Iterator[tuple[bool, str]]:
    """Return directives and single characters, in order."""
    for found in re.finditer(r"%(.?)|(\s+|.)", time_format, re.DOTALL):
        yield (True, found[1]) if found[2] is None else (False, found[2])


def stated_shape(time_format: str, shape: str) -> Shape | None:
    """Return the parts of a shape by a format that compiles; None if it does not fit."""
    compiled = compile_format(time_format)
    assert not isinstance(compiled, str)
    found = compiled[0].fullmatch(shape)
    if found is None:
        return None
    fixed = tuple((found.start(name), digit) for name, digit in compiled[1])
    made = _made(found, shape, fixed)
    return Shape(
        parts={name: span for name, span in made.parts.items() if not name.startswith("x")},
        month=made.month,
        half=made.half,
        zone=made.zone,
        literals=fixed,
    )
