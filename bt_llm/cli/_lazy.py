"""A group of commands whose modules are imported when they are used, so that the program starts at once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

__all__ = ["Verb", "lazy_group"]


class Verb(NamedTuple):
    """A command that has not been imported.

    Attributes
    ----------
    where : str
        ``module:object`` in this room: a function, or a `typer.Typer` with commands of its own.
    summary : str
        What stands beside its name in the list of commands, short enough for one line.
    """

    where: str
    summary: str


def lazy_group(verbs: Mapping[str, Verb]) -> type[TyperGroup]:
    """Return the class of a group with these commands, in this order, by their names."""

    class Verbs(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands: Any = _Commands(verbs)
            self._listing = False

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self.commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if self._listing:  # by name and summary
                return TyperCommand(name=cmd_name, help=verbs[cmd_name].summary)
            return self.commands.get(cmd_name)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            with self._only_listed():
                super().format_help(ctx, formatter)

        def shell_complete(self, ctx: Any, incomplete: str) -> Any:
            with self._only_listed():
                return super().shell_complete(ctx, incomplete)

        @contextlib.contextmanager
        def _only_listed(self) -> Iterator[None]:
            self._listing = True
            try:
                yield
            finally:
                self._listing = False

    return Verbs


class _Commands(Mapping[str, Any]):
    """Commands by name, each made when it is looked up."""

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self._verbs = verbs
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, self._verbs[name].where)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)


def _command(name: str, where: str) -> Any:
    """Return what runs a command."""
    module, _, member = where.partition(":")
    found = getattr(import_module(f"bt_llm.cli.{module}"), member)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    for one in found.registered_commands:
        one.cls = Telling if one.cls is TyperCommand else one.cls
    return get_command(found)


class Telling(TyperCommand):
    """A command that says which of its options count that were given more than once, and goes on.

    The last one counts, as everywhere: scripts append what they override. But two values for one thing are as
    often a slip, and it is not seen in the result.
    """

    def make_parser(self, ctx: Any) -> Any:
        """Return the parser, which tells of options that it meets again."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_and_tell(args: list[str]) -> Any:
            options, others, order = parse(args=args)
            for param, times in Counter(order).items():
                if times > 1 and not ctx.resilient_parsing and _counts_once(param):
                    _say_repeated(max(param.opts, key=len), times)
            return options, others, order

        parser.parse_args = parse_and_tell
        return parser


def _counts_once(param: Any) -> bool:
    """Return whether a parameter is an option of one value; one that is only on or off may be said again."""
    if param.param_type_name != "option" or param.multiple or getattr(param, "count", False):
        return False
    return not param.is_flag or bool(param.secondary_opts)


def _say_repeated(option: str, times: int) -> None:
    from bt_llm.cli._output import say

    often = "twice" if times == 2 else f"{times} times"
    say(f"{option} is given {often}: the last one counts")
