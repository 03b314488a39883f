"""A live run: bars that arrive one by one, a model beside them, and a loop that does not wait for it."""

from __future__ import annotations

import datetime
import logging
import math
import subprocess
import sys
import threading
import time

import backtrader as bt
import numpy as np
import pytest

from bt_llm.advice import AdvisorConfig, forget_answers
from bt_llm.analyzers import LLMAnalyzer
from bt_llm.exceptions import ConfigError, GenerationTimeout
from bt_llm.feeds import is_live
from bt_llm.gates import Gate, attach_gate
from bt_llm.indicators import LLMAdvice
from bt_llm.indicators._live import LiveAsker
from bt_llm.models._interrupts import given_up
from tests.engines import RANDOM, QuickAdvice, bits, build, line, walk
from tests.faulty_server import FaultyServer

SOON = 0.05  # seconds that a bar waits for an answer which does not come
LONG = 120.0  # seconds that it would wait for one which comes at once
FIRST = 15


class LiveFeed(bt.feed.DataBase):
    """Gives the bars of a frame one by one, some sleep apart; `arriving` is told the number of each."""

    params = (("frame", None), ("pause", 0.0), ("arriving", None), ("live", True))

    def islive(self):
        return self.p.live

    def start(self):
        super().start()
        self.rows = iter(self.p.frame.itertuples())
        self.number = 0

    def _load(self):
        row = next(self.rows, None)
        if row is None:
            return False
        time.sleep(self.p.pause)
        if self.p.arriving is not None:
            self.p.arriving(self.number)
        self.number += 1
        self.lines.datetime[0] = bt.date2num(row.Index.to_pydatetime())
        for name in ("open", "high", "low", "close", "volume"):
            getattr(self.lines, name)[0] = getattr(row, name)
        self.lines.openinterest[0] = 0.0
        return True


def live_run(strategy, frame, *, arriving=None, pause=0.0, live=True, cerebro=None, **params):
    cerebro = cerebro or bt.Cerebro(stdstats=False)
    data = LiveFeed(frame=frame, pause=pause, arriving=arriving, live=live, timeframe=bt.TimeFrame.Days)
    cerebro.adddata(data, name="live")
    cerebro.addanalyzer(LLMAnalyzer, _name="llm")
    cerebro.addstrategy(strategy, **params)
    return cerebro.run()[0]


class Watcher(bt.Strategy):
    """Notes what each bar shows at its time, and keeps the indicator for a look at what it shows later."""

    params = (("make", None),)

    def __init__(self):
        self.advice = self.p.make(self.data)
        self.shown = {}

    def next(self):
        self.shown[len(self) - 1] = tuple(line[0] for line in self.advice.lines)


def live(frame, kind, *, arriving=None, **params):
    settings = {"advisor": RANDOM, "timeout_s": LONG, **params}
    ran = live_run(Watcher, frame, arriving=arriving, make=lambda data: kind(data, **settings))
    for bar, values in ran.shown.items():
        assert bits(values) == bits(part.array[bar] for part in ran.advice.lines), (
            "an earlier bar was rewritten"
        )
    return ran.advice


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name == "bt_llm live advice"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in own_threads():
        thread.join(LONG)
    assert own_threads() == []


class Stuck(QuickAdvice):
    """A model that does not answer while its door is shut."""

    door: threading.Event
    asked: list

    def advise(self, cells):
        self.asked_cells.extend(cells)
        assert self.door.wait(LONG)
        return super().advise(cells)


def stuck():
    return type("StuckNow", (Stuck,), {"door": threading.Event(), "asked_cells": []})


def cells_of(advice):
    return RANDOM.state_space.cells([line(advice, name)[FIRST:] for name in RANDOM.state_space.names])


# The run


def test_a_live_run_whose_answers_come_in_time_is_the_backtest():
    frame = walk(60)
    expected = build(lambda s: QuickAdvice(s.data, advisor=RANDOM), frame)
    made = live(frame, QuickAdvice)
    for name in expected.lines.getlinealiases():
        assert bits(line(made, name)[FIRST:]) == bits(line(expected, name)[FIRST:]), name
    assert (made.asked, made.carried, made.unanswered, made.distinct) == (45, 0, 0, expected.distinct)


