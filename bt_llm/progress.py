"""How far long work is: who is told, and a bar in a terminal or a notebook for what takes over two seconds.

Nothing is drawn where nobody looks: standard error that is no terminal, workers, other threads, and work
that tells somebody already (``on_progress``, `telling`). ``BT_LLM_PROGRESS=off`` and `show_progress`
turn it off altogether.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import html
import inspect
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from typing import Any, ParamSpec, TypeVar

from bt_llm.plain_text import printable

__all__ = [
    "Progress",
    "current",
    "part",
    "partly",
    "quiet",
    "show_progress",
    "shows_progress",
    "telling",
    "told",
    "within",
]

Progress = Callable[[int, int], None]
"""Called with how many are done, and how many there are."""

PATIENCE = 2.0
"""Seconds of work before a bar is drawn."""

_APART = 0.1
_HEARD = 0.5  # seconds after which whoever is told hears again, inside a decode too
_TOLD_BY = ("on_progress", "on_prompts")
_OFF = {"0", "off", "no", "false"}

P = ParamSpec("P")
R = TypeVar("R")

_telling: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("bt_llm_telling", default=None)
_partly: contextvars.ContextVar[_Part | None] = contextvars.ContextVar("bt_llm_partly", default=None)
_bar: contextvars.ContextVar[Bar | None] = contextvars.ContextVar("bt_llm_bar", default=None)
_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("bt_llm_quiet", default=False)
_switch = {"on": True}


def show_progress(on: bool = True) -> None:
    """Turn the bars of long work on, as they are by default, or off.

    Examples
    --------
    >>> show_progress(False)
    >>> show_progress()
    """
    _switch["on"] = bool(on)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Draw no bar in here, as in a worker."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextlib.contextmanager
def telling(on_progress: Progress) -> Iterator[None]:
    """Have everything that is asked in here, however deep, tell how far it is.

    A backtest asks from inside Backtrader, where no argument reaches. Threads begun in here are not told of.

    Parameters
    ----------
    on_progress : callable
        Called with (answered, to ask), as an argument of that name is.
    """
    token = _telling.set(on_progress)
    try:
        yield
    finally:
        _telling.reset(token)


def told() -> Progress | None:
    """Return who wants to be told how many questions are answered: of `telling`, or the bar."""
    return _telling.get() or current("asking")


def current(label: str) -> Progress | None:
    """Return what tells the bar that is there how far something is; None if there is none."""
    bar = _bar.get()
    return None if bar is None else functools.partial(bar.update, label)


class _Part:
    """How much of a batch is done, and up to what share the piece of it leads that is being computed."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell, self._heard = tell, time.monotonic()
        self._share = self._until = 0.0

    def move(self, share: float, until: float) -> None:
        """Note a share, and tell it; it never goes back."""
        self._share = max(self._share, share)
        self._until = max(self._share, until)
        self._say(self._share)

    def within(self, fraction: float) -> None:
        """Tell how far the piece is, unless somebody heard just now."""
        if time.monotonic() - self._heard >= _HEARD:
            self._say(self._share + fraction * (self._until - self._share))

    def _say(self, share: float) -> None:
        self._tell(share)
        self._heard = time.monotonic()


@contextlib.contextmanager
def partly(on_progress: Progress | None, done: Sized, total: int) -> Iterator[None]:
    """Have `part` tell in here how many of `total` are about done, where that is more than are in `done`."""

    def told(share: float) -> None:
        if on_progress is not None:
            on_progress(max(len(done), min(total - 1, int(share * total))), total)

    token = _partly.set(None if on_progress is None else _Part(told))
    try:
        yield
    finally:
        _partly.reset(token)


def part(share: float, *, until: float = 0.0) -> None:
    """Tell whoever wants to know what share of the work is done.

    Parameters
    ----------
    share : float
        From 0 to 1.
    until : float
        The share that will be done after what is computed next, for `within`.
    """
    if (found := _partly.get()) is not None:
        found.move(share, until)


