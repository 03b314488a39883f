"""The runs of a panel in one file, and run again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bt_llm.backtest import GateStudy, Panel, PanelStudy, Source, Universe, UniverseSource
from bt_llm.cache import StoredAnswer
from bt_llm.exceptions import ConfigError
from bt_llm.manifest._claims import NOT_COMPARED
from bt_llm.manifest._document import FORMAT, KIND, RunManifest, manifest_of
from bt_llm.manifest._reproduce import Difference, Reproduction, run_again
from bt_llm.manifest._text import laid_out, read_document, write_text
from bt_llm.manifest._write import manifest_from
from bt_llm.plain_text import counted
from bt_llm.settings import instance, path_text

__all__ = [
    "PanelManifest",
    "PanelReproduction",
    "read_any_manifest",
    "reproduce_panel",
    "write_panel_manifest",
]

PANEL_KIND = "bt_llm panel"
_FIELDS = {"kind", "format", "symbols", "verdicts", "weights", "pooled", "left_out"}


@dataclass(frozen=True, kw_only=True)
class PanelManifest:
    """What the runs of many symbols were made of, and what came of them.

    Attributes
    ----------
    symbols : mapping of str to RunManifest
        Of each symbol. All hold the verdicts of all, which stand in the file once.
    weights : mapping of str to float
        Of each symbol's account.
    pooled : mapping of str to mapping
        Figures of the pooled record, by run.
    left_out : mapping of str to str
        Symbols that were not run, and why.
    folder : Path
        Where the file is; paths in it start there. Not part of equality.
    """

    symbols: Mapping[str, RunManifest]
    weights: Mapping[str, float]
    pooled: Mapping[str, Mapping[str, float | None]]
    left_out: Mapping[str, str]
    folder: Path = dataclasses.field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        """Check the values, once."""
        if not self.symbols or set(self.weights) != set(self.symbols):
            raise ConfigError(f"weights of {sorted(self.weights)}: expected those of one symbol or more")
        for name, weight in self.weights.items():
            if type(weight) not in (int, float) or not weight > 0.0:
                raise ConfigError(f"weight of {name!r:.60}: expected a number above 0")
        runs = {run for one in self.symbols.values() for run in one.runs}
        if set(self.pooled) != runs or not all(isinstance(one, dict) for one in self.pooled.values()):
            raise ConfigError(f"pooled {sorted(self.pooled)}: expected figures of {sorted(runs)}")
        if not all(isinstance(why, str) for why in self.left_out.values()):
            raise ConfigError("left_out: expected texts")

    @property
    def text(self) -> str:
        """The file's text: sorted and with every digit, so that the same runs give the same bytes."""
        verdicts = {key: one for manifest in self.symbols.values() for key, one in manifest.verdicts.items()}
        return (
            laid_out(
                {
                    "format": FORMAT,
                    "kind": PANEL_KIND,
                    # A list, as the order of the symbols is that of sums.
                    "symbols": [{"symbol": name, **one.document} for name, one in self.symbols.items()],
                    "verdicts": {key: one.to_dict() for key, one in verdicts.items()},
                    "weights": self.weights,
                    "pooled": self.pooled,
                    "left_out": self.left_out,
                }
            )
            + "\n"
        )


def write_panel_manifest(
    path: str | os.PathLike[str],
    outcome: PanelStudy,
    *,
    strategy: type[Any] | str,
    universe: UniverseSource,
) -> PanelManifest:
    """Write the manifest of the runs of a panel that this process has just made, in one file.

    Parameters
    ----------
    path : path
        The file, replaced in one step.
    outcome : PanelStudy
        What `panel_study` returned.
    strategy : type or str
        As it was given to it.
    universe : path, mapping, sequence, Market or Universe
        As it was given to it.

    Raises
    ------
    ConfigError, StrategyError, DataError
        As from `write_manifest`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from bt_llm import AdvisorConfig, Gate, panel_study
    >>> from bt_llm.data import load_bars, shipped
    >>> files = {name: load_bars(shipped(f"{name}.csv"))[-200:] for name in ("sp500_daily", "wti_daily")}
    >>> strategy = f"{shipped('sma_cross.py')}:GatedSmaCross"
    >>> with TemporaryDirectory() as folder:
    ...     gate = Gate(advisor=AdvisorConfig(model="scripted:trend", cache_dir=folder))
    ...     study = panel_study(strategy, files, gate)
    ...     manifest = write_panel_manifest(f"{folder}/runs.json", study, strategy=strategy, universe=files)
    ...     found = reproduce_panel(manifest, data=files, cache_dir=folder)
    >>> list(manifest.symbols), found.identical
    (['sp500_daily', 'wti_daily'], True)
    """
    path = path_text("path", path)
    instance("outcome", outcome, PanelStudy, "a PanelStudy")
    folder = Path(path).absolute().parent
    members = Universe.of(universe).members
    if missing := [name for name in outcome.symbols if name not in members]:
        raise ConfigError(f"universe {list(members)}: expected that of the runs, with {missing[0]!r}")
    made = {
        name: manifest_from(study, folder, strategy=strategy, data=members[name])
        for name, study in outcome.symbols.items()
    }
    verdicts: dict[str, StoredAnswer] = {}
    for one in made.values():
        verdicts |= one.verdicts
    manifest = PanelManifest(
        symbols={name: dataclasses.replace(one, verdicts=verdicts) for name, one in made.items()},
        weights=outcome.weights,
        pooled={name: run.figures for name, run in outcome.runs.items()},
        left_out=outcome.left_out,
        folder=folder,
    )
    write_text(path, manifest.text)
    return manifest


