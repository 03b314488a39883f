"""Study files: refused when misspelt, independent of where they are run, and complete."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from bt_llm import AdvisorConfig, Gate
from bt_llm.advice import forget_answers
from bt_llm.data import BarFormat, shipped
from bt_llm.exceptions import ConfigError, MissingExtraError
from bt_llm.research import Study, WalkForward, load_study
from tests.engines import walk
from tests.faulty_server import FaultyServer
from tests.walk_forward_cases import cross_file

TEXT = """\
strategy = "cross.py:Cross"
data = "bars.csv"

[gate]
require = "not_against"
advisor.model = "scripted:random"

[account]
commission = 0.001

[params]
slow = 9

[grid]
fast = [2, 4]
gate.min_confidence = [0.0, 0.4]

[walk_forward]
train_size = 180
test_size = 50
metric = "return"
constraints = ["fast < slow"]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    forget_answers()
    folder = tmp_path / "study"
    folder.mkdir()
    cross_file(folder)
    walk(300).to_csv(folder / "bars.csv", index_label="time")
    (folder / "one.toml").write_text(TEXT, encoding="utf-8")
    return folder / "one.toml"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


class TestWalkForward:
    def test_it_is_the_call_that_it_describes(self, study: Path) -> None:
        found = load_study(study).run_walk_forward()
        expected = WalkForward(train_size=180, test_size=50).run(
            f"{study.parent / 'cross.py'}:Cross",
            study.parent / "bars.csv",
            gate=Gate(advisor=AdvisorConfig(model="scripted:random"), require="not_against"),
            grid={"fast": [2, 4], "gate.min_confidence": [0.0, 0.4]},
            params={"slow": 9},
            constraints=["fast < slow"],
            metric="return",
            commission=0.001,
        )
        assert found.to_dict() == expected.to_dict()
        assert (study.parent / "one-results" / "trials.sqlite").exists()

    def test_the_working_directory_does_not_matter(
        self, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(study.parent)
        here = load_study("one.toml")
        monkeypatch.chdir(tmp_path)
        assert load_study(Path("study") / "one.toml") == here
        assert here.data == str(study.parent / "bars.csv")

    def test_train_priors(self, study: Path) -> None:
        text = TEXT.replace('advisor.model = "scripted:random"', 'advisor.calibration = "train"')
        text = text.replace("[gate]\n", '[gate]\nadvisor.model = "scripted:random"\n')
        result = load_study(write(study, text)).run_walk_forward()
        assert all(fold.prior is not None for fold in result.folds)

    def test_ungated(self, study: Path) -> None:
        text = TEXT.partition("[gate]")[0] + '[walk_forward]\ntrain_size = "3MS"\ntest_size = "1MS"\n'
        loaded = load_study(write(study, text))
        assert loaded.make_gate() is None
        assert len(loaded.run_walk_forward(output=None).folds) == 6

    def test_where_verdicts_are_kept_can_be_said_outside(self, study: Path, tmp_path: Path) -> None:
        advisor = {"cache_dir": tmp_path / "verdicts", "cache_mode": None}
        gate = load_study(study).make_gate(**advisor)
        assert gate is not None
        assert gate.advisor.cache_dir == str(tmp_path / "verdicts")
        assert gate.advisor.cache_mode is None

    def test_a_section_is_needed(self, study: Path) -> None:
        loaded = load_study(write(study, TEXT.partition("[walk_forward]")[0]))
        with pytest.raises(ConfigError, match=r"no \[walk_forward\] in the study"):
            loaded.run_walk_forward()
        with pytest.raises(ConfigError, match=r"no \[compare\] in the study"):
            loaded.run_compare()


class TestPaths:
    def test_files_are_relative_to_the_study_and_names_stay_names(self, study: Path) -> None:
        text = TEXT.replace(
            'advisor.model = "scripted:random"',
            'advisor = {model = "models/a.gguf", template = "market", cache_dir = "verdicts"}',
        )
        text = text.replace(
            "[grid]",
            'gate.advisor.template = "b.toml"\n[grid]\n'
            'gate.advisor.model = ["smollm2", "c.gguf", "../d.GGUF", "scripted:trend"]',
        )
        text += '[compare]\nmodels = {one = "c.gguf", two = "smollm2"}\n'
        folder, loaded = study.parent, load_study(write(study, text))
        assert loaded.gate is not None
        assert loaded.compare is not None
        assert loaded.gate.advisor.model == str(folder / "models/a.gguf")
        assert loaded.gate.advisor.template == "market"
        assert loaded.gate.advisor.cache_dir == str(folder / "verdicts")
        assert loaded.params["gate.advisor.template"] == str(folder / "b.toml")
        models = ["smollm2", str(folder / "c.gguf"), str(folder / "../d.GGUF"), "scripted:trend"]
        assert loaded.grid["gate.advisor.model"] == models
        assert loaded.compare.models == {"one": str(folder / "c.gguf"), "two": "smollm2"}

    def test_absolute_paths_stay(self, study: Path) -> None:
        data = shipped("eurusd_hourly.csv").as_posix()
        loaded = load_study(write(study, TEXT.replace('"bars.csv"', f'"{data}"')))
        assert Path(loaded.data) == Path(data)


class TestCompare:
    def test_it_is_the_call_that_it_describes(self, study: Path) -> None:
        pytest.importorskip("arch")
        from bt_llm.research import compare_models

        text = TEXT + '[compare]\nmodels = ["scripted:trend", "scripted:random"]\nresamples = 50\nseed = 3\n'
        found = load_study(write(study, text)).run_compare()
        expected = compare_models(
            f"{study.parent / 'cross.py'}:Cross",
            study.parent / "bars.csv",
            ["scripted:trend", "scripted:random"],
            gate=Gate(require="not_against"),
            params={"slow": 9},
            commission=0.001,
            resamples=50,
            seed=3,
        )
        assert found.table.equals(expected.table)
        assert found.tried is not None  # a study has a ledger
        assert found.sentences == [*expected.sentences, found.tried.sentence]

    @pytest.mark.parametrize(
        ("old", "new", "match"),
        [
            ('model = "scripted:random"', 'calibration = "train"', "calibration 'train' in a comparison"),
            ("slow = 9", 'gate.require = "agree"', r"params \['gate.require'\] in a comparison"),
        ],
    )
    def test_what_only_a_walk_forward_has(self, study: Path, old: str, new: str, match: str) -> None:
        text = TEXT.replace(old, new) + '[compare]\nmodels = ["a", "b"]\n'
        with pytest.raises(ConfigError, match=match):
            load_study(write(study, text)).run_compare()


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "match"),
        [
            ("train_size", "train_sise", "unknown key 'walk_forward.train_sise'.*did you mean 'train_size'"),
            ("strategy", "stratgy", "unknown key 'stratgy'.*did you mean 'strategy'"),
            ("advisor.model", "advisor.modell", "unknown key 'gate.advisor.modell'.*did you mean 'model'"),
            ("[account]", "[acount]", "unknown key 'acount'.*did you mean 'account'"),
            ("train_size = 180\n", "", "'walk_forward.train_size' is missing"),
            ("train_size = 180", "train_size = 1.5", "walk_forward.train_size = 1.5: input should be"),
            ('"not_against"', '"never"', "gate.require = 'never': input should be 'agree' or"),
            ("0.001", '"0.001"', "account.commission = '0.001': input should be a valid number"),
            ('"return"', '"profit"', "walk_forward.metric = 'profit'"),
            ('"bars.csv"', "3", "data = 3: input should be a valid string"),
            ('strategy = "', 'format = 2\nstrategy = "', "format = 2: input should be 1"),
            ("[grid]", "[grid", "cannot be read"),
            ("fast = [2, 4]", "fast = 2", "grid.fast = 2: expected a list of values to try"),
            ("fast = [2, 4]", "fast = {}", "grid.fast = {}: expected a list of values to try"),
            ("slow = 9", "slow = {}", "params.slow = {}: expected a value"),
            (
                "gate.min_confidence = [0.0, 0.4]",
                "gate.advisor.model = 3",
                "grid.gate.advisor.model = 3: exp",
            ),
            ('strategy = "', 'output = ""\nstrategy = "', "output = '': string should have at least 1"),
        ],
    )
    def test_a_mistake_is_named(self, study: Path, old: str, new: str, match: str) -> None:
        with pytest.raises(ConfigError, match=match) as caught:
            load_study(write(study, TEXT.replace(old, new, 1)))
        assert "one.toml" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"study '.*none.toml' cannot be read"):
            load_study(tmp_path / "none.toml")

    def test_sections_have_every_argument_of_what_they_stand_for(self) -> None:
        from bt_llm.research._study_sections import AdvisorSection, GateSection, WalkForwardSection

        assert set(AdvisorSection.model_fields) | {"state_space", "manager", "supplied"} == {
            field.name for field in dataclasses.fields(AdvisorConfig)
        }
        assert set(GateSection.model_fields) | {"indicator"} == {
            field.name for field in dataclasses.fields(Gate)
        }
        sizes = {field.name for field in dataclasses.fields(WalkForward)}
        assert set(WalkForwardSection.model_fields) == sizes | {"metric", "min_trades", "constraints"}

    def test_bars_have_every_field_of_a_format(self) -> None:
        from bt_llm.research._study_sections import BarsSection

        fields = {field.name for field in dataclasses.fields(BarFormat)}
        assert set(BarsSection.model_fields) == fields | {"after_cutoff"}

    @pytest.mark.parametrize(
        ("sections", "first"),
        [
            ('[compare]\nmodels = ["scripted:trend", "llama-3.2-1b.gguf"]\n', "2024-02-01"),
            # The walk-forward asks the gate's own model beside those that are compared, which knows more.
            (
                "[walk_forward]\ntrain_size = 90\ntest_size = 40\n"
                '[compare]\nmodels = ["scripted:trend", "llama-3.2-1b.gguf"]\n',
                "2024-09-01",
            ),
            ("[walk_forward]\ntrain_size = 90\ntest_size = 40\n", "2024-09-01"),
            (
                "[walk_forward]\ntrain_size = 90\ntest_size = 40\n"
                '[grid]\ngate.advisor.model = ["llama-3.2-1b.gguf", "scripted:trend"]\n',
                "2024-02-01",
            ),
        ],
    )
    def test_no_bar_is_left_that_a_model_of_any_section_has_read_about(
        self, study: Path, sections: str, first: str
    ) -> None:
        bars = walk(300).set_axis(pd.date_range("2024-02-01", periods=300))
        bars.to_csv(study.parent / "bars.csv", index_label="time")
        text = (
            'strategy = "cross.py:Cross"\ndata = "bars.csv"\n[bars]\nafter_cutoff = true\n'
            f'[gate]\nadvisor.model = "gemma-3-1b-it.gguf"\n{sections}'
        )
        assert str(load_study(write(study, text)).market.index[0].date()) == first

    def test_pydantic_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pydantic", None)
        for name in ("_study", "_study_sections"):
            monkeypatch.delitem(sys.modules, f"bt_llm.research.{name}")
        with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[research\]'"):
            importlib.import_module("bt_llm.research._study")

    def test_a_study_cannot_be_changed(self, study: Path) -> None:
        loaded = load_study(study)
        assert isinstance(loaded, Study)
        with pytest.raises(ValueError, match="frozen"):
            loaded.data = "other"


