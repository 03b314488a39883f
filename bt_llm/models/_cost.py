"""What asking a model takes: the constants of an estimate, and what a kind of model makes of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bt_llm.exceptions import ConfigError
from bt_llm.settings import is_number, make_plain

__all__ = ["Cost", "Rates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What things take and cost; the defaults are the constants at the top of `bt_llm.research`.

    Parameters
    ----------
    letters_per_token : float
        Of prompts.
    token_ms_per_billion : float
        Milliseconds a token on this machine, for each 1,000 million parameters.
    least_token_ms : float
        Milliseconds a token of the smallest models.
    request_ms : float
        Milliseconds a request to a server.
    requests_per_prompt : float
        Requests to a server for each prompt.
    bars_per_second : float
        Of a backtest in one process.
    price_per_mtok : float, optional
        Money for a million tokens of a server; None if it is not known.

    Examples
    --------
    >>> Rates(request_ms=50).bars_per_second
    10000.0
    """

    letters_per_token: float = 3.7
    token_ms_per_billion: float = 5.3
    least_token_ms: float = 2.0
    request_ms: float = 200.0
    requests_per_prompt: float = 3.0
    bars_per_second: float = 10_000.0
    price_per_mtok: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers, once."""
        make_plain(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or (field.name == "price_per_mtok" and value == 0):
                continue
            if not is_number(value) or not 0 < value < 1e12:
                raise ConfigError(f"{field.name}={value!r}: expected a number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one prompt takes of a model, before it has been asked; the default is nothing at all.

    Parameters
    ----------
    tokens : float
        Decoded on this machine (what prompts share counts once), or sent to a server in all its requests.
    milliseconds : float or None
        Of waiting, with as many prompts at a time as the model takes; None if that is not known.
    at_once : int
        Prompts that are answered at a time, each in its own stored milliseconds.
    paid : bool
        Whether tokens may cost money.
    source : str
        What the numbers rest on.
    """

    tokens: float = 0.0
    milliseconds: float | None = 0.0
    at_once: int = 1
    paid: bool = False
    source: str = "a script"
