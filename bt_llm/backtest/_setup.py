"""Setup: how an account is opened on a market, by default or by the user's own function."""

from __future__ import annotations

import copy
import difflib
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

import backtrader as bt

from bt_llm.backtest._brokers import PlainBroker, RestingBroker
from bt_llm.backtest._lean import LeanCerebro
from bt_llm.backtest._market import Market
from bt_llm.backtest._strategy_files import function_in, load_function
from bt_llm.exceptions import ConfigError, StrategyError
from bt_llm.settings import in_short, instance, number
from bt_llm.sources import SourceFiles, files_of, source_sha256

__all__ = ["Engine", "Setup", "SetupFunction", "ShareOfAccount"]

SetupFunction: TypeAlias = Callable[[bt.Cerebro, Market], Any]
"""Opens an account: adds datas, broker, commission schemes, sizers and timers, all but the strategy."""

Engine = Literal["lean", "plain"]

_MODES = ("preload", "runonce", "exactbars")
_KNOWN = ("backtrader", "bt_llm", "builtins")
_AT_MARKET = (bt.Order.Market, bt.Order.Close)


class ShareOfAccount(bt.Sizer):
    """A fixed share of the account's value an entry; an order against the position closes it.

    An exit written ``self.sell()`` closes a long position, whatever its size. Market orders on their way
    count as filled, so that a reversal made of ``close()`` and ``buy()`` is an exit and an entry of full
    size; with Backtrader's PercentSizer the entry would have the size of the position that is closed.

    Parameters
    ----------
    percent : float
        Of the account's value, commission and contract size (``mult``) apart.
    """

    params = (("percent", 95.0),)

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> float:
        held = self._exposure(data)
        if held * (1 if isbuy else -1) < 0:
            return abs(held)
        price = data.close[0] * comminfo.p.mult
        return float(self.broker.getvalue() * self.p.percent / 100.0 / price) if price > 0.0 else 0.0

    def _exposure(self, data: Any) -> float:
        """Return the position's size once the market orders on their way are filled."""
        waiting = [*getattr(self.broker, "submitted", ()), *getattr(self.broker, "pending", ())]
        coming = [order for order in waiting if order.data is data and order.exectype in _AT_MARKET]
        position: float = self.broker.getposition(data).size
        return float(position + sum(order.executed.remsize for order in coming if order.parent is None))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How an account is opened on a market.

    Parameters
    ----------
    cash : float
        Starting value of the account.
    commission : float, or CommInfo instance or class
        Fraction of the traded value; or a commission scheme of Backtrader's.
    slippage : float
        Fraction of the price that every fill at a market price is worse by. All of it is charged, if need be
        beyond the bar's range.
    percent : float
        Share of the account, in percent, that an order of unstated size takes; see `ShareOfAccount`.
    sizer : class, instance, (class, dict) or str, optional
        Sizes such orders instead; as text ``path/to/file.py:Class``, or the name of a sizer of Backtrader's,
        such as ``AllInSizer``.
    cerebro : mapping, optional
        Settings of Cerebro, such as ``{"cheat_on_open": True}``.
    function : callable or str, optional
        The user's own set-up instead of all of these: ``function(cerebro, market)``, or
        ``path/to/file.py:function``. It does what a script does before ``run()``, without the strategy:
        adds datas (``cerebro.adddata(market.feed("a"), name="a")``, resampled or not), commission
        schemes, sizers, timers. Where it adds no data, those of the market are added in order.

    Raises
    ------
    ConfigError
        If a setting is out of its range, or given beside a function.
    StrategyError
        If the function cannot be loaded.

    Notes
    -----
    A set-up from a file is pickled as the file's text, as strategies are: other machines need not have it.

    Examples
    --------
    >>> Setup(cash=50_000, sizer=(bt.sizers.FixedSize, {"stake": 10})).describe()["sizer"]
    'FixedSize(stake=10)'
    """

    cash: float = 10_000.0
    commission: Any = 0.0
    slippage: float = 0.0
    percent: float = 95.0
    sizer: Any = None
    cerebro: Mapping[str, Any] | None = None
    function: SetupFunction | str | None = None
    _source_sha256: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings, once."""
        for name, least, most in (
            ("cash", 1e-9, 1e18),
            ("slippage", 0, 1),
            ("percent", 1e-9, 100),
        ):
            object.__setattr__(self, name, number(name, getattr(self, name), least, most))
        if not _is_a(self.commission, bt.CommInfoBase):
            object.__setattr__(self, "commission", number("commission", self.commission, 0, 1))
        if isinstance(self.sizer, str):
            object.__setattr__(self, "sizer", _named_sizer(self.sizer))
        sizer = self.sizer[0] if isinstance(self.sizer, tuple) and len(self.sizer) == 2 else self.sizer
        if sizer is not None and not _is_a(sizer, bt.Sizer):
            raise ConfigError(
                f"sizer={in_short(self.sizer)}: expected a Sizer, or (a Sizer class, its parameters)"
            )
        _check_cerebro(self.cerebro or {})
        if self.function is not None:
            self._check_function()

    def _check_function(self) -> None:
        given = [f.name for f in fields(self) if f.init and f.name not in ("function", "cerebro")]
        default = Setup()
        if others := [name for name in given if getattr(self, name) != getattr(default, name)]:
            raise ConfigError(f"{others[0]} beside a set-up of your own: set it there, on the broker")
        if isinstance(self.function, str):
            object.__setattr__(self, "function", load_function(self.function))
        if not callable(self.function):
            raise ConfigError(
                f"setup={in_short(self.function)}: expected setup(cerebro, market) or file.py:function"
            )
        # Here, where its source is: another process may have none of a script's or a notebook's.
        object.__setattr__(self, "_source_sha256", _source_of(self.function))

    @classmethod
    def of(cls, setup: Setup | SetupFunction | str | None = None, **settings: Any) -> Setup:
        """Return a set-up from what a user gives: one, or a function, or the settings of the default.

        Raises
        ------
        ConfigError
            If settings are given beside a `Setup`.
        """
        if isinstance(setup, Setup):
            if given := [name for name, value in settings.items() if value != getattr(Setup(), name)]:
                raise ConfigError(f"{given[0]} beside a Setup: expected it in the Setup")
            return setup
        return cls(function=setup, **settings)

    @property
    def name(self) -> str:
        """Name of the user's function; empty for the default."""
        return "" if self.function is None else str(getattr(self.function, "__name__", "setup"))

    def open(
        self, market: Market, cash: float | None = None, *, engine: Engine = "lean", **modes: Any
    ) -> bt.Cerebro:
        """Return a Cerebro with the account opened on a market, ready for a strategy.

        Parameters
        ----------
        market : Market
            What is traded.
        cash : float, optional
            Starting value instead of the set-up's own.
        engine : {'lean', 'plain'}
            Whether Cerebro may leave out what changes nothing; see `run_backtest`.
        **modes
            ``preload``, ``runonce`` and ``exactbars``.

        Raises
        ------
        ConfigError
            If the user's function adds a strategy, or `engine` is neither.
        """
        if engine not in get_args(Engine):
            raise ConfigError(f"engine={engine!r}: expected one of {list(get_args(Engine))}")
        kind, broker = (LeanCerebro, RestingBroker) if engine == "lean" else (bt.Cerebro, PlainBroker)
        cerebro = kind(**{"stdstats": False, **(self.cerebro or {}), **modes})
        cerebro.broker = broker()
        if callable(self.function):
            made = self.function(cerebro, market)
            if isinstance(made, bt.Cerebro) and made is not cerebro:
                raise ConfigError(
                    f"set-up {self.name} returns a Cerebro of its own: expected all in the one it is given"
                )
            if cerebro.signals:
                raise ConfigError(
                    f"set-up {self.name} adds signals: expected them in a bt.SignalStrategy, by signal_add()"
                )
            if cerebro.strats:
                raise ConfigError(
                    f"set-up {self.name} adds a strategy: expected all but the strategy and run()"
                )
        else:
            self._open_default(cerebro)
        if not cerebro.datas:
            market.add_to(cerebro)
        if cash is not None:
            cerebro.broker.setcash(cash)
        return cerebro

    def _open_default(self, cerebro: bt.Cerebro) -> None:
        sizer, settings = (
            _made_by(self.sizer) if self.sizer is not None else (ShareOfAccount, {"percent": self.percent})
        )
        cerebro.addsizer(sizer, **settings)
        broker = cerebro.broker
        broker.setcash(self.cash)
        if isinstance(self.commission, float):
            broker.setcommission(commission=self.commission)
        else:
            scheme = self.commission
            broker.addcommissioninfo(scheme() if isinstance(scheme, type) else copy.deepcopy(scheme))
        if self.slippage:
            broker.set_slippage_perc(self.slippage, slip_out=True)

    def starting_cash(self, market: Market) -> float:
        """Return what an account begins with, as its broker says."""
        return float(self.open(market.emptied()).broker.startingcash)

    def describe(self) -> dict[str, Any]:
        """Return what the account is, as numbers and text, for tables and pages."""
        if self.function is not None:
            return {
                "setup": self.name,
                "setup_sha256": self._source_sha256,
                **_plain(self.cerebro or {}),
            }
        sizer = {} if self.sizer is None else {"sizer": _spelled(*_made_by(self.sizer, spell=True))}
        percent = {"percent": self.percent} if self.sizer is None else {}
        commission = self.commission
        if not isinstance(commission, float):
            kind = commission if isinstance(commission, type) else type(commission)
            changed = {} if isinstance(commission, type) else _changed(commission.p)
            commission = _spelled(kind, changed)
        return {
            "cash": self.cash,
            "commission": commission,
            "slippage": self.slippage,
            **percent,
            **sizer,
            **_plain(self.cerebro or {}),
        }

    def content(self, sha256_of: Callable[[Any], str]) -> dict[str, Any]:
        """Return all that an account depends on, for keys: `describe`, and hashes of the user's own code.

        Parameters
        ----------
        sha256_of : callable
            Returns the hash of a class or function, or of the attributes, by name, of an instance.

        Raises
        ------
        StrategyError
            If that code or one of these attributes has no hash.
        """
        sizer = None if self.sizer is None else _made_by(self.sizer, spell=True)[0]
        scheme = self.commission if isinstance(self.commission, type) else type(self.commission)
        own = {
            name: sha256_of(code)
            for name, code in (("setup", self.function), ("sizer", sizer), ("commission", scheme))
            if code is not None and code.__module__.partition(".")[0] not in _KNOWN
        }
        beside = {}
        for name, made in (("sizer", self.sizer), ("commission", self.commission)):
            for attribute, value in _beside_params(made).items():
                try:
                    beside[f"{name}.{attribute}"] = sha256_of({attribute: value})
                except StrategyError as error:
                    raise StrategyError(
                        f"{name}.{attribute}={in_short(value)}: what it holds cannot be told from another's, "
                        f"and sizes may depend on it: expected parameters, or numbers, text and containers"
                    ) from error
        return {**self.describe(), "code": own, **({"attributes": beside} if beside else {})}

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields; a function or sizer from a file as its file's path and text."""
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("function", "sizer"):
            code = state[name]
            is_code = inspect.isroutine(code) or inspect.isclass(code)
            if is_code and (files := files_of(code)) is not None:
                state[name] = _FromFile(files=files, name=code.__qualname__)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value.load() if isinstance(value, _FromFile) else value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FromFile:
    """A function or class as another process gets it: the texts of its file and of that file's neighbours."""

    files: SourceFiles
    name: str

    def load(self) -> Callable[..., Any]:
        return function_in(self.files, self.name)


