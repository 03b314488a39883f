"""Study files: a whole piece of research in one TOML file, so that the same file gives the same result.

::

    format = 1
    strategy = "../strategies/sma_cross.py:GatedSmaCross"   # paths are relative to this file
    data = "../data/eurusd_hourly.csv"

    [gate]
    require = "agree"

    [gate.advisor]
    model = "smollm2"

    [account]
    commission = 0.00002

    [walk_forward]
    train_size = "3MS"
    test_size = "1MS"

    [grid]
    fast = [5, 10]
    gate.min_confidence = [0.0, 0.4]

``data`` may also be a list of files, or a table of names to files, for strategies on several; columns named
in ``lines`` become lines of each. An ``account`` may have a ``sizer`` (``file.py:Class``, or the name of one
of Backtrader's), or be opened by a ``setup`` of your own (``file.py:function``).

Sections: ``bars`` (what is stated of them: ``zone``, ``columns``, ``repair`` and the other fields of
`BarFormat`), ``gate`` (leave it out to run ungated), ``account``, ``params`` (values that all combinations
share), ``grid``, ``walk_forward`` and ``compare``. Keys are the arguments of `Gate`, `AdvisorConfig`,
`run_backtest`, `WalkForward` and `compare_models`, and a key that is none of them is refused. In ``budget``
stand ``money``, which the command line may spend on servers without asking, and ``price_per_mtok``.
"""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bt_llm.advice import AdvisorConfig
from bt_llm.backtest import Market, Universe
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError
from bt_llm.files import read_text
from bt_llm.gates import Gate
from bt_llm.models import kind_of, split_name
from bt_llm.research._cutoff_table import latest_cutoff
from bt_llm.research._study_sections import (
    AccountSection,
    AdvisorSection,
    BarsSection,
    BudgetSection,
    CompareSection,
    Field,
    GateSection,
    PrivateAttr,
    Section,
    UniverseSection,
    ValidationError,
    WalkForwardSection,
)
from bt_llm.research._trust import Trust, addresses_in, check_addresses
from bt_llm.settings import in_short

if TYPE_CHECKING:
    from bt_llm.research._comparison_result import ModelComparison
    from bt_llm.research._panel_comparison import PanelComparison
    from bt_llm.research.walk_forward._panel_results import PanelWalkForwardResult
    from bt_llm.research.walk_forward._results import WalkForwardResult

__all__ = ["Study", "load_study"]

_NAMES_OF_FILES = {"gate.advisor.model": ".gguf", "gate.advisor.template": ".toml"}


