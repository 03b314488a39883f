"""The managers of this process that stand for a description, one for each."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from bt_llm.locks import ForkableLock, begin_anew_in_child

if TYPE_CHECKING:
    from bt_llm.models._manager import ModelManager

__all__ = ["forget_managers", "the_one_for"]


class _Managers:
    """The managers by their descriptions; a forked child begins with none."""

    def __init__(self) -> None:
        begin_anew_in_child(self.reset)

    def reset(self) -> None:
        self.lock = ForkableLock()
        self.by_description: dict[Hashable, ModelManager] = {}


_managers = _Managers()


def the_one_for(description: Hashable, made: ModelManager) -> ModelManager:
    """Return the manager that stands for a description; the one that was made, if it is the first."""
    with _managers.lock:
        return _managers.by_description.setdefault(description, made)


def forget_managers() -> None:
    """Free and drop the managers that were made from descriptions; the next ones begin anew."""
    with _managers.lock:
        managers = list(_managers.by_description.values())
        _managers.by_description.clear()
    for manager in managers:
        manager.unload_model()
