"""What a manifest says that its run does not bear out, and what it leaves out of what the run depends on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from bt_llm.advice import Asked
from bt_llm.backtest import BacktestResult
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import PromptError
from bt_llm.manifest._document import DataFacts, RunFacts, RunManifest
from bt_llm.manifest._encoding import CONFIGS, checked_template
from bt_llm.manifest._write import shown_name, versions
from bt_llm.prompts import PromptTemplate

__all__ = ["NOT_COMPARED", "claims", "objects", "template_claims"]

NOT_COMPARED = ("the builds that answered", "the versions it was recorded under")
"""What stands in a manifest, and no run can bear out."""


def claims(
    manifest: RunManifest,
    facts: Mapping[str, DataFacts],
    run: BacktestResult,
    runs: Mapping[str, RunFacts],
    cache: VerdictCache,
) -> Iterator[str]:
    """Yield a sentence on everything that is claimed falsely, or left out.

    Parameters
    ----------
    manifest : RunManifest
        What is claimed.
    facts : mapping of str to DataFacts
        The datas as they are, by the manifest's names.
    run : BacktestResult
        The gated run, made again with nothing remembered of before.
    runs : mapping of str to RunFacts
        All runs, made again.
    cache : VerdictCache
        Where the verdicts came from.
    """
    yield from _of_data(manifest, facts)
    yield from _of_models(manifest, run, cache)
    yield from _of_verdicts(manifest, run)
    for name, now in runs.items():
        yield from _of_metrics(f"{name}: ", now.metrics, manifest.runs[name].metrics, manifest)
    if absent := [name for name in versions() if name not in manifest.versions]:
        yield f"it leaves out the versions of {', '.join(absent)}"


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in the JSON form of a gate or of parameters."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from objects(item)


def template_claims(recorded: Mapping[str, Any], words: PromptTemplate) -> Iterator[str]:
    """Yield what a description says of a prompt template's name and version that is not so."""
    for what in ("name", "version"):
        if (now := getattr(words, what)) != recorded[what]:
            yield f"the prompt template's {what} is {now!r}, it says {recorded[what]!r:.80}"


def _of_data(manifest: RunManifest, facts: Mapping[str, DataFacts]) -> Iterator[str]:
    for (name, recorded), now in zip(manifest.data.items(), facts.values(), strict=True):
        for what in ("bars", "first", "last"):
            is_now, said = getattr(now, what), getattr(recorded, what)
            if is_now != said:
                yield f"data {name!r:.60}: {what} is {is_now}, it says {said!r:.60}"


def _of_models(manifest: RunManifest, run: BacktestResult, cache: VerdictCache) -> Iterator[str]:
    used = {asked.identity.sha256: asked for asked in run.asked if asked.used()}
    known = {sha256: {shown_name(asked.identity.name)} for sha256, asked in used.items()}
    for document in cache.model_documents():
        known.setdefault(document["sha256"], set()).update(map(shown_name, document["names"]))
    said = {model.sha256: model.name for model in manifest.models}
    for sha256 in sorted(used.keys() - said.keys()):
        yield f"it leaves out the model {sha256[:12]}, {_one_of(known[sha256])}, which answered the run"
    for model in manifest.models:
        if model.sha256 not in used:
            yield f"it names the model {model.name!r:.60}, {model.sha256[:12]}, which answered nothing"
        elif model.name not in known[model.sha256]:
            now = _one_of(known[model.sha256])
            yield f"it calls the model {model.sha256[:12]} {model.name!r:.60}: it is {now}"
    for described in objects([manifest.gate, manifest.params]):
        if str(described.get("type")) in CONFIGS:
            yield from _of_asker(described, said, used, known)


def _of_asker(
    described: Mapping[str, Any],
    said: Mapping[str, str],
    used: Mapping[str, Asked],
    known: Mapping[str, set[str]],
) -> Iterator[str]:
    """Yield what is not so of who is asked by a gate; of a dated family, of the members that answered."""
    if "members" in described:
        answered = [one for one in described["members"] if one.get("model_sha256") in used]
        for one in answered or described["members"][:1]:
            alone = {field: value for field, value in described.items() if field != "members"}
            yield from _of_asker({**alone, **one}, said, used, known)
        return
    name = described.get("model")
    sha256 = described.get("model_sha256", next((sha for sha, one in said.items() if one == name), None))
    if sha256 not in used:
        if used:
            yield f"its gate is answered by {name!r:.60}, which answered nothing"
        return
    if name not in known[sha256]:
        yield f"its gate calls the model {sha256[:12]} {name!r:.60}: it is {_one_of(known[sha256])}"
    template = used[sha256].identity.chat_template_sha256
    if described.get("chat_template_sha256", template) != template:
        yield f"the chat template of the model {sha256[:12]} is {template[:12]}, its gate says another"
    recorded = checked_template("template", described.get("template"))
    if "text" in recorded:
        try:
            words = PromptTemplate.parse(recorded["text"], recorded["name"])
        except PromptError:
            return  # the run said so
        yield from template_claims(recorded, words)
        if words.sha256 != recorded["sha256"]:
            yield f"the prompt template's SHA-256 is {words.sha256[:12]}, it says {recorded['sha256']!r:.16}"


def _of_verdicts(manifest: RunManifest, run: BacktestResult) -> Iterator[str]:
    needed = set(itertools.chain.from_iterable(asked.used() for asked in run.asked))
    if left_out := needed - manifest.verdicts.keys():
        yield (
            f"it leaves out {len(left_out)} of the {len(needed)} verdicts that the run depends on, first "
            f"{min(left_out)[:12]}"
        )


def _of_metrics(
    where: str, now: Mapping[str, Any], recorded: Mapping[str, Any], manifest: RunManifest
) -> Iterator[str]:
    """Yield what is not there; another bt_llm may know fewer metrics, but not none."""
    same = manifest.versions.get("bt_llm") == versions()["bt_llm"]
    if (absent := [name for name in now if name not in recorded]) and (same or len(absent) == len(now)):
        yield f"{where}it leaves out the metrics {', '.join(absent)}"
    if unknown := [name for name in recorded if name not in now]:
        yield f"{where}it has metrics that the run has not, {', '.join(map(repr, unknown))[:80]}"


def _one_of(names: set[str]) -> str:
    return " or ".join(sorted(names))
