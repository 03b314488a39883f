"""Memory: what `estimate_memory_mb` says a model takes, against what it takes.

Each measurement is a process of its own. It imports everything but llama.cpp, notes its resident memory,
loads a model and uses all of it, and notes the growth: the highest resident size less the first, files that
are mapped (the weights) included. Two ways of using a model are measured:

- the scorer as the advisor uses it: 32 prompts side by side in one decode;
- `LlamaModel` with ``n_ctx=2048``: a prompt that fills it, and an answer.

The estimate is made with the same sizes. The figure is the estimate over the growth; within 10 % either way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapes
from measuring import Figure, median, note, options, report

OFF_BY = 0.10
WAYS = ("scorer", "LlamaModel")
_MB = 2**20


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv, add=_arguments)
    if chosen.child:
        way, path = chosen.child
        print(json.dumps(CHILDREN[way](Path(path))))  # noqa: T201
        return {}
    rounds = 1 if chosen.quick else 3
    figures: list[Figure] = []
    details: dict[str, Any] = {"rounds": rounds}
    for name, path in shapes.benchmark_models(chosen.model, build_shapes=not chosen.quick):
        for way in WAYS:
            if path is None:
                figures.append(
                    Figure(name=f"{name}, {way}", value=None, unit="x", note="not built: run shapes.py 1b")
                )
                continue
            note(f"memory: {name}, {way}")
            found = [_in_child(way, path) for _ in range(rounds)]
            grown, estimate = median([one["grown_mb"] for one in found]), found[0]["estimate_mb"]
            figures.append(
                Figure(
                    name=f"{name}, {way}: off by, of the growth",
                    value=abs(estimate / grown - 1.0),
                    unit="x",
                    target=("<=", OFF_BY),
                    note=f"estimate {estimate:,.0f} MB, grown {grown:,.0f} MB",
                )
            )
            details[f"{name}, {way}"] = found
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--model", action="append", type=Path, help="a GGUF instead of SmolLM2 and the 1B shape"
    )
    parser.add_argument("--child", nargs=2, metavar=("WAY", "GGUF"), help="measure in this process")


def _in_child(way: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", way, str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def resident_mb() -> float:
    """Return the present resident size."""
    import psutil

    return float(psutil.Process().memory_info().rss) / _MB


def peak_mb() -> float:
    """Return the highest resident size so far; on systems without /proc, the present one."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return resident_mb()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def _use_scorer(path: Path) -> dict[str, Any]:
    from bt_llm.models import LlamaModel, ModelConfig, estimate_memory_mb
    from bt_llm.prompts import PromptTemplate
    from bt_llm.verdicts import StateSpace

    backend = LlamaModel(ModelConfig(model_path=path, n_threads=None))
    template, space = PromptTemplate.load("market"), StateSpace()
    facts, identity = backend.facts, backend.identity
    prompts = template.prompts(space, range(len(space)), identity)
    before = resident_mb()
    for _ in backend.score(prompts, template.continuations):
        pass
    grown = peak_mb() - before
    session = backend.session
    tokenised = [session.tokenise(prompt) for prompt in prompts]
    shape = session.prepare(session.shape(tokenised, tail=1, outputs=1), "canonical").shape
    estimate = estimate_memory_mb(facts, shape.n_ctx_seq, shape.n_seq, shape.n_batch, shape.n_outputs)
    return {
        "grown_mb": grown,
        "estimate_mb": estimate,
        "sequences": shape.n_seq,
        "tokens_a_sequence": shape.n_ctx_seq,
        "rows_a_decode": shape.n_batch,
        "output_rows": shape.n_outputs,
    }


def _use_llama_model(path: Path) -> dict[str, Any]:
    from bt_llm.models import LlamaModel, ModelConfig, estimate_memory_mb, read_facts

    facts = read_facts(path)
    config = ModelConfig(model_path=path, n_ctx=2048)
    model = LlamaModel(config)
    before = resident_mb()
    model.load()
    model.generate("up and down " * 640, max_tokens=8)
    return {
        "grown_mb": peak_mb() - before,
        "estimate_mb": estimate_memory_mb(facts, config.n_ctx, repacked=True),
        "n_ctx": config.n_ctx,
    }


CHILDREN = {"scorer": _use_scorer, "LlamaModel": _use_llama_model}


if __name__ == "__main__":
    main()