def read_any_manifest(path: str | os.PathLike[str]) -> RunManifest | PanelManifest:
    """Read the manifest of a run or of a panel and check all of it; see `read_manifest`."""
    return read_document(path, _any_of)


def _any_of(document: Any, folder: Path) -> RunManifest | PanelManifest:
    if not isinstance(document, dict) or document.get("kind") != PANEL_KIND:
        return manifest_of(document, folder)
    if set(document) != _FIELDS:
        raise ConfigError(f"expected the fields {', '.join(sorted(_FIELDS))}")
    listed = document["symbols"]
    told = [document[name] for name in ("verdicts", "weights", "pooled", "left_out")]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in [*listed, *told]):
        raise ConfigError("expected a list of symbols, and objects of what they have in common")
    symbols: dict[str, RunManifest] = {}
    common = {"kind": KIND, "format": document["format"], "verdicts": document["verdicts"]}
    for at, one in enumerate(listed, 1):
        name = one.pop("symbol", None)
        if not isinstance(name, str) or not name or name in symbols:
            raise ConfigError(f"symbol {at}: expected a name of its own")
        try:
            symbols[name] = manifest_of({**one, **common}, folder)
        except ConfigError as error:
            raise ConfigError(f"symbol {name!r:.60}: {error}") from error
        if not symbols[name].study:
            raise ConfigError(f"symbol {name!r:.60}: expected a run with its gate, without it, and held")
    return PanelManifest(
        symbols=symbols,
        weights=document["weights"],
        pooled=document["pooled"],
        left_out=document["left_out"],
        folder=folder,
    )


@dataclass(frozen=True, kw_only=True)
class PanelReproduction:
    """What came of running the manifest of a panel again.

    Attributes
    ----------
    symbols : mapping of str to Reproduction
        Of each symbol.
    pooled : tuple of Difference
        What the pooled figures differ in, where all symbols are identical.
    """

    symbols: Mapping[str, Reproduction]
    pooled: tuple[Difference, ...]

    @property
    def differences(self) -> dict[str, tuple[Difference, ...]]:
        """Those of each symbol that has some, and those of the pooled figures under ``pooled``."""
        found = {name: one.differences for name, one in self.symbols.items() if not one.identical}
        return found | ({"pooled": self.pooled} if self.pooled else {})

    @property
    def identical(self) -> bool:
        """Whether all runs and the pooled figures are the same to the last digit."""
        return not self.differences

    @property
    def compared(self) -> str:
        """What was compared, as text."""
        if not self.identical:
            return ""
        first = next(iter(self.symbols.values()))
        symbols = counted(len(self.symbols), "symbol")
        return f"{symbols} and their pooled figures; of the first: {first.compared}"

    @property
    def not_compared(self) -> tuple[str, ...]:
        """What the manifest says besides, and no run can bear out."""
        return (*NOT_COMPARED, "which symbols were left out")

    @property
    def defaults(self) -> tuple[str, ...]:
        """Settings that the manifest leaves out."""
        return tuple(dict.fromkeys(one for found in self.symbols.values() for one in found.defaults))

    @property
    def other_versions(self) -> str:
        """Versions that are not those of the manifest, as text."""
        return next((one.other_versions for one in self.symbols.values() if one.other_versions), "")


def reproduce_panel(
    manifest: PanelManifest,
    *,
    data: Mapping[str, Source] | None = None,
    strategy: str | os.PathLike[str] | None = None,
    setup: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    folders: Sequence[str | os.PathLike[str]] = (),
    on_code: Callable[[Path, str], None] | None = None,
) -> PanelReproduction:
    """Run every symbol of a manifest again from stored verdicts, and compare; see `reproduce`.

    Parameters
    ----------
    manifest : PanelManifest
        As `read_any_manifest` returns it.
    data : mapping of str to path, DataFrame or Market, optional
        The bars of some symbols, by name; by default the files that the manifest names.
    strategy, setup, cache_dir, folders
        As in `reproduce`.
    on_code : callable, optional
        As in `reproduce`; called once for each file.

    Raises
    ------
    ConfigError
        As from `reproduce`, or if `data` names no symbol of the manifest.
    """
    if unknown := [name for name in data or {} if name not in manifest.symbols]:
        raise ConfigError(f"data {unknown[0]!r}: expected symbols of the manifest, {list(manifest.symbols)}")
    told: set[tuple[Path, str]] = set()

    def tell(path: Path, sha256: str) -> None:
        if on_code is not None and (path, sha256) not in told:
            told.add((path, sha256))
            on_code(path, sha256)

    found: dict[str, Reproduction] = {}
    studies: dict[str, GateStudy] = {}
    for name, one in manifest.symbols.items():
        found[name], outcome = run_again(
            one,
            data=(data or {}).get(name),
            strategy=strategy,
            setup=setup,
            cache_dir=cache_dir,
            folders=folders,
            on_code=tell,
        )
        if isinstance(outcome, GateStudy):
            studies[name] = outcome
    same = all(one.identical for one in found.values())
    return PanelReproduction(symbols=found, pooled=_in_pooled(manifest, studies) if same else ())


def _in_pooled(manifest: PanelManifest, studies: dict[str, GateStudy]) -> tuple[Difference, ...]:
    weights = {name: float(manifest.weights[name]) for name in studies}
    for name, run in Panel[GateStudy](symbols=studies, weights=weights).runs.items():
        now, recorded = run.figures, manifest.pooled[name]
        for figure in sorted({*now, *recorded}):
            if now.get(figure) != recorded.get(figure):
                is_now, said = now.get(figure), recorded.get(figure)
                return (Difference("claim", f"{name}: {figure} is {is_now}, it says {said!r:.60}"),)
    return ()
