"""Floor: how close the scorer comes to the raw speed of the hardware, by batch size.

The floor of a set of prompts is their tokens divided by the raw prompt throughput. Counted are the tokens
that must be decoded for each prompt once the shared prefix is kept: its suffix, and the inner nodes of the
labels' token trie after it (with SmolLM2 ` Bullish` and ` Bearish` are two tokens each, so 2 a prompt). Not
counted, so overhead that the scorer answers for: padding to one length, rows of logits, forks, and Python.

Raw throughput is a plain decode, in one batch and without any logits, of a prompt that fills a sequence of
the very same context (numerics, threads, sequences, KV cache). It is measured before and after each scoring
of the whole default policy (105 states); a round's figure is the floor, by the mean of the two, over the
time taken. Batch sizes take turns, and medians of the rounds are reported: of those in which the two raw
measurements differ by at most a tenth, if there are any, since in the others something else ran.

Beside the plain suffixes, in the same turns: the tree (lines that states share decoded once), whose time is
held against the floor of the plain suffixes; and `numerics='fast'`: its speed, and by how much its
probabilities differ from the canonical ones and between batch sizes. Where the scorer finds that the tree
is not exact for a file, it does not use it, and the figure says so.

The limit of labels of two tokens on K-quants: the last tokens of the second branch are decoded after all
prompts, one token a sequence, and such a row costs 1.8 tokens of the raw decode at 105 rows and 5.5 at 8
(width of the 1B shape, six of its layers, Q4_K_M, one thread, medians of interleaved runs in processor
time). Labels forked inside the leaf's decode cost more: with the last token of each prompt decoded again for
a second label, 1.06 of the leaf's decodes and labels today; with the whole leaf decoded twice, 1.74; both
change bits, since a token alone is computed by other kernels than two. Labels of one token take 0.80 of it.
Over the policy of 105 states, by the plain suffixes' floor of each: the tree 0.70 with two tokens and 0.63
with one, the floor over plain batches of 32 0.83 and 0.88; a verdict of the tree takes 64 ms and 55.

Contexts of all batch sizes are open at once: about 3 GB of memory for SmolLM2, 6 GB for the 1B shape.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapes
from measuring import Figure, median, note, options, report
from numpy.typing import NDArray

CLOSE = 0.9
BATCH_SIZES = (1, 4, 8, 16, 32, 64)
HELD_TO_IT = 16
"""Batch sizes from here on must be close to the floor."""

TREE_SEQUENCES = 128
"""Prompts a forest, at most: the default, which takes the whole default policy at once."""

TREE = 0.65
"""What the tree may take of the plain suffixes' floor."""

SHORT = "market_direction"
"""A template with labels of one token each: nothing is decoded for them."""

RAW_DECODES = 3
"""Of these the quickest counts: nothing disturbed it."""

STEADY = 0.1
"""By how much the raw throughput may differ before and after a round that nothing disturbed."""


