"""Gates, advisors and parameters as JSON, and back.

=========================  ====================================================================
Python                     JSON
=========================  ====================================================================
None, bool, int, float,    itself; a float must be finite
str
tuple                      a list
a frozen dataclass         ``{"type": "module:Name", field: value, ...}``
a class or function        ``{"name": "module:Name"}``
another literal            ``{"python": "[1, 2]"}``, as `ast.literal_eval` reads it
=========================  ====================================================================

The module is ``strategy`` for what the strategy's own file defines or imports, else one of bt_llm or of
Backtrader: reading a manifest imports nothing else, and runs nothing but the strategy's file.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bt_llm.advice import AdvisorConfig
from bt_llm.exceptions import ConfigError
from bt_llm.manifest._files import stored_path
from bt_llm.models import canonical_json, kind_of
from bt_llm.prompts import PromptTemplate

__all__ = ["ADVISOR", "Decoder", "Encoder", "checked_template", "model_name", "template_facts"]

ADVISOR = "bt_llm.advice:AdvisorConfig"
"""Type of an advisor's JSON form; the only one whose fields are not simply the dataclass's."""

_OURS = re.compile(r"bt_llm\.[a-z]+")
_STRATEGY = "strategy"
_MAX_LITERAL = 2**20

_NO_RESULT_DEPENDS_ON = ("cache_dir", "cache_mode", "n_threads", "n_gpu_layers", "manager", "supplied")
"""Settings of an advisor that are left out."""


def template_facts(source: str, file: str | None = None) -> dict[str, Any]:
    """Return what a manifest says of a prompt template: where it is, its name, version and hash."""
    template = PromptTemplate.load(source)
    digest = hashlib.sha256(canonical_json(dataclasses.asdict(template)).encode()).hexdigest()
    return {"file": file or source, "name": template.name, "version": template.version, "sha256": digest}


def model_name(config: AdvisorConfig) -> str:
    """Return what a manifest calls a model: the file's name, without folder and ending."""
    return Path(str(config.model)).name.removesuffix(".gguf")


def checked_template(where: str, facts: Any) -> dict[str, Any]:
    """Return what `template_facts` gave; the input is untrusted."""
    texts = ("file", "name", "sha256")
    if not isinstance(facts, dict) or set(facts) != {"version", *texts}:
        raise ConfigError(f"{where}: expected file, name, version and sha256")
    if not all(isinstance(facts[text], str) for text in texts):
        raise ConfigError(f"{where}: expected texts for file, name and sha256")
    return facts


