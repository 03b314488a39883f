"""Descriptions of gates, advisors and parameters as a manifest has them, and the values made of them again.

The forms are those of `bt_llm.gates.Describer`. The module of a class or function is ``strategy`` for what
the strategy's own file defines or imports, else one of bt_llm or of Backtrader: reading a manifest imports
nothing else, and runs nothing but the strategy's file. Paths start from the manifest's folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from bt_llm.advice import AdvisorConfig, AnalystConfig, Asked
from bt_llm.data import Headlines
from bt_llm.exceptions import ConfigError, DataError
from bt_llm.gates import NO_ANSWER_DEPENDS_ON, Asker, Describer, NewsGate, file_sha256_of
from bt_llm.manifest._files import find_file, stored_path
from bt_llm.models import DatedFamily, DatedModel, DecisionsModel, Member, kind_of
from bt_llm.prompts import PromptTemplate
from bt_llm.sources import code_name, is_ours

__all__ = ["CONFIGS", "Decoder", "Encoder", "checked_template", "shown_name", "template_of"]

CONFIGS: Mapping[str, Callable[[str], PromptTemplate]] = {
    "bt_llm.advice:AdvisorConfig": PromptTemplate.load,
    "bt_llm.advice:AnalystConfig": PromptTemplate.load,
}
"""Types whose JSON form is not simply the dataclass's, and what loads their templates."""

C = TypeVar("C", bound=AdvisorConfig | AnalystConfig)

_OURS = re.compile(r"bt_llm\.[a-z]+")
_STRATEGY = "strategy"
_BY_BAR = ("members", "decisions", "options")
_KNOWN_BY_HASH = ("model_sha256", "chat_template_sha256", "fallbacks")


def shown_name(name: str) -> str:
    """Return what a manifest calls a model: the file's name, without folder and ending."""
    return Path(name).name.removesuffix(".gguf")


def checked_template(where: str, facts: Any) -> dict[str, Any]:
    """Return what `Describer.template` gave; the input is untrusted."""
    texts = ("text" if isinstance(facts, dict) and "text" in facts else "file", "name", "sha256")
    if not isinstance(facts, dict) or set(facts) != {"version", *texts}:
        raise ConfigError(f"{where}: expected file or text, name, version and sha256")
    if not all(isinstance(facts[text], str) for text in texts):
        raise ConfigError(f"{where}: expected texts for {', '.join(texts)}")
    return facts


def template_of(
    facts: Mapping[str, Any], folder: Path, further: Sequence[Path] = ()
) -> str | Path | PromptTemplate:
    """Return the template that a checked description names: its text, a name, or a file in the folders.

    Raises
    ------
    ConfigError
        If there is no such file, or it is outside of the folders.
    PromptError
        If the text is no template.
    """
    if "text" in facts:
        return PromptTemplate.parse(facts["text"], facts["name"])
    file: str = facts["file"]
    if file.isidentifier():
        return file
    return find_file(
        file, folder, what="prompt template", option="its place beside the manifest", further=further
    )


class Encoder(Describer):
    """Describes values such that `Decoder` can make them again.

    Parameters
    ----------
    strategy : type
        The strategy's class, whose file can be named.
    folder : Path
        The manifest's folder, which paths start from.
    asked : sequence of Asked
        Who answered the run: a configuration is described by who did, and in which words.
    """

    def __init__(self, strategy: type[Any], folder: Path, asked: Sequence[Asked] = ()) -> None:
        super().__init__()
        self.asked = {one.config: one for one in asked}
        self.module = sys.modules[strategy.__module__]
        self.folder = folder

    def code(self, where: str, code: Any) -> dict[str, Any]:
        """Return the name that `Decoder` finds a class or function by."""
        if self._is_in_strategy(code):
            return {"name": f"{_STRATEGY}:{code.__qualname__}"}
        name = code_name(code)
        module_name, _, attribute = name.partition(":")
        if is_ours(code) and getattr(sys.modules.get(module_name), attribute, None) is code:
            return {"name": name}
        raise ConfigError(
            f"{where} is {code.__module__}.{code.__qualname__}: expected a class or function of the "
            "strategy's file, bt_llm or backtrader; define or import it at the top of that file"
        )

    def _is_in_strategy(self, code: Any) -> bool:
        found: Any = vars(self.module).get(code.__qualname__)
        if found is code:
            return True
        try:  # the file may have been loaded twice, once under a name of its own
            return inspect.getfile(found) == inspect.getfile(code) == inspect.getfile(self.module)
        except TypeError:
            return False

    def file(self, where: str, path: Path) -> dict[str, Any]:
        """Return the path of a file from the manifest's folder, and the hash of its content."""
        return {"file": stored_path(path, self.folder), "sha256": file_sha256_of(where, path)}

    def config(
        self, where: str, config: AdvisorConfig | AnalystConfig, asker: Asker | Asked | None
    ) -> dict[str, Any]:
        """Return how a model is asked, by whom must be known: the manifest has the answers."""
        if asker is None:
            raise ConfigError(
                f"{where} is an AnalystConfig, whose answers would not be in the manifest: give it in a gate"
            )
        told = dataclasses.replace(config, manager=None, supplied=None)
        who = self.asked.get(told, asker)
        found = super().config(where, config, who)
        if "members" in found:
            return found
        if "model_sha256" in found:  # a fallback may have answered, whatever was asked for
            found["model"] = shown_name(who.identity.name)
        return found

    def place(self, source: str | PromptTemplate) -> dict[str, Any]:
        """Return where a template is from the manifest's folder, or its name, or its text."""
        if isinstance(source, PromptTemplate) or (source.isidentifier() and not Path(source).is_file()):
            return super().place(source)
        return {"file": stored_path(Path(source), self.folder)}


