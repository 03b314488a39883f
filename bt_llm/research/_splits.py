"""Walk-forward folds: train on the past, test on what follows, move on.

A fold is two stretches of bars given by position, so that it can cut bars, verdicts and returns
alike. Nothing of the future is in it: every train bar lies before every test bar of its fold, by
at least the purge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.research._lengths import Length, Span, length_of
from bt_llm.settings import flag, in_short

__all__ = ["Fold", "WalkForwardSplit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One train stretch and the test stretch that follows it.

    Parameters
    ----------
    number : int
        1 for the first fold.
    train, test : slice
        Positions in the index, half-open, as for ``frame.iloc[fold.test]``.
    train_start, train_end, test_start, test_end : pandas.Timestamp
        Times of the first and the last bar of each stretch, both within it.
    embargoed : tuple of slice
        Parts of `train` that follow an earlier test stretch too closely to count in a score.

    Examples
    --------
    >>> split = WalkForwardSplit(train_size=6, test_size=2)
    >>> fold = split.split(pd.date_range("2024-01-01", periods=10))[1]
    >>> fold.number, fold.train, fold.test
    (2, slice(2, 8, None), slice(8, 10, None))
    >>> f"{fold.test_start:%d %B} to {fold.test_end:%d %B}"
    '09 January to 10 January'
    """

    number: int
    train: slice
    test: slice
    train_start: pd.Timestamp
    train_end: pd.Timestamp
    test_start: pd.Timestamp
    test_end: pd.Timestamp
    embargoed: tuple[slice, ...] = ()

    @property
    def scored(self) -> NDArray[np.intp]:
        """Positions of the train bars that count in an in-sample score: all but the embargoed."""
        positions = np.arange(self.train.start, self.train.stop)
        dropped = [
            positions[part.start - self.train.start : part.stop - self.train.start] for part in self.embargoed
        ]
        return np.setdiff1d(positions, np.concatenate(dropped)) if dropped else positions