class Study(Section):
    """A study file, checked; paths in it are absolute.

    Parameters
    ----------
    format : int
        Version of the file's format.
    strategy : str
        ``path/to/file.py:ClassName``.
    data : str, list of str or dict of str to str
        A CSV of bars, or several; of a universe also a folder, a glob, or a CSV of memberships.
    lines : list of str
        Further columns that become lines of every data.
    output : str
        Folder of the ledger and the results; by default ``NAME-results`` beside the file.
    bars, universe, gate, account, walk_forward, compare, budget
        The sections of these names.
    params, grid : dict
        Names to values, and to lists of values, as in `WalkForward.run`.
    """

    format: Literal[1] = 1
    strategy: str
    data: str | list[str] | dict[str, str]
    lines: list[str] = []  # noqa: RUF012 - pydantic copies it
    output: str = Field(min_length=1)
    bars: BarsSection | None = None
    universe: UniverseSection | None = None
    gate: GateSection | None = None
    account: AccountSection = AccountSection()
    params: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    grid: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    walk_forward: WalkForwardSection | None = None
    compare: CompareSection | None = None
    budget: BudgetSection | None = None
    _trust: Trust = PrivateAttr(default=False)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the servers that it names, wherever in the file, sorted."""
        return addresses_in(self.model_dump())

    def check_trust(self, cache_mode: str | None = None) -> None:
        """Refuse to ask servers that only the file names; in replay nobody is asked.

        Parameters
        ----------
        cache_mode : str, optional
            What overrides the file's.

        Raises
        ------
        ConfigError
            If the study names servers that nobody has said to trust; see `load_study`.
        """
        stated = None if self.gate is None else self.gate.advisor.cache_mode
        check_addresses(self.addresses, self._trust, cache_mode or stated)

    @functools.cached_property
    def market(self) -> Market:
        """The bars of all datas, read once.

        Raises
        ------
        DataError
            If they cannot be used.
        """
        if self.universe is not None:
            raise ConfigError("[universe] in the study: its symbols are no one market")
        return Market.of(self.data, lines=self.lines, format=self._stated)

    @functools.cached_property
    def symbols(self) -> Universe:
        """The symbols of a study with ``[universe]``, read once.

        Raises
        ------
        DataError
            If their bars cannot be used.
        """
        weights = {} if self.universe is None else self.universe.weights
        return Universe.of(self.data, weights=weights, lines=self.lines, format=self._stated)

    @property
    def bars_read(self) -> Market | Universe:
        """The symbols of a study with ``[universe]``, else the market."""
        return self.market if self.universe is None else self.symbols

    @property
    def bars_count(self) -> int:
        """Bars of all datas."""
        return sum(map(len, self.market.values())) if self.universe is None else self.symbols.bars

    @property
    def _stated(self) -> BarFormat | None:
        if self.bars is None:
            return None
        stated = self.bars.model_dump(exclude={"after_cutoff"})
        if self.bars.after_cutoff:
            if self.bars.after is not None:
                raise ConfigError(
                    f"bars.after = {self.bars.after!r} beside bars.after_cutoff: expected one of them"
                )
            stated["after"] = latest_cutoff(self._models())[0].isoformat()
        return BarFormat(**stated)

    def _models(self) -> list[str]:
        """Return the names of all models that the study may ask, in any of its sections."""
        advisor = self.gate.advisor if self.gate is not None else AdvisorSection()
        models = [] if self.compare is None else self.compare.models
        compared = list(models.values() if isinstance(models, dict) else models)
        named = "gate.advisor.model"
        chosen = [self.params[named]] if named in self.params else self.grid.get(named, [])
        if not chosen and (not compared or (self.walk_forward is not None and self.gate is not None)):
            chosen = [advisor.model or str(AdvisorConfig().model)]
        return [*map(str, chosen), *compared, *(advisor.fallbacks or [])]

    def make_gate(self, **advisor: Any) -> Gate | None:
        """Return the gate; None for a study without one.

        Parameters
        ----------
        **advisor
            Arguments of `AdvisorConfig` that override the file's, those that are None excepted.
        """
        if self.gate is None:
            return None
        self.check_trust(advisor.get("cache_mode"))
        given = self.gate.advisor.model_dump(exclude_none=True)
        if given.get("calibration") == "train":
            del given["calibration"]
        given |= {name: value for name, value in advisor.items() if value is not None}
        rules = self.gate.model_dump(exclude={"advisor"})
        return Gate(advisor=AdvisorConfig(**given), **rules)

    def run_walk_forward(
        self, *, n_jobs: int | None = None, advisor: Mapping[str, Any] | None = None, **options: Any
    ) -> WalkForwardResult | PanelWalkForwardResult:
        """Run the walk-forward study that the file describes.

        Parameters
        ----------
        n_jobs : int, optional
            Processes; results do not depend on it. See `WalkForward.run`.
        advisor : mapping, optional
            Arguments of `AdvisorConfig` that say where verdicts are kept: `cache_dir`, `cache_mode`,
            `n_threads`.
        **options
            ``output``, ``on_progress`` and ``on_prompts``, as in `WalkForward.run`.

        Raises
        ------
        ConfigError
            If the file has no ``[walk_forward]``.
        """
        from bt_llm.research.walk_forward._walk_forward import WalkForward

        if self.walk_forward is None:
            raise ConfigError("no [walk_forward] in the study: add it, with train_size and test_size")
        self.check_trust((advisor or {}).get("cache_mode"))
        searched = {"metric", "min_trades", "constraints"}
        params = dict(self.params)
        calibration = "gate.advisor.calibration"
        trained = self.gate is not None and self.gate.advisor.calibration == "train"
        if trained and calibration not in self.grid:
            params.setdefault(calibration, "train")
        how = WalkForward(**self.walk_forward.model_dump(exclude=searched))
        told: dict[str, Any] = {
            "gate": self.make_gate(**(advisor or {})),
            "grid": self.grid,
            "params": params,
            "n_jobs": n_jobs,
            **self.walk_forward.model_dump(include=searched),
            **self.account.model_dump(),
            "output": self.output,
            **options,
        }
        if self.universe is None:
            return how.run(self.strategy, self.market, **told)
        return how.run_panel(self.strategy, self.symbols, parameters=self.universe.parameters, **told)

    def run_compare(
        self, *, advisor: Mapping[str, Any] | None = None, **options: Any
    ) -> ModelComparison | PanelComparison:
        """Run the comparison of models that the file describes.

        Parameters
        ----------
        advisor : mapping, optional
            As for `run_walk_forward`.
        **options
            Other arguments of `compare_models`.

        Raises
        ------
        ConfigError
            If the file has no ``[compare]``, or has a grid or a train prior, which only a walk-forward has.
        """
        from bt_llm.research._comparison import compare_models
        from bt_llm.research._panel_comparison import compare_on_panel

        if self.compare is None:
            raise ConfigError("no [compare] in the study: add it, with models = [...]")
        self.check_trust((advisor or {}).get("cache_mode"))
        if self.gate is not None and self.gate.advisor.calibration == "train":
            raise ConfigError("calibration 'train' in a comparison: expected 'grid' or 'none'")
        if gated := [name for name in self.params if name.startswith("gate.")]:
            raise ConfigError(f"params {gated} in a comparison: write them in [gate] and [gate.advisor]")
        section = self.compare.model_dump()
        models = section.pop("models")
        told: dict[str, Any] = {
            "gate": self.make_gate(**(advisor or {})) or Gate(advisor=AdvisorConfig(**dict(advisor or {}))),
            "params": self.params,
            **section,
            **self.account.model_dump(),
            "output": self.output,
            **options,
        }
        if self.universe is None:
            return compare_models(self.strategy, self.market, models, **told)
        return compare_on_panel(self.strategy, self.symbols, models, **told)


def load_study(path: str | os.PathLike[str], *, trust: Trust = False) -> Study:
    """Read a study file and check it; nothing that it names is opened, run or asked yet.

    Parameters
    ----------
    path : path
        A TOML file; see `bt_llm.research`. Paths in it are relative to its folder, so that the
        result depends neither on the working directory nor on who runs it.
    trust : bool or callable
        Whether servers that the file names may be asked, or what is given their addresses and says so.

    Raises
    ------
    ConfigError
        If it cannot be read, or a key is unknown, missing or has a wrong value; in one line.
    """
    file = Path(path).absolute()
    try:
        table = tomllib.loads(read_text(file, 16).removeprefix("\ufeff"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"study {str(path)!r} cannot be read ({error})") from error
    for section, expected in (("params", "a value"), ("grid", "a list of values to try")):
        if isinstance(table.get(section), dict):
            table[section] = dict(_flat(table[section]))
            for name, value in table[section].items():
                if value == {} or (section == "grid" and not isinstance(value, list)):
                    raise ConfigError(
                        f"study {str(path)!r}: {section}.{name} = {in_short(value)}: expected {expected}"
                    )
    if isinstance(table.get("output", ""), str):
        table.setdefault("output", f"{file.stem}-results")
    try:
        study = Study.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"study {str(path)!r}: {_first_problem(error)}") from None
    found = _resolved(study, file.parent)
    found._trust = trust
    return found


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names with dots: TOML reads ``gate.require = ...`` as a table in a table."""
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _first_problem(error: ValidationError) -> str:
    # A misspelt key is also a missing one: of the two, the name that is there says more.
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    names, model = [], Study
    for part in problem["loc"]:
        fields = model.model_fields if model is not None else {}
        if not isinstance(part, str) or (part not in fields and problem["type"] != "extra_forbidden"):
            continue  # the branch of a union, or a place in a list
        names.append(part)
        if part in fields:
            model = _section_of(fields[part].annotation)  # type: ignore[assignment]
    where = ".".join(names)
    if problem["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        near = difflib.get_close_matches(names[-1], known, n=1)
        return f"unknown key {where!r}, only {known}" + (f"; did you mean {near[0]!r}?" if near else "")
    if problem["type"] == "missing":
        return f"{where!r} is missing: expected a value"
    return f"{where} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds."""
    choices = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in choices if isinstance(one, type) and issubclass(one, Section)), None)