class Bench:
    """One model at one batch size, with one kind of numerics, decoding plain suffixes or the tree."""

    def __init__(
        self,
        path: Path,
        n_seq: int,
        *,
        states: int,
        threads: int | None,
        numerics: str = "canonical",
        tree: bool = False,
        template: str = "market",
    ) -> None:
        from bt_llm.models import LlamaModel, ModelConfig, ModelIdentity, read_facts
        from bt_llm.prompts import PromptTemplate
        from bt_llm.verdicts import StateSpace

        facts, words, space = read_facts(path), PromptTemplate.load(template), StateSpace()
        identity = ModelIdentity(
            name=path.stem,
            sha256="0" * 64,
            chat_template=facts.chat_template,
            bos_token=facts.bos_token,
            eos_token=facts.eos_token,
        )
        cells = np.linspace(0, len(space) - 1, states).astype(int).tolist()
        self.tree, self.template = tree, template
        self.n_seq, self.numerics, self.labels = n_seq, numerics, words.continuations
        self.prompts = words.prompts(space, cells, identity)
        self.backend = LlamaModel(ModelConfig(model_path=path, n_threads=threads), n_seq=n_seq)
        self._clock = time.process_time if threads == 1 else time.perf_counter
        self.plain_tokens = self._count_plain_tokens()
        self.tokens = 0
        self.probabilities: NDArray[np.float64] = np.empty(0)
        self.ratios: list[float] = []
        self.drift: list[float] = []
        self.raw_ms: list[float] = []
        self.scored_ms: list[float] = []

    def round(self) -> None:
        """Score all states between two measurements of the raw throughput."""
        session = self.backend.session
        if not self.tree:
            session.sharing_is_exact = False
        elif session.sharing_is_exact is None:
            self.score(self.prompts)  # the scorer finds out whether it may share lines
        before = self.raw()
        self.score(self.prompts[:1])  # keeps the prefix again
        start = self._clock()
        self.score(self.prompts)
        taken = self._clock() - start
        after = self.raw()
        raw = (before + after) / 2
        self.drift.append(abs(after - before) / raw)
        self.ratios.append(self.plain_tokens * raw / taken)
        self.raw_ms.append(1e3 * raw)
        self.scored_ms.append(1e3 * taken / len(self.prompts))

    @property
    def used_tree(self) -> bool:
        """Whether the lines that states share were decoded once."""
        return self.tree and self.tokens < self.plain_tokens

    def _count_plain_tokens(self) -> int:
        from bt_llm.models.llama._scorer import Scorer

        session = self.backend.session
        questions = Scorer(session).questions(self.prompts, self.labels, self.numerics)
        return sum(len(one.suffix) + trie.decoded for trie, of in questions.items() for one in of.values())

    @property
    def ratio(self) -> float:
        """The floor over the time taken: median of the rounds that nothing disturbed."""
        pairs = zip(self.ratios, self.drift, strict=True)
        return median([ratio for ratio, drift in pairs if drift <= STEADY] or self.ratios)

    def score(self, prompts: Sequence[Any]) -> None:
        """Score prompts, and keep their tokens and the labels' probabilities."""
        scores = [
            s for batch in self.backend.score(prompts, self.labels, numerics=self.numerics) for s in batch
        ]
        self.tokens = sum(score.tokens for score in scores)
        logprobs = np.array([score.logprobs for score in scores])
        shares = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
        self.probabilities = shares / shares.sum(axis=1, keepdims=True)

    def raw(self) -> float:
        """Return the seconds a token takes in a plain decode, in the context that scores."""
        session = self.backend.session
        tokenised = [session.tokenise(prompt, self.numerics) for prompt in self.prompts]
        context = session.prepare(session.shape(tokenised, tail=1, outputs=1), self.numerics)
        length = min(context.shape.n_ctx_seq, context.shape.n_batch)
        long = (tokenised[0].prefix * length)[: length - 1]
        times = []
        for last in range(RAW_DECODES):  # another end each time, or it would be kept already
            start = self._clock()
            with session.holding(context, (*long, last), 1, None):
                times.append(self._clock() - start)
        return min(times) / length

    def __str__(self) -> str:
        how = f"{'tree' if self.tree else self.numerics}, batches of {self.n_seq}"
        return how if self.template == "market" else f"{how}, {self.template}"

    def close(self) -> None:
        """Free the model."""
        self.backend.close()


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__, argv, add=_arguments)
    rounds, states = (1, 32) if chosen.quick else (5, 105)
    sizes = (1, 16, 32) if chosen.quick else BATCH_SIZES
    figures: list[Figure] = []
    details: dict[str, Any] = {"rounds": rounds, "states": states, "threads": chosen.threads}
    for name, path in shapes.benchmark_models(chosen.model, build_shapes=not chosen.quick):
        if path is None:
            figures.append(
                Figure(name=f"{name}: floor over time taken", value=None, note="not built: run shapes.py 1b")
            )
            continue
        found, details[name] = _measure(name, path, sizes, rounds, states, chosen.threads)
        figures += found
    figures.sort(key=lambda figure: figure.unit != "x")
    return report(__file__, __doc__, figures, details, quick=chosen.quick)