def test_each_cell_is_asked_once_and_in_a_thread():
    threads, asked = set(), []

    class Spy(QuickAdvice):
        def advise(self, cells):
            threads.add(threading.current_thread())
            asked.append(cells)
            return super().advise(cells)

    made = live(walk(60), Spy)
    assert threading.main_thread() not in threads
    assert sorted(cell for (cell,) in asked) == sorted(set(cells_of(made).tolist()))


def test_a_backtest_asks_in_its_own_thread():
    threads = set()

    class Spy(QuickAdvice):
        def advise(self, cells):
            threads.add(threading.current_thread())
            return super().advise(cells)

    for runonce in (True, False):
        build(lambda s: Spy(s.data, advisor=RANDOM), walk(40), mode={"runonce": runonce})
    assert threads == {threading.main_thread()}


def test_the_loop_does_not_wait_for_a_model_that_never_answers():
    kind = stuck()
    made = live(walk(22), kind, timeout_s=SOON)  # were it to wait, this would not end
    assert not kind.door.is_set()
    kind.door.set()
    assert np.isnan(line(made, "verdict")).all()
    assert np.isnan(line(made, "age")).all()
    assert (made.asked, made.carried, made.unanswered) == (0, 0, 7)


def test_a_late_verdict_counts_from_the_next_bar_and_never_on_an_earlier_one():
    kind, frame = stuck(), walk(60)
    expected = build(lambda s: QuickAdvice(s.data, advisor=RANDOM), frame)
    opened = FIRST + 3

    def arriving(number):
        if number == opened:
            kind.door.set()
            for thread in own_threads():
                thread.join(LONG)  # what was asked has been answered before the bar closes

    made = live(frame, kind, arriving=arriving, timeout_s=1.0, every=100)
    assert made.unanswered == 1
    age = line(made, "age")
    assert np.isnan(age[:opened]).all()
    assert age[opened:].tolist() == list(range(opened - FIRST, 60 - FIRST))
    verdicts = line(made, "verdict")
    assert np.isnan(verdicts[:opened]).all()
    assert set(verdicts[opened:]) == {line(expected, "verdict")[FIRST]}
    assert (made.asked, made.carried) == (0, 60 - opened)


def test_a_gate_treats_a_verdict_that_is_not_there_as_missing():
    for on_missing in ("block", "pass"):
        kind = stuck()
        quick = type("QuickNow", (kind,), {"params": (("timeout_s", SOON),)})

        class Trader(bt.Strategy):
            params = (("gate", None),)

            def __init__(self):
                self.gate = attach_gate(self.p.gate, self)

            def next(self):
                self.gate.allows_long()

        gate = Gate(advisor=RANDOM, indicator=quick, on_missing=on_missing)
        ran = live_run(Trader, walk(20), gate=gate)
        kind.door.set()
        known = ran.analyzers.llm.get_analysis()
        assert [decision.missing for decision in ran.gate.log] == [True] * 5
        assert [decision.allowed for decision in ran.gate.log] == [on_missing == "pass"] * 5
        assert (known["asked"], known["unanswered"], known["verdicts"]["not_asked"]) == (0, 5, 20)


def test_an_error_in_the_thread_is_logged_once_and_the_bar_is_missing(caplog):
    class Broken(QuickAdvice):
        def advise(self, cells):
            if len(caplog.records) == 0 or cells[0] % 2 == 0:
                raise RuntimeError("the server is gone")
            return super().advise(cells)

    with caplog.at_level(logging.ERROR):
        made = live(walk(60), Broken)
    cells = cells_of(made)
    failed = cells % 2 == 0
    failed[0] = True
    own = line(made, "age")[FIRST:] == 0
    assert np.array_equal(own, ~failed)
    assert made.unanswered == failed.sum() > 1
    (record,) = caplog.records
    assert record.message == "no verdict: the server is gone (later RuntimeErrors are not logged)"
    assert record.exc_info is not None


def test_a_backends_own_timeout_is_one_line_and_asked_again(caplog):
    class Slow(QuickAdvice):
        calls = 0

        def advise(self, cells):
            type(self).calls += 1
            if self.calls == 1:
                raise GenerationTimeout("timeout_s=1: over")
            return super().advise(cells)

    made = live(walk(40), Slow)
    assert (made.unanswered, made.asked) == (1, 24)
    (record,) = caplog.records
    assert record.exc_info is None


