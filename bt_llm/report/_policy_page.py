"""What all pages have in common, and the page of policies alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

from bt_llm.advice import Panel, signed
from bt_llm.exceptions import ConfigError
from bt_llm.plain_text import printable
from bt_llm.writing import refuse_others, write_whole

__all__ = ["environment", "ink", "shade", "write_page", "write_policy_html"]

GREEN, BROWN = (11, 110, 79), (148, 94, 22)


def shade(value: float, scale: float = 1.0) -> tuple[int, int, int]:
    """Return the colour of a value from -scale (brown) by 0 (white) to scale (green); grey for NaN.

    Examples
    --------
    >>> shade(0.0), shade(2.0), shade(math.nan)
    ((255, 255, 255), (11, 110, 79), (200, 200, 200))
    """
    if math.isnan(value):
        return 200, 200, 200
    strength, end = min(1.0, abs(value) / scale), GREEN if value > 0 else BROWN
    red, green, blue = (round(255 + (c - 255) * strength) for c in end)
    return red, green, blue


def ink(value: float, scale: float = 1.0) -> str:
    """Return the colour of text that can be read on `shade`: of dark and white, what contrasts more.

    Contrast is that of WCAG 2.2, and at least 4.1.

    Examples
    --------
    >>> ink(0.1), ink(-1.0)
    ('#1b1b1b', '#ffffff')
    """
    behind, dark = _luminance(shade(value, scale)), _luminance((27, 27, 27))
    return "#ffffff" if 1.05 / (behind + 0.05) > (behind + 0.05) / (dark + 0.05) else "#1b1b1b"


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def environment() -> jinja2.Environment:
    """Return the templates; every value is escaped, and a misspelt name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("bt_llm.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["zip"] = lambda *lists: list(zip(*lists, strict=True))
    made.filters["signed"] = signed
    made.filters["colour"] = lambda value, scale=1.0: "rgb({}, {}, {})".format(*shade(value, scale))
    made.filters["ink"] = ink
    return made


def write_page(path: Path, text: str) -> None:
    """Write a page, the same bytes on every system.

    Raises
    ------
    ConfigError
        If the file cannot be written, or another one is there than bt_llm writes.
    """
    try:
        refuse_others(path)
        write_whole(path, printable(text))
    except OSError as error:
        raise ConfigError(
            f"report {str(path)!r} cannot be written ({error.strerror or error}); name another file"
        ) from error


def write_policy_html(
    rows: Sequence[tuple[str, Sequence[Panel]]], path: Path, title: str, summary: str, scale: float = 1.0
) -> None:
    """Write policies as coloured tables, one row of panels each; arguments as in `plots.plot_panels`.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    template = environment().get_template("policy.html")
    write_page(path, template.render(rows=rows, title=title, summary=summary, scale=scale))
