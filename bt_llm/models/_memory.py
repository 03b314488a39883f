"""A scripted model that remembers: it reads the answer from a table of dates."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from bt_llm.exceptions import ConfigError
from bt_llm.models._config import ModelConfig
from bt_llm.models._registry import ModelKind
from bt_llm.models._scripted import AnyLabels, Leaning, ScriptedBackend, trend_follower

__all__ = ["MemoryModel", "RememberingScript", "what_followed"]

_DATE = re.compile(r"\b(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d))?\b")
_sure = Leaning(float, lambda lean: (0.8, 0.1, 0.05) if lean > 0 else (0.05, 0.1, 0.8))


class RememberingScript(AnyLabels):
    r"""Answers by what came after the date that a prompt names; where it knows no date, by the trend.

    The positive control of every probe for leakage: it says nothing of a prompt that names no date which an
    honest follower of trends would not say.

    Parameters
    ----------
    followed : mapping of str to float
        What came after a time, such as ``"2020-03-09 00:00"``: above 0 for a rise, below for a fall.
    until : date, optional
        The last day that it knows of.
    share : float
        Share of the times that it remembers, 0 to 1.
    seed : int
        Which ones.

    Examples
    --------
    >>> script = RememberingScript({"2020-03-09 00:00": -0.1})
    >>> script("S&P 500, 2020-03-09\nTrend: strong up\nVerdict:")
    (0.05, 0.1, 0.8)
    >>> script("S&P 500, 2020-03-10\nTrend: strong up\nVerdict:") == script("Trend: strong up\nVerdict:")
    True
    """

    def __init__(
        self,
        followed: Mapping[str, float],
        *,
        until: datetime.date | None = None,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._known = {
            time: move
            for time, move in followed.items()
            if (until is None or time[:10] <= until.isoformat()) and _drawn(seed, time) < share
        }

    def __call__(self, prompt: str, n_labels: int = 3) -> tuple[float, ...]:
        """Return the probabilities for a prompt."""
        dates = _DATE.findall(prompt)
        move = self._known.get(f"{dates[-1][0]} {dates[-1][1] or '00:00'}", 0.0) if dates else 0.0
        if not move:
            return trend_follower(prompt, n_labels)
        if n_labels == 3:
            return _sure._three(move)
        return Leaning(lambda _: 1.0 if move > 0.0 else -1.0, _sure._three)(prompt, n_labels)


def _drawn(seed: int, time: str) -> float:
    """Return a number from 0 to 1 that is a function of seed and time."""
    found = hashlib.sha256(f"{seed}|{time}".encode()).digest()
    return int.from_bytes(found[:8], "big") / 2**64


def what_followed(bars: Any, horizon: int = 5) -> dict[str, float]:
    """Return the move of the close over the next bars, by the time of each bar.

    Parameters
    ----------
    bars : DataFrame
        As `bt_llm.data.load_bars` returns them.
    horizon : int
        How many bars on.
    """
    close = bars["close"].to_numpy()
    times = bars.index.strftime("%Y-%m-%d %H:%M")
    moves = close[horizon:] - close[: max(0, len(close) - horizon)]
    return dict(zip(times[: len(moves)].tolist(), moves.tolist(), strict=True))


_OPTIONS = {"until", "share", "seed", "horizon"}


class MemoryModel(ModelKind):
    """A script that has read a file of bars: ``memory:FILE``, or ``memory:FILE?until=2015-12-31&share=0.5``.

    Options are ``until``, ``share`` and ``seed`` of `RememberingScript`, and ``horizon``, by default 5 bars.
    It is for seeing what a test for leakage does with a model that leaks.

    Examples
    --------
    >>> from bt_llm.data import shipped
    >>> MemoryModel(f"{shipped('sp500_daily.csv')}?until=2015-12-31").open(ModelConfig()).identity.name[:7]
    'memory:'
    """

    kind: ClassVar[str] = "memory"
    form: ClassVar[str] = "memory:FILE"

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        file, _, options = rest.partition("?")
        if not file:
            raise ConfigError(f"model {self.name!r}: expected {self.form}, a file of bars")
        self._file = Path(file)
        self._options = _options(self.name, options)

    @property
    def addresses(self) -> tuple[str, ...]:
        """None: it answers in this process."""
        return ()

    def open(self, config: ModelConfig) -> ScriptedBackend:
        """Read the bars, and return the script as a backend; its hash is of the bars and the options."""
        from bt_llm.data import bars_sha256, load_bars

        bars = load_bars(self._file)
        options = dict(self._options)
        followed = what_followed(bars, options.pop("horizon"))
        script = RememberingScript(followed, **options)
        return ScriptedBackend(
            script, name=f"memory:{self._file.stem}", content=f"{bars_sha256(bars)} {self._options}"
        )


def _options(name: str, text: str) -> dict[str, Any]:
    given = dict(parse_qsl(text, keep_blank_values=True))
    if unknown := sorted(set(given) - _OPTIONS):
        raise ConfigError(f"model {name!r}: unknown {unknown}; expected {sorted(_OPTIONS)}")
    try:
        until = datetime.date.fromisoformat(given["until"]) if "until" in given else None
        found: dict[str, Any] = {
            "until": until,
            "share": float(given.get("share", 1.0)),
            "seed": int(given.get("seed", 0)),
            "horizon": int(given.get("horizon", 5)),
        }
    except ValueError as error:
        raise ConfigError(
            f"model {name!r}: {error}; expected such as "
            "memory:FILE?until=2015-12-31&share=0.5&seed=1&horizon=5"
        ) from None
    if not 0.0 <= found["share"] <= 1.0 or found["horizon"] < 1:
        raise ConfigError(f"model {name!r}: expected share from 0 to 1, and horizon of at least 1")
    return found