def _check_cerebro(settings: Mapping[str, Any]) -> None:
    instance("cerebro", settings, Mapping, "a mapping of Cerebro's settings to values")
    known = [name for name in bt.Cerebro.params._getkeys() if name not in _MODES]
    for name in settings:
        if name in _MODES:
            raise ConfigError(f"cerebro: {name!r} is an argument of its own: expected {name}=...")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(f"cerebro: no setting {name!r}: expected one of {near or known}")


def _is_a(value: Any, base: type[Any]) -> bool:
    return isinstance(value, base) or (isinstance(value, type) and issubclass(value, base))


def _made_by(sizer: Any, *, spell: bool = False) -> tuple[Any, dict[str, Any]]:
    """Return what Cerebro makes a sizer with; every run gets a copy of an instance."""
    if isinstance(sizer, tuple):
        return sizer[0], dict(sizer[1])
    if isinstance(sizer, type):
        return sizer, {}
    if spell:
        return type(sizer), _changed(sizer.p)
    return functools.partial(_fresh, sizer), {}


def _fresh(sizer: bt.Sizer) -> bt.Sizer:
    """Return a copy of a sizer that shares nothing with it that can be copied, nor with a run it was in."""
    made = copy.copy(sizer)
    made.strategy = made.broker = None
    try:
        return copy.deepcopy(made)
    except TypeError:  # it holds a file or a lock
        return made


