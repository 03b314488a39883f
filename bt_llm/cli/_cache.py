"""``bt-llm cache``: what is stored, and packs that carry it to other machines."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bt_llm import cache as caches  # its parts are imported when they are used
from bt_llm.cli._cache_tables import SHORT, drift_table, joined, list_table, record_facts, record_row
from bt_llm.cli._options import CacheOption, FormatOption, ThreadsOption
from bt_llm.cli._output import Format, confirmed, print_json, progress_bar, say, show
from bt_llm.cli._places import file_to_write
from bt_llm.cli._trust import Trusting, TrustOption
from bt_llm.exceptions import ConfigError, DataError, ModelNotFoundError, PackError, ReplayMiss
from bt_llm.plain_json import strict_json

__all__ = ["app", "hint_at_demo_pack"]

app = typer.Typer(
    name="cache",
    help="Look at stored verdicts; export, import, merge, verify, repair and delete them.",
    no_args_is_help=True,
    add_completion=False,
)

_HASH_START = 8  # digits that name a model


class Conflict(enum.StrEnum):
    """What to do with a key that has another verdict on each side."""

    REFUSE = "refuse"
    OURS = "ours"
    THEIRS = "theirs"


ConflictOption = Annotated[
    Conflict, typer.Option("--on-conflict", help="Where verdicts differ: import nothing, or which side wins.")
]
ModelFilter = Annotated[
    str | None, typer.Option("--model", "-m", help="A model's name, or the first digits of its SHA-256.")
]


@app.command()
def path(cache: CacheOption = None) -> None:
    """Print the cache folder.

    Example: bt-llm cache path
    """
    typer.echo(str(caches.VerdictCache(cache).directory))


@app.command()
def stats(cache: CacheOption = None, output: FormatOption = Format.TABLE) -> None:
    """Count what is stored, by model.

    Example: bt-llm cache stats
    """
    found = caches.VerdictCache(cache)
    counted, names = found.stats(), _names(found)
    models: list[dict[str, Any]] = [
        {"sha256": sha256, "names": names.get(sha256, []), "verdicts": counted.by_model.get(sha256, 0)}
        for sha256 in sorted({*counted.by_model, *names})
    ]
    if output is Format.JSON:
        facts = {"verdicts": counted.verdicts, "documents": counted.documents, "bytes": counted.bytes}
        print_json({"directory": str(counted.directory), **facts, "models": models})
        return
    table = Table("model", "SHA-256", title=f"{counted.verdicts:,} verdicts", title_justify="left")
    table.add_column("verdicts", justify="right")
    for model in models:
        table.add_row(joined(model["names"]), model["sha256"][:SHORT], f"{model['verdicts']:,}")
    show(table)
    say(f"{counted.directory}: {counted.bytes / 1e6:.1f} MB")


@app.command(name="list")
def list_(
    model: ModelFilter = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List stored verdicts, sorted by key.

    Example: bt-llm cache list --model smollm2 --limit 10
    """
    found = caches.VerdictCache(cache)
    records = _records(found, model)
    names = _names(found)
    rows = [record_row(record, names) for record in records[:limit]]
    if output is Format.JSON:
        print_json({"verdicts": rows, "stored": len(records)})
        return
    show(list_table(rows))
    if len(records) > limit:
        say(f"{limit} of {len(records):,}; see more with --limit")


