"""What a command of ours comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def one_line(outcome: Outcome) -> str:
    """The error of a failed command: one line, no traceback."""
    assert outcome.code in (1, 2), outcome
    assert "Traceback" not in outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, outcome.err
    return errors[0]
