"""Run the code of the pages, in order, and show beneath each block what it printed.

A page is one script: its ``python`` blocks share a namespace, its ``sh`` and ``console`` blocks run in
the same folder, which holds copies of ``data/``, ``strategies/`` and ``examples/``. A block that fails
stops the build. A block that cannot run while the site is built stands under ``<!-- not run: WHY -->``,
and the page says why. Blocks of a translation are those of a page that ran: the same text has the same
output.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("python", "sh", "console")
FOLDERS = ("data", "strategies", "examples")
TRANSLATIONS = ("zh/",)
PATIENCE = 1800  # seconds, of a page

_FENCE = re.compile(
    r"(?:^<!-- (?P<word>not run|exit code): (?P<why>[^>]*?) -->\n\n?)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_INCLUDED = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
_MARK = "\x1e"


@dataclass(frozen=True)
class Block:
    """A piece of code of a page; `why` it is not run, or empty."""

    language: str
    code: str
    why: str = ""
    exit_code: int = 0


def text_of(page: Path) -> str:
    """Return a page's text with that of the files that it includes."""
    text = page.read_text(encoding="utf-8")
    included = (page.parent / name for name in _INCLUDED.findall(text))
    return "\n".join([text, *(one.read_text(encoding="utf-8") for one in included)])


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page in the languages that are run."""
    found = []
    for one in _FENCE.finditer(text):
        if one["language"] in LANGUAGES:
            why = one["why"] if one["word"] == "not run" else ""
            code = int(one["why"]) if one["word"] == "exit code" else 0
            found.append(Block(one["language"], one["code"].rstrip("\n"), why, code))
    return found


def commands_in(block: Block) -> str:
    """Return the commands of a block: of a session, what stands behind the prompts."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(lines)


def script_of(blocks: list[Block]) -> str:
    """Return the script that a page is."""
    lines = ["import subprocess as _subprocess", "import sys as _sys", ""]
    for number, block in enumerate(blocks):
        lines.append(f"print({f'{_MARK}{number}{_MARK}'!r}, flush=True)")
        if block.why:
            continue
        if block.language == "python":
            lines.append(block.code)
            continue
        code = commands_in(block)
        lines.append(f"_done = _subprocess.run(['bash', '-euo', 'pipefail', '-c', {code!r}]).returncode")
        lines.append(f"_done == {block.exit_code} or _sys.exit({code!r} + f'\\nended with {{_done}}')")
    return "\n".join(lines) + "\n"


def run_page(name: str, blocks: list[Block], repository: Path) -> list[str]:
    """Return what each block of a page printed.

    Raises
    ------
    RuntimeError
        If one of them fails.
    """
    with tempfile.TemporaryDirectory(prefix="bt-llm-page-") as folder:
        for part in FOLDERS:
            shutil.copytree(
                repository / part, Path(folder) / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        script = Path(folder) / f"{name.replace('/', '_')}.py"
        script.write_text(script_of(blocks), encoding="utf-8")
        paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [sys.executable, script],
            cwd=folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: a block failed\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        parts = done.stdout.replace(f"{folder}/", "").split(_MARK)[2::2]
        return [part.strip("\n") for part in parts]


def attempt(name: str, blocks: list[Block], repository: Path) -> list[str]:
    """Return what each block of a page printed; what fails is a warning, so that all of them are known."""
    from sphinx.util import logging

    try:
        return run_page(name, blocks, repository)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        logging.getLogger(__name__).warning("%s", error)
        return [""] * len(blocks)


def run_all(app: Any) -> None:
    """Run every page of the site that is no translation."""
    app.executed = {}
    if not app.config.run_pages:
        return
    root = Path(app.srcdir)
    names = [
        one.relative_to(root).with_suffix("").as_posix()
        for one in sorted(root.rglob("*.md"))
        if "generated" not in one.parts and "_" not in one.relative_to(root).parts[0][0]
    ]
    pages = {name: blocks_of(text_of(root / f"{name}.md")) for name in names}
    own = {
        name: blocks
        for name, blocks in pages.items()
        if not name.startswith(TRANSLATIONS) and any(not one.why for one in blocks)
    }
    with ThreadPoolExecutor(max_workers=app.parallel or 1) as pool:
        printed = pool.map(lambda item: attempt(*item, root.parent), own.items())
        outputs = dict(zip(own, printed, strict=True))
    for name, blocks in pages.items():
        for number, block in enumerate(blocks):
            if block.why or name in own:
                text = "" if block.why else outputs[name][number]
                app.executed[name, block.code] = (text, block.why)
                app.executed.setdefault(block.code, (text, block.why))


def show_outputs(app: Any, doctree: Any) -> None:
    """Put beneath each block what it printed, or why it was not run."""
    from docutils import nodes

    name = app.env.docname
    if not app.config.run_pages:
        return
    for node in list(doctree.findall(nodes.literal_block)):
        if node.get("language") not in LANGUAGES or name.startswith(("generated/", "notebooks/")):
            continue
        code = node.rawsource.rstrip("\n")
        known = app.executed.get((name, code), app.executed.get(code))
        if known is None:
            raise RuntimeError(f"{name}: a block was neither run nor said not to be:\n{code}")
        text, why = known
        if why:
            said = nodes.paragraph("", f"Not run here: {why}.", classes=["not-run"])
        elif text:
            said = nodes.literal_block(text, text, language="text", classes=["printed"])
        else:
            continue
        node.parent.insert(node.parent.index(node) + 1, said)


def setup(app: Any) -> dict[str, Any]:
    """Connect both halves."""
    app.add_config_value("run_pages", True, "env", bool)
    app.connect("builder-inited", run_all)
    app.connect("doctree-read", show_outputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
