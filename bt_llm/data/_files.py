"""The bytes of a file: what it is packed in, how its text is encoded, and how far it may unpack."""

from __future__ import annotations

import bz2
import codecs
import difflib
import gzip
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bt_llm.data._reading import Reading, listed

__all__ = ["BLOCK", "TextFile", "kind_of", "open_file", "read_all"]

BLOCK = 1 << 21
_SAMPLE = 1 << 14
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "feather"),
    (b"FEA1", "feather"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"\x89HDF", "HDF5"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"SQLite format 3", "an SQLite database"),
    (b"%PDF", "PDF"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)
_UNPACK: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {"gzip": gzip.open, "xz": lzma.open, "bzip2": bz2.open}  # type: ignore[dict-item]
_ENCODINGS = ("gb18030", "cp932", "cp949", "cp1252", "cp1251", "cp1250", "latin-1")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def kind_of(reading: Reading, path: Path) -> str:
    """Return what a file is packed in or what else it is, by its first bytes; empty for text."""
    try:
        mode, first = path.stat().st_mode, b""
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                first = file.read(16)
    except FileNotFoundError as error:
        raise reading.error(f"no such file{_near(path)}: give the path of a CSV") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise reading.error(f"cannot be read ({reason}): give the path of a CSV") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise reading.error(f"cannot be read (it is {what}): give the path of a file")
    return next((kind for magic, kind in _MAGIC if first.startswith(magic)), "")


def _near(path: Path) -> str:
    """Return the names beside a missing file that resemble its own, for a message."""
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return f", nor a folder {str(path.parent)!r}"
    near = difflib.get_close_matches(path.name, beside, n=3)
    return f" (near: {listed(near)})" if near else ""


