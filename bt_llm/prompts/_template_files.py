"""Files of templates: where they are, and what TOML says in one, checked key by key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bt_llm.exceptions import ConfigError, PromptError
from bt_llm.files import read_text
from bt_llm.verdicts import DEFAULT_LABELS, LabelSet

__all__ = ["parsed", "shipped", "template_text"]

FORMAT = 1
_NEEDED = {"format": int, "name": str, "version": int, "user": str}
_KNOWN = {*_NEEDED, "labels", "answer", "system", "examples", "reason"}


def template_text(name: str) -> str:
    """Return the text of the file of a template: its own by a path, one that ships by a name.

    Raises
    ------
    PromptError
        If there is none, or it cannot be read.
    """
    path, own = Path(name), shipped()
    is_file = path.suffix == ".toml" or os.path.isfile(path)
    if not is_file and name not in own:
        raise PromptError(f"no template {name!r}: give a .toml file, or one of {sorted(own)}")
    try:
        text = read_text(path, 16) if is_file else own[name].read_text(encoding="utf-8")
        return text.removeprefix("\ufeff")
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is one
        raise PromptError(f"template {name!r} cannot be read ({error})") from error


def parsed(text: str, where: str) -> dict[str, Any]:
    """Return the fields of a template that its file says, of each example values and answer.

    `where` names the file in errors.

    Raises
    ------
    PromptError
        If it is no file of a template.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PromptError(f"{where}: not TOML ({error})") from error
    if table.get("format") != FORMAT:
        raise PromptError(f"{where}: format {table.get('format')!r}; this version reads format {FORMAT}")
    if unknown := sorted(set(table) - _KNOWN):
        raise PromptError(f"{where}: unknown keys {unknown}; known are {sorted(_KNOWN)}")
    given = {"answer": "", "system": "", "examples": [], "reason": "", **table}
    kinds = {**_NEEDED, "answer": str, "system": str, "examples": list, "reason": str}
    for key, kind in kinds.items():
        if not isinstance(given.get(key), kind):
            raise PromptError(f"{where}: {key!r} is {given.get(key)!r:.60}; expected {kind.__name__}")
    labels = _labels(table["labels"], where) if "labels" in table else None
    return {
        "name": table["name"],
        "version": table["version"],
        "user": table["user"].strip("\n"),
        "system": given["system"].strip(),
        "labels": labels,
        "answer": given["answer"],
        "examples": [_example(entry, labels, where) for entry in given["examples"]],
        "reason": given["reason"].strip(),
    }


def shipped() -> dict[str, Traversable]:
    """Return the templates that ship by their names; those of a folder are ``folder/name``."""
    top = resources.files("bt_llm.prompts") / "templates"
    found = {"": top, **{f"{one.name}/": one for one in top.iterdir() if one.is_dir()}}
    return {
        start + one.name.removesuffix(".toml"): one
        for start, folder in found.items()
        for one in folder.iterdir()
        if one.name.endswith(".toml")
    }


def _labels(given: Any, where: str) -> LabelSet:
    """Return the labels of a file: words for the default ones by name, or a list of tables."""
    names = DEFAULT_LABELS.names
    try:
        if not isinstance(given, dict):
            return LabelSet.from_dict(given)
        if set(given) != set(names):
            raise ConfigError(
                f"labels {given}: expected words for {names}, or for labels of your own a list, "
                "[[labels]] with name, word and worth of each"
            )
        return DEFAULT_LABELS.with_words([given[name] for name in names])
    except ConfigError as error:
        raise PromptError(f"{where}: {error}") from error


def _example(entry: Any, labels: LabelSet | None, where: str) -> dict[str, Any]:
    if labels is None:
        right = isinstance(entry, dict) and set(entry) == {"values", "answer"}
        if not right or not isinstance(entry["values"], dict) or not isinstance(entry["answer"], str):
            raise PromptError(
                f"{where}: example {entry!r:.80}; expected a table 'values' and a text 'answer'"
            )
        return {"values": entry["values"], "answer": entry["answer"].strip()}
    right = (
        isinstance(entry, dict) and set(entry) == {"state", "verdict"} and isinstance(entry["state"], dict)
    )
    if not right or not _are_numbers(entry["state"]) or entry["verdict"] not in labels.names:
        raise PromptError(
            f"{where}: example {entry!r:.120}; expected a state of numbers and a verdict of {labels.names}"
        )
    return {"values": {n: float(v) for n, v in entry["state"].items()}, "answer": entry["verdict"]}


def _are_numbers(state: Mapping[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in state.values())
