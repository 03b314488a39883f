"""Remote: a server of 50 ms a request, 16 connections, 1,000 distinct prompts, over the ideal time.

The server is another process on this machine, which sleeps before each reply, so the ideal is prompts over
connections times the delay. The whole call is timed, from the first prompt to the last score: the
connections are made in it. Who answers is found out before. The same is done with every fifth request
failing, over two servers, through an advisor that stores the verdicts, and over bare sockets, which shows
what the machine and the server can do; these have no target. Nor has the processor time of the client for
each request, which says more than the wall clock where other things run.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import Figure, median, note, options, report

ALLOWED = 1.15
DELAY_S, CONNECTIONS, PROMPTS = 0.05, 16, 1_000
_SERVER = Path(__file__).parents[1] / "faulty_server.py"
_LABELS = (" Bullish", " Neutral", " Bearish")


@contextlib.contextmanager
def server(*, fail: float = 0.0) -> Iterator[tuple[str, dict[str, int]]]:
    """Run the server; yields its address, and what it counted once it has ended."""
    command = [sys.executable, str(_SERVER), "--delay", str(DELAY_S), "--fail", str(fail)]
    counts: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), counts
            process.stdin.close()
            counts.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def score(prompts: int, *, fail: float = 0.0, servers: int = 1) -> tuple[float, float, int]:
    """Return the seconds that the prompts take, those of this process's processor, and the requests."""
    from bt_llm.models import Prompt, RemoteBackend

    asked = [Prompt((f"Bars: {i}\n", "Verdict:")) for i in range(prompts)]
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(server(fail=fail)) for _ in range(servers)]
        urls = ",".join(url for url, _ in running)
        options = f"sha256={'ab' * 32}&connections={CONNECTIONS}&backoff=0.05"
        backend = RemoteBackend.named(f"openai:{urls}?{options}")
        _ = backend.identity
        start, used = time.perf_counter(), time.process_time()
        scores = [one for batch in backend.score(asked, _LABELS) for one in batch]
        taken, busy = time.perf_counter() - start, time.process_time() - used
    assert len(scores) == prompts
    return taken, busy, sum(counts["requests"] for _, counts in running)


def bare(prompts: int) -> float:
    """Return the seconds that ready-made requests take over bare sockets: what this machine can do now."""
    body = json.dumps(
        {"model": "small", "prompt": "Bars: 0\nVerdict:", "max_tokens": 1, "logprobs": 100}
    ).encode()
    with server() as (url, _):
        host, port = url.split("/")[2].split(":")
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        numbers = iter(range(prompts))

        def work() -> None:
            with socket.create_connection((host, int(port))) as connection:
                for _ in numbers:
                    connection.sendall(head + body)
                    connection.recv(65_536)  # short, and sent in one piece

        threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start


def advise(prompts: int) -> float:
    """Return the seconds that an advisor takes over as many states, storing the verdicts."""
    from bt_llm.advice import Advisor, AdvisorConfig
    from bt_llm.models import RemoteBackend
    from bt_llm.verdicts import TREND, Feature, StateSpace
    from bt_llm.verdicts._state import RSI

    cells = -(-prompts // (len(TREND.labels) * len(RSI.labels)))
    labels = tuple(f"step {i}" for i in range(cells))
    depth = Feature(name="depth", edges=tuple(float(i) for i in range(1, cells)), labels=labels)
    space = StateSpace(features=(depth, RSI, TREND))
    with server() as (url, _), tempfile.TemporaryDirectory() as folder:
        backend = RemoteBackend.named(f"openai:{url}?connections={CONNECTIONS}")
        config = AdvisorConfig(
            model=backend.config.name, state_space=space, calibration="none", cache_dir=folder
        )
        advisor = Advisor(config, backend=backend)
        _ = advisor.identity
        start = time.perf_counter()
        advisor.advise_cells(range(prompts))
        return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv)
    prompts, rounds = (160, 1) if chosen.quick else (PROMPTS, 5)
    ideal = prompts / CONNECTIONS * DELAY_S
    names = ("score", "client processor", "bare", "failing", "two servers", "advise")
    times: dict[str, list[float]] = {name: [] for name in names}
    requests: list[int] = []
    for turn in range(rounds):
        note(f"remote: round {turn + 1} of {rounds}")
        taken, busy, asked = score(prompts)
        times["score"].append(taken)
        times["client processor"].append(busy)
        requests.append(asked)
        times["bare"].append(bare(prompts))
        times["failing"].append(score(prompts, fail=0.2)[0])
        times["two servers"].append(score(prompts, servers=2)[0])
        times["advise"].append(advise(prompts))
    figures = [
        Figure(
            name=f"{prompts:,} distinct prompts over the ideal {ideal:g} s",
            value=median(times["score"]) / ideal,
            unit="x",
            target=("<=", ALLOWED),
            note=f"worst of {rounds}: {max(times['score']) / ideal:.3f}",
        ),
        Figure(
            name="bare sockets with ready-made requests over the ideal",
            value=median(times["bare"]) / ideal,
            unit="x",
        ),
        Figure(
            name="the same through an advisor that stores them",
            value=median(times["advise"]) / ideal,
            unit="x",
        ),
        Figure(
            name="the same with 20 % of the requests failing",
            value=median(times["failing"]) / ideal,
            unit="x",
        ),
        Figure(
            name="over two servers, over one",
            value=median(times["two servers"]) / median(times["score"]),
            unit="x",
        ),
        Figure(
            name="processor time of the client, each request",
            value=1e3 * median(times["client processor"]) / prompts,
            unit="ms",
        ),
    ]
    details = {
        "delay_s": DELAY_S,
        "connections": CONNECTIONS,
        "prompts": prompts,
        "requests_of_the_server": requests,
        "seconds": times,
    }
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


if __name__ == "__main__":
    main()
