"""What a gate is, by content, as JSON values: one description, for a trial's key, a manifest and a page.

=========================  ====================================================================
Python                     JSON
=========================  ====================================================================
None, bool, int, str, a    itself
finite float
any other float            ``{"float": "inf"}``
tuple                      a list
list                       ``{"list": [...]}``
dict, set                  ``{"mapping": [[key, value], ...]}``, ``{"set": [...]}``
bytes, datetime            ``{"bytes": "00ff"}``, ``{"time": "2017-10-26T11:45:00+00:00"}``
path of a file             ``{"file": path, "sha256": of its content}``
class, function            ``{"name": "module:Name"}``, and ``source`` of one that is not ours
member of an enum          the same of its class, and ``member``
a dataclass, a gate, a     ``{"type": "module:Name", field: value, ...}``, and ``source`` likewise
named tuple
an advisor's or analyst's  its fields but those that no answer depends on; ``model`` with
configuration              ``model_sha256`` and ``chat_template_sha256`` where they are known, of a
                           dated family ``members`` with these of each and ``knowledge_ends``, of
                           decisions their file and ``options``;
                           ``template`` as ``{"file", "name", "version", "sha256"}``
=========================  ====================================================================

What has a hash is that hash; the name or place beside it is for people and for finding it again, and
`content_sha256` leaves it out.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from bt_llm.advice import (
    Advisor,
    AdvisorConfig,
    Analyst,
    AnalystConfig,
    Asked,
    DatedAdvisor,
    DecisionsAdvisor,
)
from bt_llm.exceptions import ConfigError, ModelError, StrategyError
from bt_llm.files import open_regular
from bt_llm.models import DecisionsModel, Member, kind_of
from bt_llm.plain_json import canonical_json
from bt_llm.prompts import PromptTemplate
from bt_llm.settings import python_scalar
from bt_llm.sources import code_name, is_ours, source_sha256

__all__ = [
    "NO_ANSWER_DEPENDS_ON",
    "Asker",
    "Described",
    "Describer",
    "content_sha256",
    "file_sha256_of",
    "model_name",
]

Asker: TypeAlias = Advisor | Analyst[Any, Any]
"""Who is asked."""

NO_ANSWER_DEPENDS_ON = ("cache_dir", "cache_mode", "n_threads", "n_gpu_layers", "manager", "supplied")
"""Fields of a configuration that say where and how fast, not what."""

_WHO = ("model", "fallbacks", "template")
_RESERVED = {"type", "source"}


class Describer:
    """Describes values; a subclass may point at code and files in its own way.

    Attributes
    ----------
    askers : list of Advisor, Analyst or Asked
        Whom the values that were described ask, in the order they were met.

    Examples
    --------
    >>> Describer().describe("params", {"fast": 5, "levels": (0.5, math.inf)})
    {'mapping': [['fast', 5], ['levels', [0.5, {'float': 'inf'}]]]}
    """

    def __init__(self) -> None:
        self.askers: list[Asker | Asked] = []

    def describe(self, where: str, value: Any) -> Any:
        """Return a value as JSON values from which equal ones, and no others, give equal text.

        Raises
        ------
        ConfigError
            If it has no such form; `where` names it.
        """
        value = python_scalar(value)
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, type) or inspect.isroutine(value):
            return self.code(where, value)
        if isinstance(value, Enum):
            return {**self.code(where, type(value)), "member": value.name}
        if isinstance(value, os.PathLike):
            return self.file(where, Path(os.fsdecode(value)))
        if isinstance(value, Described):
            return value.describe(self)
        if isinstance(value, AdvisorConfig):
            return self.config(where, value, Advisor.of(value))
        if isinstance(value, AnalystConfig):
            return self.config(where, value, None)
        if type(value) is datetime:
            return {"time": value.isoformat()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.fields(where, value, value._fields)
        if dataclasses.is_dataclass(value):
            return self.fields(where, value)
        return self._container(where, value)

    def _container(self, where: str, value: Any) -> Any:
        if type(value) in (tuple, list):
            items = [self.describe(f"{where}[{at}]", item) for at, item in enumerate(value)]
            return items if type(value) is tuple else {"list": items}
        if type(value) in (set, frozenset):
            return {"set": sorted((self.describe(where, item) for item in value), key=canonical_json)}
        if type(value) is dict:
            pairs = value.items()
            return {
                "mapping": [
                    [self.describe(where, k), self.describe(f"{where}[{k!r:.40}]", v)] for k, v in pairs
                ]
            }
        if type(value) is bytes:
            return {"bytes": value.hex()}
        raise ConfigError(
            f"{where}={value!r:.60} of type {type(value).__name__} cannot be written down: expected numbers, "
            "text, paths, containers, a class or function by name, or a frozen dataclass of these"
        )

    def fields(self, where: str, value: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the type and the fields of a dataclass or a named tuple, or some of them."""
        chosen = [field.name for field in dataclasses.fields(value)] if names is None else names
        if both := sorted(_RESERVED & set(chosen)):
            raise ConfigError(
                f"{where}: {type(value).__name__} has a field {both[0]!r}: expected another name"
            )
        return {
            **self.type_of(where, value),
            **{name: self.describe(f"{where}.{name}", getattr(value, name)) for name in chosen},
        }

    def type_of(self, where: str, value: Any) -> dict[str, Any]:
        """Return what says a value's type."""
        code = self.code(where, type(value))
        return {"type": code.pop("name"), **code}

    def code(self, where: str, code: Any) -> dict[str, Any]:
        """Return the name of a class or function and, of one that is not ours, the hash of its source."""
        name = {"name": code_name(code)}
        if is_ours(code):
            return name
        try:
            return {**name, "source": source_sha256(code)}
        except StrategyError:  # it is in no file, such as a notebook's
            return name

    def file(self, where: str, path: Path) -> dict[str, Any]:
        """Return the path of a file and the hash of its content."""
        return {"file": str(path), "sha256": file_sha256_of(where, path)}

    def config(
        self, where: str, config: AdvisorConfig | AnalystConfig, asker: Asker | Asked | None
    ) -> dict[str, Any]:
        """Return how a model is asked.

        Parameters
        ----------
        where : str
            What it is, for messages.
        config : AdvisorConfig or AnalystConfig
            The configuration.
        asker : Advisor or Analyst, optional
            Who asks so; an analyst's configuration alone does not say which analyst that is, and stands
            then for the template's file by its name alone.
        """
        left_out = (*NO_ANSWER_DEPENDS_ON, *_WHO)
        names = [field.name for field in dataclasses.fields(config) if field.name not in left_out]
        found = {**self.fields(where, config, names), "model": model_name(config)}
        if asker is None:
            return {**found, "template": config.template}
        self.askers.append(asker)
        if isinstance(asker, DatedAdvisor):
            found |= {"model": "dated", "members": [_described(*one) for one in asker.dated]}
        model = kind_of(str(config.model)) if isinstance(asker, Asked | DecisionsAdvisor) else None
        if isinstance(model, DecisionsModel):
            found |= {"decisions": self.file(f"{where}.model", model.path), "options": model.options}
        return {**found, **_identity(asker), "template": self.template(asker)}

    def template(self, asker: Asker | Asked) -> dict[str, Any]:
        """Return where a prompt template is, its name and version, and the hash of its words."""
        words = asker.template
        return {
            **self.place(asker.template_source),
            "name": words.name,
            "version": words.version,
            "sha256": words.sha256,
        }

    def place(self, source: str | PromptTemplate) -> dict[str, Any]:
        """Return where a template is, or of one that is in no file, its text."""
        return {"text": source.text} if isinstance(source, PromptTemplate) else {"file": source}


