"""How long to wait before a server is asked again."""

from __future__ import annotations

import math
import random
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["backoff", "retry_after"]

_LONGEST_S = 30.0


def backoff(first_s: float, attempt: int, body: bytes) -> float:
    """Return the seconds before a retry: half to all of a pause that doubles; the same for a same request."""
    longest = min(_LONGEST_S, first_s * 2.0 ** min(attempt, 30))
    return longest * random.Random(b"%d " % attempt + body).uniform(0.5, 1.0)


def retry_after(text: str) -> float:
    """Return the seconds of a Retry-After header, which is a number or an HTTP date; 0 if it makes no sense.

    Examples
    --------
    >>> retry_after("2"), retry_after("soon")
    (2.0, 0.0)
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