class Decoder:
    """Makes values from the JSON that `Encoder` gave; the input is untrusted.

    Parameters
    ----------
    strategy : type
        The strategy's class, whose file has been run.
    folder : Path
        The manifest's folder.
    models : mapping of str to str
        SHA-256 of the models by name: an advisor asks for the very bytes, not for what has the name now.
    cache_dir : path, optional
        Where advisors find their verdicts; they only replay.
    further : sequence of Path
        Folders beside the manifest's in which files may be read.

    Attributes
    ----------
    defaults : list of str
        Fields that were left out, in the order met: they have their defaults.
    """

    def __init__(
        self,
        strategy: type[Any],
        folder: Path,
        models: Mapping[str, str],
        cache_dir: Path | None,
        further: Sequence[Path] = (),
    ) -> None:
        self.further = further
        self.defaults: list[str] = []
        self.module = sys.modules[strategy.__module__]
        self.folder = folder
        self.models = models
        self.cache_dir = cache_dir

    def decode(self, where: str, value: Any) -> Any:
        """Return the value of a JSON form.

        Raises
        ------
        ConfigError
            If it is none, or names something that is not there; `where` says which.
        """
        if isinstance(value, list):
            return tuple(self.decode(f"{where}[{at}]", item) for at, item in enumerate(value))
        if not isinstance(value, dict):
            return value
        if "type" in value:
            return self._made(where, value)
        forms: dict[frozenset[str], Callable[[str, dict[str, Any]], Any]] = {
            frozenset({"name"}): lambda where, form: self._found(where, form["name"]),
            frozenset({"name", "member"}): self._member,
            frozenset({"file", "sha256"}): self._file,
            frozenset({"float"}): lambda where, form: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[
                form["float"]
            ],
            frozenset({"time"}): lambda where, form: datetime.fromisoformat(form["time"]),
            frozenset({"bytes"}): lambda where, form: bytes.fromhex(form["bytes"]),
            frozenset({"list"}): lambda where, form: list(self.decode(where, [*form["list"]])),
            frozenset({"set"}): lambda where, form: set(self.decode(where, [*form["set"]])),
            frozenset({"mapping"}): lambda where, form: dict(self.decode(where, [*form["mapping"]])),
        }
        form = forms.get(frozenset(value))
        if form is None:
            raise ConfigError(f"{where}: an object with {sorted(value)[:4]} is none of the forms of a value")
        try:
            return form(where, value)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"{where}: {value!s:.60} is no value ({error})") from error

    def _member(self, where: str, form: dict[str, Any]) -> Any:
        found = self._found(where, form["name"])
        if (
            not (isinstance(found, type) and issubclass(found, Enum))
            or form["member"] not in found.__members__
        ):
            raise ConfigError(f"{where}: {form['name']!r} has no member {form['member']!r:.40}")
        return found[form["member"]]

    def _file(self, where: str, form: dict[str, Any]) -> Path:
        return find_file(
            form["file"],
            self.folder,
            what=f"file {where!r}",
            option="its place beside the manifest",
            further=self.further,
        )

    def _made(self, where: str, value: dict[str, Any]) -> Any:
        cls = self._found(where, value["type"])
        if not (isinstance(cls, type) and _has_fields(cls)):
            raise ConfigError(f"{where}: {value['type']!r} is no value with fields")
        given = {name: item for name, item in value.items() if name != "type"}
        try:
            if issubclass(cls, AdvisorConfig | AnalystConfig):
                return self._config(where, cls, given)
            self.defaults += _check_fields(where, cls, given)
            fields = {name: self.decode(f"{where}.{name}", item) for name, item in given.items()}
            if cls is NewsGate and not isinstance(fields.get("headlines"), Headlines):
                raise ConfigError(f"{where}.headlines: expected headlines, and no file that has them")
            return cls(**fields)
        except (TypeError, ValueError, KeyError, AttributeError, DataError) as error:
            raise ConfigError(f"{where}: {cls.__name__} cannot be made of it ({error})") from error

    def _config(self, where: str, cls: type[C], given: dict[str, Any]) -> C:
        """Return how a model is asked: by its hash, in replay, from the cache that reads the manifest."""
        facts = checked_template(f"{where}.template", given.get("template"))
        model = given.get("model")
        digest = given.get("model_sha256", self.models.get(str(model), model))
        if not isinstance(model, str) or not isinstance(digest, str):
            raise ConfigError(f"{where}.model: expected a text")
        if "members" in given:
            digest = _family(f"{where}.members", given["members"])
        if "decisions" in given:
            path = self._file(f"{where}.decisions", given["decisions"])
            digest = f"{DecisionsModel.kind}:{path}?{given.get('options', '')}".rstrip("?")
        left_out = {*NO_ANSWER_DEPENDS_ON, *_KNOWN_BY_HASH, *_BY_BAR, "model", "template"}
        others = {name: item for name, item in given.items() if name not in left_out}
        absent = _check_fields(where, cls, others)
        self.defaults += [name for name in absent if name.rpartition(".")[2] not in left_out]
        return cls(
            model=digest if {*_BY_BAR} & set(given) else _by_hash(model, digest),
            template=self._template(facts),
            cache_dir=self.cache_dir,
            cache_mode="replay",
            **{name: self.decode(f"{where}.{name}", item) for name, item in others.items()},
        )

    def _template(self, facts: dict[str, Any]) -> str | Path | PromptTemplate:
        return template_of(facts, self.folder, self.further)

    def _found(self, where: str, name: Any) -> Any:
        module_name, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
        value = None
        if module_name == _STRATEGY:
            value = vars(self.module).get(attribute)
        elif module_name.split(".")[0] == "backtrader":
            value = vars(sys.modules.get(module_name, object)).get(attribute)
        elif _OURS.fullmatch(module_name):
            try:
                room = importlib.import_module(module_name)
                value = getattr(room, attribute) if attribute in room.__all__ else None
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"{where}: {name!r} is not in this bt_llm ({error})") from error
        if not (isinstance(value, type) or inspect.isfunction(value)):
            raise ConfigError(
                f"{where}: {name!r:.80} is no class or function of the strategy's file, bt_llm or backtrader"
            )
        return value


