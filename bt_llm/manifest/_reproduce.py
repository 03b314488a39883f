"""A run made again from its manifest, in replay, and compared."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bt_llm.advice import answers_apart
from bt_llm.backtest import (
    BacktestResult,
    GateStudy,
    Market,
    Source,
    gate_study,
    load_strategy,
    run_backtest,
)
from bt_llm.cache import StoredAnswer, VerdictCache, only_replaying
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, ReplayMiss
from bt_llm.gates import EntryGate, file_sha256_of
from bt_llm.manifest._claims import NOT_COMPARED, claims, objects, template_claims
from bt_llm.manifest._document import TRADE_COLUMNS, DataFacts, RunFacts, RunManifest, StrategyFacts
from bt_llm.manifest._encoding import CONFIGS, Decoder, checked_template, template_of
from bt_llm.manifest._files import find_file, neighbours_sha256, text_sha256
from bt_llm.manifest._write import market_facts, run_facts, versions
from bt_llm.plain_text import counted
from bt_llm.prompts import PromptTemplate
from bt_llm.settings import instance, path_text, several
from bt_llm.verdicts import Verdict

__all__ = ["Difference", "Reproduction", "reproduce", "run_again"]

What = Literal["version", "data", "code", "verdict", "claim", "trade"]


@dataclass(frozen=True)
class Difference:
    """Something that is not as the manifest says: what kind of thing, and what of it."""

    what: What
    message: str

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of running a manifest again.

    Attributes
    ----------
    differences : tuple of Difference
        In the order version, data, code, verdict, claim, trade; empty when everything is identical. What
        follows from a difference is not looked for: other data end the comparison. A claim is what the
        manifest says falsely, or leaves out of what the run depends on; all of them are there.
    other_versions : str
        Versions that are not those of the manifest, as text. They are a difference only where something
        else differs too: the first suspect. Results that are identical under other versions are identical.
    compared : str
        What was compared, as text; `identical` speaks of nothing else.
    not_compared : tuple of str
        What the manifest says besides, and no run can bear out.
    defaults : tuple of str
        Settings of the gate and of the parameters that the manifest leaves out: they were taken as they are
        by default.
    """

    differences: tuple[Difference, ...]
    other_versions: str
    compared: str = ""
    not_compared: tuple[str, ...] = NOT_COMPARED
    defaults: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every trade, every bar's equity and every metric is the same to the last digit."""
        return not self.differences


def reproduce(
    manifest: RunManifest,
    *,
    data: Source | None = None,
    strategy: str | os.PathLike[str] | None = None,
    setup: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    folders: Sequence[str | os.PathLike[str]] = (),
    on_code: Callable[[Path, str], None] | None = None,
) -> Reproduction:
    """Run a manifest again from stored verdicts, and compare; no model is loaded or needed.

    Data and code are compared first, and a strategy's file that is not the manifest's is not run. One that is
    the manifest's is: reproduce only runs whose code you trust. Whatever the manifest or its strategy says,
    whoever is asked replays from `cache_dir`; files that the manifest names are read in its folder alone, in
    `folders`, or come with bt_llm.

    Parameters
    ----------
    manifest : RunManifest
        As `read_manifest` returns it.
    data : path, DataFrame, feed, mapping, sequence or Market, optional
        The bars, of several datas in the manifest's order; by default the files that the manifest names.
    strategy, setup : path, optional
        The files of the strategy and of the set-up; by default those that the manifest names.
    cache_dir : path, optional
        The cache's folder; by default as in `AdvisorConfig`.
    folders : sequence of path
        Further folders in which files that the manifest names may be.
    on_code : callable, optional
        Called with each file of code that is about to be run, and its SHA-256.

    Raises
    ------
    ConfigError
        If a file is not where the manifest says, or its contents cannot be used.
    BtLlmError
        What the run itself raises, but for a `ReplayMiss`, which is a difference.
    """
    return run_again(
        manifest,
        data=data,
        strategy=strategy,
        setup=setup,
        cache_dir=cache_dir,
        folders=folders,
        on_code=on_code,
    )[0]


