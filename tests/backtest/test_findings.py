from __future__ import annotations

import pytest

from bt_llm.backtest import Bootstrap, Primary, is_shown, run_backtest
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.statistics import BootstrapResult, paired_bootstrap
from tests.research_cases import Alternate, random_walk


def result(low: float, high: float) -> BootstrapResult:
    return BootstrapResult(
        estimate=(low + high) / 2, low=low, high=high, confidence=0.95, p_value=0.1, block_length=3, n=99
    )


def test_a_difference_is_shown_when_the_interval_leaves_out_zero() -> None:
    assert is_shown(result(0.1, 0.2))
    assert is_shown(result(-0.2, -0.1))
    assert not is_shown(result(-0.1, 0.2))
    assert not is_shown(result(0.0, 0.2))


def test_differences_are_a_year_and_those_of_the_paired_bootstrap() -> None:
    bars = random_walk(120)
    first, second = run_backtest(Alternate, bars), run_backtest(Alternate, bars, commission=0.001)
    found = Bootstrap(resamples=99, seed=3, block_length=4).between(first, second)
    for statistic, difference in found.items():
        expected = paired_bootstrap(
            first.returns, second.returns, statistic, n=99, seed=3, block_length=4, periods_per_year=365.25
        )
        assert difference.estimate == pytest.approx(expected.estimate)
        assert difference.low == pytest.approx(expected.low)
    assert found["return"].estimate > 0.0


@pytest.mark.parametrize("given", [{"seed": -1}, {"seed": 0.5}, {"resamples": 18}])
def test_what_nothing_can_be_drawn_by_is_refused_at_once(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(given))}=.*expected a whole number"):
        Bootstrap(**given)


def test_returns_of_other_bars_are_refused() -> None:
    returns = run_backtest(Alternate, random_walk(120)).returns
    with pytest.raises(DataError, match=r"\(119 bars\) and from .* \(118 bars\): expected the same bars"):
        Bootstrap().difference(returns, returns.iloc[1:], "sharpe")


def test_a_primary_says_found_not_shown_or_cannot_tell() -> None:
    given = {"claim": "it works", "smallest": 0.01, "detectable": 0.043}
    found = Primary(p_value=0.05, **given)
    assert (found.found, found.sentence) == (
        True,
        "Found that it works: p = 0.05, and the smallest that this test could give is 0.01.",
    )
    missed = Primary(p_value=0.06, **given)
    assert (missed.found, missed.sentence) == (
        False,
        "It is not shown that it works: p = 0.06, and the smallest that this test could give is 0.01. "
        "An effect of 4.3 % a year would have been found in 4 of 5 such tests.",
    )
    unable = Primary(claim="it works", p_value=0.5, smallest=0.5)
    assert (unable.found, unable.sentence) == (
        None,
        "Cannot tell whether it works: no outcome could have given p below 0.05: the smallest is 0.5.",
    )
    assert unable.to_dict()["cannot_tell"] == unable.cannot_tell


def test_a_p_value_that_rounds_to_nothing_is_not_said_to_be_nothing() -> None:
    found = Primary(claim="it is so", p_value=0.0, smallest=0.0)
    assert found.sentence == "Found that it is so: p is below 0.0001, and this test has no smallest one."
    assert "p = 0.0001, and" in Primary(claim="it is so", p_value=0.0001, smallest=0.0).sentence
