"""The runs of a panel in one file: reproduced to the last digit, and any change of it named by its symbol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bt_llm import AdvisorConfig, Gate
from bt_llm.advice import forget_answers
from bt_llm.backtest import PanelStudy, panel_study
from bt_llm.exceptions import ConfigError
from bt_llm.manifest import (
    PanelManifest,
    PanelReproduction,
    read_any_manifest,
    read_manifest,
    reproduce_panel,
    write_panel_manifest,
)
from tests.engines import walk
from tests.panel_cases import folder_of
from tests.walk_forward_cases import cross_file


def study_in(folder: Path) -> tuple[str, PanelStudy]:
    spec = f"{folder / 'cross.py'}:Cross"
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=folder / "verdicts"))
    members = folder / "members.csv"
    return spec, panel_study(spec, members, gate, weights={"gone": 2.0}, commission=0.001)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a strategy, symbols that come and go, a cache, and the manifest of their runs."""
    folder = tmp_path_factory.mktemp("panel")
    folder_of(folder)
    cross_file(folder)
    spec, study = study_in(folder)
    write_panel_manifest(folder / "runs.json", study, strategy=spec, universe=folder / "members.csv")
    return folder


@pytest.fixture
def here(tmp_path: Path, recorded: Path) -> Path:
    forget_answers()
    return Path(shutil.copytree(recorded, tmp_path / "here"))


def read(here: Path) -> PanelManifest:
    found = read_any_manifest(here / "runs.json")
    assert isinstance(found, PanelManifest)
    return found


def again(here: Path, **options: Any) -> PanelReproduction:
    return reproduce_panel(read(here), cache_dir=here / "verdicts", **options)


def edit(here: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((here / "runs.json").read_text())
    change(document)
    (here / "runs.json").write_text(json.dumps(document))


def test_what_is_written_is_read_back_and_every_symbol_reproduced(here: Path) -> None:
    manifest = read(here)
    assert list(manifest.symbols) == ["late", "gone", "back 2020-05-01"]
    assert manifest.text == (here / "runs.json").read_text()
    assert manifest.weights == {"late": 1.0, "gone": 2.0, "back 2020-05-01": 1.0}
    assert list(manifest.left_out) == ["back"]
    told: list[str] = []
    found = again(here, on_code=lambda path, _: told.append(path.name))
    assert found.identical, found.differences
    assert told == ["cross.py"]
    assert found.compared.startswith("3 symbols and their pooled figures; of the first: bars, code")


def test_a_single_run_is_read_as_before_and_a_panel_is_none(here: Path) -> None:
    with pytest.raises(ConfigError, match="expected an object with kind 'bt_llm run'"):
        read_manifest(here / "runs.json")


def test_a_membership_is_part_of_a_run(here: Path) -> None:
    entries = {one["symbol"]: one for one in json.loads((here / "runs.json").read_text())["symbols"]}
    assert [entries[name].get("start") for name in ("late", "gone")] == ["2020-04-01T00:00:00", None]
    assert [entries[name].get("end") for name in ("late", "gone")] == [None, "2020-07-01T00:00:00"]
    original = (here / "runs.json").read_text()
    for name, field in (("back 2020-05-01", "start"), ("gone", "end")):

        def change(document: dict[str, Any], name: str = name, field: str = field) -> None:
            del next(one for one in document["symbols"] if one["symbol"] == name)[field]

        edit(here, change)
        assert list(again(here).differences) == [name], (name, field)
        (here / "runs.json").write_text(original)
    edit(here, lambda document: [one.update(settles=False) for one in document["symbols"]])
    assert again(here).differences  # what is open in the end is not closed then


def test_a_start_of_the_users_within_a_membership_is_reproduced(here: Path) -> None:
    spec, _ = study_in(here)
    rows = (here / "members.csv").read_text().splitlines()
    (here / "late.csv").write_text("\n".join([rows[0], *(one for one in rows if one.startswith("late,"))]))
    gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=here / "verdicts"))
    study = panel_study(spec, here / "late.csv", gate, start="2020-05-04")
    write_panel_manifest(here / "runs.json", study, strategy=spec, universe=here / "late.csv")
    assert read(here).symbols["late"].start == "2020-05-04T00:00:00"
    assert again(here).identical


