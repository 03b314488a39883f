from __future__ import annotations

import csv
import io
import math

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.indicators import LLMAdvice, find_advice
from bt_llm.verdicts import Feature, MarketState, StateSpace, Verdict
from bt_llm.verdicts._state import RSI
from tests.engines import BULLISH, RANDOM, TREND, QuickAdvice, bits, build, line, run, walk

OUTPUTS = ("verdict", "confidence", "bullish", "bearish", "neutral")
STATES = ("trend", "rsi", "volatility")
ENGINES = [{"runonce": True}, {"runonce": False}]


def advice(frame, cls=QuickAdvice, mode=None, **params):
    return build(lambda s: cls(s.data, **{"advisor": RANDOM, **params}), frame, mode=mode)


# An independent calculation of the state, in plain loops


def ema(values, period):
    out = np.full(len(values), math.nan)
    out[period - 1] = np.mean(values[:period])
    for i in range(period, len(values)):
        out[i] = out[i - 1] + (values[i] - out[i - 1]) * 2 / (period + 1)
    return out


def wilder(values, period, first):
    """Wilder's smoothing of values that start at index `first`."""
    out = np.full(len(values), math.nan)
    out[first + period - 1] = np.mean(values[first : first + period])
    for i in range(first + period, len(values)):
        out[i] = (out[i - 1] * (period - 1) + values[i]) / period
    return out


def states(frame, ema_bars=20, slope=3, rsi_bars=14, atr_bars=14, median_bars=100):
    high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))
    before = np.concatenate([[math.nan], close[:-1]])
    true_range = np.maximum(high, before) - np.minimum(low, before)
    average_range = wilder(true_range, atr_bars, 1)
    up, down = np.maximum(close - before, 0), np.maximum(before - close, 0)
    rsi = 100 - 100 / (1 + wilder(up, rsi_bars, 1) / wilder(down, rsi_bars, 1))
    smooth = ema(close, ema_bars)
    trend = (smooth - np.concatenate([[math.nan] * slope, smooth[:-slope]])) / (slope * average_range)
    percent = 100 * average_range / close
    median = [
        np.median(percent[max(0, i - median_bars + 1) : i + 1]) if i >= median_bars - 1 else math.nan
        for i in range(len(percent))
    ]
    return {"trend": trend, "rsi": rsi, "volatility": percent / median}


def test_states_equal_an_independent_calculation():
    frame = walk(260)
    made, expected = advice(frame, LLMAdvice), states(frame)
    for name in STATES:
        found = line(made, name)[113:]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected[name][113:], rtol=1e-9, atol=1e-12)


def test_ema_and_atr_behind_the_states_equal_an_independent_calculation():
    frame = walk(80)
    made = build(lambda s: [bt.ind.EMA(s.data, period=20), bt.ind.ATR(s.data, period=14)], frame)
    high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))
    true_range = np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])
    np.testing.assert_allclose(line(made[0], "ema"), ema(close, 20), rtol=1e-12)
    np.testing.assert_allclose(line(made[1], "atr")[1:], wilder(true_range, 14, 0), rtol=1e-12)


def test_states_follow_the_parameters():
    frame = walk(120)
    made = advice(frame, LLMAdvice, ema=8, slope=4, rsi=6, atr=7, median=10)
    expected = states(frame, 8, 4, 6, 7, 10)
    assert made.warm_up_bars == 17
    for name in STATES:
        np.testing.assert_allclose(line(made, name)[16:], expected[name][16:], rtol=1e-9, atol=1e-12)


# Verdicts


@pytest.mark.parametrize("mode", ENGINES)
def test_each_bar_has_the_verdict_of_its_own_state(mode):
    frame = walk(150, seed=3)
    made = advice(frame, mode=mode)
    advisor = Advisor(RANDOM)
    for i in range(150):
        values = {name: line(made, name)[i] for name in (*OUTPUTS, *STATES)}
        if i < 15:
            assert all(math.isnan(values[name]) for name in OUTPUTS)
            continue
        verdict = advisor.advise(MarketState(**{name: values[name] for name in STATES}))
        expected = (
            verdict.action.value,
            verdict.confidence,
            verdict.bullish,
            verdict.bearish,
            verdict.neutral,
        )
        assert tuple(values[name] for name in OUTPUTS) == expected
    assert len(set(line(made, "verdict")[15:])) == 3