@contextmanager
def open_file(reading: Reading, path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked."""
    try:
        with path.open("rb") as file:
            if kind == "zip":
                with zipfile.ZipFile(file) as archive, archive.open(_only_member(reading, archive)) as member:
                    yield member
            elif kind in _UNPACK:
                with _UNPACK[kind](file) as unpacked:
                    yield unpacked
            else:
                yield file
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise reading.error(f"cannot be unpacked ({error}): expected a whole {kind} file") from error
    except OSError as error:
        raise reading.error(
            f"cannot be read ({error.strerror or error}): give the path of a whole file"
        ) from error


def _only_member(reading: Reading, archive: zipfile.ZipFile) -> str:
    names = [
        name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")
    ]
    if "[Content_Types].xml" in names:
        raise reading.error(
            "an Excel workbook: save it as CSV, or give load_bars the frame that pandas.read_excel returns"
        )
    if len(names) != 1:
        raise reading.error(
            f"a zip of {len(names)} files, {listed(names)}: expected one; unpack the one to read"
        )
    return names[0]


def read_all(reading: Reading, path: Path, kind: str) -> bytes:
    """Return a file's bytes, unpacked."""
    return b"".join(_raw(reading, path, kind))


def _raw(reading: Reading, path: Path, kind: str) -> Iterator[bytes]:
    """Return the bytes of a file block by block, unpacked; refuse more than the limit."""
    limit, total = reading.format.max_megabytes << 20, 0
    with open_file(reading, path, kind) as file:
        while block := file.read(BLOCK):
            total += len(block)
            if total > limit:
                raise reading.error(
                    f"over {reading.format.max_megabytes} MB{' unpacked' if kind else ''}: "
                    "expected no more; give max_megabytes (--max-megabytes) for a file that you trust"
                )
            yield block


class TextFile:
    """A text file of any encoding as UTF-8, read from the start as often as asked.

    Parameters
    ----------
    reading : Reading
        Whose errors these are.
    path : Path
        A regular file.
    kind : str
        What it is packed in, as `kind_of` gives it.
    """

    def __init__(self, reading: Reading, path: Path, kind: str) -> None:
        self._reading, self._path, self._kind = reading, path, kind
        self.encoding = "utf-8"
        self._measure(self._checked())
        self.encodings = self._possible
        if self.encodings != ["utf-8"]:
            self.use(self.encodings[0])

    def use(self, encoding: str) -> None:
        """Read the file in one of `encodings`."""
        self.encoding = encoding
        self._measure(self._utf8())

    def _measure(self, blocks: Iterator[bytes]) -> None:
        """Keep the size of the text, and its first and last bytes."""
        self.size, self.head, self.tail = 0, b"", b""
        for block in blocks:
            if len(self.head) < _SAMPLE:
                self.head += block[: _SAMPLE - len(self.head)]
            self.tail = block[-_SAMPLE:] if len(block) >= _SAMPLE else (self.tail + block)[-_SAMPLE:]
            self.size += len(block)

    def _checked(self) -> Iterator[bytes]:
        """Return the raw blocks, and find the encodings that fit every byte on the way."""
        self._possible = ["utf-8"]
        decoders: dict[str, Any] = {
            name: codecs.getincrementaldecoder(name)() for name in ("utf-8", *_ENCODINGS)
        }
        plain, marked = True, False
        for number, block in enumerate(_raw(self._reading, self._path, self._kind)):
            if number == 0 and (encoding := self._marked(block)):
                self._possible, marked = [encoding], True
            if not marked and b"\0" in block:
                raise self._binary()
            if not marked and not (plain and block.isascii()):
                plain = False
                for name in list(decoders):
                    try:
                        decoders[name].decode(block)
                    except UnicodeDecodeError:
                        del decoders[name]
            yield block
        if not marked and "utf-8" not in decoders:
            self._possible = list(decoders)

    def _marked(self, first: bytes) -> str:
        """Return the encoding that a file's first bytes prove; empty if they prove none."""
        for mark, encoding in _MARKS:
            if first.startswith(mark):
                return encoding
        return self._wide(first[:_SAMPLE]) if b"\0" in first[:_SAMPLE] else ""

    def _wide(self, sample: bytes) -> str:
        """Return the form of UTF-16 without a mark that a sample is in."""
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if max(even, odd) < 0.4 * (len(sample) / 2) or min(even, odd) > 0.1 * (len(sample) / 2):
            raise self._binary()
        return "utf-16-le" if odd > even else "utf-16-be"

    def _binary(self) -> Exception:
        return self._reading.error(
            "binary, it holds null bytes: expected text such as a CSV, or parquet or feather"
        )

    def _utf8(self) -> Iterator[bytes]:
        """Return the text block by block as UTF-8."""
        raw = _raw(self._reading, self._path, self._kind)
        if self.encoding == "utf-8":
            yield from raw
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            for block in raw:
                yield decoder.decode(block).encode("utf-8", "replace")
            yield decoder.decode(b"", final=True).encode("utf-8", "replace")
        except UnicodeDecodeError as error:
            raise self._reading.error(
                f"not text in {self.encoding} ({error.reason}): expected a CSV in UTF-8"
            ) from error

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """Return the bytes from one offset to another in blocks that end where a line ends."""
        rest, at = b"", 0
        for block in self._utf8():
            piece = block[max(start - at, 0) : max(stop - at, 0)]
            at += len(block)
            if not piece:
                continue
            rest += piece
            cut = _line_end(rest)
            if not cut and len(rest) > 4 * BLOCK:
                raise self._reading.error(
                    "a quote opens and is not closed, or a line never ends: expected a CSV"
                )
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
        if rest:
            yield rest


def _line_end(data: bytes) -> int:
    """Return where the last whole line ends; a line may go on inside quotes."""
    cut = data.rfind(b"\n") + 1 or data.rfind(b"\r") + 1
    for _ in range(64):
        if not cut or data.find(b'"', 0, cut) < 0 or data.count(b'"', 0, cut) % 2 == 0:
            return cut
        cut = data.rfind(b"\n", 0, cut - 1) + 1
    return 0
