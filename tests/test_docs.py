"""The recipes of docs/bars.md, run on small samples in the sources' own forms; what the pages promise.

The pages' other code runs when the site is built: `make docs`.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
import tomllib
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas as pd
import pytest
import typer

from bt_llm.cli import app
from bt_llm.research import WalkForwardResult
from bt_llm.research._study_sections import (
    AccountSection,
    BarsSection,
    CompareSection,
    UniverseSection,
    WalkForwardSection,
)
from bt_llm.research.walk_forward._walk_forward import LEDGER, SYMBOLS_LEDGER

FOLDER = Path(__file__).parent.parent / "docs"
DOCS = FOLDER / "bars.md"
sys.path.insert(0, str(FOLDER / "_sphinx"))
import executed  # noqa: E402
import links  # noqa: E402
import reference  # noqa: E402

PAGES = sorted(one for one in FOLDER.rglob("*.md") if "generated" not in one.parts)


def recipe(words: str) -> str:
    """Return the imports of the page, and the code that follows some of its words."""
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert text.count(words) == 1
    (code,) = re.findall(r"```python\n(.*?)```", text[text.index(words) :], flags=re.S)[:1]
    return f"{blocks[0]}{code}"


def run(words: str, **names: Any) -> dict[str, Any]:
    exec(recipe(words), names)
    return names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cboe(folder: Path) -> None:
    (folder / "VIX_History.csv").write_text(
        "DATE,OPEN,HIGH,LOW,CLOSE\n"
        "01/30/2018,14.660000,15.420000,14.270000,14.790000\n"
        "01/31/2018,14.070000,14.440000,13.370000,13.540000\n"
        "02/01/2018,13.810000,14.160000,13.160000,13.470000\n"
    )
    vix = run("**CBOE's file of the VIX**")["vix"]
    assert [vix.known(date(2018, *day)).tolist() for day in ((1, 31), (2, 1), (2, 2))] == [
        [14.79],
        [13.54],
        [13.47],
    ]


def test_fred(folder: Path) -> None:
    (folder / "VIXCLS.csv").write_text(
        "observation_date,VIXCLS\n2018-01-12,10.16\n2018-01-15,\n2018-01-16,11.66\n"
    )
    found = run("**A series of FRED's**")
    assert found["bars"]["close"].to_list() == [10.16, 11.66]
    assert any("2018-01-15" in repair for repair in found["bars"].attrs["repairs"])
    assert found["vix"].known(date(2018, 1, 16)).tolist() == [10.16]


def test_yfinance() -> None:
    days = pd.DatetimeIndex(["2024-01-09", "2024-01-10"], tz="Australia/Sydney", name="Date")
    prices = ["Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product([prices, ["BHP.AX"]], names=["Price", "Ticker"])
    frame = pd.DataFrame([[49.0, 50.0, 48.0, 48.5, 7], [49.5, 50.5, 49.0, 49.0, 8]], days, columns)
    asked = SimpleNamespace(download=lambda name, period: frame)
    bars = run("**A frame of yfinance's**", yfinance=asked)["bars"]
    assert bars.loc["2024-01-10"].to_list() == [49.0, 50.5, 49.0, 49.5, 8.0]
    assert bars.attrs["source"]["zone"] == "Australia/Sydney"


def test_ccxt() -> None:
    rows = [
        [1704067200000, 42283.58, 42554.57, 42261.02, 42475.23, 1271.68],
        [1704070800000, *[42475.23] * 5],
    ]
    exchange = SimpleNamespace(fetch_ohlcv=lambda symbol, timeframe: rows)
    bars = run("**A list of ccxt's**", exchange=exchange)["bars"]
    assert list(map(str, bars.index)) == ["2024-01-01 00:00:00", "2024-01-01 01:00:00"]
    assert bars.iloc[0].to_list() == rows[0][1:]
    assert bars.attrs["source"]["zone"] == "UTC"


def test_backtrader(folder: Path) -> None:
    (folder / "mine.csv").write_text(
        "date,open,high,low,close,volume\n02-01-24,10,12,9,11,5\n03-01-24,11,13,10,12,6\n"
    )
    bars = run("**A feed of Backtrader's**")["bars"]
    assert bars.loc["2024-01-03"].to_list() == [11.0, 13.0, 10.0, 12.0, 6.0]


def test_what_an_install_without_a_compiler_needs_is_all_but_llama() -> None:
    text = DOCS.with_name("install.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pip install (backtrader .*)$", text, flags=re.M)
    project = tomllib.loads((DOCS.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.split(r"[><=\[]", one)[0] for one in project["dependencies"]]
    assert sorted(line.split()) == sorted(set(needed) - {"llama-cpp-python"})
    assert f"bt_llm-{project['version']}-py3-none-any.whl" in text


def commands_of(block: executed.Block) -> list[list[str]]:
    """Return the words of each command of bt-llm in a block."""
    lines = [line.removeprefix("$ ") for line in block.code.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("bt-llm ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(FOLDER).as_posix())
def test_commands_that_no_build_runs_have_the_options_that_they_name(page: Path) -> None:
    root = typer.main.get_command(app)
    for block in executed.blocks_of(executed.text_of(page)):
        for words in commands_of(block):
            command, context = root, typer.Context(root)
            for word in words[1:]:
                if not hasattr(command, "get_command"):
                    break
                command = command.get_command(context, word)
                assert command is not None, words
            known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
            given = [word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)]
            assert [word for word in given if word not in known] == [], words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(FOLDER).as_posix())
def test_tables_of_settings_are_toml(page: Path) -> None:
    for code in re.findall(r"^```toml\n(.*?)^```$", executed.text_of(page), re.MULTILINE | re.DOTALL):
        tomllib.loads(code)


@pytest.mark.parametrize("page", sorted((FOLDER / "zh").glob("[!i]*.md")), ids=lambda page: page.name)
def test_a_translation_runs_the_code_of_its_page(page: Path) -> None:
    names = {"models.md": "choosing_a_model.md", "results.md": "p_values.md"}
    english = executed.blocks_of((FOLDER / names.get(page.name, page.name)).read_text(encoding="utf-8"))
    assert executed.blocks_of(page.read_text(encoding="utf-8")) == english


def test_what_a_study_may_say_is_named_whole() -> None:
    pages = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in ("walk_forward", "bars")}
    for title, section in {
        "account": AccountSection,
        "compare": CompareSection,
        "universe": UniverseSection,
        "walk_forward": WalkForwardSection,
    }.items():
        [row] = re.findall(rf"^\| `\[{title}\]` \|.*$", pages["walk_forward"], re.MULTILINE)
        assert [name for name in section.model_fields if f"`{name}" not in row] == [], title
    left_out = {"after_cutoff"}  # of a study alone
    stated = pages["bars"][pages["bars"].index("## What can be stated") :]
    assert [n for n in BarsSection.model_fields if f"`{n}" not in stated] == sorted(left_out)


def test_the_files_of_a_study_are_those_that_are_written() -> None:
    page = (FOLDER / "formats.md").read_text(encoding="utf-8")
    module = sys.modules[WalkForwardResult.__module__]
    written = re.findall(r'"(\w+\.csv)":', inspect.getsource(module))
    assert len(written) == 4
    assert [
        name for name in (LEDGER, SYMBOLS_LEDGER, "result.json", *written) if f"`{name}`" not in page
    ] == []


def test_every_command_that_heeds_a_budget_is_named_and_no_other() -> None:
    page = (FOLDER / "cost.md").read_text(encoding="utf-8")
    [told] = re.findall(r"`--budget 5` on (.*?), or `\[budget\]`", page, re.DOTALL)
    names = {name.split()[0] for name in re.findall(r"`([a-z -]+)`", told)}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert names == {
        name for name, command in commands.items() if any("--budget" in one.opts for one in command.params)
    }


def test_every_chapter_is_in_the_contents() -> None:
    listed = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        contents = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        listed |= {one.lstrip("/") for found in contents for one in found.split()}
    names = {page.relative_to(FOLDER).with_suffix("").as_posix() for page in PAGES}
    assert names - listed == {"index"}


@pytest.mark.parametrize(
    "example", sorted((FOLDER.parent / "examples").glob("*.py")), ids=lambda one: one.stem
)
def test_an_example_ends_with_its_picture(example: Path) -> None:
    text = example.read_text(encoding="utf-8").partition("\n\nif __name__")[0]
    assert text.rstrip().endswith("plt.show()")


def test_notebooks_are_kept_without_what_they_printed() -> None:
    notebooks = sorted((FOLDER / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 5
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not (cell.cell_type == "code" and (cell.outputs or cell.execution_count)), path


def test_a_page_is_one_script_whose_blocks_print_beneath_themselves(repository: Path) -> None:
    text = (
        "```python\nx = 2\nprint(x)\n```\n<!-- not run: no key -->\n```sh\nfalse\n```\n"
        "```sh\nls data | head -1\n```\n<!-- exit code: 3 -->\n```sh\nexit 3\n```\n"
        "```python\nprint(x + 1)\n```\n"
    )
    blocks = executed.blocks_of(text)
    assert [block.why for block in blocks] == ["", "no key", "", "", ""]
    assert executed.run_page("page", blocks, repository) == ["2", "", "README.md", "", "3"]


@pytest.mark.parametrize("code", ["```python\n1 / 0\n```\n", "```sh\nfalse\n```\n"])
def test_a_block_that_fails_stops_the_build(code: str, repository: Path) -> None:
    with pytest.raises(RuntimeError, match=r"page: a block failed(.|\n)*(ZeroDivisionError|ended with 1)"):
        executed.run_page("page", executed.blocks_of(code), repository)


def test_links_that_lead_nowhere_and_pages_that_need_a_network_are_found(folder: Path) -> None:
    (folder / "a.html").write_text('<a href="b.html#here">b</a> <a href="https://x.org">x</a> <p id="top">')
    (folder / "b.html").write_text('<a href="a.html#top">a</a> <a href="c.html">c</a> <i id="here"></i>')
    assert links.faults_of(folder.resolve()) == ["b.html: c.html: no such file"]
    (folder / "b.html").write_text('<script src="https://x.org/y.js"></script>')
    assert links.faults_of(folder.resolve()) == [
        "a.html: b.html#here: no such place in the page",
        "b.html: loads https://x.org/y.js",
    ]


def test_the_reference_has_a_page_for_every_command_and_room() -> None:
    commands = reference.command_pages()
    assert {"index", "run", "test", "cache_merge", "models_fetch"} <= set(commands)
    assert "| `--data`, `-d` `[NAME=]FILE` |" in commands["run"]
    rooms = reference.room_pages()
    assert "bt_llm.gates.Gate" in rooms["gates"]
    assert json.dumps(rooms) == json.dumps(reference.room_pages())
