"""Reports as HTML: one file that needs nothing else, every text in it escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

from bt_llm.exceptions import ConfigError
from bt_llm.policy import Panel, signed

__all__ = ["shade", "write_policy_html"]

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


def write_policy_html(
    rows: Sequence[tuple[str, Sequence[Panel]]], path: Path, title: str, summary: str, scale: float = 1.0
) -> None:
    """Write policies as coloured tables, one row of panels each; arguments as in `plots.plot_panels`.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bt_llm", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["zip"] = lambda a, b: list(zip(a, b, strict=True))
    environment.filters["signed"] = signed
    environment.filters["colour"] = lambda value: "rgb({}, {}, {})".format(*shade(value, scale))
    text = environment.get_template("policy.html").render(rows=rows, title=title, summary=summary)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"report {str(path)!r} cannot be written ({error})") from error