def run_again(
    manifest: RunManifest,
    *,
    data: Source | None,
    strategy: str | os.PathLike[str] | None,
    setup: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
    folders: Sequence[str | os.PathLike[str]],
    on_code: Callable[[Path, str], None] | None,
) -> tuple[Reproduction, GateStudy | BacktestResult | None]:
    """Run a manifest again; see `reproduce`. The second is what was run, if it came to that."""
    instance("manifest", manifest, RunManifest, "a RunManifest, such as read_manifest returns")
    folders = several("folders", folders, "paths of folders")
    others = _other_versions(manifest)
    again = _Again(manifest, cache_dir, tuple(Path(path_text("folders", one)) for one in folders), on_code)
    found = again.differences(data, strategy, setup)
    first = (Difference("version", others),) if others and found else ()
    told = Reproduction(
        differences=(*first, *found),
        other_versions=others,
        compared="" if found else again.compared,
        defaults=tuple(again.defaults),
    )
    return told, again.outcome


def _other_versions(manifest: RunManifest) -> str:
    now = versions()
    names = sorted({*now, *manifest.versions})
    return ", ".join(
        f"{name} {now.get(name, 'none')}, recorded {manifest.versions.get(name, 'none')}"
        for name in names
        if now.get(name) != manifest.versions.get(name)
    )


class _Again:
    """A manifest that is run again, from one folder of verdicts and out of some folders of files."""

    def __init__(
        self,
        manifest: RunManifest,
        cache_dir: str | os.PathLike[str] | None,
        further: tuple[Path, ...],
        on_code: Callable[[Path, str], None] | None,
    ) -> None:
        self.manifest, self.further, self.on_code = manifest, further, on_code
        self.defaults: list[str] = []
        self.outcome: GateStudy | BacktestResult | None = None
        self.cache_dir = None if cache_dir is None else Path(path_text("cache_dir", cache_dir))

    @property
    def compared(self) -> str:
        """What is compared where no difference ends the comparison."""
        runs = self.manifest.runs.values()
        trades = sum(len(run.trades) for run in runs)
        metrics = sum(len(run.metrics) for run in runs)
        return (
            f"bars, code and templates; {counted(len(self.manifest.verdicts), 'verdict')}; "
            f"{counted(len(runs), 'run')} with {counted(trades, 'trade')}, {counted(metrics, 'metric')} and "
            "the equity of each bar"
        )

    def differences(self, data: Source | None, strategy: Any, setup: Any) -> list[Difference]:
        """Return the first difference of what a run needs, or else what its results and claims differ in."""
        manifest = self.manifest
        market = _market(manifest, data, self.further)
        if manifest.end is not None:
            market = market.between(None, manifest.end)
        facts = dict(zip(manifest.data, market_facts(market, manifest.folder), strict=True))
        cache = VerdictCache(self.cache_dir, "replay")
        for stage in (_in_data(manifest, facts), _in_files(manifest, self.further)):
            if (found := next(stage, None)) is not None:
                return [found]
        file = self._code_file(manifest.strategy, "strategy", strategy)
        settings: dict[str, Any] = {**manifest.broker, "settles": manifest.settles, "start": manifest.start}
        code = [(manifest.strategy, "strategy", file)]
        if manifest.setup is not None:
            opened = self._code_file(manifest.setup, "setup", setup)
            code.append((manifest.setup, "set-up", opened))
            settings["setup"] = f"{opened}:{manifest.setup.name}"
        for stage in (
            *(_in_code(*one) for one in code),
            _in_templates(manifest, self.further),
            _in_verdicts(manifest, cache),
        ):
            if (found := next(stage, None)) is not None:
                return [found]
        for _, _, path in code:
            self._tell(path)
        spec = f"{file}:{manifest.strategy.name}"
        try:
            with only_replaying(self.cache_dir), answers_apart():
                outcome = self._run(spec, market, settings)
        except ReplayMiss as miss:
            return [Difference("verdict", str(miss).partition("\n")[0])]
        self.outcome = outcome
        return self._in_outcome(outcome, facts, cache)

    def _in_outcome(
        self, outcome: GateStudy | BacktestResult, facts: Mapping[str, DataFacts], cache: VerdictCache
    ) -> list[Difference]:
        manifest = self.manifest
        main = outcome.gated if isinstance(outcome, GateStudy) else outcome
        runs = outcome.runs if isinstance(outcome, GateStudy) else {main.name: main}
        now = {name: run_facts(run) for name, run in runs.items()}
        told = [*_template_claims(manifest, self.further), *claims(manifest, facts, main, now, cache)]
        results = (one for name in now for one in _in_run(name, now[name], manifest.runs[name]))
        return [*(Difference("claim", sentence) for sentence in told), *itertools.islice(results, 1)]

    def _code_file(self, facts: StrategyFacts, option: str, given: Any) -> Path:
        if given is not None:
            return Path(path_text(option, given))
        what = option.replace("setup", "set-up")
        return find_file(
            facts.file, self.manifest.folder, what=what, option=f"--{option}", further=self.further
        )

    def _tell(self, file: Path) -> None:
        """Say what code is about to be run."""
        if self.on_code is not None:
            for path in (file, *(file.parent / relative for relative in neighbours_sha256(file))):
                self.on_code(path, text_sha256(path))

    def _run(self, spec: str, market: Market, settings: dict[str, Any]) -> GateStudy | BacktestResult:
        manifest = self.manifest
        chosen = load_strategy(spec)
        models = {model.name: model.sha256 for model in manifest.models}
        decoder = Decoder(chosen, manifest.folder, models, self.cache_dir, self.further)
        gate = decoder.decode("gate", manifest.gate)
        params = {name: decoder.decode(name, value) for name, value in manifest.params.items()}
        self.defaults = decoder.defaults
        if gate is not None and not isinstance(gate, EntryGate):
            raise ConfigError(f"gate of type {type(gate).__name__}: expected a gate")
        if not manifest.study:
            (name,) = manifest.runs
            return run_backtest(chosen, market, gate=gate, name=name, params=params, **settings)
        if gate is None:
            raise ConfigError("a study without a gate: expected the gate that it was made with")
        return gate_study(chosen, market, gate, params=params, **settings)


