"""The entry point: little is imported here, so that Ctrl-C is heard while all else is."""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
from typing import NoReturn

from bt_llm.cli._interrupt import INTERRUPTED, InterruptWatch

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error on purpose is one line, a bug keeps its traceback, Ctrl-C is 130."""
    is_the_program = getattr(sys.modules.get("__main__"), "main", None) is main
    with InterruptWatch(to_the_end=is_the_program) as watch:
        code: object = 0
        try:
            if is_the_program:
                _keep_output()
            _run(watch)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:  # whatever an interrupted command came to, it was interrupted
            if not watch.came:
                raise
        if watch.came or code == INTERRUPTED:
            code = INTERRUPTED
            watch.tell()
    if is_the_program and isinstance(code, int):
        _leave(code)
    if code:
        sys.exit(code)  # type: ignore[arg-type]


def _keep_output() -> None:
    from bt_llm.writing import keep_output_for_results

    keep_output_for_results()


def _leave(code: int) -> NoReturn:
    """End the process as Python does, without the teardown of the interpreter, where Ctrl-C would kill it."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by who called the command
                stream.flush()
        except OSError:  # nobody reads it
            code = code or 1
    os._exit(code)


def _run(watch: InterruptWatch) -> None:
    import logging

    from bt_llm.cli._app import app
    from bt_llm.cli._output import Console, complain
    from bt_llm.exceptions import BtLlmError, StrategyFailed

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app(prog_name="bt-llm")
    except SystemExit as stop:
        if Console.unread and not stop.code:
            sys.exit(1)
        raise
    except BtLlmError as error:
        if watch.came:
            raise
        complain(error)
        sys.exit(2 if isinstance(error, _given()) and not isinstance(error, StrategyFailed) else 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or error.filename is not None:
            raise
        complain(f"standard output cannot be written ({error.strerror})")
        sys.exit(1)


def _given() -> tuple[type[Exception], ...]:
    """Return the errors of what was given: a value, or a file that cannot be what was meant."""
    from bt_llm.exceptions import ConfigError, DataError, ModelNotFoundError, PromptError, StrategyError

    return ConfigError, DataError, ModelNotFoundError, PromptError, StrategyError