def model_name(config: AdvisorConfig | AnalystConfig) -> str:
    """Return what a description calls a model: the file's name, without folder and ending."""
    return Path(str(config.model)).name.removesuffix(".gguf")


def _described(member: Member, asker: Advisor) -> dict[str, Any]:
    """Return what a member of a family is, and the day that its knowledge ends."""
    name = Path(member.model).name.removesuffix(".gguf")
    return {"knowledge_ends": str(member.knowledge_ends), "model": name, **_identity(asker)}


def _identity(asker: Asker | Asked) -> dict[str, Any]:
    """Return the hashes of who answers; nothing where no such model is found."""
    try:
        found = asker.identity
    except ModelError:
        return {}
    return {"model_sha256": found.sha256, "chat_template_sha256": found.chat_template_sha256}


def file_sha256_of(where: str, path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{where}: file {str(path)!r} cannot be read ({error.strerror or error}): what is in it "
            "decides; give the path of a file"
        ) from error


def content_sha256(description: Any) -> str:
    """Return the SHA-256 of what a description says, whatever things are called and wherever they are.

    Examples
    --------
    >>> here, there = ({"file": name, "sha256": "ab"} for name in ("a.csv", "/tmp/b.csv"))
    >>> content_sha256(here) == content_sha256(there)
    True
    """
    return hashlib.sha256(canonical_json(_content(description)).encode()).hexdigest()


def _content(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "file" in value and "sha256" in value:
        return {"sha256": value["sha256"]}
    names = {"model"} if "model_sha256" in value else set()
    found = {name: _content(item) for name, item in value.items() if name not in names}
    if set(found) == {"mapping"}:
        found["mapping"].sort(key=canonical_json)
    return found


class Described(abc.ABC):
    """A value that says itself what it is."""

    @abc.abstractmethod
    def describe(self, by: Describer | None = None) -> dict[str, Any]:
        """Return what the value is, by content, as JSON values with ``type``.

        Parameters
        ----------
        by : Describer, optional
            Describes the parts.
        """