@pytest.mark.parametrize("mode", ENGINES)
def test_the_hook_gets_each_distinct_cell_once(mode):
    asked = []

    class Spy(QuickAdvice):
        def advise(self, cells):
            assert all(type(cell) is int for cell in cells)
            asked.append(list(cells))
            return super().advise(cells)

    made = advice(walk(200), Spy, mode=mode)
    flat = [cell for cells in asked for cell in cells]
    columns = [line(made, name)[15:] for name in RANDOM.state_space.names]
    assert sorted(flat) == sorted(set(RANDOM.state_space.cells(columns).tolist()))
    assert len(asked) == (1 if mode["runonce"] else len(flat))
    assert (made.bars, made.asked, made.distinct, made.usage.distinct) == (185, 185, len(flat), len(flat))


@pytest.mark.parametrize("mode", ENGINES)
def test_an_unreadable_answer_is_neither_a_direction_nor_not_asked(mode):
    class Mumble(QuickAdvice):
        def advise(self, cells):
            return [Verdict.invalid("?") for _ in cells]

    made = advice(walk(40), Mumble, mode=mode)
    assert np.isnan(line(made, "verdict")).all()
    assert np.isnan(line(made, "bullish")).all()
    assert line(made, "confidence")[15:].tolist() == [0.0] * 25
    assert made.asked == 25


@pytest.mark.parametrize("mode", ENGINES)
def test_a_hook_that_gives_too_few_verdicts_is_an_error(mode):
    class Lazy(QuickAdvice):
        def advise(self, cells):
            return []

    with pytest.raises(ConfigError, match=r"Lazy\.advise gave 0 verdicts for \d+ cells"):
        advice(walk(40), Lazy, mode=mode)


@pytest.mark.parametrize("mode", ENGINES)
def test_a_trigger_says_where_to_ask(mode):
    frame = walk(200)
    asked = []

    class Spy(QuickAdvice):
        def advise(self, cells):
            asked.extend(cells)
            return super().advise(cells)

    def make(s):
        cross = bt.ind.CrossOver(bt.ind.SMA(s.data, period=3), bt.ind.SMA(s.data, period=8))
        return Spy(s.data, cross, advisor=RANDOM), cross

    made, cross = build(make, frame, mode=mode)
    fires = (line(cross, "crossover") != 0) & (np.arange(200) >= 15)
    everywhere = advice(frame)
    for name in OUTPUTS:
        expected = np.where(fires, line(everywhere, name), math.nan)
        assert bits(line(made, name)) == bits(expected)
    assert bits(line(made, "rsi")[15:]) == bits(line(everywhere, "rsi")[15:])
    assert (made.bars, made.asked) == (185, fires.sum())
    assert 5 < made.asked < 60
    assert len(asked) == made.distinct <= made.asked


def test_a_trigger_that_never_fires_asks_nobody():
    made = build(lambda s: QuickAdvice(s.data, s.data.close * 0.0, advisor=RANDOM), walk(40))
    assert (made.asked, made.distinct, made.bars) == (0, 0, 25)
    assert np.isnan(line(made, "confidence")).all()


@pytest.mark.parametrize("mode", ENGINES)
def test_a_market_that_stands_still_is_flat_calm_and_asked(mode):
    frame = walk(40)
    frame[["open", "high", "low", "close"]] = 5.0
    made = advice(frame, mode=mode, advisor=TREND)
    assert line(made, "trend")[15:].tolist() == [0.0] * 25
    assert line(made, "rsi")[15:].tolist() == [50.0] * 25
    assert line(made, "volatility")[15:].tolist() == [1.0] * 25
    assert made.asked == 25


def still_then_moving():
    frame = walk(60)
    frame.iloc[:40, :4] = frame["open"].iloc[40]
    return frame


@pytest.mark.parametrize("mode", ENGINES)
def test_volatility_over_a_median_of_zero_is_nan_and_not_asked(mode):
    made = advice(still_then_moving(), mode=mode)
    volatility = line(made, "volatility")
    assert volatility[15:40].tolist() == [1.0] * 25
    assert np.isnan(volatility[40:45]).all()
    assert np.isfinite(volatility[46:]).all()
    assert np.array_equal(np.isnan(line(made, "confidence")), np.isnan(volatility))
    assert made.asked == np.isfinite(volatility).sum()


@pytest.mark.parametrize("mode", ENGINES)
def test_a_feature_that_the_space_leaves_out_is_shown_but_need_not_be_finite(mode):
    config = AdvisorConfig(model="scripted:random", cache_mode="off", state_space=StateSpace(features=(RSI,)))
    made = advice(still_then_moving(), mode=mode, advisor=config)
    assert np.isnan(line(made, "volatility")[40:45]).all()
    assert np.isfinite(line(made, "confidence")[15:]).all()
    assert made.asked == 45


