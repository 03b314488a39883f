"""Write ``llms.txt``, the site's contents for language models, and ``llms-full.txt``, all its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUMMARY = (
    "Backtest Backtrader strategies that are gated by a local LLM: each bar's market state becomes a "
    "prompt, a local GGUF model gives a verdict, the verdict is cached under a hash of everything that "
    "made it, and entries pass or not."
)
LEFT_OUT = ("zh/", "generated/api/bt_llm.")


def first_words(app: Any, name: str) -> str:
    """Return the first paragraph of a page, in one line."""
    from docutils import nodes

    for node in app.env.get_doctree(name).findall(nodes.paragraph):
        if "not-run" not in node["classes"]:
            return " ".join(node.astext().split())[:200]
    return ""


def write(app: Any, error: Exception | None) -> None:
    """Write both files once the site is there."""
    if error is not None or app.builder.format != "html":
        return
    names: list[str] = []

    def walk(name: str) -> None:
        if name not in names:
            names.append(name)
            for child in app.env.toctree_includes.get(name, []):
                walk(child)

    walk(app.config.root_doc)
    kept = [name for name in names if not name.startswith(LEFT_OUT)]
    out = Path(app.outdir)
    lines, whole = [f"# {app.config.project}", "", f"> {SUMMARY}", "", "## Pages", ""], []
    for name in kept:
        title = app.env.titles[name].astext()
        source = Path(app.env.doc2path(name))
        lines.append(f"- [{title}](_sources/{name}{source.suffix}.txt): {first_words(app, name)}")
        if source.suffix != ".ipynb":
            whole.append(f"<!-- {name} -->\n\n{source.read_text(encoding='utf-8').strip()}\n")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n".join(whole), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Connect."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