def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--model", action="append", type=Path, help="a GGUF instead of SmolLM2 and the 1B shape"
    )
    parser.add_argument(
        "--threads", type=int, help="default: one a core; 1 counts processor time, for a machine that is busy"
    )


def _measure(
    name: str, path: Path, sizes: Sequence[int], rounds: int, states: int, threads: int | None
) -> tuple[list[Figure], dict[str, Any]]:
    """Measure one model: plain suffixes at all batch sizes, the tree and fast numerics, in turns."""
    common: dict[str, Any] = {"states": states, "threads": threads}
    plain = [Bench(path, n_seq, **common) for n_seq in sizes]
    tree = Bench(path, TREE_SEQUENCES, tree=True, **common)
    fast = [Bench(path, n_seq, numerics="fast", **common) for n_seq in (1, 32)]
    short = [
        Bench(path, n_seq, tree=n_seq == TREE_SEQUENCES, template=SHORT, **common)
        for n_seq in (32, TREE_SEQUENCES)
    ]
    everyone = [*plain, tree, *fast, *short]
    try:
        for turn in range(rounds):
            for bench in everyone:
                note(f"floor: {name}, round {turn + 1} of {rounds}, {bench}")
                bench.round()
    finally:
        for bench in everyone:
            bench.close()
    reference = next(bench for bench in plain if bench.n_seq == 32)
    figures = [
        Figure(
            name=f"{name}: floor over time taken, batches of {bench.n_seq}",
            value=bench.ratio,
            unit="x",
            target=(">=", CLOSE) if bench.n_seq >= HELD_TO_IT else None,
        )
        for bench in plain
    ]
    figures += [
        _tree_figure(name, tree),
        Figure(
            name=f"{name}: labels of one token, floor over time taken, batches of 32",
            value=short[0].ratio,
            unit="x",
            target=(">=", CLOSE),
        ),
        _tree_figure(f"{name}: labels of one token", short[1]),
    ]
    figures += [
        Figure(
            name=f"{name}: fast over canonical, time a verdict, batches of 32",
            value=median([f / c for f, c in zip(fast[1].scored_ms, reference.scored_ms, strict=True)]),
            unit="x",
        ),
        Figure(
            name=f"{name}: canonical, largest difference between batch sizes and tree",
            value=max(_difference(reference, bench) for bench in [*plain, tree]),
            unit="probability",
            target=("=", 0),
        ),
        Figure(
            name=f"{name}: fast, largest difference between batches of 1 and 32",
            value=_difference(*fast),
            unit="probability",
        ),
        Figure(
            name=f"{name}: fast, largest difference to canonical",
            value=max(_difference(reference, bench) for bench in fast),
            unit="probability",
        ),
        Figure(name=f"{name}: a verdict, batches of 32", value=median(reference.scored_ms), unit="ms"),
        Figure(name=f"{name}: a verdict, tree", value=median(tree.scored_ms), unit="ms"),
    ]
    details = {
        str(bench): {
            "tokens_a_prompt": bench.tokens / states,
            "floor_over_time": bench.ratios,
            "drift_of_raw": bench.drift,
            "raw_ms_a_token": bench.raw_ms,
            "ms_a_verdict": bench.scored_ms,
        }
        for bench in everyone
    }
    return figures, details


def _tree_figure(name: str, tree: Bench) -> Figure:
    if not tree.used_tree:
        return Figure(
            name=f"{name}: tree over the plain floor", value=None, unit="x", note="not exact: not used"
        )
    return Figure(
        name=f"{name}: tree over the plain floor",
        value=1.0 / tree.ratio,
        unit="x",
        target=("<=", TREE),
        note=f"{tree.tokens / tree.plain_tokens:.2f} of the tokens",
    )


def _difference(a: Bench, b: Bench) -> float:
    return float(np.max(np.abs(a.probabilities - b.probabilities)))


if __name__ == "__main__":
    main()