def test_verdicts_asked_live_are_stored_and_replayed(tmp_path):
    recorded = AdvisorConfig(model="scripted:random", cache_dir=tmp_path, cache_mode="record")
    made = live(walk(60), QuickAdvice, advisor=recorded)
    forget_answers()
    replayed = AdvisorConfig(model="scripted:random", cache_dir=tmp_path, cache_mode="replay")
    again = build(lambda s: QuickAdvice(s.data, advisor=replayed), walk(60))
    assert bits(line(made, "bullish")) == bits(line(again, "bullish"))
    assert again.usage.model_calls == 0
    forget_answers()


def test_a_feed_that_sleeps():
    made = live_run(
        Watcher, walk(20), pause=0.002, make=lambda data: QuickAdvice(data, advisor=RANDOM, timeout_s=LONG)
    ).advice
    assert made.asked == 5


@pytest.mark.parametrize(
    ("setting", "says", "threaded"),
    [("auto", True, True), ("auto", False, False), ("on", False, True), ("off", True, False)],
)
def test_what_is_live(setting, says, threaded):
    threads = set()

    class Spy(QuickAdvice):
        def advise(self, cells):
            threads.add(threading.current_thread())
            return super().advise(cells)

    live_run(
        Watcher,
        walk(20),
        live=says,
        cerebro=bt.Cerebro(stdstats=False, runonce=False),
        make=lambda data: Spy(data, advisor=RANDOM, live=setting, timeout_s=LONG),
    )
    assert (threading.main_thread() not in threads) == threaded


def test_a_run_is_live_by_any_of_its_feeds_or_by_cerebros_word():
    quiet, loud = (LiveFeed(frame=walk(3), live=live) for live in (False, True))
    assert [is_live(data) for data in (quiet, loud)] == [False, True]
    alone, together, told = bt.Cerebro(), bt.Cerebro(), bt.Cerebro(live=True)
    alone.adddata(quiet)
    assert not is_live(quiet)
    together.adddata(quiet)
    together.adddata(loud)
    assert is_live(quiet)
    told.adddata(quiet)
    assert is_live(quiet)
    assert is_live(quiet.lines.close)


def test_a_week_that_days_still_add_to_is_asked_for_when_its_state_changes():
    asked = []

    class Spy(QuickAdvice):
        def advise(self, cells):
            asked.extend(cells)
            return super().advise(cells)

    class Strategy(bt.Strategy):
        def __init__(self):
            self.advice = Spy(self.data, advisor=RANDOM, timeout_s=LONG, median=2)

        def next(self):
            self.shown = [part[0] for part in self.advice.lines]

    cerebro = bt.Cerebro(stdstats=False)
    data = LiveFeed(frame=walk(80), timeframe=bt.TimeFrame.Days, compression=1)
    cerebro.replaydata(data, timeframe=bt.TimeFrame.Weeks)
    cerebro.addstrategy(Strategy)
    (ran,) = cerebro.run()
    assert len(asked) == len(set(asked)) > 1
    assert ran.advice.asked == ran.advice.bars
    assert math.isfinite(ran.shown[0])


# The asker