def _by_hash(model: str, digest: str) -> str:
    return model if kind_of(model).defined_by_name else digest


def _family(where: str, members: Any) -> str:
    """Return the name of a dated family by the hashes of its members; the input is untrusted."""
    needed = {"knowledge_ends", "model", "model_sha256"}
    if not isinstance(members, list) or not members:
        raise ConfigError(f"{where}: expected the members of a dated family")
    found = []
    for one in members:
        if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in needed):
            raise ConfigError(f"{where}: expected texts for {', '.join(sorted(needed))} of each member")
        day = datetime.fromisoformat(one["knowledge_ends"]).date()
        found.append(Member(_by_hash(one["model"], one["model_sha256"]), day))
    return f"{DatedModel.kind}:{DatedFamily(found, where).inline}"


def _has_fields(cls: type[Any]) -> bool:
    """Return whether a class is a frozen dataclass or a named tuple."""
    if dataclasses.is_dataclass(cls):
        return bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _check_fields(where: str, cls: type[Any], given: Mapping[str, Any]) -> list[str]:
    """Refuse fields that a class has not; return those that are left out."""
    if dataclasses.is_dataclass(cls):
        known = [field.name for field in dataclasses.fields(cls) if field.init]
    else:
        known = list(cls._fields)
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{where}: {cls.__name__} has no fields {unknown}, only {sorted(known)}")
    return [f"{where}.{name}" for name in known if name not in given]
