"""What the bytes of a block of rows show, without a row being read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["all_alike", "count_of", "first_field"]


def count_of(block: bytes, character: str) -> int:
    """Return how often a character occurs, faster than `bytes.count` where it is in every line."""
    return int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord(character)))


def all_alike(block: bytes, delimiter: str, each: int, codes: NDArray[np.uint8]) -> bool:
    """Return whether each line has so many delimiters; `codes` are the first fields, all of one width."""
    data = np.frombuffer(block, dtype=np.uint8)
    places = np.flatnonzero(data == ord(delimiter))
    firsts = places[::each]
    return len(places) == len(codes) * each and bool((data[firsts[1:] - codes.shape[1] - 1] == 10).all())


def first_field(block: bytes, delimiter: int) -> NDArray[np.uint8] | None:
    """Return the first field of each line as code points, if all are of one width; else None."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == 10)
    starts = np.concatenate([[0], ends + 1])
    if len(starts) and starts[-1] == len(data):
        starts = starts[:-1]
    width = block.find(bytes([delimiter]))
    if width < 1 or not len(starts) or width > 40 or starts[-1] + width >= len(data):
        return None
    if (data[starts + width] != delimiter).any():
        return None
    codes: NDArray[np.uint8] = np.lib.stride_tricks.sliding_window_view(data, width)[starts]
    if (codes == delimiter).any() or (codes < 32).any() or (codes[:, [0, -1]] == 32).any():
        return None
    return codes
