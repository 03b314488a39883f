"""llama-cpp-python's own OpenAI server on loopback: ``python llama_server.py MODEL`` prints its port.

It ends when its standard input does, so that none is left behind by tests that are killed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    """Serve the model under the name ``smollm2``."""
    import uvicorn
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    settings = ModelSettings(
        model=sys.argv[1],
        model_alias="smollm2",
        n_ctx=256,  # a row of the whole vocabulary is kept for every token of it
        n_threads=2,
        n_threads_batch=2,
        logits_all=True,
        verbose=False,
    )
    app = create_app(server_settings=ServerSettings(), model_settings=[settings])
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))

    def stop_with_parent() -> None:
        os.read(0, 1)
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    print(listening.getsockname()[1], flush=True)  # noqa: T201
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
