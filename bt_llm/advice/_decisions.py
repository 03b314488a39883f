"""DecisionsAdvisor: what another tool decided, at the bars in which it did."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bt_llm.advice._advisor import Advisor, Spans
from bt_llm.advice._advisor_config import AdvisorConfig
from bt_llm.advice._asker import Usage
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError
from bt_llm.models import (
    SIDES,
    Backend,
    DecisionBook,
    DecisionsModel,
    Progress,
    Prompt,
    Timeline,
    kind_of,
    word_of,
)
from bt_llm.plain_text import counted
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import LabelSet, Verdict

__all__ = ["DecisionsAdvisor"]

_AT_ONCE = 256


class DecisionsAdvisor(Advisor):
    """Gives the decisions of a file as verdicts; a place is the number of a row.

    Each is stored under the hash of the file and what stands in the row, like a model's answer. States of the
    market play no part, and neither does calibration.

    Parameters
    ----------
    config : AdvisorConfig
        Whose model is ``decisions:FILE``; see `bt_llm.models.DecisionsModel`.
    cache, template
        As of `Advisor`; of the template only the labels count.
    """

    by_bar: ClassVar[bool] = True

    def __init__(
        self,
        config: AdvisorConfig,
        *,
        cache: VerdictCache | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        if config.calibration != "none" or config.fallbacks or config.manager is not None:
            raise ConfigError(
                f"model {str(config.model)!r:.80} with a prior, fallbacks or a manager: expected none, "
                "for decisions are made, and no function of the market's state"
            )
        super().__init__(config, cache=cache, template=template)
        model = kind_of(str(config.model))
        if not isinstance(model, DecisionsModel):
            raise ConfigError(f"model {model.name!r:.80}: expected {DecisionsModel.form}")
        self.book: DecisionBook = config.supplied.carried if config.supplied else model.book
        self._check_words()
        self._matched: set[int] = set()
        self._last_symbol = ""
        self._seen: list[datetime.datetime] = []
        self._lines: dict[tuple[str, datetime.tzinfo], Timeline] = {}

    @property
    def carried(self) -> DecisionBook:
        """The decisions."""
        return self.book

    def _check_words(self) -> None:
        """Refuse a row that is no decision, also one that no bar may come to."""
        known: set[str] = set()
        for number, row in enumerate(self.book.rows, start=1):
            if row.decision not in known:
                _place(row.decision, self.labels, f"decisions {self.book.name!r:.80}, row {number}")
                known.add(row.decision)

    def places(self, cells: NDArray[np.int64], spans: Spans, symbol: str) -> NDArray[np.int64]:
        """Return the row that counts at each bar, -1 for none, whatever the bar's state."""
        key = symbol, spans.zone
        if key not in self._lines:
            self._lines[key] = self.book.on(symbol, spans.zone)
        pairs = zip(spans.opened, spans.closed, strict=True)
        found = np.array(
            [self._lines[key].row_at(opened, closed) for opened, closed in pairs], dtype=np.int64
        )
        self._last_symbol = symbol
        if len(spans.opened):
            ends = (*self._seen, spans.opened[0], spans.closed[-1])
            self._seen = [min(ends), max(ends)]
        self._matched |= set(found[found >= 0].tolist())
        return found

    def with_prior(self, places: Iterable[int]) -> list[int]:
        """Return the places: nothing else is needed."""
        return sorted(set(places))

    def split(self, places: Sequence[int]) -> list[tuple[Advisor, list[int]]]:
        """Return nobody: there is no policy."""
        return []

    def silence(self, bars: int) -> tuple[str, str]:
        """Return that no decision was on any bar, or how many bars had none, and decisions no bar."""
        book, symbol = self.book, self._last_symbol
        if not self._matched:
            return f"no decision of {book.name} belongs to a bar of {symbol}: {self._why_none(symbol)}", ""
        left = sum(len(line.numbers) for line in self._lines.values()) - len(self._matched)
        taken = "" if any(book.symbols) else f"; it names no symbol, and is taken for {symbol}"
        return "", (
            f"decisions of {book.name}: none for {counted(bars, 'bar')}, and {counted(left, 'decision')} of "
            f"no bar, or not the last in theirs{taken}"
        )

    def _why_none(self, symbol: str) -> str:
        times = [time for line in self._lines.values() for time in line.times]
        if not times:
            known = ", ".join(filter(None, self.book.symbols[:5]))
            return (
                f"they are on {known}; name the data as its symbol (-d SYMBOL=FILE), or say whose they are "
                f"(decisions:{self.book.name}?symbol=...)"
            )
        first, last = min(times), max(times)
        made = f"at {first}" if first == last else f"from {first} to {last}"
        seen = " to ".join(map(str, self._seen)) or "none"
        return f"{len(times)} on {symbol} were made {made}, and the bars that are asked about are {seen}"

    def prompts(self, cells: Sequence[int]) -> list[Prompt]:
        """Return what stands for each row in its verdict's key."""
        return [Prompt((self._shown(number),)) for number in cells]

    def _shown(self, number: int) -> str:
        row = self.book.rows[number]
        return f"row {number + 1}: {row.time.isoformat()} {row.symbol} {row.decision} {row.probability!r}"

    def _described(self, cell: int) -> str:
        return self._shown(cell)

    def _readings(
        self, backend: Backend, prompts: Sequence[Prompt]
    ) -> Iterator[Sequence[tuple[Verdict, Mapping[str, Any]] | None]]:
        for start in range(0, len(prompts), _AT_ONCE):
            numbers = [
                int(one.text[4 : one.text.index(":")]) - 1 for one in prompts[start : start + _AT_ONCE]
            ]
            yield [(self._verdict(number), {}) for number in numbers]

    def _fetched(
        self, cells: Sequence[int], usage: Usage, on_progress: Progress | None
    ) -> dict[int, Verdict]:
        """Return the verdicts of rows; of one alone, as bar by bar, with later ones: a write takes long."""
        if len(cells) == 1 and cells[0] not in self._raw():
            super()._fetched(self._and_next(cells[0]), usage, on_progress)
        return super()._fetched(cells, usage, on_progress)

    def _and_next(self, place: int) -> list[int]:
        for line in self._lines.values():
            if place in line.numbers:
                at = line.numbers.index(place)
                return list(line.numbers[at : at + _AT_ONCE])
        return [place]

    def _verdict(self, number: int) -> Verdict:
        row, labels = self.book.rows[number], self.labels
        where = f"decisions {self.book.name!r:.80}, row {number + 1}"
        place, count = _place(row.decision, labels, where), len(labels)
        if row.probability * count < 1.0:
            raise ConfigError(
                f"{where}: probability {row.probability:g} of {row.decision!r:.40} is below 1/{count}: "
                f"another label would be more probable; expected the probability of what was decided"
            )
        rest = (1.0 - row.probability) / (count - 1)
        probabilities = [row.probability if at == place else rest for at in range(count)]
        return Verdict(labels=labels, probabilities=probabilities)


def _place(decision: str, labels: LabelSet, where: str) -> int:
    """Return the label that a decision is: by its word, or the only one on its side."""
    words = [label.word.strip().casefold() for label in labels]
    if decision.casefold() in words:
        return words.index(decision.casefold())
    side = SIDES.get(word_of(decision))
    on_it = [at for at, worth in enumerate(labels.worths) if side is not None and np.sign(worth) == side]
    if len(on_it) != 1:
        raise ConfigError(
            f"{where}: decision {decision!r:.40} is no label ({', '.join(labels.words)}) and no "
            "word for one; expected such as buy, hold or sell"
        )
    return on_it[0]
