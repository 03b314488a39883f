"""Sealed texts found in the bytes of a database that SQLite cannot read any more.

A text stands in a leaf page of the table's tree, up to its first overflow page; each overflow page begins
with the number of the next one. All of a text is printable ASCII, so that its pieces end where that ends.
What is put together wrongly has another SHA-256: so anything may be tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from bt_llm.cache._rows import HEAD, MAX_TEXT

__all__ = ["Sound", "carve"]

Sound = Callable[[str, list[str]], bool]
"""Given a text and keys that it may have, says whether it is a sound row, and keeps it if so."""

_PAGE = 4096
_PAGES = range(512, 65537)
_PRINTABLE = re.compile(rb"[ -~]*")
_LOOK_BACK, _LOOK_BACK_FOR_VERDICTS = 1024, 200
_VERDICT_KEY = re.compile(r"[0-9a-f]{64}")
_OTHER_KEY = re.compile(r"[a-z][a-z0-9_]*:[^\x00-\x1f]+")
_DECODER = json.JSONDecoder()


def carve(data: bytes, sound: Sound) -> Iterator[list[str]]:
    """Find all sealed texts; yield, of each place with one that is not sound, the keys it may have had.

    Parameters
    ----------
    data : bytes
        The file.
    sound : callable
        Is given each text that is found, until it says that one is sound.
    """
    sizes = _page_sizes(data)
    for head in re.finditer(re.escape(HEAD.encode()), data):
        keys = _keys_before(data, head.start())
        if not any(sound(text, keys) for size in sizes for text in _texts(data, head.start(), size)):
            yield keys


def _page_sizes(data: bytes) -> list[int]:
    """Return the page size that the file states, if it can be one, and the usual one."""
    stated = int.from_bytes(data[16:18], "big")
    fits = stated in _PAGES and stated & (stated - 1) == 0
    return list(dict.fromkeys([stated, _PAGE] if fits else [_PAGE]))


def _keys_before(data: bytes, start: int) -> list[str]:
    """Return what may be the key of the row whose text begins there: it stands before it, among numbers."""
    before = data[max(0, start - _LOOK_BACK) : start].decode("latin-1")
    found = [match.group() for match in _VERDICT_KEY.finditer(before[-_LOOK_BACK_FOR_VERDICTS:])]
    for match in _OTHER_KEY.finditer(before):
        text = match.group()
        # Bytes of the columns around it can look like letters.
        found += [text[at:end] for at in range(3) for end in range(len(text), max(at, len(text) - 64), -1)]
    return found


def _texts(data: bytes, start: int, size: int) -> Iterator[str]:
    """Yield what may be the text that begins there: as the pages say, then with one link replaced."""
    local = data[start : (start // size + 1) * size]
    if (whole := _whole(local)) is not None:
        yield whole
        return
    run = _run(local)
    for length in (run, run - 1):  # a damaged link can begin like text
        piece, link = local[:length], _number(local[length : length + 4])
        pieces = [piece]
        while True:
            if (text := _followed(data, pieces, link, size)) is not None:
                yield text
            page = _page(data, link, size)
            if len(pieces) * size > MAX_TEXT or _run(page[4:]) < size - 4:
                break
            pieces, link = [*pieces, page[4:]], _number(page[:4])
        for kept in range(1, len(pieces) + 1):
            for other in range(1, len(data) // size + 1):
                if (text := _followed(data, pieces[:kept], other, size)) is not None:
                    yield text


def _followed(data: bytes, pieces: list[bytes], link: int, size: int) -> str | None:
    """Return the text of pieces and of the overflow pages from a link on, if they end it."""
    found = list(pieces)
    while len(found) * size <= MAX_TEXT:
        page = _page(data, link, size)
        run = _run(page[4:])
        if not run:
            return None
        found.append(page[4 : 4 + run])
        if run < size - 4 or page[:4] == b"\0\0\0\0":
            return _whole(b"".join(found))
        link = _number(page[:4])
    return None


def _whole(text: bytes) -> str | None:
    """Return the JSON object that begins a text, if it ends there."""
    decoded = text.decode("latin-1")
    try:
        _, end = _DECODER.raw_decode(decoded)
    except (ValueError, RecursionError):
        return None
    return decoded[:end]


def _page(data: bytes, number: int, size: int) -> bytes:
    return data[(number - 1) * size : number * size] if number > 0 else b""


def _run(text: bytes) -> int:
    match = _PRINTABLE.match(text)
    return match.end() if match else 0


def _number(text: bytes) -> int:
    return int.from_bytes(text, "big")
