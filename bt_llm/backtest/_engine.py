"""The one engine: a strategy in a set-up on a market, whole or in a window."""

from __future__ import annotations

import contextlib
import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backtrader as bt

from bt_llm.backtest._account import Account
from bt_llm.backtest._account_analyzer import AccountAnalyzer
from bt_llm.backtest._lean import Drive
from bt_llm.backtest._market import Market, Window
from bt_llm.backtest._setup import Engine, Setup
from bt_llm.backtest._windowed import Stretch, windowed
from bt_llm.exceptions import BtLlmError, ConfigError, StrategyFailed
from bt_llm.gates import gated
from bt_llm.indicators import joins_late
from bt_llm.writing import apart_from_results

__all__ = ["Ran", "drive_strategy", "run_strategy", "warm_up_of"]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A strategy as its run left it, and its account."""

    strategy: bt.Strategy
    account: Account
    deposits: tuple[float, ...] = ()
    """What the strategy put into its account itself while it ran, or took out."""


def run_strategy(
    strategy: type[bt.Strategy],
    market: Market,
    setup: Setup,
    params: Mapping[str, Any],
    *,
    window: Window | None = None,
    first: float | None = None,
    cash: float | None = None,
    settles: bool = False,
    analyzers: Mapping[str, Callable[..., bt.Analyzer]] | None = None,
    engine: Engine = "lean",
    **modes: Any,
) -> Ran:
    """Run a strategy.

    Parameters
    ----------
    strategy : type
        Whose orders are judged by its gate, if it attaches none itself.
    market : Market
        What it trades; all of it, also for a window.
    setup : Setup
        How the account is opened.
    params : mapping
        Of the strategy, and its ``gate``.
    window : Window, optional
        Where it decides: it sees the window's bars and those before them that indicators warm up on,
        its own methods are called within the window only, and at its end the position is closed.
    first : float, optional
        Backtrader's number of the first bar that counts; by default the first after the warm-up.
    cash : float, optional
        Starting value instead of the set-up's.
    settles : bool
        Close what is open at the end of the bars at their last close. A window is then traded to its end,
        and not left at its last open, which nobody knew to be the last.
    analyzers : mapping of str to callable, optional
        Makers of further analyzers, by their names.
    engine : {'lean', 'plain'}
        See `run_backtest`.
    **modes
        Backtrader's ``preload``, ``runonce`` and ``exactbars``.

    Returns
    -------
    Ran
        What the strategy prints while it runs goes to standard error: standard output is for results.

    Raises
    ------
    ConfigError
        If ``exactbars=1`` is asked of datas of different times.
    StrategyFailed
        If the strategy fails, in one line that names its own, or skips itself.
    BtLlmError
        What its parts raise.
    """
    if int(modes.get("exactbars", False)) > 0 and not market.aligned:
        raise ConfigError(
            f"exactbars={modes['exactbars']!r}: Backtrader loses bars of datas whose times differ, as "
            f"{market.label}; expected exactbars=False, -1 or -2"
        )
    chosen, settings = gated(strategy), _own(strategy, params)
    if window is not None:
        first = float(market.numbers[window.first])
        leave = float(market.numbers[window.stop - 2]) if window.stop - window.first > 1 else -math.inf
        leave = math.inf if settles else leave
        market = market.cut(window)
        chosen = windowed(chosen)  # type: ignore[arg-type]
        settings["bt_llm_stretch"] = Stretch(first=first, leave=leave)
    with own_errors(strategy, params), apart_from_results():
        cerebro = setup.open(market, cash=cash, engine=engine, **modes)
        deposits = _deposits_of(cerebro)
        cerebro.addstrategy(chosen, **settings)
        joins = joins_late(strategy)
        cerebro.addanalyzer(
            AccountAnalyzer, _name="bt_llm_account", first=first, joins=joins, settles=settles
        )
        for name, kind in (analyzers or {}).items():
            cerebro.addanalyzer(kind, _name=name)
        ran = cerebro.run()
    if not ran:
        raise StrategyFailed(
            f"{strategy.__name__} skipped itself with {_shown(params)}: expected every combination to run; "
            f"leave some out by constraints, such as 'fast < slow'"
        )
    account = ran[0].analyzers.bt_llm_account.account
    return Ran(strategy=ran[0], account=account, deposits=tuple(deposits))


def _own(strategy: type[bt.Strategy], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of one run, which puts nothing into a list of theirs that another run finds."""
    settings = {**dict(strategy.params._getpairs()), **params}
    own = {name: _copied(value) for name, value in settings.items()}
    return {name: value for name, value in own.items() if name in params or value is not settings[name]}


def _copied(value: Any) -> Any:
    """Return containers anew, with all in them that are such, and anything else as it is."""
    if type(value) in (list, set):
        return type(value)(map(_copied, value))
    return {name: _copied(one) for name, one in value.items()} if type(value) is dict else value


