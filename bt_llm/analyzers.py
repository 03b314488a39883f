"""LLMAnalyzer: what was asked, what was answered, what it cost, and what the market did next."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from bt_llm.advice import Usage
from bt_llm.gates import AttachedGate, Questions, attached_gates
from bt_llm.indicators import LLMAdvice, find_advice, require_bars, value_now
from bt_llm.models import ModelManager
from bt_llm.settings import whole
from bt_llm.verdicts import DEFAULT_LABELS, INVALID, LabelMasses

__all__ = ["LLMAnalyzer"]


class _Series(NamedTuple):
    """What one advice indicator said, bar by bar of its data."""

    answer: NDArray[np.str_]
    worth: NDArray[np.float64]
    forward: NDArray[np.float64]


class _History:
    """Collects an advice indicator's bars as they come; a bar that a replay repeats is overwritten.

    Of one that filled all bars before the run, there is nothing to collect: they are read when it is over.
    """

    def __init__(self, advice: LLMAdvice) -> None:
        self.advice = advice
        self.columns = tuple(array("d") for _ in range(4))

    def record(self) -> None:
        """Note the current bar."""
        data = self.advice.data
        if not len(data):
            return
        now = [value_now(self.advice, name) for name in ("label", "verdict", "confidence")]
        for column, value in zip(self.columns, (*now, data.close[0]), strict=True):
            while len(column) < len(data):
                column.append(math.nan)
            column[len(data) - 1] = value

    @property
    def length(self) -> int:
        """Number of bars seen."""
        return len(self.advice.data) if self.advice.vectorised else len(self.columns[0])

    def _seen(self) -> Sequence[Any]:
        advice = self.advice
        if not advice.vectorised:
            return self.columns
        names, bars = ("label", "verdict", "confidence"), len(advice.data)
        lines = [*(getattr(advice.lines, name) for name in names), advice.data.lines.close]
        return [line.array[:bars] for line in lines]

    def series(self, horizon: int) -> _Series:
        """Return the bars with the return from each close to the one `horizon` bars later."""
        label, worth, confidence, close = map(np.array, self._seen())
        forward = np.full(len(close), math.nan)
        now, later = close[: max(0, len(close) - horizon)], close[horizon:]
        np.divide(later - now, now, out=forward[: len(now)], where=now > 0.0)
        return _Series(self.advice.labels.answers(label, confidence), worth, forward)


class LLMAnalyzer(bt.Analyzer):
    """Counts, costs and after-the-fact usefulness of a strategy's advice.

    Parameters
    ----------
    horizon : int
        Bars of the forward return: from the close of the verdict's bar to the close `horizon` bars later.

    Notes
    -----
    `get_analysis` gives plain numbers, text and None only, so that it is JSON and pickles small:

    ``bars``, ``warm_up``, ``asked``, ``carried``, ``unanswered``
        Bars of the data, those before the first possible state, those with an answer of their own, those
        with an earlier one, and those that were asked and have none, because it did not come in time or
        failed; of every `LLMAdvice`, added up.
    ``distinct``, ``cache_hits``, ``model_calls``, ``model_seconds``, ``tokens``
        Distinct cells, and what answering cost; see `bt_llm.advice.Usage`.
    ``answered_by``, ``loads``, ``unloads``, ``load_seconds``, ``peak_memory_mb``
        Names of the models that gave the verdicts, a fallback's if it came to that; how often in the run the
        managers of these models loaded and unloaded weights, for whoever asked; the wall time of the loads;
        and the most memory that this process has had with a model in it, 0 where no local one was needed.
    ``verdicts``
        Bars by what they show, an earlier answer included: by the names of the template's labels, which are
        ``bullish``, ``neutral`` and ``bearish`` by default, ``invalid``, and ``not_asked`` for those without
        an answer, the warm-up included; they sum to ``bars``.
    ``label_mass``
        What share of the probability the labels hold over the distinct states, ``least``, ``median`` and
        ``most``; the ``floor`` that they must hold, and how many states are ``below`` it and so invalid. None
        where no reader knows it.
    ``horizon``, ``forward``
        By verdict, and for ``all`` readable ones: ``n``, the ``mean`` forward return as a fraction, and the
        ``hit_rate`` (a verdict worth more than nothing hits where it is above 0, one worth less where it is
        below; one worth nothing claims nothing). The last `horizon` bars have none, nor those that closed at
        nothing or less.
    ``gate``
        Entries ``allowed`` and ``blocked``, and of both, those ``missing`` a verdict.
    ``questions``
        What gates asked an analyst, such as those of news and of trades: ``asked``, ``answers``,
        ``invalid``, ``missing``, ``cache_hits``, ``model_calls``, ``model_seconds`` and ``tokens``; see
        `bt_llm.gates.Questions`. None where no gate asks one.
    ``datas``
        The same for each data by its name; what stands above is their total.

    The forward return is known only `horizon` bars after the verdict. It is computed here when the run is
    over and never fed back into it; bars overlap when `horizon` is above 1.

    The analyzer also checks, before the run, that no data is shorter than the warm-up.

    Examples
    --------
    >>> cerebro = bt.Cerebro()
    >>> cerebro.addanalyzer(LLMAnalyzer, _name="advice", horizon=5)
    """

    params = (("horizon", 1),)

    def start(self) -> None:
        """Find the advice; its strategy is complete now."""
        self._horizon = whole("horizon", self.p.horizon, 1, of=" of bars")
        require_bars(self.strategy)
        self._histories = [_History(advice) for advice in find_advice(self.strategy)]
        self._before = {manager: manager.usage for manager in _managers(self._histories)}

    def next(self) -> None:
        """Record the bar; Backtrader calls this during the warm-up too."""
        for history in self._histories:
            if not history.advice.vectorised:
                history.record()

    @property
    def rests(self) -> bool:
        """Whether it need not be called bar by bar: not where a class derived from it does more there."""
        own = all(getattr(type(self), name) is getattr(LLMAnalyzer, name) for name in _BY_BAR)
        return own and all(history.advice.vectorised for history in self._histories)

    def stop(self) -> None:
        """Work it out, and let go of everything that a worker process would have to send back."""
        gates = attached_gates(self.strategy)
        self.rets.update(self._analysis(self._histories, gates))
        self.rets["datas"] = {}
        sources = [history.advice.data for history in self._histories] + [gate.data for gate in gates]
        for data in dict.fromkeys(sources):
            self.rets["datas"][self._name(data)] = self._analysis(
                [history for history in self._histories if history.advice.data is data],
                [gate for gate in gates if gate.data is data],
            )
        self._histories, self._before = [], {}

    def _name(self, data: Any) -> str:
        """Return the data's name, made unique by its place among the strategy's datas."""
        datas = self.strategy.datas
        name = getattr(data, "_name", "")
        if name and sum(other._name == name for other in datas) == 1:
            return str(name)
        place = next((i for i, other in enumerate(datas) if other is data), len(self.rets["datas"]))
        return f"{name or 'data'}{place}"

    def _models(self, histories: Sequence[_History]) -> dict[str, Any]:
        """Return who answered, and what their managers did in the run."""
        names = {part.answered_by for history in histories for part in history.advice.advisor.parts}
        done = [manager.usage.since(self._before[manager]) for manager in _managers(histories)]
        return {
            "answered_by": sorted(names),
            "loads": sum(usage.loads for usage in done),
            "unloads": sum(usage.unloads for usage in done),
            "load_seconds": sum(usage.load_seconds for usage in done),
            "peak_memory_mb": max((usage.peak_memory_mb for usage in done), default=0.0),
        }

    def _analysis(self, histories: Sequence[_History], gates: Sequence[AttachedGate]) -> dict[str, Any]:
        advices = [history.advice for history in histories]
        usage = sum((advice.usage for advice in advices), Usage())
        found = [history.series(self._horizon) for history in histories]
        series = _Series(*map(np.concatenate, zip(_EMPTY, *found, strict=True)))
        labels = [advice.labels for advice in advices] or [DEFAULT_LABELS]
        counts = (history.advice.counts(history.length) for history in histories)
        bars, asked, carried, unanswered = map(sum, zip((0, 0, 0, 0), *counts, strict=True))
        worths = {label.name: label.worth for one in labels for label in one}
        return {
            "bars": len(series.answer),
            "warm_up": len(series.answer) - bars,
            "asked": asked,
            "carried": carried,
            "unanswered": unanswered,
            "distinct": sum(advice.distinct for advice in advices),
            "cache_hits": usage.cache_hits,
            "model_calls": usage.model_calls,
            "model_seconds": usage.model_seconds,
            "tokens": usage.tokens,
            **self._models(histories),
            "verdicts": _counts(series, worths),
            "label_mass": _label_mass(advices),
            "horizon": self._horizon,
            "forward": _forward(series, worths),
            "gate": {
                "allowed": sum(gate.allowed for gate in gates),
                "blocked": sum(gate.blocked for gate in gates),
                "missing": sum(gate.missing for gate in gates),
            },
            "questions": _questions(gates),
        }


_BY_BAR = ("prenext", "nextstart", "next", "_prenext", "_nextstart", "_next")


def _label_mass(advices: Sequence[LLMAdvice]) -> dict[str, float] | None:
    """Return the label masses of all advice together; the largest floor stands for all."""
    advisors = dict.fromkeys(advice.advisor for advice in advices if advice.advisor.answered_by)
    known = [one.label_mass for advisor in advisors for one in advisor.known().values()]
    floors = [advisor.config.floor for advisor in advisors]
    return LabelMasses.of(known, max(floors, default=0.0)).to_dict()


def _questions(gates: Sequence[AttachedGate]) -> dict[str, Any] | None:
    found = [asked for gate in gates if (asked := gate.questions()) is not None]
    return dataclasses.asdict(sum(found, Questions())) if found else None


def _managers(histories: Sequence[_History]) -> list[ModelManager]:
    found = [manager for history in histories for manager in history.advice.advisor.managers]
    return list(dict.fromkeys(found))


_EMPTY = _Series(np.empty(0, dtype=str), np.empty(0), np.empty(0))


def _counts(series: _Series, worths: Mapping[str, float]) -> dict[str, int]:
    counts = {name: int(np.count_nonzero(series.answer == name)) for name in (*worths, INVALID)}
    return counts | {"not_asked": int(np.count_nonzero(series.answer == ""))}


def _forward(series: _Series, worths: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    known = np.isfinite(series.forward)
    returns = {name: series.forward[known & (series.answer == name)] for name in worths}
    found = {name: _figures(values, worths[name]) for name, values in returns.items()}
    return found | {"all": _figures(series.forward[known & ~np.isnan(series.worth)], 0.0)}


def _figures(returns: NDArray[np.float64], worth: float) -> dict[str, Any]:
    claims = bool(worth) and bool(len(returns))
    return {
        "n": len(returns),
        "mean": float(np.mean(returns)) if len(returns) else None,
        "hit_rate": float(np.mean(returns > 0 if worth > 0 else returns < 0)) if claims else None,
    }