class Encoder:
    """Turns values into JSON.

    Parameters
    ----------
    strategy : type
        The strategy's class, whose file can be named.
    folder : Path
        The manifest's folder, which paths start from.

    Attributes
    ----------
    configs : list of AdvisorConfig
        Those that were met.
    """

    def __init__(self, strategy: type[Any], folder: Path) -> None:
        self.module = sys.modules[strategy.__module__]
        self.folder = folder
        self.configs: list[AdvisorConfig] = []

    def encode(self, where: str, value: Any) -> Any:
        """Return the JSON form of a value.

        Raises
        ------
        ConfigError
            If it has none; `where` names it.
        """
        if isinstance(value, np.generic):
            value = value.item()
        if (
            value is None
            or type(value) in (bool, int, str)
            or (type(value) is float and math.isfinite(value))
        ):
            return value
        if type(value) is tuple:
            return [self.encode(f"{where}[{at}]", item) for at, item in enumerate(value)]
        if isinstance(value, AdvisorConfig):
            return self._advisor(where, value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fields(where, value, [f.name for f in dataclasses.fields(value) if f.compare])
        if isinstance(value, type) or inspect.isfunction(value):
            return {"name": self._name(where, value)}
        return {"python": _literal(where, value)}

    def _fields(self, where: str, value: Any, names: list[str]) -> dict[str, Any]:
        fields = {name: self.encode(f"{where}.{name}", getattr(value, name)) for name in names}
        return {"type": self._name(where, type(value)), **fields}

    def _advisor(self, where: str, config: AdvisorConfig) -> dict[str, Any]:
        self.configs.append(config)
        left_out = (*_NO_RESULT_DEPENDS_ON, "template")
        names = [field.name for field in dataclasses.fields(config) if field.name not in left_out]
        source = config.template_source
        is_name = source.isidentifier() and not Path(source).is_file()
        file = source if is_name else stored_path(Path(source), self.folder)
        return {
            **self._fields(where, config, names),
            "model": model_name(config),
            "template": template_facts(source, file),
        }

    def _name(self, where: str, value: Any) -> str:
        """Return the name that `Decoder` finds a class or function by."""
        name, module = value.__qualname__, value.__module__
        if self._is_in_strategy(name, value):
            return f"{_STRATEGY}:{name}"
        if module.startswith("bt_llm."):
            module = ".".join(module.split(".")[:2])  # the room, whose public names stay when files move
        shipped = module.split(".")[0] in ("bt_llm", "backtrader")
        if shipped and getattr(sys.modules.get(module), name, None) is value:
            return f"{module}:{name}"
        raise ConfigError(
            f"{where} is {module}.{name}: expected a class or function of the strategy's file, bt_llm or "
            "backtrader; define or import it at the top of that file"
        )

    def _is_in_strategy(self, name: str, value: Any) -> bool:
        found: Any = vars(self.module).get(name)
        if found is value:
            return True
        try:  # the file may have been loaded twice, once under a name of its own
            return inspect.getfile(found) == inspect.getfile(value) == inspect.getfile(self.module)
        except TypeError:
            return False


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
    """

    def __init__(
        self, strategy: type[Any], folder: Path, models: Mapping[str, str], cache_dir: Path | None
    ) -> None:
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
        if set(value) == {"python"} and isinstance(value["python"], str):
            return _evaluated(where, value["python"])
        if set(value) == {"name"}:
            return self._found(where, value["name"])
        return self._made(where, value)

    def _made(self, where: str, value: dict[str, Any]) -> Any:
        cls = self._found(where, value.get("type"))
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise ConfigError(f"{where}: {value['type']!r} is no value with fields")
        given = {name: item for name, item in value.items() if name != "type"}
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        if unknown := sorted(set(given) - known):
            raise ConfigError(f"{where}: {cls.__name__} has no fields {unknown}, only {sorted(known)}")
        try:
            if cls is AdvisorConfig:
                return self._advisor(where, given)
            return cls(**{name: self.decode(f"{where}.{name}", item) for name, item in given.items()})
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"{where}: {cls.__name__} cannot be made of it ({error})") from error

    def _advisor(self, where: str, given: dict[str, Any]) -> AdvisorConfig:
        given = {name: item for name, item in given.items() if name not in _NO_RESULT_DEPENDS_ON}
        file = checked_template(f"{where}.template", given.pop("template", None))["file"]
        model = given.pop("model", None)
        if not isinstance(model, str):
            raise ConfigError(f"{where}.model: expected a text")
        return AdvisorConfig(
            model=model if kind_of(model).defined_by_name else self.models.get(model, model),
            template=file if file.isidentifier() else self.folder / file,
            cache_dir=self.cache_dir,
            cache_mode="replay",
            **{name: self.decode(f"{where}.{name}", item) for name, item in given.items()},
        )

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


def _literal(where: str, value: Any) -> str:
    text = repr(value)
    try:
        if type(value) is type(ast.literal_eval(text)) and ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    raise ConfigError(
        f"{where}={text:.60} of type {type(value).__name__} cannot be written to a manifest: "
        "expected a Python literal, a class or function by name, or a frozen dataclass"
    )


def _evaluated(where: str, text: str) -> Any:
    try:
        if len(text) > _MAX_LITERAL:
            raise ValueError(f"{len(text)} characters")
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ConfigError(f"{where}: {text!r:.60} is not a Python literal") from error
