"""Text of strangers where it is shown: what a terminal, a log or a page would obey is replaced by a picture.

An escape sequence in the name of a model retitles a terminal, fills its clipboard or hides a line; marks of
direction show a text as another one.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

__all__ = ["counted", "logger", "name_of_file", "one_line", "printable"]

_UNSEEN = "\ufffd"
_MARKS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x80, 0xA0), *_MARKS, *range(0xD800, 0xE000)), _UNSEEN),
}
"""Control characters of C0 and C1, ends of lines that are none, marks of direction, halves of a character."""


def printable(text: str) -> str:
    r"""Return a text without what is obeyed instead of shown; tabs and new lines stay.

    Examples
    --------
    >>> printable("gpt\x1b]0;owned\x07"), printable("Müller\t1 \u2192 2\n")
    ('gpt␛]0;owned␇', 'Müller\t1 → 2\n')
    """
    return text if text.isprintable() else text.translate(_PICTURES)


def counted(number: float, noun: str) -> str:
    """Return how many there are of a thing, in words that fit one and many.

    Examples
    --------
    >>> counted(1, "trade"), counted(0, "entry"), counted(1204, "day")
    ('1 trade', '0 entries', '1,204 days')
    """
    if number == 1:
        return f"1 {noun}"
    turns = noun[-1:] == "y" and noun[-2:-1] not in "aeiou"
    return f"{number:,.0f} {f'{noun[:-1]}ie' if turns else noun}s"


def one_line(text: object) -> str:
    r"""Return what a library says in several lines in one.

    Examples
    --------
    >>> one_line("*** in main ***\nRowid 41 out of order\n")
    '*** in main *** Rowid 41 out of order'
    """
    return " ".join(str(text).split())


def name_of_file(path: str | os.PathLike[str]) -> str:
    r"""Return a file's name without its suffix as text; bytes of it that are no UTF-8 are pictures.

    Examples
    --------
    >>> name_of_file("data/eurusd.csv"), name_of_file("data/caf\udce9.csv")
    ('eurusd', 'caf\ufffd')
    """
    return os.fsencode(Path(os.fsdecode(path)).stem).decode("utf-8", "replace")


class _Printable(logging.Filter):
    """Makes what is logged printable, wherever it goes."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True


def logger(name: str) -> logging.Logger:
    """Return a logger of the package, whose records are printable."""
    found = logging.getLogger(name)
    if not any(isinstance(one, _Printable) for one in found.filters):
        found.addFilter(_Printable())
    return found
