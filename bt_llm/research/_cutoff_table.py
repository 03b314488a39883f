"""What makers of models say about the end of their training data, and whose name means what."""

from __future__ import annotations

import datetime
import functools
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from bt_llm.exceptions import ConfigError
from bt_llm.models import DatedModel, split_name
from bt_llm.settings import path_text

__all__ = ["TrainingCutoff", "cutoffs", "latest_cutoff", "training_cutoff"]

_WITHOUT_MEMORY = ("scripted",)
"""Kinds of models that were trained on nothing."""

_QUANTIZED = re.compile(r"[-.](ud-)?(i?q\d|tq\d|f16|bf16|f32|fp16|fp8|mxfp4).*$")
_SUFFIX = re.compile(
    r"\d+(\.\d+)?[bm]|\d+x\d+b|e\d+b|a\d+(\.\d+)?[bm]|\d+e|\d+k|\d{5}|v\d+(\.\d+)?|h|of|hf|gguf|qat|"
    r"instruct|it|chat|base|pt|preview|thinking|reasoning|think|plus|mini|tiny|micro|small|medium|nano|"
    r"scout|maverick|latest|dpo|sft"
)
"""Parts of a name that say size, tuning by the makers or packing; others may mean further training."""


@dataclass(frozen=True, kw_only=True)
class TrainingCutoff:
    """How far a family of models has seen the world.

    Attributes
    ----------
    family : str
        Its name.
    pattern : str
        What the names of its models begin with: a regular expression on the name in lower case, with a dash
        for whatever is neither letter, digit nor dot.
    cutoff : datetime.date or None
        Last day of the period that the training data reaches to, as its makers say; None if they do not.
    released : datetime.date
        No weights of that name have seen what came after this day.
    source : str
        Where it is said.
    said : str
        What its makers say; empty if they say nothing.
    confirmed : bool
        Whether that was read on the day `checked`, in the makers' own text or in a verbatim quotation of it.
        Where False, the date is the best that is known.
    note : str
        What else there is to know.
    checked : datetime.date
        When that was looked up.
    """

    family: str
    pattern: str
    cutoff: datetime.date | None = None
    released: datetime.date
    source: str
    said: str = ""
    confirmed: bool
    note: str = ""
    checked: datetime.date

    @property
    def latest(self) -> datetime.date:
        """The cut-off, or the day of the release where it is not known."""
        return self.cutoff or self.released

    @property
    def described(self) -> str:
        """Where the date comes from, in words."""
        what = "training data to" if self.cutoff else "no cut-off stated, released by"
        doubt = "" if self.confirmed else ", not confirmed"
        return f"{self.family}: {what} {self.latest} (checked {self.checked}{doubt}; {self.source})"


@functools.cache
def cutoffs() -> tuple[TrainingCutoff, ...]:
    """Return what is known of families of models."""
    text = resources.files("bt_llm.research").joinpath("cutoffs.toml").read_text(encoding="utf-8")
    return tuple(TrainingCutoff(**entry) for entry in tomllib.loads(text)["family"])


def training_cutoff(model: str | os.PathLike[str]) -> TrainingCutoff | None:
    """Return what is known of a model's training cut-off by its name or path; None for other models.

    A name with parts that may mean further training by others, such as ``Llama-3-Finance-8B``, is another
    model. A server's model is known by the name that it is asked for.

    Examples
    --------
    >>> training_cutoff("models/Llama-3.2-1B-Instruct-Q4_K_M.gguf").latest
    datetime.date(2023, 12, 31)
    >>> training_cutoff("smollm2").cutoff is None, training_cutoff("scripted:trend")
    (True, None)
    >>> training_cutoff("Llama-3.2-1B-Finance.gguf") is None
    True
    """
    name = _plain_name(path_text("model", model, expected="a name or a path"))
    found = [(len(begins), known) for known in cutoffs() if (begins := _begins(known.pattern, name))]
    return max(found, key=lambda one: one[0], default=(0, None))[1]


def _begins(pattern: str, name: str) -> str:
    """Return the part of a name that a family's pattern takes, if the rest is only size and the like."""
    match = re.match(pattern, name)
    if match is None:
        return ""
    # Alternatives of a pattern may be of different lengths: the longest is meant.
    ends = [end for end in range(match.end(), len(name) + 1) if re.fullmatch(pattern, name[:end])]
    for end in reversed(ends):
        rest = name[end:]
        if (not rest or rest[0] == "-") and all(map(_SUFFIX.fullmatch, filter(None, rest.split("-")))):
            return name[:end]
    return ""


def _plain_name(model: str) -> str:
    """Return the name that says what a model is, in lower case with dashes."""
    kind, rest = _kind_and_rest(model)
    _, asked, options = rest.partition("?")
    if asked and kind != "file":
        values = parse_qs(options)
        rest = next((values[option][0] for option in ("model", "gguf") if option in values), "")
    stem = os.path.basename(rest.replace("\\", "/").rstrip("/")).lower().removesuffix(".gguf")
    return re.sub(r"[^a-z0-9.]+", "-", _QUANTIZED.sub("", re.sub(r"[^a-z0-9.]+", "-", stem))).strip("-.")


def _kind_and_rest(model: str) -> tuple[str, str]:
    try:
        return split_name(model)
    except ConfigError:  # such as llama3:8b, as servers call them
        return "file", model


def latest_cutoff(models: Iterable[str | os.PathLike[str]]) -> tuple[datetime.date, list[str]]:
    """Return the last day that any of several models may have seen, and where each date comes from.

    Scripted models have seen nothing.

    Raises
    ------
    ConfigError
        If the cut-off of one is not known, or none has one.
    """
    names = list(dict.fromkeys(os.fspath(model) for model in models))
    known = list(_known(names))
    if not known:
        raise ConfigError(
            f"models {names}: expected one that was trained on something; a scripted one has no cut-off, "
            "give the day itself"
        )
    return max(one.latest for one in known), list(dict.fromkeys(one.described for one in known))


def _known(names: Iterable[str]) -> Iterator[TrainingCutoff]:
    for name in names:
        kind = _kind_and_rest(name)[0]
        if kind in _WITHOUT_MEMORY:
            continue
        if kind == DatedModel.kind:
            yield _first_member(name)
            continue
        found = training_cutoff(name)
        if found is None:
            raise unknown_cutoff(repr(_shown(name)))
        yield found


def _first_member(name: str) -> TrainingCutoff:
    """Return what is known of a dated family: no bar after its first day is one that its member may know."""
    first = DatedModel(split_name(name)[1]).family.members[0]
    return TrainingCutoff(
        family=f"the first member of {name}",
        pattern="",
        cutoff=first.knowledge_ends,
        released=first.knowledge_ends,
        source="the family says so",
        confirmed=False,
        checked=first.knowledge_ends,
    )


def _shown(name: str) -> str:
    """Return a name without what may be a secret of its address."""
    return _plain_name(name) if _kind_and_rest(name)[0] != "file" else name


def unknown_cutoff(whose: Any) -> ConfigError:
    """Return the error that says whose cut-off is not known."""
    families = ", ".join(entry.family for entry in cutoffs())
    return ConfigError(
        f"training cut-off of {whose} is not known, only of {families}: give the day, as in "
        "cutoff='YYYY-MM-DD' (on the command line: --after YYYY-MM-DD)"
    )
