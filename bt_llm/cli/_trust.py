"""Addresses that came from a file: the user is asked before anything is sent there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bt_llm.cli._output import confirmed
from bt_llm.exceptions import ConfigError

__all__ = ["TrustOption", "Trusting"]

TrustOption = Annotated[
    bool, typer.Option("--trust", help="Ask servers whose addresses come from a file without a question.")
]


class Trusting:
    """Says whether servers may be asked whose addresses a file has named; asks the user, each once.

    Parameters
    ----------
    source : str
        What names them, for the question.
    trust : bool
        The option: whether no question is needed.
    """

    def __init__(self, source: str, trust: bool) -> None:
        self.source = source
        self.trust = trust
        self._allowed: set[str] = set()

    def __call__(self, addresses: Sequence[str]) -> bool:
        """Return True if all of them may be asked.

        Raises
        ------
        ConfigError
            If one may not, or there is nobody to ask.
        """
        new = sorted(set(addresses) - self._allowed)
        if self.trust or not new:
            return True
        what = f"{self.source} names {', '.join(new)}"
        if not sys.stdin.isatty():
            raise ConfigError(
                f"{what}: an address that comes from a file is asked only with --trust, or where somebody "
                "can be asked first; nothing was sent"
            )
        if not confirmed(f"{what}. Send prompts there?"):
            raise ConfigError(f"{what}; nothing was sent")
        self._allowed.update(new)
        return True