def _market(manifest: RunManifest, data: Source | None, further: Sequence[Path]) -> Market:
    """Return the bars, under the manifest's names where there are several."""
    if data is None:
        folder = manifest.folder
        return Market.of(
            {
                name: Market.of(
                    find_file(facts.file, folder, what="data", option="--data", further=further),
                    format=BarFormat(**facts.format),
                )
                for name, facts in manifest.data.items()
            }
        )
    first = next(iter(manifest.data.values()))
    stated = None if isinstance(data, Market) or len(manifest.data) > 1 else BarFormat(**first.format)
    market = Market.of(data, format=stated)
    if len(market) != len(manifest.data):
        raise ConfigError(f"data {list(market)}: expected those of the manifest, {list(manifest.data)}")
    return Market(dict(zip(manifest.data, market.bars.values(), strict=True)))


def _in_data(manifest: RunManifest, facts: Mapping[str, DataFacts]) -> Iterator[Difference]:
    for (name, recorded), now in zip(manifest.data.items(), facts.values(), strict=True):
        if now.sha256 != recorded.sha256:
            which = f"{name}: " if len(manifest.data) > 1 else ""
            yield Difference(
                "data",
                f"{which}{now.bars} bars, {now.first} to {now.last}, SHA-256 {now.sha256[:12]}; recorded "
                f"{recorded.bars} bars, {recorded.first} to {recorded.last}, SHA-256 {recorded.sha256[:12]}",
            )
        elif now.file == recorded.file and now.notes != recorded.notes:
            other = sorted(set(now.notes) ^ set(recorded.notes)) or ["their order"]
            yield Difference("data", f"what is said of the bars of {name} differs, first: {other[0]}")


def _in_code(facts: StrategyFacts, what: str, file: Path) -> Iterator[Difference]:
    if (digest := text_sha256(file)) != facts.sha256:
        yield Difference(
            "code",
            f"{file.name} is not the {what}'s file of the manifest: SHA-256 {digest[:12]}, recorded "
            f"{facts.sha256[:12]}",
        )
    now, recorded = neighbours_sha256(file), facts.neighbours
    for relative in sorted({*now, *recorded}):
        if now.get(relative) != recorded.get(relative):
            how = "is absent" if relative not in now else "is not that of the manifest"
            yield Difference("code", f"{relative}, which the {what} imports, {how}")