# A feature of the user's


def percent_b(data):
    return bt.ind.BollingerBandsPct(data, period=20).pctb


BAND = Feature(
    name="percent_b",
    title="Bollinger %B",
    edges=(0.0, 0.5, 1.0),
    labels=("below the band", "lower half", "upper half", "above the band"),
    indicator=percent_b,
)
BAND_CONFIG = AdvisorConfig(
    model="scripted:random", cache_mode="off", state_space=StateSpace().with_feature(BAND)
)


class BandAdvice(QuickAdvice):
    lines = ("percent_b",)


@pytest.mark.parametrize("mode", ENGINES)
def test_a_feature_of_the_users_is_a_line_a_bucket_and_a_word_of_the_prompt(mode):
    frame = walk(120)
    made = advice(frame, BandAdvice, mode=mode, advisor=BAND_CONFIG)
    close = frame["close"].rolling(20)
    middle, spread = close.mean(), 2 * close.std(ddof=0)
    expected = (frame["close"] - (middle - spread)) / (2 * spread)
    np.testing.assert_allclose(line(made, "percent_b")[19:], expected[19:], rtol=1e-6)
    assert made.warm_up_bars == 20

    advisor = Advisor(BAND_CONFIG)
    names = BAND_CONFIG.state_space.names
    cells = BAND_CONFIG.state_space.cells([line(made, name)[19:] for name in names])
    verdicts = [verdict.worth for verdict in advisor.advise_cells(cells.tolist())]
    assert line(made, "verdict")[19:].tolist() == verdicts
    assert "Bollinger %B: " in advisor.prompts([int(cells[0])])[0].text


def test_a_built_in_feature_can_have_an_indicator_of_the_users():
    def slow_rsi(data):
        return bt.ind.RSI(data, period=9, safediv=True)

    space = StateSpace().with_feature(
        Feature(name="rsi", edges=(50,), labels=("low", "high"), indicator=slow_rsi)
    )
    frame = walk(60)
    made = advice(frame, advisor=AdvisorConfig(model="scripted:random", cache_mode="off", state_space=space))
    expected = line(build(lambda s: slow_rsi(s.data), frame), "rsi")
    assert bits(line(made, "rsi")[15:]) == bits(expected[15:])


def test_a_feature_without_a_line_says_how_to_declare_it():
    with pytest.raises(ConfigError, match=r"feature 'percent_b' has no line in QuickAdvice: declare it"):
        advice(walk(60), advisor=BAND_CONFIG)


def test_a_feature_without_an_indicator_is_named():
    space = StateSpace().with_feature(Feature(name="percent_b", edges=(0.5,), labels=("low", "high")))
    with pytest.raises(ConfigError, match=r"feature 'percent_b' has no indicator"):
        advice(walk(60), BandAdvice, advisor=AdvisorConfig(model="scripted:random", state_space=space))


# Arguments


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: LLMAdvice(s.data, RANDOM), ConfigError, "got AdvisorConfig by position"),
        (lambda s: LLMAdvice(RANDOM), ConfigError, "got AdvisorConfig by position"),
        (lambda s: LLMAdvice("smollm2"), ConfigError, "got str by position"),
        (lambda s: LLMAdvice(s.data, 1.0), ConfigError, "got float by position"),
        (lambda s: LLMAdvice(s.data.close, advisor=RANDOM), DataError, "without open, high, low and close"),
        (lambda s: LLMAdvice(bt.ind.RSI(s.data)), DataError, "got RSI without open"),
        (lambda s: LLMAdvice(s.data, s.data, s.data), ConfigError, "got 3 datas"),
        (lambda s: LLMAdvice(s.data, s.data1.close), ConfigError, "trigger of another data feed"),
        (lambda s: LLMAdvice(s.data, s.data1.close > s.data1.open), ConfigError, "trigger of another"),
        (lambda s: LLMAdvice(s.data, advisor="smollm2"), ConfigError, "got advisor='smollm2'"),
        (
            lambda s: LLMAdvice(s.data, advisor=RANDOM, slope=-3),
            ConfigError,
            "got slope=-3: expected a whole",
        ),
        (lambda s: LLMAdvice(s.data, advisor=RANDOM, median=0), ConfigError, "got median=0"),
        (lambda s: LLMAdvice(s.data, advisor=RANDOM, ema=2.0), ConfigError, r"got ema=2\.0"),
        (lambda s: LLMAdvice(s.data, advisor=RANDOM, rsi=True), ConfigError, "got rsi=True"),
        (lambda s: LLMAdvice(s.data, model="smollm2"), ConfigError, r"has no parameters \['model'\]"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(make, error, message):
    with pytest.raises(error, match=message) as caught:
        build(make, walk(150), walk(150))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ENGINES)