class TestAddresses:
    """A study that came from somebody has nothing sent until the user says so."""

    NAME = "openai:http://127.0.0.1:{port}/v1?model=m"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('advisor.model = "scripted:random"', 'advisor.model = "NAME"'),
            ('advisor.model = "scripted:random"', 'advisor.fallbacks = ["NAME"]'),
            ("gate.min_confidence = [0.0, 0.4]", 'gate.advisor.model = ["smollm2", "NAME"]'),
            ("slow = 9", 'slow = 9\ngate.advisor.model = "NAME"'),
        ],
    )
    def test_an_address_in_a_study_is_not_asked_unless_trusted(self, study: Path, old: str, new: str) -> None:
        with FaultyServer() as server:
            name = f"openai:{server.url}?model=m"
            loaded = load_study(write(study, TEXT.replace(old, new.replace("NAME", name))))
            assert loaded.addresses == (server.url,)
            for asks in (loaded.run_walk_forward, loaded.make_gate):
                with pytest.raises(ConfigError, match=r"names http://127.*only where you say so"):
                    asks()
            assert not server.authorizations

    def test_models_to_compare_are_not_asked_unless_trusted(self, study: Path) -> None:
        with FaultyServer() as server:
            text = (
                TEXT.partition("[params]")[0]
                + f'[compare]\nmodels = ["openai:{server.url}?model=m", "smollm2"]'
            )
            with pytest.raises(ConfigError, match="only where you say so"):
                load_study(write(study, text)).run_compare()
            assert not server.authorizations

    def test_who_is_given_the_addresses_decides(self, study: Path) -> None:
        name, shown = self.NAME.format(port=1), []
        loaded = load_study(
            write(study, TEXT.replace("scripted:random", name)),
            trust=lambda addresses: bool(shown.append(addresses)) or len(shown) > 1,
        )
        with pytest.raises(ConfigError, match="nothing was sent"):
            loaded.check_trust()
        loaded.check_trust("replay")
        assert shown == [("http://127.0.0.1:1/v1",)]
        loaded.check_trust()
        assert loaded.make_gate().advisor.model == name