def within() -> Callable[[float], None] | None:
    """Return what tells how much of the piece that is being computed is done, from 0 to 1, if anyone listens.

    It may be called often: it tells twice a second, also while nothing moves.
    """
    return None if (found := _partly.get()) is None else found.within


def shows_progress(label: str, **counted: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function show a bar while it runs, if it is the outermost one that does.

    Parameters
    ----------
    label : str
        What it counts in its argument ``on_progress``, if it has one, which is then given where it is not.
    **counted
        The same of other such arguments, by their names.

    Examples
    --------
    >>> @shows_progress("sheep")
    ... def count(number, on_progress=None):
    ...     return number if on_progress is None else -1
    >>> count(3)  # nobody looks
    3
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = [name for name in _TOLD_BY if name in inspect.signature(function).parameters]

        @functools.wraps(function)
        def shown(*args: P.args, **kwargs: P.kwargs) -> R:
            if any(kwargs.get(name) is not None for name in names) or not _is_watched():
                return function(*args, **kwargs)
            with _drawn() as bar:
                for name in names:
                    kwargs[name] = functools.partial(bar.update, counted.get(name, label))
                return function(*args, **kwargs)

        return shown

    return decorate


def _is_watched() -> bool:
    if not _switch["on"] or os.environ.get("BT_LLM_PROGRESS", "").lower() in _OFF:
        return False
    if _quiet.get() or _bar.get() is not None or _telling.get() is not None:
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    return _in_notebook() or bool(getattr(sys.stderr, "isatty", bool)())


def _in_notebook() -> bool:
    return (
        "ipykernel" in sys.modules and getattr(sys.modules.get("IPython"), "get_ipython", bool)() is not None
    )


@contextlib.contextmanager
def _drawn() -> Iterator[Bar]:
    bar = Bar(_Notebook() if _in_notebook() else _Terminal())
    token = _bar.set(bar)
    try:
        yield bar
    finally:
        _bar.reset(token)
        bar.close()


class Bar:
    """What is being counted, outermost first, and where it is drawn."""

    def __init__(self, screen: _Terminal | _Notebook) -> None:
        self._screen = screen
        self._counts: dict[str, tuple[int, int]] = {}
        self._begun, self._last = time.monotonic(), 0.0

    def update(self, label: str, done: int, total: int) -> None:
        """Note how far something is, and draw that if it is time to."""
        if done >= total:
            self._counts.pop(label, None)
        else:
            self._counts[label] = (done, total)
        now = time.monotonic()
        if self._counts and now - self._begun >= PATIENCE and now - self._last >= _APART:
            self._last = now
            self._screen.draw(self._share(), self._words())

    def _share(self) -> float:
        """Return how much of the outermost is done, with what is done of the next one within it."""
        share, width = 0.0, 1.0
        for done, total in self._counts.values():
            width /= max(1, total)
            share += done * width
        return min(1.0, share)

    def _words(self) -> str:
        counts = (f"{label} {done:,} of {total:,}" for label, (done, total) in self._counts.items())
        return f"{', '.join(counts)}, {time.monotonic() - self._begun:.0f} s"

    def close(self) -> None:
        """Take the bar away."""
        if self._last:
            self._screen.clear()


class _Terminal:
    """A line of standard error."""

    def draw(self, share: float, words: str) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        filled = round(20 * share)
        line = f"{'#' * filled}{'.' * (20 - filled)} {printable(words)}"[:width]
        self._write(f"\r{line:<{width}}")

    def clear(self) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._write(f"\r{'':<{width}}\r")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody is there any more
            sys.stderr.write(text)
            sys.stderr.flush()


class _Notebook:
    """An output of the cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, share: float, words: str) -> None:
        self._show(f'<progress max="1" value="{share:.4f}"></progress> {html.escape(printable(words))}')

    def clear(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        from IPython import display  # there is a notebook

        if self._handle is None:
            self._handle = display.display(display.HTML(text), display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(display.HTML(text))  # type: ignore[no-untyped-call]