def test_data_shorter_than_the_warm_up_says_how_many_bars_it_needs(mode):
    with pytest.raises(DataError, match=r"data 'data0' has 113 bars, but LLMAdvice needs 114 to warm up"):
        advice(walk(113), LLMAdvice, mode=mode)
    assert advice(walk(114), LLMAdvice, mode=mode).asked == 1


def test_the_default_is_the_embedded_model():
    made = build(lambda s: QuickAdvice(s.data, s.data.close * 0.0), walk(40))
    assert made.config == AdvisorConfig()


# Finding it, showing it


def test_find_advice_goes_by_data_and_into_other_indicators():
    class Outer(bt.Indicator):
        lines = ("out",)

        def __init__(self):
            self.inner = QuickAdvice(self.data, advisor=RANDOM)
            self.lines.out = self.inner.trend + 0.0

    def make(s):
        return s, QuickAdvice(s.data, advisor=RANDOM), Outer(s.data1)

    s, direct, outer = build(make, walk(40), walk(40))
    assert find_advice(s) == [direct, outer.inner]
    assert find_advice(s, s.data) == [direct]
    assert find_advice(s, s.data1) == [outer.inner]


def test_the_label_of_a_plot_names_the_model_and_the_periods():
    made = advice(walk(40), advisor=AdvisorConfig(model="/somewhere/tiny.gguf"), cls=Silent)
    assert made.plotlabel() == "LLM advice (tiny.gguf, 5, 2, 5, 5, 11)"


class Silent(QuickAdvice):
    def advise(self, cells):
        return [Verdict(bullish=1.0, neutral=0.0, bearish=0.0) for _ in cells]


def test_a_feature_of_the_users_is_not_plotted_on_the_verdicts_scale_unless_it_says_how():
    class Drawn(QuickAdvice):
        lines = ("percent_b",)
        plotlines = {"percent_b": {"color": "red"}}  # noqa: RUF012 - Backtrader's way

    hidden, shown = (advice(walk(60), cls, advisor=BAND_CONFIG).plotlines for cls in (BandAdvice, Drawn))
    assert hidden.percent_b._get("_plotskip", False) is True
    assert shown.percent_b._get("_plotskip", False) is False
    assert hidden.verdict._get("_plotskip", False) is False


def test_lines_stand_in_backtraders_csv():
    out = io.StringIO()
    run(
        Maker,
        walk(20),
        prepare=lambda cerebro: cerebro.addwriter(bt.WriterFile, csv=True, out=out, close_out=False),
    )
    lines = out.getvalue().splitlines()
    (row,) = csv.DictReader([lines[1], lines[21]])
    assert (row["Id"], row["verdict"], row["confidence"]) == ("20", "1.0", "0.8")
    assert "AdvisorConfig(model='scripted:bullish'" in out.getvalue()


class Maker(bt.Strategy):
    def __init__(self):
        QuickAdvice(self.data, advisor=BULLISH)


def test_a_week_of_replayed_days_is_the_week_and_counted_once():
    days = walk(210)
    weeks = days.resample("W").agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    last = {}

    class Replay(bt.Strategy):
        def __init__(self):
            self.made = QuickAdvice(self.data, advisor=RANDOM)

        def next(self):
            last[len(self.data)] = tuple(self.made.lines[i][0] for i in range(8))

    cerebro = bt.Cerebro(stdstats=False)
    source = bt.feeds.PandasData(dataname=days, timeframe=bt.TimeFrame.Days, openinterest=None)
    cerebro.replaydata(source, timeframe=bt.TimeFrame.Weeks)
    cerebro.addstrategy(Replay)
    (replayed,) = cerebro.run()
    whole = advice(pd.DataFrame(weeks))
    full_weeks = len(weeks) - 1
    for week in range(17, full_weeks):
        assert bits(last[week]) == bits(whole.lines[i].array[week - 1] for i in range(8))
    assert replayed.made.bars == len(replayed.data) - 15
    assert replayed.made.asked == replayed.made.bars