def _templates(
    manifest: RunManifest, further: Sequence[Path]
) -> Iterator[tuple[dict[str, Any], PromptTemplate]]:
    """Yield how each template that stands in a file is described, and what it is now."""
    for described in objects([manifest.gate, manifest.params]):
        load = CONFIGS.get(str(described.get("type")))
        if load is not None:
            recorded = checked_template("template", described.get("template"))
            if "text" not in recorded:  # else that very text is used
                yield recorded, load(str(template_of(recorded, manifest.folder, further)))


def _in_templates(manifest: RunManifest, further: Sequence[Path]) -> Iterator[Difference]:
    for recorded, words in _templates(manifest, further):
        if (now := words.sha256) != recorded["sha256"]:
            yield Difference(
                "code",
                f"prompt template {recorded['file']!r} is {words.name!r} version {words.version}, SHA-256 "
                f"{now[:12]}; recorded {recorded['name']!r} version {recorded['version']}, SHA-256 "
                f"{recorded['sha256'][:12]}",
            )


def _template_claims(manifest: RunManifest, further: Sequence[Path]) -> Iterator[str]:
    for recorded, words in _templates(manifest, further):
        yield from template_claims(recorded, words)


def _in_files(manifest: RunManifest, further: Sequence[Path]) -> Iterator[Difference]:
    """Yield what differs in the files that the strategy was given."""
    for described in objects([manifest.gate, manifest.params]):
        if set(described) == {"file", "sha256"}:
            name = str(described["file"])
            try:
                path = find_file(name, manifest.folder, what="file", option="its old place", further=further)
                same = file_sha256_of("file", path) == described["sha256"]
            except ConfigError:
                same = False
            if not same:
                yield Difference("data", f"the file {name!r} is absent, or not that of the manifest")


def _in_verdicts(manifest: RunManifest, cache: VerdictCache) -> Iterator[Difference]:
    stored = cache.get_many(manifest.verdicts)
    if missing := [key for key in manifest.verdicts if key not in stored]:
        yield Difference(
            "verdict",
            f"{len(missing)} of {len(manifest.verdicts)} are not stored in {cache.directory}, first "
            f"{min(missing)[:12]}: import the run's pack, or give it with --pack",
        )
    differ = sorted(key for key, r in stored.items() if not r.answer.same_answer(manifest.verdicts[key]))
    if differ:
        now, recorded = stored[differ[0]].answer, manifest.verdicts[differ[0]]
        yield Difference(
            "verdict",
            f"{len(differ)} of {len(manifest.verdicts)} differ, first {differ[0][:12]}: {_told(now)}, "
            f"recorded {_told(recorded)}",
        )


def _told(answer: StoredAnswer) -> str:
    if not isinstance(answer, Verdict):
        return "a generated text"
    return f"{answer.answer} {answer.to_dict()}"


def _in_run(name: str, now: RunFacts, recorded: RunFacts) -> Iterator[Difference]:
    """Yield what differs between two results: the first trade, else the equity, else a metric."""
    for number, (ours, theirs) in enumerate(zip(now.trades, recorded.trades, strict=False), 1):
        if ours != theirs:
            at = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
            yield Difference(
                "trade",
                f"{name}: trade {number}, opened {ours[0]}: {TRADE_COLUMNS[at]} is {ours[at]}, recorded "
                f"{theirs[at]}",
            )
    if len(now.trades) != len(recorded.trades):
        yield Difference(
            "trade", f"{name}: {counted(len(now.trades), 'trade')}, recorded {len(recorded.trades)}"
        )
    if (now.bars, now.equity_sha256) != (recorded.bars, recorded.equity_sha256):
        yield Difference("trade", f"{name}: the trades are the same, the equity curve is not")
    if metric := next((m for m in recorded.metrics if now.metrics.get(m) != recorded.metrics[m]), None):
        is_now = now.metrics.get(metric)
        yield Difference("trade", f"{name}: {metric} is {is_now}, recorded {recorded.metrics[metric]}")
