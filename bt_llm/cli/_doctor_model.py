"""What ``bt-llm doctor --model`` shows of one model: the page that a person posts when they ask for help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bt_llm.advice import Checkup
from bt_llm.backtest import percent

__all__ = ["checkup_page"]


def checkup_page(found: Checkup) -> Group:
    """Return a checkup as tables and text."""
    return Group(*_parts(found))


def _parts(found: Checkup) -> Iterator[RenderableType]:
    facts = Table(title=f"model {found.model}", title_justify="left", show_header=False)
    for name, value in _facts(found):
        facts.add_row(name, Text(value, overflow="fold"))
    yield facts
    count = f", {len(found.prompt_tokens)} tokens" if found.prompt_tokens else ""
    yield Text(f"prompt{count}", style="bold")
    yield _pieces(text for _, text in found.prompt_tokens) if count else Text(found.prompt.text)
    yield _states(found)
    for line in found.problems or ["asked twice, in two orders and parts: the same to the last bit"]:
        yield Text(line, style="red" if found.problems else "green")


def _facts(found: Checkup) -> Iterator[tuple[str, str]]:
    yield "sha256", found.sha256
    for name, value in found.details.items():
        yield name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)
    if found.decoding:
        yield "decoding", found.decoding
    for label, tokens in found.label_tokens.items():
        yield f"label {label!r}", "  ".join(f"{text!r} {number}" for number, text in tokens)
    yield "probability on the labels", str(found.masses)


def _pieces(texts: Iterable[str]) -> Text:
    """Return tokens with a bar after each, ends of lines made visible."""
    return Text(
        "".join(text.replace("\n", "\u21b5") + ("\u2502\n" if "\n" in text else "\u2502") for text in texts)
    )


def _states(found: Checkup) -> Table:
    names = found.verdicts[0].labels.names
    table = Table(title="states", title_justify="left")
    for name in ("state", "verdict", *names, "on the labels"):
        table.add_column(name, overflow="fold")
    for state, verdict in zip(found.states, found.verdicts, strict=True):
        shares = ["-" if p != p else percent(p) for p in verdict.probabilities]
        mass = "-" if verdict.label_mass != verdict.label_mass else f"{verdict.label_mass:.2g}"
        table.add_row(state, verdict.answer, *shares, mass)
    return table
