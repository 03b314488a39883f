"""Walk-forward folds drawn as text."""

from __future__ import annotations

from collections.abc import Sequence

from bt_llm.exceptions import ConfigError
from bt_llm.research._splits import Fold

__all__ = ["fold_diagram"]

_MIN_WIDTH = 60


def fold_diagram(folds: Sequence[Fold], width: int = 80) -> str:
    """Draw folds as lines of text, one a fold, with the bars from left to right.

    Parameters
    ----------
    folds : sequence of Fold
        As from `WalkForwardSplit.split`.
    width : int
        Characters in a line, at least 60. A test too short for a character still gets one, and may hide a
        gap that short beside it.

    Returns
    -------
    str
        Lines of ASCII without a final newline: a legend, then each fold and the times of its test.

    Raises
    ------
    ConfigError
        If there are no folds, or the width is too small.

    Examples
    --------
    >>> import pandas as pd
    >>> from bt_llm.research import WalkForwardSplit
    >>> split = WalkForwardSplit(train_size="3MS", test_size="1MS", purged_size="7D")
    >>> print(fold_diagram(split.split(pd.date_range("2024-01-01", "2024-08-31")), width=64))
    = train  # test  . purged  x embargoed
     1 |===========.####                  | 2024-04-01 to 2024-04-30
     2 |    ===========.#####             | 2024-05-01 to 2024-05-31
     3 |        ============.####         | 2024-06-01 to 2024-06-30
     4 |            ============.####     | 2024-07-01 to 2024-07-31
     5 |                ============.#####| 2024-08-01 to 2024-08-31
    """
    if not folds:
        raise ConfigError("fold_diagram: no folds to draw, expected at least one")
    if width < _MIN_WIDTH:
        raise ConfigError(f"width={width!r}: expected at least {_MIN_WIDTH} characters")
    digits = max(len(str(len(folds))), 2)
    whole_days = all(time == time.normalize() for fold in folds for time in (fold.test_start, fold.test_end))
    form = "%Y-%m-%d" if whole_days else "%Y-%m-%d %H:%M"
    spans = [f"{fold.test_start.strftime(form)} to {fold.test_end.strftime(form)}" for fold in folds]
    columns = width - digits - len(" || ") - len(spans[0])
    n_bars = max(fold.test.stop for fold in folds)
    lines = ["= train  # test  . purged  x embargoed"]
    for fold, span in zip(folds, spans, strict=True):
        lines.append(f"{fold.number:>{digits}} |{_strip(fold, n_bars, columns)}| {span}")
    return "\n".join(lines)


def _strip(fold: Fold, n_bars: int, columns: int) -> str:
    cells = [" "] * columns
    layers = [("=", fold.train), (".", slice(fold.train.stop, fold.test.start))]
    layers += [("x", part) for part in fold.embargoed]
    for mark, part in [*layers, ("#", fold.test)]:
        if part.stop > part.start:
            start = part.start * columns // n_bars
            stop = max(part.stop * columns // n_bars, start + 1)
            cells[start:stop] = mark * (stop - start)
    return "".join(cells)
