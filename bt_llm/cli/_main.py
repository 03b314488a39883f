"""The entry point: little is imported here, so that Ctrl-C is heard while all else is."""

from __future__ import annotations

import sys

from bt_llm.cli._interrupt import INTERRUPTED, InterruptWatch

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error on purpose is one line, a bug keeps its traceback, Ctrl-C is 130."""
    is_the_program = getattr(sys.modules.get("__main__"), "main", None) is main
    with InterruptWatch(to_the_end=is_the_program) as watch:
        try:
            _run(watch)
        except BaseException as error:  # whatever an interrupted command came to, it was interrupted
            if not watch.came and getattr(error, "code", None) != INTERRUPTED:
                raise
            watch.came = True
        if watch.came:
            watch.tell()
            sys.exit(INTERRUPTED)


def _run(watch: InterruptWatch) -> None:
    import logging

    from bt_llm.cli._app import app
    from bt_llm.cli._output import complain
    from bt_llm.exceptions import BtLlmError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except BtLlmError as error:
        if watch.came:
            raise
        complain(error)
        sys.exit(1)
