"""``bt-llm reproduce``: a run made again from its manifest, without a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bt_llm.cli._bar_options import named_files
from bt_llm.cli._options import CacheOption, FormatOption
from bt_llm.cli._output import Format, print_json, say
from bt_llm.plain_text import printable
from bt_llm.writing import temporary_folder

if TYPE_CHECKING:
    from bt_llm.manifest import PanelReproduction, Reproduction

__all__ = ["reproduce"]


def reproduce(
    run: Annotated[Path, typer.Argument(help="A manifest, as --manifest writes it.")],
    pack: Annotated[
        Path | None, typer.Option("--pack", help="Take the verdicts from this pack, not from the cache.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="[NAME=]FILE",
            help="Where the bars are now; of several datas one for each, in the manifest's order, and of a "
            "panel by the symbols' names.",
        ),
    ] = None,
    strategy: Annotated[
        Path | None, typer.Option("--strategy", "-s", help="Where the strategy's file is now.")
    ] = None,
    setup: Annotated[Path | None, typer.Option("--setup", help="Where the set-up's file is now.")] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            "--folder", help="A folder, beside the manifest's, in which its files may be; repeatable."
        ),
    ] = None,
    cache: CacheOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run a manifest again in replay: say `identical`, or name the first difference.

    Differences are looked for in the order version, data, code, verdict, claim, trade; exit code 1 where
    there is one. A claim is what the manifest says falsely or leaves out. Nobody is asked, and the
    manifest's files are read in its folder alone. Of a panel's manifest every symbol is run again, and the
    pooled figures are compared too. The strategy's file is run, once its hash is the
    manifest's: its path and hash are printed first. Reproduce only what you trust.

    Example: bt-llm reproduce run.json --pack verdicts.jsonl
    """
    from bt_llm import manifest as manifests
    from bt_llm.cache import VerdictCache, import_pack

    manifest = manifests.read_any_manifest(run)
    with contextlib.ExitStack() as stack:
        if pack is not None:
            cache = stack.enter_context(temporary_folder())
            with VerdictCache(cache, "record") as imported:
                import_pack(imported, pack)
        named = named_files(data or [])
        files = list(named.values())
        told: dict[str, Any] = {
            "strategy": strategy,
            "setup": setup,
            "cache_dir": cache,
            "folders": folder or (),
            "on_code": lambda path, sha256: say(f"runs {path}, SHA-256 {sha256}"),
        }
        found = (
            manifests.reproduce_panel(manifest, data=named, **told)
            if isinstance(manifest, manifests.PanelManifest)
            else manifests.reproduce(
                manifest, data=files if len(files) > 1 else next(iter(files), None), **told
            )
        )
    if output is Format.JSON:
        print_json(_document(found))
    elif found.identical:
        say(f"compared: {found.compared}")
        say(f"not compared: {', '.join(found.not_compared)}")
        if found.defaults:
            say(f"left out, and taken as by default: {', '.join(found.defaults)}")
        if found.other_versions:
            say(f"under other versions: {found.other_versions}")
        typer.echo("identical")
    else:
        for line in _lines(found):
            typer.echo(printable(line))
    if not found.identical:
        raise typer.Exit(1)


def _document(found: Reproduction | PanelReproduction) -> dict[str, Any]:
    by_name = found.differences if isinstance(found.differences, dict) else {"": found.differences}
    return {
        "identical": found.identical,
        "differences": [
            {**({"symbol": name} if name else {}), "what": one.what, "message": one.message}
            for name, differences in by_name.items()
            for one in differences
        ],
        "other_versions": found.other_versions,
        "defaults": found.defaults,
        "compared": found.compared,
        "not_compared": found.not_compared,
    }


def _lines(found: Reproduction | PanelReproduction) -> list[str]:
    if isinstance(found.differences, dict):
        return [f"{name}: {one}" for name, differences in found.differences.items() for one in differences]
    return [str(one) for one in found.differences]
