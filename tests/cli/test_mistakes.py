"""What is given wrongly is one line and exit code 2, before any work; what is odd is said, and done."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rich.console
from typer.main import get_command

from bt_llm.cli import app
from bt_llm.cli._output import Console, progress_bar
from bt_llm.models import cpu_threads
from tests.cli_cases import Cli, one_line
from tests.engines import walk

CROSS = "strategies/sma_cross.py:GatedSmaCross"
RUN = ("run", "-s", CROSS, "-m", "scripted:trend")


@pytest.fixture
def bars(tmp_path: Path) -> str:
    path = tmp_path / "bars.csv"
    walk(200, seed=3).rename_axis("time").to_csv(path)
    return str(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-p", "fast=ten"], "fast='ten': expected a number, as the default 10"),
        (["-p", "fats=10"], "did you mean 'fast'?"),
        (["--require", "agrees"], "require='agrees'"),
        (["--reader", "telepathy"], "reader='telepathy'"),
        (["-p", "fast=10", "-p", "fast=20"], "--param 'fast=20': fast is 10 already; give it once"),
        (["-p", "fast={[]: 1}"], "fast='{[]: 1}': expected a number, as the default 10"),
        (["-p", "gate=3"], "--param 'gate=3': the gate is what --model"),
        (["--price-per-mtok", "nan"], "price_per_mtok=nan"),
        (["--percent", "0"], "percent=0.0"),
        (["--cash", "1e308"], "cash=1e+308"),
        (["--cash", "-5"], "cash=-5"),
        (["-s", "absent.py:X"], "no strategy file 'absent.py'"),
        (["-d", "absent.csv"], "absent.csv"),
        (["-m", "no-such-model"], "no-such-model"),
        (["--template", "absent.toml"], "absent.toml"),
        (["--report", "no/such/x.html"], "--report no/such/x.html: no folder 'no/such'"),
        (["--csv", "README.md"], "--csv README.md: 'README.md' is a file; expected a folder"),
        (["--manifest", "data"], "--manifest data: a folder"),
        (["--plot", "x.bmp"], "--plot x.bmp: expected a name ending in .png, .svg or .pdf"),
    ],
)
def test_what_is_given_wrongly_is_one_line_and_code_2(
    cli: Cli, bars: str, options: list[str], says: str
) -> None:
    outcome = cli(*RUN, "-d", bars, *options) if "-d" not in options else cli(*RUN, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in one_line(outcome)


@pytest.mark.parametrize("option", ["--report", "--manifest"])
def test_no_file_of_the_users_is_written_over(cli: Cli, bars: str, option: str) -> None:
    before = Path(bars).read_bytes()
    outcome = cli(*RUN, "-d", bars, option, bars)
    assert (outcome.code, outcome.out) == (2, "")
    assert "a file is there that bt_llm has not written" in one_line(outcome)
    assert Path(bars).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("test", "--random", "99999999"), "--random"),
        (("test", "--resamples", "99999999"), "--resamples"),
        (("plan", "--random", "99999999"), "--random"),
        (("multiverse", "--random", "99999999"), "--random"),
        (("leakage", "--synthetic", "99999999"), "--synthetic"),
    ],
)
def test_a_number_that_no_machine_could_work_off_is_refused_at_once(
    cli: Cli, words: tuple[str, ...], says: str
) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert one_line(outcome).startswith(f"error: {says}=99999999: expected a whole number from ")


@pytest.mark.parametrize("name", ["trades.csv", "verdicts.csv"])
def test_no_table_of_the_users_is_written_over(cli: Cli, bars: str, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tables"
    for _ in range(2):
        assert cli(*RUN, "-d", bars, "--csv", str(folder)).code == 0
    (folder / name).write_text("symbol,size\n", encoding="utf-8")
    outcome = cli(*RUN, "-d", bars, "--csv", str(folder))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"--csv {folder}: {name}: a file is there that bt_llm has not written" in one_line(outcome)
    assert (folder / name).read_text(encoding="utf-8") == "symbol,size\n"


def test_bars_are_not_written_over_the_file_they_came_from(cli: Cli, bars: str, tmp_path: Path) -> None:
    before, clean = Path(bars).read_bytes(), str(tmp_path / "clean.csv")
    assert "the bars were read from it" in one_line(cli("data", bars, "--to", bars))
    assert Path(bars).read_bytes() == before
    for _ in range(2):
        assert cli("data", bars, "--to", clean).code == 0


def test_what_a_command_has_written_it_writes_again(cli: Cli, bars: str, tmp_path: Path) -> None:
    written = [str(tmp_path / name) for name in ("page", "run.json")]
    for _ in range(2):
        assert cli(*RUN, "-d", bars, "--report", written[0], "--manifest", written[1]).code == 0
    rules = [str(tmp_path / f"rule.{kind}") for kind in ("py", "pine", "csv")]
    told = [word for rule in rules for word in ("--export", rule)]
    for _ in range(2):
        assert cli("explain", "-m", "scripted:trend", *told).code == 0
    assert "has not written" in one_line(cli("explain", "-m", "scripted:trend", "--export", bars))


def test_a_pack_replaces_a_pack_and_nothing_else(cli: Cli, bars: str, tmp_path: Path) -> None:
    assert cli("policy", "-m", "scripted:trend").code == 0
    for name in ("p.jsonl", "p.jsonl.gz"):
        for _ in range(2):
            assert cli("cache", "export", str(tmp_path / name)).code == 0
    assert "has not written" in one_line(cli("cache", "export", bars))


@pytest.mark.parametrize("verb", ["explain", "multiverse", "board"])
def test_a_place_that_cannot_be_is_told_before_the_work(cli: Cli, verb: str) -> None:
    option = "--write-pack" if verb == "multiverse" else "--report"
    outcome = cli(verb, option, "no/such/x.html")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no folder 'no/such'" in one_line(outcome)


@pytest.mark.parametrize("option", ["--report", "--csv", "--manifest", "--plot"])
def test_a_name_that_no_file_can_have_is_told_before_the_work(cli: Cli, bars: str, option: str) -> None:
    outcome = cli(*RUN, "-d", bars, option, "x" * 300 + ".png")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nothing can be written there" in one_line(outcome)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_file_whose_name_is_no_text_is_run_and_shown(cli: Cli, bars: str, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9.csv")
    shutil.copy(bars, odd)
    page = tmp_path / "x.html"
    outcome = cli(*RUN, "-d", odd, "--report", str(page), "--format", "json")
    assert outcome.code == 0
    assert "caf\ufffd" in page.read_text("utf-8")


def test_a_strategy_that_fails_while_it_runs_is_code_1(cli: Cli, bars: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import backtrader as bt\nclass Own(bt.Strategy):\n    def next(self):\n        1 / 0\n"
    )
    outcome = cli("run", "-s", f"{tmp_path / 'own.py'}:Own", "-m", "scripted:trend", "-d", bars)
    assert outcome.code == 1
    assert "ZeroDivisionError" in one_line(outcome)


def test_a_folder_that_may_not_be_written_is_told_before_the_work(
    cli: Cli, bars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bt_llm.cli._places.os.access", lambda place, how: False)
    outcome = cli(*RUN, "-d", bars, "--report", str(tmp_path / "x.html"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "may not be written" in one_line(outcome)


def test_results_are_printed_though_a_file_cannot_be_written(
    cli: Cli, bars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bt_llm.report._policy_page.write_whole", full)
    outcome = cli(*RUN, "-d", bars, "--format", "json", "--report", str(tmp_path / "x.html"))
    assert "No space left" in one_line(outcome)
    assert set(json.loads(outcome.out)["runs"]) == {"gated", "ungated", "buy_and_hold"}


def test_what_is_seldom_meant_is_said(cli: Cli, bars: str) -> None:
    outcome = cli(*RUN, "-d", bars, "--commission", "0.1", "--reader", "json", "--threads", "999")
    assert "warning: --commission 0.1 is 10 % of the value of every trade" in outcome.err
    assert "warning: --reader json: a confidence is what the model writes of itself" in outcome.err
    assert "--threads" not in outcome.err  # a script computes nothing
    outcome = cli(*RUN, "-d", bars, "--commission", "0.0002")
    assert (outcome.code, "warning" in outcome.err) == (0, False)


def test_more_threads_than_cores_and_layers_without_a_gpu_are_said(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bt_llm.models.gpu_names", list)
    asked = ("policy", "-m", "absent", "--threads", "999", "--gpu-layers", "20")
    outcome = cli(*asked)
    assert outcome.code == 2
    assert f"--threads 999: this process may use {cpu_threads()} cores" in outcome.err
    assert "--gpu-layers 20: this build of llama.cpp knows no graphics processor" in outcome.err
    monkeypatch.setattr("bt_llm.models.gpu_names", lambda: ["CUDA0"])
    assert "--gpu-layers" not in cli(*asked).err


@pytest.mark.parametrize(
    "command", [(*RUN, "-d", "data/eurusd_hourly.csv"), ("policy",), ("explain",), ("multiverse",)]
)
def test_money_is_not_spent_without_a_word(cli: Cli, command: tuple[str, ...]) -> None:
    server = "openai:http://127.0.0.1:9/v1?model=m"
    outcome = cli(*command, "-m", server, "--budget", "0", "--price-per-mtok", "5")
    assert outcome.code == 2
    assert "nothing was asked" in one_line(outcome)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("explain", "--zone", "UTC"), "--zone without --data"),
        (("leakage", "-d", "data/sp500_daily.csv", "--cash", "5"), "--cash without --strategy"),
        (("plan", "examples/walk_forward.toml", "--zone", "UTC"), "--zone without --data"),
        (("plan", "--bars", "9", "--commission", "0.1"), "--commission without --data"),
        (("multiverse", "--each"), "--each without --strategy and --data"),
        (("multiverse", "--decimal", ","), "--decimal without --strategy and --data"),
        (("multiverse", "--require", "not_against"), "--require without --strategy and --data"),
        (("multiverse", "-o", "ledger"), "--output ledger without --strategy and --data"),
        (
            ("test", "-s", CROSS, "-d", "data/*_daily.csv", "--each", "--no-strata"),
            "--no-strata beside --each",
        ),
    ],
)
def test_an_option_without_an_effect_is_refused(cli: Cli, command: tuple[str, ...], option: str) -> None:
    outcome = cli(*command, "-m", "scripted:trend")
    assert (outcome.code, outcome.out) == (2, "")
    assert option in " ".join(outcome.err.replace("│", " ").split())


def test_what_is_to_be_written_is_written_though_nobody_reads_the_result(tmp_path: Path, bars: str) -> None:
    page, manifest = tmp_path / "page.html", tmp_path / "run.json"
    files = ["--report", str(page), "--manifest", str(manifest)]
    words = [sys.executable, "-m", "bt_llm", *RUN, "-d", bars, *files]
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "wb") as nobody:
        done = subprocess.run(words, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert page.is_file()
    assert manifest.is_file()


def test_names_with_brackets_and_colons_stand_as_they_are(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x[/b] [old] :fire:"
    folder.mkdir(parents=True)
    monkeypatch.setenv("COLUMNS", "400")
    outcome = cli("doctor", "--cache", str(folder))
    assert str(folder) in outcome.out
    outcome = cli("cache", "stats", "--cache", str(folder))
    assert str(folder) in outcome.err
    with progress_bar(f"asking {folder}") as update:
        update(1, 2)
    said = io.StringIO()
    Console(file=said, width=200).print("a[/b] [old] :fire:")
    assert said.getvalue() == "a[/b] [old] :fire:\n"


def test_the_help_shows_the_brackets_of_a_text(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            shown = rich.console.Console(file=io.StringIO()).render_str(text).plain
            assert shown == text.replace("\\[", "["), (name, parameter.name)
    assert "[walk_forward] and [grid]" in cli("walkforward", "--help").out


def test_every_command_that_asks_on_bars_takes_the_same_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    asking = {"--template", "--reader", "--calibration", "--numerics", "--min-label-mass", "--gpu-layers"}
    places = {"--threads", "--cache", "--cache-mode"}
    read = {"--time-format", "--zone", "--columns", "--adjusted", "--symbol", "--after"}
    account = {"--cash", "--commission", "--slippage", "--percent", "--sizer", "--setup"}
    spending = {"--budget", "--price-per-mtok", "--yes"}
    taken = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }
    for name in ("run", "test", "compare"):
        assert asking | places | read | account | spending | {"--require"} <= taken[name], name
    assert asking | places | read | account | spending <= taken["plan"]
    assert asking | places | {"--require"} <= taken["demo"]
    assert asking | places | spending <= taken["policy"]
    assert asking | places <= taken["doctor"]
    assert read <= taken["data"]


def test_a_template_that_leaves_out_a_feature_is_told_of(cli: Cli, tmp_path: Path) -> None:
    words = 'labels = {bullish = "Up", neutral = "Flat", bearish = "Down"}'
    head = f'format = 1\nname = "own"\nversion = 1\nanswer = "Verdict:"\n{words}\n'
    for user, silent in (
        ("Trend: {{ trend }}", "volatility and rsi"),
        ("What now?", "volatility and rsi and trend"),
        ("{% for f in features %}{{ f.title }}: {{ f.label }}\\n{% endfor %}", ""),
    ):
        (tmp_path / "own.toml").write_text(f'{head}user = "{user}"\n')
        outcome = cli("policy", "-m", "scripted:trend", "--template", str(tmp_path / "own.toml"))
        assert outcome.code == 0
        said = [line for line in outcome.err.splitlines() if line.startswith("warning: template")]
        assert said == [
            f"warning: template 'own' asks the same whatever {silent} may be: no verdict can depend on it"
        ] * bool(silent)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full here")
@pytest.mark.parametrize("words", [["models", "list"], ["models", "list", "--format", "json"], ["--help"]])
def test_a_standard_output_that_takes_nothing_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bt_llm", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: standard output cannot be written (No space left on device)"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_stream_that_is_closed_is_no_error(closed: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m bt_llm models list {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("smollm2" in done.stdout) == (closed != ">&-")


def test_where_no_panel_is_known_each_is_refused_and_not_one_account_of_all(cli: Cli, bars: str) -> None:
    verb = ("multiverse", "-m", "scripted:trend", "--random", "0")
    done = cli(*verb, "-s", CROSS, "-d", f"a={bars}", "-d", f"b={bars}", "--each")
    assert done.code == 2
    assert "--each: here all of -d are the datas of one account" in one_line(done)


def test_a_plan_counts_the_bars_of_all_symbols_of_a_panel(cli: Cli, bars: str) -> None:
    done = cli("plan", "-m", "scripted:trend", "-s", CROSS, "-d", f"a={bars}", "-d", f"b={bars}", "--each")
    assert "400 bars x 1 model = 400 verdicts" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "json", "--format", "table"], "--format is given twice: the last one counts"),
        (
            ["--zone=UTC", "--zone", "Asia/Tokyo", "--zone", "UTC"],
            "--zone is given 3 times: the last one counts",
        ),
        (["--adjusted", "--raw"], "--adjusted is given twice: the last one counts"),
        (["--format", "json"], ""),
    ],
)
def test_an_option_of_one_value_that_is_given_again_is_told_of(
    cli: Cli, bars: str, options: list[str], said: str
) -> None:
    done = cli("data", bars, *options)
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if "the last one counts" in line]
    assert lines == ([said] if said else [])
    assert done.out.startswith("{") == (options == ["--format", "json"])


def test_options_that_are_repeatable_or_only_switches_may_be_given_again(cli: Cli, bars: str) -> None:
    again = ["--yes", "--yes", "-p", "fast=3", "-p", "slow=9", "-m", "scripted:trend"]
    done = cli("run", "-s", CROSS, "-d", f"a={bars}", *again)
    assert "the last one counts" not in done.err
    done = cli("cache", "stats", "--cache", "a", "--cache", "b")
    assert "--cache is given twice: the last one counts" in done.err