def test_bars_after_a_membership_do_not_matter_and_others_do(here: Path) -> None:
    longer = walk(300, seed=1)
    longer.iloc[:260] = walk(260, seed=1)
    longer.to_csv(here / "symbols" / "b.csv", index_label="time")  # of `gone`
    assert again(here).identical
    walk(259, seed=0).to_csv(here / "symbols" / "a.csv", index_label="time")  # of `late`
    ((name, (difference, *_)),) = again(here).differences.items()
    assert (name, difference.what) == ("late", "data")


def test_a_trade_a_weight_and_a_pooled_figure_that_are_not_so_are_named(here: Path) -> None:
    original = (here / "runs.json").read_text()

    def trade(document: dict[str, Any]) -> None:
        document["symbols"][1]["runs"]["ungated"]["trades"][0][4] += 1e-9

    def weight(document: dict[str, Any]) -> None:
        document["weights"]["gone"] = 3.0

    def figure(document: dict[str, Any]) -> None:
        document["pooled"]["gated"]["sharpe"] += 1e-12

    wrong = ((trade, "gone", "trade"), (weight, "pooled", "claim"), (figure, "pooled", "claim"))
    for change, where, what in wrong:
        edit(here, change)
        ((name, (difference,)),) = again(here).differences.items()
        assert (name, difference.what) == (where, what)
        (here / "runs.json").write_text(original)


def test_verdicts_that_are_not_stored_are_missed(here: Path) -> None:
    forget_answers()
    found = reproduce_panel(read(here), cache_dir=here / "elsewhere")
    assert {one.what for differences in found.differences.values() for one in differences} == {"verdict"}
    assert list(found.differences) == ["late", "gone", "back 2020-05-01"]


def test_bars_may_be_given_by_the_symbols_names(here: Path) -> None:
    (here / "symbols" / "a.csv").rename(here / "moved.csv")
    with pytest.raises(ConfigError, match="give it with --data"):
        again(here)
    assert again(here, data={"late": here / "moved.csv"}).identical
    with pytest.raises(ConfigError, match=r"data 'x': expected symbols of the manifest, \['late'"):
        again(here, data={"x": here / "moved.csv"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("weights"), "expected the fields format, kind, left_out"),
        (lambda d: d["weights"].update(gone=0.0), "weight of 'gone': expected a number above 0"),
        (lambda d: d["weights"].pop("gone"), "expected those of one symbol or more"),
        (lambda d: d["symbols"].append(dict(d["symbols"][0])), "symbol 4: expected a name of its own"),
        (lambda d: d["symbols"][0].update(start="soon"), "start='soon': expected a time in ISO 8601"),
        (lambda d: d["symbols"][0].update(end="2020-01-01T00:00:00+01:00"), "a time without a zone"),
        (lambda d: d["symbols"][0].update(settles=1), "settles=1: expected bool"),
        (lambda d: d["pooled"].pop("gated"), "expected figures of"),
        (lambda d: d.update(symbols=[]), "expected those of one symbol or more"),
        (lambda d: d.update(symbols={}), "expected a list of symbols"),
        (lambda d: d["left_out"].update(x=1), "left_out: expected texts"),
        (lambda d: d["symbols"][0].pop("gate"), "symbol 'late': manifest: expected the fields"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(
    here: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    edit(here, change)
    with pytest.raises(ConfigError) as error:
        read_any_manifest(here / "runs.json")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_universe_of_other_runs_is_refused(here: Path) -> None:
    spec, study = study_in(here)
    with pytest.raises(ConfigError, match="expected that of the runs, with 'late'"):
        write_panel_manifest(here / "x.json", study, strategy=spec, universe=here / "symbols")