def _deposits_of(cerebro: bt.Cerebro) -> list[float]:
    """Return a list that gets what is put into an account, or taken out of it, from the first bar on."""
    broker, found = cerebro.broker, list[float]()
    if isinstance(broker, bt.brokers.BackBroker):
        add_cash, set_cash = broker.add_cash, broker.set_cash

        def added(cash: float) -> None:
            found.extend([float(cash)] * any(map(len, cerebro.datas)))
            add_cash(cash)

        def was_set(cash: float) -> None:
            found.extend([float(cash) - float(broker.get_cash())] * any(map(len, cerebro.datas)))
            set_cash(cash)

        broker.add_cash, broker.set_cash, broker.setcash = added, was_set, was_set
    return found


def drive_strategy(
    strategy: type[bt.Strategy],
    market: Market,
    setup: Setup,
    params: Mapping[str, Any],
    drive: Drive,
    **modes: Any,
) -> bool:
    """Run a strategy over bars in any order, without an account being kept; return whether that can be.

    Parameters
    ----------
    strategy, market, setup, params
        As in `run_strategy`.
    drive : Drive
        Given the strategy, yields the place of each bar that it is to be called at. The broker and what the
        strategy remembers stay as they are from one to the next, whatever their order: that is for whoever
        knows that both are as they would be.
    **modes
        As in `run_strategy`.

    Returns
    -------
    bool
        False, and nothing was called, where Backtrader has to run the strategy in a loop of its own: with
        several datas, timers, cheat-on-open, resampled bars.

    Raises
    ------
    BtLlmError
        As in `run_strategy`.
    Exception
        What goes wrong in the package of `drive` itself: that is no error of the strategy's.
    """
    driver = Path(inspect.getfile(drive)).parent
    with own_errors(strategy, params, driver), apart_from_results():
        cerebro = setup.open(market, **modes)
        driven: list[bt.Strategy] = []

        def driving(running: bt.Strategy) -> Iterator[int]:
            driven.append(running)
            return drive(running)

        cerebro.drive = driving
        cerebro.addstrategy(gated(strategy), **_own(strategy, params))
        cerebro.run()
    return bool(driven)


def warm_up_of(strategy: type[bt.Strategy], params: Mapping[str, Any], market: Market, setup: Setup) -> int:
    """Return how many bars a strategy needs until its first ``next``, without data and without a model."""
    chosen = gated(strategy)

    class Probe(chosen):  # type: ignore[misc, valid-type]
        __module__ = strategy.__module__

        def start(self) -> None:
            pass

        def stop(self) -> None:
            pass

    Probe.__name__ = strategy.__name__
    with own_errors(strategy, params), apart_from_results():
        cerebro = setup.open(market.emptied(), runonce=False, preload=False)
        cerebro.addstrategy(Probe, **_own(strategy, params))
        ran = cerebro.run()
    needed = ran[0]._minperiod if ran else 1
    if not math.isfinite(needed):
        raise ConfigError(
            f"{strategy.__name__} with {_shown(params)} waits for {needed} bars before it begins: expected "
            "periods that are whole numbers"
        )
    return int(needed)


@contextlib.contextmanager
def own_errors(
    strategy: type[bt.Strategy], params: Mapping[str, Any], driver: Path | None = None
) -> Iterator[None]:
    """Turn what a strategy raises into an error of one line that names the strategy's own file and line.

    What comes from a folder of those who drive it, or from Backtrader as they call it, is left as it is.
    """
    try:
        yield
    except BtLlmError:
        raise
    except (Exception, SystemExit) as error:  # a strategy that leaves Python would leave nothing said
        frames, own = _frames_of(error), _files_of(strategy)
        theirs = [frame for frame in frames if _is_theirs(frame[0], own)]
        driven = [number for number, frame in enumerate(frames) if driver in frame[0].parents]
        if driven and not any(_is_theirs(frame[0], own) for frame in frames[driven[-1] :]):
            raise
        named = [frame for frame in theirs if frame[0] in own] or theirs
        place = f" ({named[-1][0].name}, line {named[-1][1]})" if named else ""
        raise StrategyFailed(
            f"{strategy.__name__} failed with {_shown(params)}: {type(error).__name__}: {error}{place}"
        ) from error


def _frames_of(error: BaseException) -> list[tuple[Path, int | None]]:
    return [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]


def _files_of(strategy: type[bt.Strategy]) -> set[Path]:
    """Return the files of a strategy's classes but Backtrader's."""
    own = set()
    for kind in strategy.__mro__:
        if not kind.__module__.startswith(("backtrader.", "builtins")):
            with contextlib.suppress(OSError, TypeError):
                own.add(Path(inspect.getfile(kind)))
    return own


def _is_theirs(file: Path, own: set[Path]) -> bool:
    return file in own or not any(parent in _LIBRARIES for parent in file.parents)


_LIBRARIES = (Path(inspect.getfile(bt)).parent, Path(__file__).parent.parent)


def _shown(params: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name}={value!r}" for name, value in params.items() if name != "gate") or "its defaults"
    )
