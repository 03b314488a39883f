"""A family of models with the day that each one's knowledge ends: at each bar the newest that cannot know it.

A model that was trained on last year has read what the market did; asked about last year it may remember
instead of judging. A family of models trained to successive days leaves no room for that: a bar is judged by
a member whose knowledge ended before the bar began (Chronologically consistent models, such as DatedGPT,
arXiv 2603.11838).

A family is a TOML file, and its name ``dated:models.toml``::

    format = 1

    [[member]]
    model = "dated-2013.gguf"       # a file beside this one, or a name
    knowledge_ends = 2013-12-31

    [[member]]
    model = "dated-2014.gguf"
    knowledge_ends = 2014-12-31

or, of few members, the days themselves: ``dated:2013-12-31=a.gguf,2014-12-31=b.gguf``.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from bt_llm.exceptions import ConfigError
from bt_llm.files import read_text
from bt_llm.models._base import Backend, ModelIdentity
from bt_llm.models._config import ModelConfig
from bt_llm.models._registry import Capability, KnownModels, ModelKind, kind_of, split_name
from bt_llm.plain_json import canonical_json

__all__ = ["DatedFamily", "DatedModel", "Member"]

FORMAT = 1
_MOST_MEMBERS, _LONGEST_NAME, _LONGEST_LINE, _USUAL_MB = 1_000, 1_000, 2_000, 1
_INLINE = re.compile(r"\d{4}-\d{2}-\d{2}=")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Member:
    """A model, and the last day that it may have read about.

    Parameters
    ----------
    model : str
        Its name or path.
    knowledge_ends : date
        The whole of that day, in UTC, may be known to it.
    """

    model: str
    knowledge_ends: datetime.date

    @property
    def ended(self) -> datetime.datetime:
        """The end of its last day, in UTC."""
        midnight = datetime.datetime.combine(self.knowledge_ends, datetime.time(), datetime.UTC)
        return midnight + _DAY


class DatedFamily:
    """Members in the order of their days, and which one a bar is for.

    Parameters
    ----------
    members : sequence of Member
        In any order; no day and no model twice.
    where : str
        What names them, for messages.

    Raises
    ------
    ConfigError
        If there is none, or a day or a model is there twice.

    Examples
    --------
    >>> days = {"a": datetime.date(2020, 12, 31), "b": datetime.date(2021, 12, 31)}
    >>> family = DatedFamily([Member(name, day) for name, day in days.items()])
    >>> opened = datetime.datetime(2021, 12, 31, 23, tzinfo=datetime.UTC)
    >>> family.member_at(opened), family.member_at(opened + datetime.timedelta(hours=1))
    (0, 1)
    """

    def __init__(self, members: Sequence[Member], where: str = "family") -> None:
        self.members = tuple(sorted(members, key=lambda member: member.knowledge_ends))
        if not self.members:
            raise ConfigError(f"{where}: no members; expected [[member]] with model and knowledge_ends")
        for what in ("knowledge_ends", "model"):
            if twice := _twice([str(getattr(member, what)) for member in self.members]):
                raise ConfigError(f"{where}: {what} {twice!r:.80} is there twice; expected it once")
        self._ends = [member.ended for member in self.members]

    def __len__(self) -> int:
        return len(self.members)

    def __eq__(self, other: object) -> bool:
        """Compare the members."""
        return isinstance(other, DatedFamily) and self.members == other.members

    def __hash__(self) -> int:
        """Hash the members."""
        return hash(self.members)

    def member_at(self, opened: datetime.datetime) -> int:
        """Return the place of the newest member whose knowledge had ended when a bar opened; -1 for none.

        Parameters
        ----------
        opened : datetime
            When the bar opened, with its zone: nothing of the bar may be known to whoever judges it.
        """
        if opened.tzinfo is None:
            raise ConfigError(f"opened={opened}: expected a time with its zone")
        return bisect.bisect_right(self._ends, opened) - 1

    @property
    def inline(self) -> str:
        """The members as text, as they may follow ``dated:``."""
        parts = (f"{member.knowledge_ends}={quote(member.model, safe=_SAFE)}" for member in self.members)
        return ",".join(parts)

    @classmethod
    def parse(cls, rest: str) -> DatedFamily:
        """Return the family that follows ``dated:`` in a name: a file's path, or the members themselves.

        Raises
        ------
        ConfigError
            If it is none, in a line that says what is wrong with it.
        """
        if _INLINE.match(rest):
            return cls(list(_inline_members(rest)), f"dated:{rest:.60}")
        return cls.read(Path(rest))

    @classmethod
    def read(cls, path: Path) -> DatedFamily:
        """Return the family in a TOML file; paths in it start beside the file.

        Raises
        ------
        ConfigError
            If it cannot be read or is none, or a member is asked over the network: a file may not send
            prompts anywhere.
        """
        where = f"dated models {str(path)!r}"
        try:
            text = read_text(path, _USUAL_MB).removeprefix("\ufeff")
            if len(max(text.splitlines(), key=len, default="")) > _LONGEST_LINE:  # keys in keys take hours
                raise ConfigError(
                    f"{where}: a line of over {_LONGEST_LINE:,} characters; expected [[member]]"
                )
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, UnicodeError, RecursionError) as error:
            raise ConfigError(f"{where}: not TOML ({error!s:.120})") from None
        except OSError as error:
            raise ConfigError(
                f"{where}: cannot be read ({error.strerror or error}); expected a TOML file with [[member]]"
            ) from None
        if type(table.get("format")) is not int or table["format"] != FORMAT:
            raise ConfigError(f"{where}: format {table.get('format')!r:.40}: this version reads {FORMAT}")
        entries = table.get("member")
        if unknown := sorted(set(table) - {"format", "member"}):
            raise ConfigError(f"{where}: unknown keys {unknown!s:.80}; expected format and [[member]]")
        if not isinstance(entries, list) or len(entries) > _MOST_MEMBERS:
            raise ConfigError(f"{where}: expected [[member]], at most {_MOST_MEMBERS:,} times")
        return cls([_member(entry, path.absolute().parent, where) for entry in entries], where)


_SAFE = "/\\:.-_~?&+@ ()"
"""Characters of a model's name that stand for themselves in a list of members."""


