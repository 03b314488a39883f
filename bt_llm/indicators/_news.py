"""LLMNews: the sentiment of dated headlines as a line."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import backtrader as bt
import numpy as np

from bt_llm import settings
from bt_llm.advice import AnalystConfig, AnalystUsage, NewsAnalyst, NewsSentiment
from bt_llm.data import Headlines
from bt_llm.exceptions import ConfigError
from bt_llm.indicators._bar_times import BarClock

__all__ = ["LLMNews"]


class LLMNews(bt.Indicator):
    """Sentiment of the headlines published so far, each weighted by its impact and fading with age.

    ``news[t] = news[t-1] * 0.5 ** (1 / half_life) + sum of the scores of the headlines new at bar t``,
    where a score is `NewsSentiment.score`, -1 to 1. A headline is new at the first bar at whose close it
    had been published (and `latency` seconds had gone by); what was published before the first bar opened
    is left out. So nothing published after a bar's close changes a value at or before that bar.

    Parameters
    ----------
    headlines : Headlines or path
        What was published when; a path is a CSV as `Headlines.load` reads it.
    analyst : AnalystConfig, optional
        Who judges them; by default ``AnalystConfig()``.
    market : str
        Which market a bullish headline lifts.
    half_life : float
        Bars until half of a headline's weight is gone. Bars, not hours: weekends do not count.
    stamp : {'open', 'close'}, optional
        Which end of its bar a bar's time is; by default what is known of the bars: their format states it,
        bars that Backtrader resamples have the close. Else the open is taken, as most files have it.
    bar : str or timedelta, optional
        How long a bar is, such as ``"1h"``; by default what the feed's timeframe and compression say.
    time_zone : str, optional
        IANA name of the zone of the bars' times; by default the one that is known of the bars, else UTC is
        taken. What was taken so is among the `warnings` of a result. Headlines bear their own zone.
    latency : float
        Seconds from publication until a headline counts. 0 lets a headline of 18:00:00 count at a close at
        18:00:00, and the order that follows fill at the first price after it, faster than anybody reads:
        use 60 where headlines and bars fall on the same full hour.

    Attributes
    ----------
    lines : news, count, unreadable
        The sentiment; how many headlines are new at the bar; how many of these got no readable answer, and
        add nothing. None of them is NaN.
    usage : AnalystUsage
        What judging cost.

    Raises
    ------
    ConfigError
        If a setting is out of its range, or the length of a bar is not known.
    DataError
        If the headlines cannot be read, or bars overlap: they are shorter than said.

    Notes
    -----
    Lines do not depend on the engine mode. With preloaded data all headlines are judged in one batch; each
    distinct one is asked once. To judge in another way, override `judge`.

    Examples
    --------
    >>> class Strategy(bt.Strategy):
    ...     def __init__(self):
    ...         self.news = LLMNews(self.data, headlines="news.csv", half_life=12)
    ...     def next(self):
    ...         if self.news.news[0] > 0.5 and not self.position:
    ...             self.buy()
    """

    lines: Any = ("news", "count", "unreadable")
    params = (
        ("headlines", Headlines(())),
        ("analyst", None),
        ("market", "EUR/USD"),
        ("half_life", 24.0),
        ("stamp", None),
        ("bar", None),
        ("time_zone", None),
        ("latency", 0.0),
    )
    plotinfo: ClassVar[Any] = {"plotname": "LLM news", "plothlines": [0.0]}
    plotlines: ClassVar[Any] = {"count": {"_plotskip": True}, "unreadable": {"_plotskip": True}}

    def __init__(self) -> None:
        super().__init__()
        p = self.p
        self.config = p.analyst if p.analyst is not None else AnalystConfig()
        if not isinstance(self.config, AnalystConfig):
            raise ConfigError(f"analyst={p.analyst!r:.60}: expected an AnalystConfig")
        settings.instance("market", p.market, str, "a text, such as 'EUR/USD'")
        half_life = settings.number("half_life", p.half_life, above=0)
        latency = settings.number("latency", p.latency, 0)
        self.headlines = p.headlines if isinstance(p.headlines, Headlines) else Headlines.load(p.headlines)
        self._clock_utc = BarClock.of(self.data, stamp=p.stamp, bar=p.bar, time_zone=p.time_zone)
        self._latency = timedelta(seconds=latency)
        self._fade = 0.5 ** (1.0 / half_life)
        self.usage = AnalystUsage()
        self._analyst: NewsAnalyst | None = None
        self._judged: dict[str, NewsSentiment] = {}
        self._seen = (0, 0.0, 0.0)  # length, time and value of the bar that next() saw last
        self._before: tuple[float | None, float] = (None, 0.0)  # time and value of the bar before that

    @property
    def asker(self) -> NewsAnalyst | None:
        """Who has been asked; None before."""
        return self._analyst

    @property
    def analyst(self) -> NewsAnalyst:
        """Who is asked; made when first needed."""
        if self._analyst is None:
            self._analyst = NewsAnalyst(self.config, market=self.p.market)
        return self._analyst

    def judge(self, texts: Sequence[str]) -> list[NewsSentiment]:
        """Return the sentiment of each headline; the one hook a subclass overrides.

        Parameters
        ----------
        texts : sequence of str
            Distinct, and never the same text twice in a run.
        """
        return self.analyst.analyze_many(texts, self.usage)

    def next(self) -> None:
        """Fill one bar; called again for a bar that a replay is still building, it fills it anew."""
        length, time, value = self._seen
        if len(self) != length:
            self._before = (time if length else None, value)
        number = self.data.datetime[0]
        row = self._row(number, *self._before)
        for line, filled in zip(self.lines, row, strict=True):
            line[0] = filled
        self._seen = (len(self), number, row[0])

    def oncestart(self, start: int, end: int) -> None:
        """Do nothing: `once` covers the first bar too, so that all headlines are judged in one batch."""

    def once(self, start: int, end: int) -> None:
        """Fill all bars."""
        numbers = list(self.data.datetime.array[:end])
        first = self._minperiod - 1
        if numbers:
            self._judge(self._texts(numbers[-1], self._clock_utc.open(numbers[0])))
        rows, before, value = [], None, 0.0
        for number in numbers:
            rows.append(self._row(number, before, value))
            before, value = number, rows[-1][0]
        for line, column in zip(self.lines, np.array(rows, dtype=float).T, strict=True):
            line.array[first:end] = array("d", column[first:].tobytes())

    def _row(self, number: float, before: float | None, value: float) -> tuple[float, float, float]:
        """Return the lines' values at a bar, given the time and value of the bar before it."""
        clock = self._clock_utc
        if before is None:
            after = clock.open(number)
        else:
            clock.check(before, number)
            after = clock.close(before) - self._latency
        texts = self._texts(number, after)
        self._judge(texts)
        found = [self._judged[text] for text in texts]
        faded = value * self._fade if before is not None else 0.0
        total = faded + math.fsum(sentiment.score for sentiment in found)
        return total, float(len(found)), float(sum(not sentiment.valid for sentiment in found))

    def _texts(self, number: float, after: Any) -> list[str]:
        """Return the headlines later than `after` that count at a bar's close."""
        until = self._clock_utc.close(number) - self._latency
        return [headline.text for headline in self.headlines.between(after, until)]

    def _judge(self, texts: Sequence[str]) -> None:
        if new := [text for text in dict.fromkeys(texts) if text not in self._judged]:
            sentiments = self.judge(new)
            if len(sentiments) != len(new):
                raise ConfigError(
                    f"{type(self).__name__}.judge gave {len(sentiments)} answers for {len(new)} headlines: "
                    "expected one each"
                )
            self._judged.update(zip(new, sentiments, strict=True))
