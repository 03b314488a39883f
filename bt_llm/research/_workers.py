"""Work in other processes and on other machines: what is sent there, and how its results come back."""

from __future__ import annotations

import contextlib
import inspect
import math
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from bt_llm.exceptions import ConfigError, MissingExtraError, StrategyError
from bt_llm.progress import quiet
from bt_llm.settings import in_short, python_scalar
from bt_llm.sources import source_sha256

__all__ = ["check_jobs", "chunk_size", "code_sha256", "leaves", "run_each", "stays_here"]

R = TypeVar("R")
_MOST_JOBS = 10_000


def check_jobs(n_jobs: int | None) -> None:
    """Raise a ConfigError if it is no number of processes."""
    given = python_scalar(n_jobs)
    if given is not None and (type(given) is not int or not (1 <= given <= _MOST_JOBS or given == -1)):
        raise ConfigError(
            f"n_jobs={in_short(n_jobs)}: expected a number of processes up to {_MOST_JOBS:,}, -1 for one "
            f"each CPU, or None for what joblib.parallel_config says"
        )


def leaves(n_jobs: int | None) -> bool:
    """Return whether work of so many jobs is done outside of this process.

    None is one job, unless a surrounding `joblib.parallel_config` says otherwise: its `n_jobs`, or a backend
    that has workers of its own, as Dask's does.
    """
    check_jobs(n_jobs)
    if n_jobs is not None:
        return n_jobs != 1
    joblib = sys.modules.get("joblib")  # one that was never imported was not configured either
    if joblib is None:
        return False
    backend, configured = joblib.parallel.get_active_backend()
    return bool((backend.default_n_jobs if configured is None else configured) != 1)


def stays_here(n_jobs: int | None) -> bool:
    """Return whether work of so many jobs is done on this machine, by workers or not."""
    if not leaves(n_jobs):
        return True
    backends = _joblib()[0].parallel.BACKENDS
    known = tuple(backends[name] for name in ("loky", "threading", "multiprocessing", "sequential"))
    return isinstance(_joblib()[0].parallel.get_active_backend()[0], known)


def chunk_size(count: int, n_jobs: int | None, *, chunks: int) -> int:
    """Return how many of `count` pieces go together, for so many chunks a worker; 1 if none are sent."""
    if not leaves(n_jobs):
        return 1
    joblib, _ = _joblib()
    workers: int = joblib.effective_n_jobs(n_jobs)
    return max(1, math.ceil(count / (workers * chunks)))


def run_each(
    work: Callable[..., R],
    arguments: Iterable[tuple[Any, ...]],
    n_jobs: int | None,
    *,
    ordered: bool,
    supplies: Callable[[], Any] | None = None,
) -> Generator[R, None, None]:
    """Yield what the work returns for each of the arguments: done here, or by joblib's workers.

    Parameters
    ----------
    work : callable
        A function of a module.
    arguments : iterable of tuple
        What it is called with, one call after the other; taken as they are needed.
    n_jobs : int or None
        See `leaves`.
    ordered : bool
        Whether results of workers come in the order of the arguments, or as they are done.
    supplies : callable, optional
        Called once if the work leaves this process; what it returns is then the last argument of each call.

    Raises
    ------
    MissingExtraError
        If work leaves this process and joblib is not installed.
    StrategyError
        If something cannot be sent, or a worker lacks a module or has another version of a class.
    """
    if not leaves(n_jobs):
        yield from (work(*given) for given in arguments)
    elif arguments:
        last = () if supplies is None else (supplies(),)
        yield from _elsewhere(work, ((*given, *last) for given in arguments), n_jobs, ordered)


def code_sha256(code: Any) -> str:
    """Return the SHA-256 of the source of a class or function, or of what it does where that is not all.

    A file does not say what a function made a class with, which lambda of it is meant, or what the instance
    of a method holds. Of a value, such as a mapping, it is that of what is in it.

    Raises
    ------
    MissingExtraError
        If it takes more than the source and cloudpickle is not installed.
    StrategyError
        If something in it cannot be written down, such as a lock.
    """
    function = code.__func__ if inspect.ismethod(code) else code
    is_code = inspect.isclass(function) or inspect.isroutine(function)
    name = function.__qualname__ if is_code else type(code).__name__
    source = ""
    if is_code:
        with contextlib.suppress(StrategyError):  # a notebook's has no file
            source = source_sha256(function)
    if source and function is code and "<" not in name:
        return source
    try:
        from bt_llm.research._sending import made_sha256
    except ImportError as error:
        raise MissingExtraError(
            f"a trial of {name}, which no file tells whole, needs cloudpickle: "
            f"pip install 'bt-llm[research]', or put it into a file as a class or function of its own"
        ) from error
    return made_sha256((source, code) if source else code)


def _elsewhere(
    work: Callable[..., R], arguments: Iterable[tuple[Any, ...]], n_jobs: int | None, ordered: bool
) -> Generator[R, None, None]:
    joblib, dumps = _joblib()
    _keep_blocked_signals()
    how = "generator" if ordered else "generator_unordered"
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as=how)
    results = parallel(joblib.delayed(_call)(dumps((work, given))) for given in arguments)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close them itself, and warn
            yield result
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib tells whoever stops early that work is lost
            results.close()


def _keep_blocked_signals() -> None:
    """Have Python's resource tracker run already: starting it unblocks Ctrl-C, for the workers too."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _call(sent: bytes) -> Any:
    """Do a piece of work that comes as bytes.

    Anything else Dask would look into: its scheduler loads it and so needs every module, a worker that lacks
    one never answers, and large arrays are moved to a single worker, with which they are lost.
    """
    from bt_llm.research._sending import loads

    work, given = loads(sent)
    with quiet():
        return work(*given)


def _joblib() -> tuple[Any, Callable[[object], bytes]]:
    try:
        import joblib  # type: ignore[import-untyped]

        from bt_llm.research._sending import dumps  # which needs cloudpickle
    except ImportError as error:
        raise MissingExtraError(
            "several processes need joblib: pip install 'bt-llm[research]', or use n_jobs=1"
        ) from error
    return joblib, dumps