@dataclass(frozen=True, kw_only=True)
class WalkForwardSplit:
    """How to cut a record into walk-forward folds.

    Test stretches follow each other without a gap and never overlap, so that their returns join into
    one out-of-sample record, each part of it traded with what was chosen on bars before it.

    Parameters
    ----------
    train_size, test_size : int, str, datetime.timedelta or pandas.DateOffset
        Lengths of the stretches: both in bars (an int), or both in time. Time is a string such as
        ``'30min'``, ``'36h'``, ``'90D'``, ``'2W'``, ``'3MS'`` (three months), ``'1QS'`` or ``'1YS'``, a
        timedelta, or a ``pandas.DateOffset(months=3)``. With a test size in ``MS``, ``QS`` or ``YS``
        the test stretches begin on the first day of a month, quarter or year; with any other they
        are counted from the first bar.
    expand_train : bool
        Train on everything since the first bar, instead of on the last `train_size`.
    purged_size : int, or time
        How much to leave out between train and test; see *Timing*. In bars with sizes in bars.
        `train_size` bars remain after a purge with sizes in bars, where the first test moves
        back; with sizes in time the test stays where the calendar puts it, and the purge
        comes off the end of the train.
    embargo : int, or time
        How much of what follows a test stretch is left out of the scores of *later* trains; see
        *Timing*. In bars with sizes in bars.
    reduce_test : bool
        Keep a last test stretch that the data cuts short. By default it is dropped, and its bars
        are in no test. Sizes in time: a stretch is whole when the data ends within one usual
        pause (the 98th percentile of the time between bars, so a weekend where the market has one) of
        its end. A stretch of time without any bars makes no fold.

    Raises
    ------
    ConfigError
        If a size is not positive, is no length, or is in time beside one in bars; or a flag is none.

    Notes
    -----
    *Timing.* A bar's state and verdict are known at its close. With ``purged_size=0`` the last train
    bar is the one before the first test bar: the parameters are chosen with that close and in use
    at the next open, which assumes that the search fits between the two. With ``purged_size=1`` one
    bar lies between: the search has a bar's time to run, and an order from the last train bar fills
    (at the open of the purged bar) before the test begins. Give at least as many bars as a
    label looks ahead, if what is trained learns from labels that do. A position opened in the train
    stretch is not carried into the test by the folds; whether it is carried is the backtest's choice.

    Warm-up bars of indicators come from before the test stretch, purged bars included: they are
    known, they are just not trained on.

    The embargo of López de Prado (*Advances in Financial Machine Learning*, 2018, section 7.4.2)
    drops train bars that follow a test. Within one fold there are none, because all of the train is
    earlier; but the train of a later fold runs through earlier test stretches and what follows
    them. With ``embargo=e`` the e bars after the end of each earlier test stretch are listed in
    `Fold.embargoed` and left out of `Fold.scored`: the strategy trades through them, since a
    train stretch must be in one piece, and the score does not count them. The default of 0 is
    right unless parameters of one fold influence what follows it.

    Sizes and folds in bars are those of ``skfolio.model_selection.WalkForward``, which has no embargo.

    Examples
    --------
    >>> split = WalkForwardSplit(train_size="3MS", test_size="1MS", purged_size=1)
    >>> for fold in split.split(pd.date_range("2024-01-01", "2024-06-30")):
    ...     print(f"{fold.train_start:%d %b} - {fold.train_end:%d %b}, then {fold.test_start:%d %b}")
    01 Jan - 30 Mar, then 01 Apr
    01 Feb - 29 Apr, then 01 May
    01 Mar - 30 May, then 01 Jun
    """

    train_size: Span
    test_size: Span
    expand_train: bool = False
    purged_size: Span = 0
    embargo: Span = 0
    reduce_test: bool = False

    def __post_init__(self) -> None:
        """Check the sizes, once."""
        for name in ("expand_train", "reduce_test"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        in_bars = {name: length_of(getattr(self, name), name).bars is not None for name in _SIZES}
        if in_bars["train_size"] != in_bars["test_size"]:
            raise ConfigError(
                f"train_size={self.train_size!r} and test_size={self.test_size!r}: expected both in bars "
                f"or both in time"
            )
        for name in ("purged_size", "embargo"):
            if in_bars["test_size"] and not in_bars[name]:
                raise ConfigError(
                    f"{name}={in_short(getattr(self, name))}: expected bars, as test_size is in bars"
                )

    def split(self, index: pd.DatetimeIndex) -> list[Fold]:
        """Return the folds of a record.

        Parameters
        ----------
        index : pandas.DatetimeIndex
            Times of the bars, strictly increasing.

        Returns
        -------
        list of Fold
            At least one, in order of time.

        Raises
        ------
        ConfigError
            If the record is too short for a fold, or a train stretch is left without bars to score.
        DataError
            If the index is not one of increasing times.
        """
        _check_index(index)
        test = length_of(self.test_size, "test_size")
        windows = list(self._in_bars(len(index)) if test.bars else self._in_time(index))
        if not windows:
            raise ConfigError(
                f"train_size={self.train_size!r}, purged_size={self.purged_size!r} and "
                f"test_size={self.test_size!r} leave no whole fold in {len(index)} bars from {index[0]} to "
                f"{index[-1]}: shorten a stretch, or set reduce_test"
            )
        return [self._fold(index, windows, k) for k in range(len(windows))]

    def _in_bars(self, n_bars: int) -> Iterator[_Window]:
        train, test, purge, embargo = (length_of(getattr(self, name), name).bars or 0 for name in _SIZES)
        for start in range(train + purge, n_bars, test):
            stop = min(start + test, n_bars)
            if stop - start == test or self.reduce_test:
                first = 0 if self.expand_train else start - purge - train
                yield _Window(slice(first, start - purge), slice(start, stop), stop + embargo)

    def _in_time(self, index: pd.DatetimeIndex) -> Iterator[_Window]:
        train, test, purge, embargo = (length_of(getattr(self, name), name) for name in _SIZES)
        start = index[0].normalize() if train.calendar or test.calendar else index[0]
        known_until = index[-1] + _usual_pause(index)
        for begin, end in itertools.pairwise(
            _boundaries(_aligned(train.after(start), test), test, index[-1])
        ):
            tested = slice(_position(index, begin), _position(index, end))
            if tested.start == tested.stop or (end > known_until and not self.reduce_test):
                continue
            first = 0 if self.expand_train else _position(index, train.before(begin))
            last = (
                tested.start - purge.bars if purge.bars is not None else _position(index, purge.before(begin))
            )
            free = (
                tested.stop + embargo.bars
                if embargo.bars is not None
                else _position(index, embargo.after(end))
            )
            yield _Window(slice(first, last), tested, free)

    def _fold(self, index: pd.DatetimeIndex, windows: Sequence[_Window], k: int) -> Fold:
        train, test = windows[k].train, windows[k].test
        if train.stop <= train.start:
            raise ConfigError(
                f"no bars to train on before the test from {index[test.start]}: lengthen "
                f"train_size={self.train_size!r} or shorten purged_size={self.purged_size!r}"
            )
        fold = Fold(
            number=k + 1,
            train=train,
            test=test,
            train_start=index[train.start],
            train_end=index[train.stop - 1],
            test_start=index[test.start],
            test_end=index[test.stop - 1],
            embargoed=_embargoed(windows[:k], train),
        )
        if not len(fold.scored):
            raise ConfigError(
                f"embargo={self.embargo!r} leaves no bar of the train of fold {k + 1} to score: shorten it"
            )
        return fold


_SIZES = ("train_size", "test_size", "purged_size", "embargo")


@dataclass(frozen=True, slots=True)
class _Window:
    train: slice
    test: slice
    free: int  # position from which bars after this test count in later scores


def _check_index(index: pd.DatetimeIndex) -> None:
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(
            f"index is a {type(index).__name__}: expected a pandas.DatetimeIndex of the bars' times"
        )
    if not len(index) or index.hasnans or not (index.is_monotonic_increasing and index.is_unique):
        raise DataError(
            f"index of {len(index)} times: expected at least one, strictly increasing and none missing"
        )


def _position(index: pd.DatetimeIndex, time: pd.Timestamp) -> int:
    """Return the position of the first bar at or after a time."""
    return int(index.searchsorted(time))


def _boundaries(origin: pd.Timestamp, test: Length, last: pd.Timestamp) -> list[pd.Timestamp]:
    """Return the times between which the tests lie, up to the first one after the last bar."""
    times = [origin]
    while times[-1] <= last:
        times.append(test.after(origin, len(times)))
    return times


def _usual_pause(index: pd.DatetimeIndex) -> pd.Timedelta:
    """Return the time between bars that only one pause in fifty exceeds."""
    if len(index) < 2:
        return pd.Timedelta(0)
    pauses = np.sort(np.diff(index.asi8))
    return pd.Timedelta(int(pauses[math.ceil(0.98 * (len(pauses) - 1))]), unit=index.unit)


def _aligned(time: pd.Timestamp, test: Length) -> pd.Timestamp:
    """Move a first test forward to the day that calendar lengths begin on."""
    if test.calendar is None:
        return time
    day = time.normalize() if time == time.normalize() else time.normalize() + pd.DateOffset(days=1)
    return test.anchor.rollforward(day) if test.anchor is not None else day


def _embargoed(earlier: Sequence[_Window], train: slice) -> tuple[slice, ...]:
    """Return the parts of a train stretch that follow earlier tests too closely, merged."""
    parts: list[slice] = []
    for window in earlier:
        start, stop = max(window.test.stop, train.start), min(window.free, train.stop)
        if start >= stop:
            continue
        if parts and parts[-1].stop >= start:
            parts[-1] = slice(parts[-1].start, max(stop, parts[-1].stop))
        else:
            parts.append(slice(start, stop))
    return tuple(parts)
