"""Files as strangers send them, read whole: no device, no pipe, and not more than fits.

A pipe that nobody writes to would be waited for, and a device be read for ever.
"""

from __future__ import annotations

import errno
import io
import os
import stat

__all__ = ["MAX_MB", "most_bytes", "open_regular", "read_bytes", "read_text"]

MAX_MB = "BT_LLM_MAX_MB"
"""The environment variable that raises every bound on a file's size, in MB."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading, if it is one.

    Raises
    ------
    OSError
        If it cannot be read, or is a folder, a device, a pipe or a socket.

    Examples
    --------
    >>> open_regular(os.devnull)
    Traceback (most recent call last):
    OSError: [Errno 22] it is no file but a device, a pipe or a socket: '/dev/null'
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        handle = os.open(path, flags)
    except ValueError as error:  # a null byte in the path
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "it is no file but a device, a pipe or a socket", os.fspath(path))


def most_bytes(usual_mb: int) -> int:
    """Return a bound in bytes, or what ``BT_LLM_MAX_MB`` says if that is more."""
    raised = os.environ.get(MAX_MB, "")
    return max(usual_mb, int(raised) if raised.isascii() and raised.isdecimal() else 0) << 20


def read_bytes(path: str | os.PathLike[str], usual_mb: int) -> bytes:
    """Return what is in a file.

    Parameters
    ----------
    path : path
        A regular file, or a link to one.
    usual_mb : int
        Its bound in MB, unless ``BT_LLM_MAX_MB`` is more.

    Raises
    ------
    OSError
        As `open_regular`; also if there is more in it.
    """
    most = most_bytes(usual_mb)
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(
            errno.EFBIG,
            f"it is over {most >> 20} MB; set {MAX_MB} to read more of what you trust",
            os.fspath(path),
        )
    return content


def read_text(path: str | os.PathLike[str], usual_mb: int) -> str:
    """Return the text of a file in UTF-8, line ends normalised; raises as `read_bytes`, or UnicodeError."""
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, usual_mb)), encoding="utf-8").read()