def _named_sizer(name: str) -> type[bt.Sizer]:
    """Return the sizer that text names: in a file, or one of Backtrader's."""
    if ".py" in name:
        return load_function(name)  # type: ignore[return-value]
    known: dict[str, type[bt.Sizer]] = {
        key: one for key, one in vars(bt.sizers).items() if _is_a(one, bt.Sizer)
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"sizer {name!r}: expected path/to/file.py:Class, or one of {sorted(known)}{hint}")
    return known[name]


def _changed(params: Any) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params._getkeys() if params.notdefault(name)}


def _beside_params(made: Any) -> dict[str, Any]:
    """Return what an instance of the user's has been given besides its parameters, by name."""
    if not isinstance(made, bt.Sizer | bt.CommInfoBase):
        return {}
    known = {*vars(bt.Sizer()), *vars(bt.CommInfoBase()), "strategy", "broker"}
    return {name: value for name, value in sorted(vars(made).items()) if name not in known}


def _spelled(kind: type[Any], settings: Mapping[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, bool | int | float | str) else repr(value)
        for name, value in sorted(settings.items())
    }


def _source_of(code: Any) -> str:
    """Return the hash of what code comes from; of code that is in no file, of its own text."""
    try:
        return source_sha256(code)
    except StrategyError:
        try:
            return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
        except (OSError, TypeError) as error:
            raise StrategyError(
                f"{getattr(code, '__name__', code)!r} has no source: put it into a file"
            ) from error