def test_a_program_that_is_over_waits_no_longer_than_it_says():
    program = (
        "import sys, time\n"
        "from bt_llm.indicators._live import LiveAsker\n"
        "from bt_llm.models import Prompt, RemoteBackend\n"
        "backend = RemoteBackend.named(sys.argv[1])\n"
        "ask = lambda cell: next(iter(backend.score([Prompt(('p',))], [' a', ' b'])))\n"
        "assert LiveAsker(ask, timeout_s=0.2).answer(1) is None\n"
        "print(time.monotonic(), flush=True)\n"
    )
    with FaultyServer(lambda number, prompt: "drip") as server:
        command = [sys.executable, "-c", program, f"openai:{server.url}?retries=90&backoff=0.01"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        ended = time.monotonic()
    assert ended - float(done.stdout) < 60  # it would be two minutes, and then the next question
    lines = done.stderr.splitlines()
    assert lines[0].startswith(
        "no answer after 0.2 s: the bar goes without; a question is given up after 120 s"
    )
    assert lines[1] == "the program is over: waiting 0.5 s for the question under way"


def test_a_question_is_given_up_at_its_deadline(caplog):
    def ask(cell):
        while cell == 1 and not given_up():
            time.sleep(0.01)
        if cell == 1:
            raise GenerationTimeout("given up")
        return cell

    asker = LiveAsker(ask, timeout_s=LONG, deadline_s=0.1)
    assert [asker.answer(1), asker.answer(2)] == [None, 2]
    assert [record.message.split(" (")[0] for record in caplog.records] == ["no verdict: given up"]


def test_known_cells_are_answered_at_once():
    calls = []
    asker = LiveAsker(lambda cell: calls.append(cell) or cell * 10, timeout_s=LONG)
    assert [asker.answer(cell) for cell in (1, 2, 1)] == [10, 20, 10]
    assert (calls, len(asker), asker.known(2), asker.known(3)) == ([1, 2], 2, 20, None)


def test_while_one_question_is_answered_only_the_newest_other_one_waits():
    asked, door, calls = threading.Event(), threading.Event(), []

    def ask(cell):
        calls.append(cell)
        asked.set()
        assert door.wait(LONG)
        return cell

    asker = LiveAsker(ask, timeout_s=SOON)
    assert asker.answer(1) is None
    assert asked.wait(LONG)  # a question that its thread has not taken yet would be one that waits
    assert [asker.answer(cell) for cell in (2, 3, 1, 4)] == [None] * 4
    door.set()
    for thread in own_threads():
        thread.join(LONG)
    assert calls == [1, 4]
    assert [asker.known(cell) for cell in (1, 2, 3, 4)] == [1, None, None, 4]


def test_a_question_under_way_is_waited_for_and_not_asked_twice():
    door, calls = threading.Event(), []

    def ask(cell):
        calls.append(cell)
        assert door.wait(LONG)
        return cell

    asker = LiveAsker(ask, timeout_s=SOON)
    assert asker.answer(1) is None
    asker.timeout_s = LONG
    threading.Timer(SOON, door.set).start()
    assert asker.answer(1) == 1
    assert calls == [1]


def test_a_question_that_failed_can_be_asked_again_and_others_too(caplog):
    calls = []

    def ask(cell):
        calls.append(cell)
        if len(calls) < 3:
            raise (ConfigError if len(calls) == 1 else OSError)("no")
        return cell

    asker = LiveAsker(ask, timeout_s=LONG)
    assert [asker.answer(1), asker.answer(1), asker.answer(1), asker.answer(2)] == [None, None, 1, 2]
    assert [record.message.split(" (")[0] for record in caplog.records] == ["no verdict: no"] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_ended_is_replaced():
    calls = []

    def ask(cell):
        calls.append(cell)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return cell

    asker = LiveAsker(ask, timeout_s=LONG)
    assert asker.answer(1) is None
    assert asker.answer(1) == 1  # at once: Python may call the thread alive still


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_ended_lets_go_of_who_waits_behind_it():
    asked, door = threading.Event(), threading.Event()

    def ask(cell):
        asked.set()
        assert door.wait(LONG)
        raise KeyboardInterrupt

    asker = LiveAsker(ask, timeout_s=SOON)
    assert asker.answer(1) is None
    assert asked.wait(LONG)
    asker.timeout_s = LONG
    threading.Timer(SOON, door.set).start()
    since = time.monotonic()
    assert asker.answer(2) is None
    assert time.monotonic() - since < LONG / 2


def test_the_wall_clock_spaces_questions_but_not_known_answers():
    asker = LiveAsker(lambda cell: cell, timeout_s=LONG, min_seconds=3600)
    assert asker.may_ask(1)
    assert asker.answer(1) == 1
    assert not asker.may_ask(2)
    assert asker.may_ask(1)


def test_in_a_live_run_the_wall_clock_spaces_questions():
    made = live(walk(60), QuickAdvice, min_seconds=3600)
    cells = cells_of(made)
    own = cells == cells[0]
    assert np.array_equal(line(made, "age")[FIRST:] == 0, own)
    assert (made.asked, made.carried, made.distinct) == (own.sum(), 45 - own.sum(), 1)


def test_the_clock_of_a_bar_is_the_datas():
    start = datetime.datetime(2024, 1, 1)
    frame = walk(60, freq="h", start=str(start))
    made = live(frame, LLMAdvice, ema=3, slope=1, rsi=3, atr=3, median=3, min_minutes=120)
    first = made.warm_up_bars - 1
    assert line(made, "age")[first:].tolist() == [k % 2 for k in range(60 - first)]