@app.command(name="show")
def show_(
    key: Annotated[str, typer.Argument(help="A key, or its first digits.")],
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one verdict: the prompt, the probabilities as the model gave them, and where it came from.

    Example: bt-llm cache show 3fa9
    """
    found = caches.VerdictCache(cache)
    record = _record(found, key)
    if output is Format.JSON:
        print_json({"key": record.key, **strict_json(record.body)})
        return
    table = Table(title=record.key, title_justify="left", show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    for name, value in record_facts(record, _names(found)).items():
        table.add_row(name, value)
    show(table)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The pack to write.", callback=file_to_write)],
    run: Annotated[
        Path | None, typer.Option("--run", help="Exactly the verdicts of this run's manifest.")
    ] = None,
    model: ModelFilter = None,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a pack: the verdicts of a run or of a model; by default all.

    Example: bt-llm cache export --run run.json verdicts.jsonl
    """
    if run is not None and model is not None:
        raise typer.BadParameter("give --run or --model, not both")
    found = caches.VerdictCache(cache)
    if run is not None:
        keys, about = _of_run(found, run)
    else:
        keys, about = [record.key for record in _records(found, model)], {}
    if not keys:
        raise PackError(f"no verdicts to export from {found.directory}: record some first")
    pack = caches.export_pack(found, file, keys, **about)
    size = file.stat().st_size
    if output is Format.JSON:
        facts = {"verdicts": len(pack.records), "models": len(pack.models), "bytes": size}
        print_json({"file": str(file), "sha256": pack.sha256, **facts})
        return
    say(f"{file}: {len(pack.records):,} verdicts, {size / 1000:,.0f} kB, SHA-256 {pack.sha256[:SHORT]}")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="The pack to read.")],
    on_conflict: ConflictOption = Conflict.REFUSE,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check a pack and store its verdicts.

    Example: bt-llm cache import data/demo_pack.jsonl
    """
    found = caches.VerdictCache(cache)
    report = caches.import_pack(found, file, on_conflict.value)
    facts = {name: getattr(report, name) for name in ("verdicts", "added", "unchanged", "replaced", "kept")}
    if output is Format.JSON:
        print_json({"directory": str(found.directory), **facts, "sha256": report.sha256})
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in facts.items() if name != "verdicts" and count)
    say(f"{file}: {report.verdicts:,} verdicts ({counts or 'none'}) into {found.directory}")


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Packs to merge; their order does not matter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack to write.", callback=file_to_write)],
    on_conflict: ConflictOption = Conflict.REFUSE,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write one pack with the verdicts of several. Of a conflict, the earlier pack is ours.

    Example: bt-llm cache merge mine.jsonl yours.jsonl --out both.jsonl
    """
    pack = caches.merge_packs(files, out, on_conflict.value)
    if output is Format.JSON:
        print_json({"file": str(out), "sha256": pack.sha256, "verdicts": len(pack.records)})
        return
    say(f"{out}: {len(pack.records):,} verdicts, SHA-256 {pack.sha256[:SHORT]}")


