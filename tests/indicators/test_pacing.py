from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_llm.indicators._frequency import Frequency
from bt_llm.indicators._pacing import NO_ANSWER, Pace, Seen, is_answer

MINUTE = 60_000


def row(cell):
    return (1.0, cell / 100, 0.6, 0.2, 0.2)


class Asker:
    """A model of a live run whose answers arrive when the test says so."""

    def __init__(self):
        self.asked, self.there, self.allowed = [], {}, True

    def may_ask(self, cell):
        return self.allowed or cell in self.there

    def known(self, cell):
        return self.there.get(cell)

    def answer(self, cell):
        self.asked.append(cell)
        return self.there.get(cell)

    def arrives(self, *cells):
        self.there.update((cell, row(cell)) for cell in cells)


class Bars:
    """Steps bar by bar, a minute each; what a bar shows, as (the cell it is on, age, what it counts as)."""

    def __init__(self, asker, **frequency):
        self.pace = Pace(Frequency(**frequency), row, asker)
        self.seen, self.bar = Seen(), 0

    def __call__(self, cell):
        self.bar += 1
        self.seen, shown = self.pace.step(self.seen, bar=self.bar, cell=cell, time_ms=self.bar * MINUTE)
        if not shown.counts_as or shown.counts_as == "unanswered":
            assert math.isnan(shown.age)
            assert all(map(math.isnan, shown.row))
            return shown.counts_as
        return round(100 * shown.row[1]), shown.age, shown.counts_as


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.integers(-1, 5), min_size=1, max_size=60),
    every=st.integers(1, 4),
    minutes=st.integers(0, 6),
    max_age=st.none() | st.integers(0, 5),
)
def test_step_by_step_is_the_same_as_all_at_once(cells, every, minutes, max_age):
    frequency = Frequency(every=every, min_minutes=minutes, max_age=max_age)
    days = 737791 + np.arange(len(cells)) / 1440
    sources = frequency.sources(np.array(cells) >= 0, days).tolist()
    pace, seen = Pace(frequency, row), Seen()
    for bar, cell in enumerate(cells):
        seen, shown = pace.step(seen, bar=bar, cell=cell, time_ms=round(days[bar] * 86_400_000))
        assert shown.row == (row(cells[sources[bar]]) if sources[bar] >= 0 else NO_ANSWER)
        assert is_answer(shown.row) == (sources[bar] >= 0)
        if sources[bar] >= 0:
            assert (shown.age, shown.counts_as) == (
                bar - sources[bar],
                "asked" if bar == sources[bar] else "carried",
            )


def test_a_step_can_be_repeated_for_a_bar_that_is_still_being_built():
    pace = Pace(Frequency(every=2), row)
    before, _ = pace.step(Seen(), bar=1, cell=3, time_ms=0)
    for _ in range(3):
        after, shown = pace.step(before, bar=2, cell=4, time_ms=MINUTE)
        assert (shown.age, after.asked.skipped) == (1.0, 1)


def test_in_a_live_run_an_answer_in_time_is_the_bars_own():
    asker = Asker()
    asker.arrives(1, 2)
    bar = Bars(asker)
    assert [bar(1), bar(2), bar(-1), bar(1)] == [(1, 0.0, "asked"), (2, 0.0, "asked"), "", (1, 0.0, "asked")]


def test_a_late_answer_counts_from_the_next_bar_with_its_age():
    asker = Asker()
    bar = Bars(asker)
    assert bar(1) == "unanswered"
    asker.arrives(1)
    assert bar(2) == (1, 1.0, "carried"), "its own answer is not there, the late one is the newest"
    assert bar(3) == "unanswered", "no answer has come since"
    asker.arrives(2)
    assert bar(4) == (2, 2.0, "carried")
    asker.arrives(4, 5)
    assert bar(5) == (5, 0.0, "asked"), "its own answer comes first"
    assert bar(6) == "unanswered", "what bar 5 has shown does not stand for bar 6"


def test_a_late_answer_on_a_bar_that_is_not_possible_waits_for_one_that_is():
    asker = Asker()
    bar = Bars(asker)
    bar(1)
    asker.arrives(1)
    assert [bar(-1), bar(2)] == ["", (1, 2.0, "carried")]


def test_of_several_late_answers_the_newest_counts_and_older_ones_are_forgotten():
    asker = Asker()
    bar = Bars(asker)
    assert [bar(1), bar(2), bar(3)] == ["unanswered"] * 3
    asker.arrives(2)
    assert bar(4) == (2, 2.0, "carried")
    asker.arrives(1)
    assert bar(5) == "unanswered", "an answer on bar 1 is older than the one on bar 2"
    asker.arrives(3)
    assert bar(6) == (3, 3.0, "carried")


def test_an_answer_that_comes_while_a_later_bar_waits_is_late():
    class Meanwhile(Asker):
        def answer(self, cell):
            if cell == 2:
                self.arrives(1)
            return super().answer(cell)

    bar = Bars(Meanwhile())
    assert [bar(1), bar(2)] == ["unanswered", (1, 1.0, "carried")]


def test_a_late_answer_that_is_too_old_does_not_count():
    asker = Asker()
    bar = Bars(asker, max_age=1)
    assert [bar(1), bar(2)] == ["unanswered"] * 2
    asker.arrives(1)
    assert bar(3) == "unanswered"


def test_between_questions_a_late_answer_is_carried_and_nothing_is_until_it_comes():
    asker = Asker()
    asker.arrives(1)
    bar = Bars(asker, every=3)
    assert [bar(1), bar(9), bar(9)] == [(1, 0.0, "asked"), (1, 1.0, "carried"), (1, 2.0, "carried")]
    assert [bar(2), bar(9)] == ["unanswered", ""]
    asker.arrives(2)
    assert [bar(9), bar(1), bar(9)] == [(2, 2.0, "carried"), (1, 0.0, "asked"), (1, 1.0, "carried")]
    assert asker.asked == [1, 2, 1]


def test_a_wall_clock_that_forbids_a_question_leaves_the_bar_due():
    asker = Asker()
    asker.arrives(1)
    bar = Bars(asker)
    assert bar(1) == (1, 0.0, "asked")
    asker.allowed = False
    assert bar(2) == (1, 1.0, "carried")
    assert bar(1) == (1, 0.0, "asked"), "an answer that is there costs nothing"
    asker.allowed = True
    asker.arrives(2)
    assert bar(2) == (2, 0.0, "asked")
    assert asker.asked == [1, 1, 2]


def test_late_questions_are_kept_once_a_cell():
    bar = Bars(Asker())
    for cell in (1, 2, 1, 2, 1):
        assert bar(cell) == "unanswered"
    assert bar.seen.late == ((4, 2), (5, 1))


@pytest.mark.parametrize(("confidence", "answer"), [(0.0, True), (0.4, True), (math.nan, False)])
def test_an_unreadable_answer_is_an_answer(confidence, answer):
    assert is_answer((math.nan, confidence, math.nan, math.nan, math.nan)) is answer
