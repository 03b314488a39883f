"""Option groups: options that several commands share are the fields of a dataclass, said once."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

import typer
from typer.models import OptionInfo

__all__ = ["group", "refuse_idle", "takes_groups"]

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def group(panel: str) -> Callable[[type[T]], type[T]]:
    """Make a class of annotated fields an option group; `panel` is its heading in ``--help``."""

    def made(cls: type[T]) -> type[T]:
        grouped = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        grouped.panel = panel  # type: ignore[attr-defined]
        return grouped

    return made


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer whose parameters of option groups are spread out into their fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    spread: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if dataclasses.is_dataclass(hint):
            groups[parameter.name] = hint  # type: ignore[assignment]
            spread += _fields(hint)  # type: ignore[arg-type]
        else:
            spread.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: cls(**{field.name: given.pop(field.name) for field in dataclasses.fields(cls)})
            for name, cls in groups.items()
        }
        command(**made, **given)

    run.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return run


def refuse_idle(given: Any, without: str, *used: str) -> None:
    """Refuse what is stated in an option group where a command does nothing with it.

    Parameters
    ----------
    given : object
        The group as it was given.
    without : str
        The option without which it has no effect.
    *used : str
        Fields that have one.
    """
    for field in dataclasses.fields(given):
        if field.name not in used and getattr(given, field.name) != field.default:
            option = f"--{field.name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} without {without}: nothing depends on it there; leave it out")


def _fields(cls: type[Any]) -> list[inspect.Parameter]:
    """Return the parameters that a group's fields become."""
    hints = get_type_hints(cls, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=_in_panel(hints[field.name], cls.panel),
        )
        for field in dataclasses.fields(cls)
    ]


def _in_panel(hint: Any, panel: str) -> Any:
    kind, *extras = get_args(hint)
    shown = [copy.copy(extra) for extra in extras]
    for extra in shown:
        if isinstance(extra, OptionInfo):
            extra.rich_help_panel = panel
    return Annotated[kind, *shown]
