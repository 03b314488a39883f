"""Work in other processes and on other machines: what is sent there, and how its results come back."""

from __future__ import annotations

import functools
import math
import pickle
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bt_llm.backtest import strategy_in
from bt_llm.exceptions import ConfigError, MissingExtraError, StrategyError
from bt_llm.settings import python_scalar
from bt_llm.sources import SourceFiles, files_of, source_sha256

__all__ = ["PortableStrategy", "check_jobs", "chunk_size", "leaves", "run_each"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableStrategy:
    """A strategy as another process gets it: the class, or the texts of the files that it comes from.

    A worker runs the texts that it was sent, wherever it is and whatever became of the files since. A class
    of a module that it can import cannot be sent: the worker imports its own, and says so if that, or what it
    imports, is another version.

    Parameters
    ----------
    files : SourceFiles or None
        The file that the class comes from and its neighbours; None for a class of a module. It comes first:
        what is unpickled after it may be of these files.
    made : type or str
        The class, or its name in the file.
    source : str or None
        Of a class, the SHA-256 of its source; None for one that is sent whole, such as a notebook's.
    """

    files: SourceFiles | None = None
    made: type[Any] | str
    source: str | None = None

    @classmethod
    def of(cls, strategy: type[Any]) -> PortableStrategy:
        """Return a strategy's portable form."""
        files = files_of(strategy)
        if files is not None:
            return cls(files=files, made=strategy.__name__)
        if strategy.__module__ == "__main__":
            return cls(made=strategy)
        try:
            return cls(made=strategy, source=source_sha256(strategy))
        except StrategyError:
            return cls(made=strategy)

    def load(self) -> type[Any]:
        """Return the class.

        Raises
        ------
        StrategyError
            If this process has another version of its module.
        """
        if self.files is not None:
            return strategy_in(self.files, str(self.made))
        if self.source is not None:
            _check_version(self.made, self.source)  # type: ignore[arg-type]
        return self.made  # type: ignore[return-value]


@functools.lru_cache(maxsize=32)
def _check_version(strategy: Any, source: str) -> None:
    if (found := source_sha256(strategy)) != source:
        raise StrategyError(
            f"strategy {strategy.__module__}.{strategy.__name__} is another version on a worker (source "
            f"{found[:12]}, expected {source[:12]}): install the same there, or name it by file.py:ClassName"
        )


def check_jobs(n_jobs: int | None) -> None:
    """Raise a ConfigError if it is no number of processes."""
    given = python_scalar(n_jobs)
    if given is not None and (type(given) is not int or (given < 1 and given != -1)):
        raise ConfigError(
            f"n_jobs={n_jobs!r}: expected a number of processes, -1 for one each CPU, or None for what "
            f"joblib.parallel_config says"
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


def chunk_size(count: int, n_jobs: int | None, *, chunks: int) -> int:
    """Return how many of `count` pieces go together, for so many chunks a worker; 1 if none are sent."""
    if not leaves(n_jobs):
        return 1
    joblib, _ = _joblib()
    workers: int = joblib.effective_n_jobs(n_jobs)
    return max(1, math.ceil(count / (workers * chunks)))


def run_each(
    work: Callable[..., R],
    arguments: Sequence[tuple[Any, ...]],
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
    arguments : sequence of tuple
        What it is called with, one call after the other.
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
        If a worker does not have a module that it would need.
    """
    if not leaves(n_jobs):
        yield from (work(*given) for given in arguments)
    elif arguments:
        last = () if supplies is None else (supplies(),)
        yield from _elsewhere(work, ((*given, *last) for given in arguments), n_jobs, ordered)


def _elsewhere(
    work: Callable[..., R], arguments: Iterable[tuple[Any, ...]], n_jobs: int | None, ordered: bool
) -> Generator[R, None, None]:
    joblib, dumps = _joblib()
    how = "generator" if ordered else "generator_unordered"
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as=how)
    results = parallel(joblib.delayed(_call)(dumps((work, given))) for given in arguments)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close them itself, and warn
            yield result
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib tells whoever stops early that work is lost
            results.close()


def _call(sent: bytes) -> Any:
    """Do a piece of work that comes as bytes.

    Anything else Dask would look into: its scheduler loads it and so needs every module, a worker that lacks
    one never answers, and large arrays are moved to a single worker, with which they are lost.
    """
    try:
        work, given = pickle.loads(sent)
    except (ImportError, AttributeError) as error:
        raise StrategyError(
            f"a worker cannot load what it was sent ({error}): install that module there too, or name the "
            f"strategy by file.py:ClassName"
        ) from error
    return work(*given)


def _joblib() -> tuple[Any, Callable[[object], bytes]]:
    try:
        import cloudpickle  # type: ignore[import-untyped]  # which also takes classes of a notebook
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "several processes need joblib: pip install 'bt-llm[research]', or use n_jobs=1"
        ) from error
    return joblib, cloudpickle.dumps
