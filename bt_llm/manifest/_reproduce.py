"""A run made again from its manifest, in replay, and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bt_llm.backtest import Market, Source, gate_study, load_strategy, run_backtest
from bt_llm.cache import StoredAnswer, VerdictCache
from bt_llm.data import BarFormat
from bt_llm.exceptions import ConfigError, ReplayMiss
from bt_llm.gates import EntryGate, file_sha256_of
from bt_llm.manifest._document import TRADE_COLUMNS, RunFacts, RunManifest, StrategyFacts
from bt_llm.manifest._encoding import CONFIGS, Decoder, checked_template
from bt_llm.manifest._files import find_file, neighbours_sha256, text_sha256
from bt_llm.manifest._write import market_facts, run_facts, versions
from bt_llm.verdicts import Verdict

__all__ = ["Difference", "Reproduction", "reproduce"]

What = Literal["version", "data", "code", "verdict", "trade"]


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
        In the order version, data, code, verdict, trade; empty when everything is identical. What follows
        from a difference is not looked for: other data end the comparison.
    other_versions : str
        Versions that are not those of the manifest, as text. They are a difference only where something
        else differs too: the first suspect. Results that are identical under other versions are identical.
    """

    differences: tuple[Difference, ...]
    other_versions: str

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
) -> Reproduction:
    """Run a manifest again from stored verdicts, and compare; no model is loaded or needed.

    Data and code are compared first, and a strategy's file that is not the manifest's is not run. One that is
    the manifest's is: reproduce only runs whose code you trust.

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

    Raises
    ------
    ConfigError
        If a file is not where the manifest says, or its contents cannot be used.
    BtLlmError
        What the run itself raises, but for a `ReplayMiss`, which is a difference.
    """
    others = _other_versions(manifest)
    found = next(_differences(manifest, data, strategy, setup, cache_dir), None)
    if found is None:
        return Reproduction(differences=(), other_versions=others)
    first = (Difference("version", others),) if others else ()
    return Reproduction(differences=(*first, found), other_versions=others)


def _other_versions(manifest: RunManifest) -> str:
    now = versions()
    names = sorted({*now, *manifest.versions})
    return ", ".join(
        f"{name} {now.get(name, 'none')}, recorded {manifest.versions.get(name, 'none')}"
        for name in names
        if now.get(name) != manifest.versions.get(name)
    )


def _differences(
    manifest: RunManifest, data: Source | None, strategy: Any, setup: Any, cache_dir: Any
) -> Iterator[Difference]:
    market = _market(manifest, data)
    yield from _in_data(manifest, market)
    yield from _in_files(manifest)
    file = _code_file(manifest, manifest.strategy, "strategy", strategy)
    yield from _in_code(manifest.strategy, "strategy", file)
    settings: dict[str, Any] = dict(manifest.broker)
    if manifest.setup is not None:
        opened = _code_file(manifest, manifest.setup, "setup", setup)
        yield from _in_code(manifest.setup, "set-up", opened)
        settings["setup"] = f"{opened}:{manifest.setup.name}"
    yield from _in_templates(manifest)
    yield from _in_verdicts(manifest, VerdictCache(cache_dir, "replay"))
    yield from _in_results(manifest, f"{file}:{manifest.strategy.name}", market, settings, cache_dir)


def _market(manifest: RunManifest, data: Source | None) -> Market:
    """Return the bars, under the manifest's names where there are several."""
    if data is None:
        folder = manifest.folder
        return Market.of(
            {
                name: Market.of(
                    find_file(facts.file, folder, what="data", option="--data"),
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


def _in_data(manifest: RunManifest, market: Market) -> Iterator[Difference]:
    for (name, recorded), now in zip(
        manifest.data.items(), market_facts(market, manifest.folder), strict=True
    ):
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


def _code_file(manifest: RunManifest, facts: StrategyFacts, option: str, given: Any) -> Path:
    if given is not None:
        return Path(given)
    what = option.replace("setup", "set-up")
    return find_file(facts.file, manifest.folder, what=what, option=f"--{option}")


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


def _in_templates(manifest: RunManifest) -> Iterator[Difference]:
    for described in _objects([manifest.gate, manifest.params]):
        load = CONFIGS.get(str(described.get("type")))
        if load is None:
            continue
        recorded = checked_template("template", described.get("template"))
        if "text" in recorded:  # then that very text is used
            continue
        file = recorded["file"]
        words = load(file if file.isidentifier() else str(manifest.folder / file))
        now = words.sha256
        if now != recorded["sha256"]:
            yield Difference(
                "code",
                f"prompt template {file!r} is {words.name!r} version {words.version}, SHA-256 {now[:12]}; "
                f"recorded {recorded['name']!r} version {recorded['version']}, SHA-256 "
                f"{recorded['sha256'][:12]}",
            )


def _in_files(manifest: RunManifest) -> Iterator[Difference]:
    """Yield what differs in the files that the strategy was given, and in those beside it that it imports."""
    for described in _objects([manifest.gate, manifest.params]):
        if set(described) == {"file", "sha256"}:
            name = str(described["file"])
            try:
                path = find_file(name, manifest.folder, what="file", option="its old place")
                same = file_sha256_of("file", path) == described["sha256"]
            except ConfigError:
                same = False
            if not same:
                yield Difference("data", f"the file {name!r} is absent, or not that of the manifest")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in the JSON form of a gate or of parameters."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)


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


def _in_results(
    manifest: RunManifest, spec: str, market: Market, broker: dict[str, Any], cache_dir: Any
) -> Iterator[Difference]:
    chosen = load_strategy(spec)
    models = {model.name: model.sha256 for model in manifest.models}
    decoder = Decoder(chosen, manifest.folder, models, Path(cache_dir) if cache_dir is not None else None)
    gate = decoder.decode("gate", manifest.gate)
    settings: dict[str, Any] = {
        "params": {name: decoder.decode(name, value) for name, value in manifest.params.items()},
        **broker,
    }
    try:
        runs = _run(manifest, chosen, market, gate, settings)
    except ReplayMiss as miss:
        yield Difference("verdict", str(miss).partition("\n")[0])
        return
    for name, now in runs.items():
        yield from _in_run(name, now, manifest.runs[name])


def _run(
    manifest: RunManifest, strategy: type[Any], market: Market, gate: Any, settings: dict[str, Any]
) -> dict[str, RunFacts]:
    if gate is not None and not isinstance(gate, EntryGate):
        raise ConfigError(f"gate of type {type(gate).__name__}: expected a gate")
    if not manifest.study:
        (name,) = manifest.runs
        return {name: run_facts(run_backtest(strategy, market, gate=gate, name=name, **settings))}
    if gate is None:
        raise ConfigError("a study without a gate: expected the gate that it was made with")
    return {name: run_facts(run) for name, run in gate_study(strategy, market, gate, **settings).runs.items()}


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
        yield Difference("trade", f"{name}: {len(now.trades)} trades, recorded {len(recorded.trades)}")
    if (now.bars, now.equity_sha256) != (recorded.bars, recorded.equity_sha256):
        yield Difference("trade", f"{name}: the trades are the same, the equity curve is not")
    if metric := next((m for m in recorded.metrics if now.metrics.get(m) != recorded.metrics[m]), None):
        is_now = now.metrics.get(metric)
        yield Difference("trade", f"{name}: {metric} is {is_now}, recorded {recorded.metrics[metric]}")