def _resolved(study: Study, folder: Path) -> Study:
    """Return the study with absolute paths."""

    def absolute(text: str) -> str:
        return str(folder / text)

    def named(text: Any, suffix: str) -> Any:
        """Return a path absolute; a name stays a name."""
        if not isinstance(text, str):
            return text
        if suffix == ".gguf" and split_name(text)[0] != "file":
            return kind_of(text).within(folder)
        is_path = text.partition(":")[0].lower().endswith(suffix) or "/" in text or "\\" in text
        return absolute(text) if is_path else text

    changes: dict[str, Any] = {name: absolute(getattr(study, name)) for name in ("strategy", "output")}
    changes["data"] = (
        {name: absolute(file) for name, file in study.data.items()}
        if isinstance(study.data, dict)
        else [absolute(file) for file in study.data]
        if isinstance(study.data, list)
        else absolute(study.data)
    )
    account = study.account
    files = {name: named(getattr(account, name), ".py") for name in ("sizer", "setup")}
    changes["account"] = account.model_copy(update=files)
    changes["grid"] = {
        name: [named(value, _NAMES_OF_FILES[name]) for value in values]
        if name in _NAMES_OF_FILES and isinstance(values, list)
        else values
        for name, values in study.grid.items()
    }
    changes["params"] = {
        name: named(value, _NAMES_OF_FILES[name]) if name in _NAMES_OF_FILES else value
        for name, value in study.params.items()
    }
    if study.gate is not None:
        advisor = study.gate.advisor
        files = {
            "model": named(advisor.model, ".gguf"),
            "fallbacks": advisor.fallbacks and [named(model, ".gguf") for model in advisor.fallbacks],
            "template": named(advisor.template, ".toml"),
            "cache_dir": absolute(advisor.cache_dir) if advisor.cache_dir is not None else None,
        }
        changes["gate"] = study.gate.model_copy(update={"advisor": advisor.model_copy(update=files)})
    if study.compare is not None:
        models = study.compare.models
        found = (
            {name: named(model, ".gguf") for name, model in models.items()}
            if isinstance(models, dict)
            else [named(model, ".gguf") for model in models]
        )
        changes["compare"] = study.compare.model_copy(update={"models": found})
    return study.model_copy(update=changes)