@app.command()
def verify(
    sample: Annotated[int, typer.Option(min=1, help="How many verdicts of each model to ask again.")] = 50,
    seed: Annotated[int, typer.Option(help="Which ones: another seed, another sample.")] = 0,
    model: ModelFilter = None,
    trust: TrustOption = False,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check every stored row, then ask the models again for a sample and compare.

    Exit code 1 when a verdict flipped. A drift in the last digits is what another CPU or another build of
    llama.cpp gives; nothing that is stored is changed. A server's address is what somebody has stored, and
    is asked about first.

    Example: bt-llm cache verify --sample 5
    """
    from bt_llm.cli._verifying import ask_again

    found = caches.VerdictCache(cache)
    found.check()
    trusting = Trusting(str(found.directory), trust)
    records, names = _records(found, model), _names(found)
    drifts = []
    for sha256 in sorted({record.question.model_sha256 for record in records}):
        own = [record for record in records if record.question.model_sha256 == sha256]
        chosen = random.Random(seed).sample(own, min(sample, len(own)))
        known = names.get(sha256, [])
        with progress_bar(f"asking {joined(known) or sha256[:SHORT]}") as on_progress:
            drifts.append(ask_again(chosen, sha256, known, threads, on_progress, trust=trusting))
    if not drifts:
        raise ConfigError(f"no verdicts to verify in {found.directory}: record some, or import a pack")
    if output is Format.JSON:
        print_json({"models": [drift.to_dict() for drift in drifts]})
    else:
        show(drift_table(drifts))
    if any(drift.flipped for drift in drifts):
        raise typer.Exit(1)


@app.command()
def repair(cache: CacheOption = None, output: FormatOption = Format.TABLE) -> None:
    """Write a damaged cache anew with every verdict that is sound; the damaged file is kept beside it.

    Each row carries a digest of its own, by which it is judged alone. Let no run use the folder meanwhile.

    Example: bt-llm cache repair
    """
    folder = caches.VerdictCache(cache).directory
    report = caches.repair_cache(folder)
    if output is Format.JSON:
        damaged = None if report.damaged is None else str(report.damaged)
        print_json({"directory": str(folder), **dataclasses.asdict(report), "damaged": damaged})
        return
    if report.damaged is None:
        say(f"{folder}: {report.verdicts:,} verdicts, all of them sound; nothing was changed")
        return
    missing = "" if report.counted is None else f" of {report.counted:,} rows that the file counts"
    kept = f"{report.verdicts:,} verdicts and {report.others:,} other rows are sound and kept{missing}"
    shown = ", ".join(key[:SHORT] for key in report.lost[:3])
    more = ", ..." if len(report.lost) > 3 else ""
    say(f"{folder}: {kept}; {len(report.lost):,} lost" + (f" ({shown}{more})" if shown else ""))
    say(f"the damaged file is now {report.damaged}")


@app.command()
def prune(
    model: Annotated[str, typer.Option("--model", "-m", help="A name, or the first digits of a SHA-256.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Delete the stored verdicts of one model, after asking.

    Example: bt-llm cache prune --model scripted:trend
    """
    found = caches.VerdictCache(cache)
    sha256 = _model_sha256(found, model)
    count = found.stats().by_model.get(sha256, 0)
    if not yes:
        question = f"Delete {count:,} verdicts of {model} ({sha256[:SHORT]}) from {found.directory}?"
        if not confirmed(question):
            raise typer.Exit(1)
    deleted = found.delete(model_sha256=sha256)
    if output is Format.JSON:
        print_json({"sha256": sha256, "deleted": deleted})
        return
    say(f"{deleted:,} verdicts of {model} deleted")


@contextlib.contextmanager
def hint_at_demo_pack() -> Iterator[None]:
    """Where the demo's verdicts or model are missing, name the pack that comes with bt_llm."""
    try:
        yield
    except (ReplayMiss, ModelNotFoundError):
        say(
            "The demo's verdicts come with bt_llm and need no model: "
            f"bt-llm cache import {_demo_pack()}, then bt-llm demo --cache-mode replay"
        )
        raise


def _demo_pack() -> str:
    from bt_llm.data import shipped  # pandas, which no other verb needs

    try:
        found = shipped("demo_pack.jsonl")
    except DataError:
        return "data/demo_pack.jsonl"
    here = Path.cwd()
    return str(found.relative_to(here) if found.is_relative_to(here) else found)


def _names(cache: caches.VerdictCache) -> dict[str, list[str]]:
    """Return the names of each model by its SHA-256."""
    return {document["sha256"]: document["names"] for document in cache.model_documents()}


def _model_sha256(cache: caches.VerdictCache, name: str) -> str:
    """Return the one stored model of a name, or whose hash begins with it."""
    names, counts = _names(cache), cache.stats().by_model
    found = {identity.sha256 for identity in cache.find_models(name)}
    if len(name) >= _HASH_START:
        found |= {sha256 for sha256 in counts if sha256.startswith(name)}
    if not found:
        known = sorted({one for several in names.values() for one in several})
        raise ConfigError(f"no model {name!r} in {cache.directory}: it has {joined(known) or 'none'}")
    if len(found) > 1:
        hashes = ", ".join(sorted(sha256[:SHORT] for sha256 in found))
        raise ConfigError(f"{len(found)} models are named {name!r} ({hashes}): give the start of a hash")
    return found.pop()


def _records(cache: caches.VerdictCache, model: str | None) -> list[caches.Record]:
    """Return the stored records, of one model or all, sorted by key."""
    sha256 = None if model is None else _model_sha256(cache, model)
    return [record for record in cache.records() if sha256 in (None, record.question.model_sha256)]


def _record(cache: caches.VerdictCache, start: str) -> caches.Record:
    stored = cache.keys()
    keys = [key for key in stored if key.startswith(start.lower())]
    if not keys:
        raise ConfigError(f"no key begins with {start!r} in {cache.directory}: see bt-llm cache list")
    if len(keys) > 1:
        shown = ", ".join(key[: len(start) + 6] for key in keys[:2])
        raise ConfigError(f"{len(keys)} keys begin with {start!r}, such as {shown}: give more digits")
    return cache.get_many(keys)[keys[0]]


def _of_run(cache: caches.VerdictCache, path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of a run's verdicts, and what a pack of them says of itself."""
    from bt_llm.manifest import PanelManifest, read_any_manifest

    found = read_any_manifest(path)
    # All symbols of a panel hold the verdicts of all, and have one gate.
    manifest = next(iter(found.symbols.values())) if isinstance(found, PanelManifest) else found
    for key, record in cache.get_many(manifest.verdicts).items():
        if not record.answer.same_answer(manifest.verdicts[key]):
            raise PackError(
                f"{cache.directory} and {path} differ in verdict {key[:SHORT]}: nothing is written"
            )
    gate = manifest.gate or {}
    asked = gate.get("advisor", gate.get("analyst"))
    told = asked if isinstance(asked, dict) else {}
    return list(manifest.verdicts), {name: told[name] for name in ("template", "state_space") if name in told}
