"""Walk-forward folds: boundaries written out by hand, properties, and skfolio as a second opinion."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import skfolio.model_selection
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError, DataError
from bt_llm.research import Fold, WalkForwardSplit, fold_diagram

# No deadline: the tests say nothing about time, and machines are shared.
unhurried = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def days(first: str, last: str) -> pd.DatetimeIndex:
    return pd.date_range(first, last, freq="D")


def positions(folds: list[Fold]) -> list[tuple[int, int, int, int]]:
    return [(f.train.start, f.train.stop, f.test.start, f.test.stop) for f in folds]


def dates(folds: list[Fold], form: str = "%m-%d") -> list[tuple[str, str, str, str]]:
    """First and last bar of train, then of test."""
    return [
        tuple(t.strftime(form) for t in (f.train_start, f.train_end, f.test_start, f.test_end)) for f in folds
    ]


def walk_forward_splits(index, train_size, test_size, **settings):
    return WalkForwardSplit(train_size=train_size, test_size=test_size, **settings).split(index)


TEN = days("2024-01-01", "2024-01-10")


def test_rolling_in_bars():
    folds = walk_forward_splits(TEN, 4, 2)
    assert positions(folds) == [(0, 4, 4, 6), (2, 6, 6, 8), (4, 8, 8, 10)]
    assert dates(folds) == [
        ("01-01", "01-04", "01-05", "01-06"),
        ("01-03", "01-06", "01-07", "01-08"),
        ("01-05", "01-08", "01-09", "01-10"),
    ]
    assert [f.number for f in folds] == [1, 2, 3]
    assert all(f.embargoed == () for f in folds)


def test_expanding_in_bars():
    folds = walk_forward_splits(TEN, 4, 2, expand_train=True)
    assert positions(folds) == [(0, 4, 4, 6), (0, 6, 6, 8), (0, 8, 8, 10)]


def test_purge_in_bars_keeps_the_train_and_moves_the_test():
    folds = walk_forward_splits(TEN, 4, 2, purged_size=1)
    assert positions(folds) == [(0, 4, 5, 7), (2, 6, 7, 9)]  # 10 January is left: not a whole test
    assert positions(walk_forward_splits(TEN, 4, 2, purged_size=2)) == [(0, 4, 6, 8), (2, 6, 8, 10)]


def test_a_last_test_cut_short_is_dropped_unless_asked_for():
    assert positions(walk_forward_splits(TEN, 4, 4)) == [(0, 4, 4, 8)]
    assert positions(walk_forward_splits(TEN, 4, 4, reduce_test=True)) == [(0, 4, 4, 8), (4, 8, 8, 10)]
    assert positions(walk_forward_splits(TEN, 8, 4, reduce_test=True)) == [(0, 8, 8, 10)]


def test_embargo_in_bars():
    folds = walk_forward_splits(TEN, 6, 2, embargo=1)
    assert [f.embargoed for f in folds] == [(), ()]
    # Tests end before bars 6 and 8 (and 10); bar 6 follows the first and is in the third train.
    twelve = days("2024-01-01", "2024-01-12")
    folds = walk_forward_splits(twelve, 4, 2, embargo=1)
    assert positions(folds) == [(0, 4, 4, 6), (2, 6, 6, 8), (4, 8, 8, 10), (6, 10, 10, 12)]
    assert [f.embargoed for f in folds] == [(), (), (slice(6, 7),), (slice(6, 7), slice(8, 9))]
    assert folds[2].scored.tolist() == [4, 5, 7]
    assert folds[3].scored.tolist() == [7, 9]


def test_an_embargo_longer_than_a_test_merges():
    folds = walk_forward_splits(days("2024-01-01", "2024-01-12"), 4, 2, embargo=3, expand_train=True)
    assert folds[3].train == slice(0, 10)
    assert folds[3].embargoed == (slice(6, 10),)
    assert folds[3].scored.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_embargo_as_long_as_a_test_merges():
    folds = walk_forward_splits(days("2024-01-01", "2024-01-12"), 4, 2, embargo=2, expand_train=True)
    assert folds[3].embargoed == (slice(6, 10),)


def test_an_embargo_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match="embargo=3 leaves no bar of the train of fold 4 to score"):
        walk_forward_splits(days("2024-01-01", "2024-01-12"), 4, 2, embargo=3)


def test_scored_without_embargo_is_all_of_the_train():
    assert walk_forward_splits(TEN, 4, 2)[1].scored.tolist() == [2, 3, 4, 5]


def test_months():
    folds = walk_forward_splits(days("2024-01-01", "2024-06-30"), "3MS", "1MS")
    assert dates(folds) == [
        ("01-01", "03-31", "04-01", "04-30"),
        ("02-01", "04-30", "05-01", "05-31"),
        ("03-01", "05-31", "06-01", "06-30"),
    ]


def test_months_expanding():
    folds = walk_forward_splits(days("2024-01-01", "2024-06-30"), "3MS", "1MS", expand_train=True)
    assert dates(folds)[-1] == ("01-01", "05-31", "06-01", "06-30")


def test_months_begin_on_the_first_whatever_the_first_bar():
    # Three months from 10 January end on 10 April; the next month begins on 1 May.
    folds = walk_forward_splits(days("2024-01-10", "2024-06-30"), "3MS", "1MS")
    assert dates(folds) == [("02-01", "04-30", "05-01", "05-31"), ("03-01", "05-31", "06-01", "06-30")]
    everything = walk_forward_splits(days("2024-01-10", "2024-06-30"), "3MS", "1MS", expand_train=True)
    assert dates(everything)[0] == ("01-10", "04-30", "05-01", "05-31")


def test_a_date_offset_counts_months_from_the_first_bar():
    month = pd.DateOffset(months=1)
    folds = walk_forward_splits(days("2024-01-31", "2024-05-30"), 2 * month, month)
    # Two months after 31 January is 31 March; from there to 30 April, then to 31 May. The month
    # before each is counted from the boundary: two before 30 April is 29 February.
    assert dates(folds) == [("01-31", "03-30", "03-31", "04-29"), ("02-29", "04-29", "04-30", "05-30")]


def test_quarters_and_years():
    index = days("2020-03-01", "2023-12-31")
    assert dates(walk_forward_splits(index, "1YS", "1YS"), "%Y-%m-%d") == [
        ("2021-01-01", "2021-12-31", "2022-01-01", "2022-12-31"),
        ("2022-01-01", "2022-12-31", "2023-01-01", "2023-12-31"),
    ]
    assert dates(walk_forward_splits(index, "3YS", "1QS"), "%Y-%m-%d") == [
        ("2020-04-01", "2023-03-31", "2023-04-01", "2023-06-30"),
        ("2020-07-01", "2023-06-30", "2023-07-01", "2023-09-30"),
        ("2020-10-01", "2023-09-30", "2023-10-01", "2023-12-31"),
    ]


def test_fixed_times_count_from_the_first_bar():
    index = pd.date_range("2024-01-01 09:00", periods=96, freq="h")  # up to 08:00 on 5 January
    folds = walk_forward_splits(index, "36h", "1D")
    assert positions(folds) == [(0, 36, 36, 60), (24, 60, 60, 84)]
    assert folds[0].test_start == pd.Timestamp("2024-01-02 21:00")
    assert positions(walk_forward_splits(index, dt.timedelta(hours=36), pd.Timedelta("1D"))) == positions(
        folds
    )
    assert positions(walk_forward_splits(index, "36h", "1D", reduce_test=True))[-1] == (48, 84, 84, 96)


def test_a_calendar_day_begins_at_midnight():
    index = pd.date_range("2024-01-01 09:00", "2024-03-31 23:00", freq="h")
    fold = walk_forward_splits(index, "1MS", "1MS")[0]
    assert (fold.train_start, fold.train_end) == (index[0], pd.Timestamp("2024-01-31 23:00"))
    assert (fold.test_start, fold.test_end) == (pd.Timestamp("2024-02-01"), pd.Timestamp("2024-02-29 23:00"))
    # A train of a fixed time may end within a day; a month does not begin there.
    fold = walk_forward_splits(index, "36h", "1MS")[0]
    assert (fold.train_start, fold.test_start) == (
        pd.Timestamp("2024-01-30 12:00"),
        pd.Timestamp("2024-02-01"),
    )
    fold = walk_forward_splits(index, "36h", pd.DateOffset(months=1))[0]
    assert (fold.train_start, fold.test_start) == (
        pd.Timestamp("2024-01-01 12:00"),
        pd.Timestamp("2024-01-03"),
    )


def test_purge_in_time_leaves_the_test_where_it_is():
    index = days("2024-01-01", "2024-05-31")
    in_bars = walk_forward_splits(index, "3MS", "1MS", purged_size=1)
    assert dates(in_bars) == [("01-01", "03-30", "04-01", "04-30"), ("02-01", "04-29", "05-01", "05-31")]
    in_time = walk_forward_splits(index, "3MS", "1MS", purged_size="1W")
    assert dates(in_time) == [("01-01", "03-24", "04-01", "04-30"), ("02-01", "04-23", "05-01", "05-31")]
    in_months = walk_forward_splits(index, "3MS", "1MS", purged_size=pd.DateOffset(months=1))
    assert dates(in_months) == [("01-01", "02-29", "04-01", "04-30"), ("02-01", "03-31", "05-01", "05-31")]


def test_embargo_in_time():
    index = days("2024-01-01", "2024-07-31")
    folds = walk_forward_splits(index, "3MS", "1MS", embargo="2D")
    # The test of April ends on 30 April: 1 and 2 May are embargoed, from the train of the third fold on.
    first, second = index.get_loc("2024-05-01"), index.get_loc("2024-06-01")
    assert [f.embargoed for f in folds] == [
        (),
        (),
        (slice(first, first + 2),),
        (slice(first, first + 2), slice(second, second + 2)),
    ]
    assert [f.embargoed for f in walk_forward_splits(index, "3MS", "1MS", embargo=2)] == [
        f.embargoed for f in folds
    ]


def test_weekdays_end_a_month_before_a_weekend():
    # The last bar of 2023 is Friday 29 December: the month is whole, as no bar was left to come.
    index = pd.bdate_range("2023-08-01", "2023-12-29")
    folds = walk_forward_splits(index, "3MS", "1MS")
    assert dates(folds) == [("08-01", "10-31", "11-01", "11-30"), ("09-01", "11-30", "12-01", "12-29")]
    cut = walk_forward_splits(index[index <= "2023-12-22"], "3MS", "1MS")
    assert dates(cut) == dates(folds)[:1]
    kept = walk_forward_splits(index[index <= "2023-12-22"], "3MS", "1MS", reduce_test=True)
    assert dates(kept)[-1] == ("09-01", "11-30", "12-01", "12-22")


def test_hours_of_a_market_end_a_month_before_a_weekend():
    # Seven bars a weekday: one pause in 35 is a weekend.
    index = pd.date_range("2024-01-01 10:00", "2024-03-29 16:00", freq="h")
    index = index[(index.day_of_week < 5) & (index.hour >= 10) & (index.hour <= 16)]
    assert dates(walk_forward_splits(index, "1MS", "1MS")) == [
        ("01-01", "01-31", "02-01", "02-29"),
        ("02-01", "02-29", "03-01", "03-29"),
    ]


def test_an_hour_short_of_a_month_around_the_clock_is_not_whole():
    index = pd.date_range("2024-01-01", "2024-03-31 23:00", freq="h")
    assert len(walk_forward_splits(index, "1MS", "1MS")) == 2
    assert len(walk_forward_splits(index[:-1], "1MS", "1MS")) == 1


def test_a_month_without_bars_makes_no_fold():
    index = days("2024-01-01", "2024-06-30")
    index = index[index.month != 5]
    folds = walk_forward_splits(index, "3MS", "1MS")
    assert dates(folds) == [("01-01", "03-31", "04-01", "04-30"), ("03-01", "04-30", "06-01", "06-30")]
    assert [f.number for f in folds] == [1, 2]


def test_a_train_without_bars_is_refused():
    index = days("2024-01-01", "2024-06-30")
    index = index[index.month != 4]
    message = r"no bars to train on before the test from 2024-05-01 00:00:00: lengthen train_size='1MS'"
    with pytest.raises(ConfigError, match=message):
        walk_forward_splits(index, "1MS", "1MS")
    with pytest.raises(ConfigError, match="no bars to train on before the test from 2024-02-01"):
        walk_forward_splits(days("2024-01-01", "2024-06-30"), "1MS", "1MS", purged_size=40)


def test_time_zones_and_summer_time():
    index = pd.date_range("2024-01-01", "2024-05-01", freq="h", tz="Europe/Berlin", inclusive="left")
    folds = walk_forward_splits(index, "2MS", "1MS")
    assert [f.test_start for f in folds] == [
        pd.Timestamp("2024-03-01", tz="Europe/Berlin"),
        pd.Timestamp("2024-04-01", tz="Europe/Berlin"),
    ]
    assert folds[0].test.stop - folds[0].test.start == 31 * 24 - 1  # the clocks go forward on 31 March


def test_offsets_are_their_strings():
    index = days("2024-01-01", "2024-12-31")
    for offset, text in [
        (pd.offsets.MonthBegin(2), "2MS"),
        (pd.offsets.QuarterBegin(startingMonth=1), "QS"),
        (pd.offsets.Week(3), "3W"),
        (pd.offsets.Day(20), "20D"),
        (pd.offsets.Hour(72), "72h"),
    ]:
        assert walk_forward_splits(index, offset, offset) == walk_forward_splits(index, text, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "train_size=0: expected at least 1 bars"),
        ({"test_size": -1}, "test_size=-1: expected at least 1 bars"),
        ({"purged_size": -1}, "purged_size=-1: expected at least 0 bars"),
        ({"test_size": True}, "test_size=True: expected a number of bars, or a time such as"),
        ({"test_size": 2.5}, r"test_size=2\.5: expected a number of bars"),
        ({"test_size": "20"}, "test_size='20': expected a number of bars"),
        ({"test_size": "1M"}, "test_size='1M': expected a number of bars"),
        ({"test_size": "-3D"}, "test_size='-3D': expected a number of bars"),
        ({"test_size": "9" * 20 + "D"}, "expected a number of bars"),
        ({"test_size": pd.offsets.BDay(3)}, "test_size=<3 \\* BusinessDays>: expected a number of bars"),
        ({"test_size": pd.DateOffset(month=3)}, "test_size=<DateOffset: month=3>: expected"),
        (
            {"train_size": "9MS", "test_size": "0D"},
            "test_size='0D': expected a positive time of at most 100 years",
        ),
        (
            {"train_size": "200YS", "test_size": "1YS"},
            "train_size='200YS': expected a positive time of at most",
        ),
        ({"train_size": "9MS", "test_size": "3D", "embargo": dt.timedelta(-1)}, "expected a time from 0"),
        ({"train_size": "90D"}, "train_size='90D' and test_size=2: expected both in bars or both in time"),
        ({"purged_size": "1D"}, "purged_size='1D': expected bars, as test_size is in bars"),
        ({"embargo": "1D"}, "embargo='1D': expected bars, as test_size is in bars"),
    ],
)
def test_wrong_sizes_are_refused_where_they_are_made(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        WalkForwardSplit(**{"train_size": 4, "test_size": 2, **options})
    assert "\n" not in str(caught.value)


def test_a_record_too_short_says_so():
    with pytest.raises(
        ConfigError, match="train_size=9, purged_size=0 and test_size=2 leave no whole fold in 10 bars"
    ):
        walk_forward_splits(TEN, 9, 2)
    with pytest.raises(
        ConfigError, match="leave no whole fold in 10 bars from 2024-01-01 00:00:00 to 2024-01-10"
    ):
        walk_forward_splits(TEN, "1MS", "1MS")
    with pytest.raises(ConfigError, match="in 1 bars"):
        walk_forward_splits(TEN[:1], "1D", "1D")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (range(10), "index is a range: expected a pandas.DatetimeIndex"),
        (TEN[::-1], "index of 10 times: expected at least one, strictly increasing"),
        (TEN[[0, 0, 1]], "index of 3 times"),
        (TEN[:0], "index of 0 times"),
        (TEN.insert(0, pd.NaT), "index of 11 times"),
    ],
)
def test_an_index_that_is_no_time_line_is_refused(index, message):
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        walk_forward_splits(index, 2, 1)


def test_settings_and_folds_are_values():
    split = WalkForwardSplit(train_size="3MS", test_size="1MS")
    assert split == pickle.loads(pickle.dumps(split))
    assert hash(split) == hash(WalkForwardSplit(train_size="3MS", test_size="1MS"))
    folds = walk_forward_splits(TEN, 4, 2)
    assert folds == pickle.loads(pickle.dumps(folds))
    with pytest.raises(dataclasses.FrozenInstanceError):
        folds[0].number = 2


sizes = st.integers(1, 12)
gaps = st.integers(0, 4)


@unhurried
@given(st.integers(1, 80), sizes, sizes, gaps, st.booleans(), st.booleans())
def test_bars_agree_with_skfolio(n_bars, train, test, purge, expand, reduce):
    index = pd.date_range("2024-01-01", periods=n_bars, freq="h")
    theirs = skfolio.model_selection.WalkForward(
        train_size=train, test_size=test, purged_size=purge, expand_train=expand, reduce_test=reduce
    )
    options = {"purged_size": purge, "expand_train": expand, "reduce_test": reduce}
    if n_bars <= train + purge or not (expected := list(theirs.split(np.zeros((n_bars, 1))))):
        with pytest.raises(ConfigError, match="leave no whole fold"):
            walk_forward_splits(index, train, test, **options)
        return
    folds = walk_forward_splits(index, train, test, **options)
    assert [(np.arange(n_bars)[f.train].tolist(), np.arange(n_bars)[f.test].tolist()) for f in folds] == [
        (a.tolist(), b.tolist()) for a, b in expected
    ]


def check(index, folds, purge, embargo):
    for before, after in itertools.pairwise(folds):
        assert before.test.stop == after.test.start
        assert after.number == before.number + 1
    for k, fold in enumerate(folds):
        assert 0 <= fold.train.start < fold.train.stop <= fold.test.start - purge
        assert fold.test.start < fold.test.stop <= len(index)
        assert (fold.train_start, fold.train_end) == (index[fold.train][0], index[fold.train][-1])
        assert (fold.test_start, fold.test_end) == (index[fold.test][0], index[fold.test][-1])
        after = {p for other in folds[:k] for p in range(other.test.stop, other.test.stop + embargo)}
        assert fold.scored.tolist() == [p for p in range(len(index))[fold.train] if p not in after]


@unhurried
@given(st.integers(1, 80), sizes, sizes, gaps, gaps, st.booleans(), st.booleans())
def test_nothing_of_the_future_is_in_a_fold_of_bars(n_bars, train, test, purge, embargo, expand, reduce):
    index = pd.date_range("2024-01-01", periods=n_bars, freq="h")
    try:
        folds = walk_forward_splits(
            index, train, test, purged_size=purge, embargo=embargo, expand_train=expand, reduce_test=reduce
        )
    except ConfigError:
        assume(False)
    check(index, folds, purge, embargo)
    assert reduce or all(f.test.stop - f.test.start == test for f in folds)
    assert expand or all(f.train.stop - f.train.start == train for f in folds)


@unhurried
@given(
    seed=st.integers(0, 2**32 - 1),
    hours=st.sampled_from([2, 12, 48]),
    train=st.sampled_from(["36h", "5D", "2W", "1MS", pd.DateOffset(days=9)]),
    test=st.sampled_from(["12h", "3D", "1W", "1MS", pd.DateOffset(days=4)]),
    purge=gaps,
    embargo=gaps,
    expand=st.booleans(),
    reduce=st.booleans(),
)
def test_nothing_of_the_future_is_in_a_fold_of_time(seed, hours, train, test, purge, embargo, expand, reduce):
    pauses = np.random.default_rng(seed).integers(1, 2 * hours, size=2400 // hours, endpoint=True)
    index = pd.Timestamp("2024-01-05 10:00") + pd.to_timedelta(np.cumsum(pauses), unit="h")
    try:
        folds = walk_forward_splits(
            index, train, test, purged_size=purge, embargo=embargo, expand_train=expand, reduce_test=reduce
        )
    except ConfigError:
        assume(False)
    check(index, folds, purge, embargo)
    if isinstance(test, str) and test.endswith("MS"):
        assert all(f.test_start.to_period("M") == f.test_end.to_period("M") for f in folds)


def test_diagram():
    index = days("2024-01-01", "2024-02-09")
    folds = walk_forward_splits(index, 10, 10, purged_size=4, embargo=2, reduce_test=True)
    assert positions(folds) == [(0, 10, 14, 24), (10, 20, 24, 34), (20, 30, 34, 40)]
    # 40 bars on 30 columns: three columns for four bars. The first test ends before bar 24, column 18.
    assert fold_diagram(folds, width=60).splitlines() == [
        "= train  # test  . purged  x embargoed",
        " 1 |=======...########            | 2024-01-15 to 2024-01-24",
        " 2 |       ========...#######     | 2024-01-25 to 2024-02-03",
        " 3 |               ===x===...#####| 2024-02-04 to 2024-02-09",
    ]


def test_every_line_of_a_diagram_has_the_width():
    folds = walk_forward_splits(pd.date_range("2024-01-01", periods=5000, freq="h"), 500, 30, purged_size=1)
    lines = fold_diagram(folds, width=100).splitlines()
    assert len(folds) == 149
    assert {len(line) for line in lines[1:]} == {100}
    for line in lines[1:]:  # 30 bars are less than a column
        assert line.isascii()
        assert line.count("#") in (1, 2)
    assert lines[1].startswith("  1 |=")
    assert lines[1].endswith("| 2024-01-21 21:00 to 2024-01-23 02:00")


def test_diagram_without_gaps():
    assert fold_diagram(walk_forward_splits(TEN, 4, 6), width=60).splitlines()[1:] == [
        " 1 |============##################| 2024-01-05 to 2024-01-10"
    ]


def test_diagram_refuses():
    with pytest.raises(ConfigError, match="no folds to draw"):
        fold_diagram([])
    with pytest.raises(ConfigError, match="width=59: expected at least 60"):
        fold_diagram(walk_forward_splits(TEN, 4, 2), width=59)
