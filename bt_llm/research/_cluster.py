"""A Dask cluster as the place where backtests run."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bt_llm
from bt_llm.exceptions import ClusterError, ConfigError, MissingExtraError
from bt_llm.files import read_text

__all__ = ["dask_cluster"]

CONNECT_SECONDS = 5.0
"""How long a scheduler may take to answer."""

WORKER_SECONDS = 30.0
"""How long it may take until a worker is there: some clusters start them when there is work."""

_VERSION = "__import__('bt_llm').__version__"


@contextlib.contextmanager
def dask_cluster(address: str) -> Iterator[None]:
    """Run backtests of the ``with`` block on a Dask cluster: walk-forward trials, null runs.

    Everything that takes ``n_jobs`` and is not given one then uses all workers of the cluster. This is
    ``joblib.parallel_config(backend="dask")`` with a client, checks before and plain errors after. Code that
    has a client of its own can use that instead, but joblib's backend waits for ever for a task that Dask
    has given up.

    A task whose worker dies is run again by another one; after the fourth, Dask gives it up. Where no worker
    is left, the study waits for one to come. Twice as many tasks are under way as there were threads at the
    start, so workers that come later find no more than that to do.

    Parameters
    ----------
    address : str
        Of the scheduler, as `dask.distributed.Client` takes it, such as ``tcp://10.0.0.5:8786``, or
        a scheduler file (JSON). For ``tls://``, Dask's own configuration says which certificates.

    Raises
    ------
    MissingExtraError
        If Dask or joblib is not installed.
    ConfigError
        If the address cannot be read.
    ClusterError
        If no scheduler answers within 5 seconds or no worker within 30, one of them has another version of
        bt_llm, or a task has killed one worker after the other.

    Notes
    -----
    Scheduler and workers need bt_llm in the same version with its extra ``cluster``, and the workers whatever
    the strategy imports; no model, no cache, no strategy file, no shared folder. Backtrader computes in
    Python, so give each worker one thread:
    ``dask worker ADDRESS --nworkers auto --nthreads 1``.

    Dask's messages are pickles: whoever reaches the scheduler can run code on every machine of the cluster.

    Examples
    --------
    >>> with dask_cluster("tcp://10.0.0.5:8786"):                             # doctest: +SKIP
    ...     result = WalkForward(train_size=300, test_size=100).run(strategy, bars, grid=grid)
    """
    joblib, distributed = _imported()
    target = _target(address)
    _reach(distributed, address, target)
    with _connected(distributed, address, target) as client:
        _check_workers(client, address)
        try:
            with joblib.parallel_config(backend=_backend(client)):
                yield
        except distributed.KilledWorker as error:
            raise ClusterError(
                f"cluster {address}: a task killed {error.allowed_failures + 1} workers, the last at "
                f"{error.last_worker.address}: look at its log (too little memory?); finished trials are "
                f"kept, run it again to go on"
            ) from error
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            reason = getattr(error, "reason", error)
            raise ClusterError(
                f"cluster {address}: work was lost ({reason}); finished trials are kept, run it again to go "
                f"on"
            ) from error


def _imported() -> tuple[Any, Any]:
    try:
        import distributed
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("a Dask cluster needs dask: pip install 'bt-llm[cluster]'") from error
    return joblib, distributed


def _target(address: str) -> str:
    """Return the scheduler's address; a file says it as Dask's ``--scheduler-file`` writes it."""
    path = Path(address)
    if not address.strip() or not path.is_file():
        return address
    try:
        found = json.loads(read_text(path, 1))["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"scheduler file {address!r} cannot be read ({type(error).__name__}: {error}): expected the JSON "
            f"that dask scheduler --scheduler-file writes"
        ) from None
    return str(found)


def _reach(distributed: Any, address: str, target: str) -> None:
    """Look whether anybody listens: a Client that failed to connect complains again when it is collected."""

    async def knock() -> None:
        secured = distributed.Security().get_connection_args("client")
        comm = await distributed.comm.connect(target, timeout=CONNECT_SECONDS, **secured)
        await comm.close()

    try:
        if not target.strip():
            raise ValueError("it is empty")
        with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop of its own in this thread
            pool.submit(lambda: asyncio.run(knock())).result()
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"Dask address {address!r}: {error}; expected one such as tcp://10.0.0.5:8786, or a scheduler "
            f"file"
        ) from None
    except OSError as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: object) -> ClusterError:
    return ClusterError(
        f"no Dask scheduler answers at {address} ({error}): start one with 'dask scheduler', and workers "
        f"with 'dask worker ADDRESS --nthreads 1'"
    )


@contextlib.contextmanager
def _connected(distributed: Any, address: str, target: str) -> Iterator[Any]:
    try:
        client = distributed.Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise _unreachable(address, error) from None
    with client:
        yield client


def _check_workers(client: Any, address: str) -> None:
    """Say what is wrong with the machines now, not in the middle of a study."""
    # `eval` needs nothing of this package on the worker, which may not have it.
    try:
        if not client.ncores():
            client.submit(eval, _VERSION, pure=False).exception(timeout=WORKER_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"cluster {address} has no workers: start some with 'dask worker {address} --nthreads 1'"
        ) from None
    try:
        of_scheduler = client.run_on_scheduler(eval, _VERSION)
    except Exception as error:
        of_scheduler = error
    found = client.run(eval, _VERSION, on_error="return")
    for who, version in [("the scheduler", of_scheduler), *sorted(found.items())]:
        if isinstance(version, BaseException):
            raise ClusterError(
                f"cluster {address}: {who} has no bt_llm ({type(version).__name__}: {version}): install it "
                f"there"
            )
        if version != bt_llm.__version__:
            raise ClusterError(
                f"cluster {address}: {who} has bt_llm {version}, this is {bt_llm.__version__}: install the "
                f"same version on both"
            )


class _Failure:
    """An error that no task returned, such as the death of its worker."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _backend(client: Any) -> Any:
    from joblib._dask import DaskDistributedBackend  # type: ignore[import-untyped]

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        """Joblib's Dask backend, which never tells `Parallel` of a task that was given up, and waits."""

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            # Of one, `Parallel` would make none: it would run everything in the client.
            return max(2, int(super().effective_n_jobs(n_jobs)))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            submitted = super().submit(func, callback)

            def tell(done: Any) -> None:
                if (error := done.exception()) is not None:
                    callback(_Failure(error))

            submitted.add_done_callback(tell)
            return submitted

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, _Failure) and isinstance(out.error, RuntimeError):
                told = " ".join(str(out.error).split())
                raise ClusterError(
                    f"Dask could not load a task ({told}): install the same software on all machines of the "
                    f"cluster"
                ) from out.error
            if isinstance(out, _Failure):
                raise out.error
            return super().retrieve_result_callback(out)

    return Backend(client=client)