def _inline_members(rest: str) -> Iterator[Member]:
    for part in rest.split(","):
        day, equals, name = part.partition("=")
        if not equals or not name:
            raise ConfigError(f"dated:{part:.60}: expected DAY=MODEL, such as 2019-12-31=a.gguf")
        name = unquote(name)
        _check_name(name, f"dated:{part:.60}")
        yield Member(name, _day(day, f"dated:{part:.60}"))


def _member(entry: Any, folder: Path, where: str) -> Member:
    if not isinstance(entry, dict) or set(entry) != {"model", "knowledge_ends"}:
        keys = sorted(map(str, entry)) if isinstance(entry, dict) else entry
        raise ConfigError(f"{where}: a member with {keys!s:.80}: expected model and knowledge_ends")
    name, day = entry["model"], _day(entry["knowledge_ends"], where)
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigError(f"{where}: model = {name!r:.60}: expected the name or the path of a model")
    _check_name(name, where)
    if kind_of(name).addresses:
        kind = split_name(name)[0]
        raise ConfigError(
            f"{where}: the member of {day} is of the kind {kind}, which is asked over the network: a file "
            f"names models of this machine only; give it on the command line, dated:{day}={kind}:..."
        )
    return Member(_beside(name, folder), day)


def _check_name(name: str, where: str) -> None:
    model = kind_of(name)
    if model.by_bar or "score" not in model.capabilities:
        raise ConfigError(
            f"{where}: {name!r:.60} cannot be a member: expected one model, such as a GGUF file"
        )


def _beside(name: str, folder: Path) -> str:
    """Return a path that starts in a folder; a name stays a name."""
    kind, rest = split_name(name)
    if kind != "file":
        return name
    is_path = rest.lower().endswith(".gguf") or "/" in rest or "\\" in rest or (folder / rest).is_file()
    return str(folder / rest) if is_path else rest


def _day(given: Any, where: str) -> datetime.date:
    day = given
    if isinstance(given, str):
        try:
            day = datetime.date.fromisoformat(given)
        except ValueError:
            day = None
    if type(day) is not datetime.date or not 1900 <= day.year < 2200:
        raise ConfigError(f"{where}: knowledge_ends = {given!s:.40}: expected a day, such as 2019-12-31")
    return day


def _twice(values: Sequence[str]) -> str | None:
    return next((value for value in values if values.count(value) > 1), None)


class DatedModel(ModelKind):
    """A family of models, each asked about the bars that none of its knowledge is of.

    Examples
    --------
    >>> family = DatedModel("2020-12-31=scripted:trend,2021-12-31=scripted:contrarian").family
    >>> [member.model for member in family.members]
    ['scripted:trend', 'scripted:contrarian']
    """

    kind: ClassVar[str] = "dated"
    form: ClassVar[str] = "dated:FAMILY.toml"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"score", "generate_json"})
    by_bar: ClassVar[bool] = True

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        if not rest:
            raise ConfigError("model 'dated:': expected dated:FAMILY.toml or dated:DAY=MODEL,DAY=MODEL")

    @functools.cached_property
    def family(self) -> DatedFamily:
        """Who the members are, as it was when first asked for."""
        return DatedFamily.parse(self.rest)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of the members; a file's have none."""
        return tuple(address for member in self.family.members for address in kind_of(member.model).addresses)

    def within(self, folder: Path) -> str:
        """Return the name with the file's path from a folder."""
        return self.name if _INLINE.match(self.rest) else f"{self.kind}:{folder / self.rest}"

    def open(self, config: ModelConfig) -> Backend:
        """Raise a ConfigError: who answers is not known without a bar."""
        raise ConfigError(f"model {self.name!r:.80} answers by the day of a bar: expected one of its members")

    def identify(self, known: KnownModels, *, replay: bool = False) -> ModelIdentity:
        """Return what stands for the family: its hash is that of the days and of all members."""
        found = [kind_of(member.model).identify(known, replay=replay) for member in self.family.members]
        return self.identity_of(self.family, found)

    def identity_of(self, family: DatedFamily, members: Sequence[ModelIdentity]) -> ModelIdentity:
        """Return the identity of a family whose members have these."""
        parts = [
            [str(member.knowledge_ends), identity.sha256, identity.chat_template_sha256]
            for member, identity in zip(family.members, members, strict=True)
        ]
        text = canonical_json(["bt_llm dated 1", *parts])
        return ModelIdentity(name=self.name, sha256=hashlib.sha256(text.encode()).hexdigest())

    def memory_mb(self, n_ctx: int) -> float | None:
        """Return that of the largest member: one is in memory at a time."""
        sizes = [kind_of(member.model).memory_mb(n_ctx) for member in self.family.members]
        return max((size for size in sizes if size is not None), default=None)
