"""AnalystTemplate: a versioned file with the words of a question, and worked examples of its answer."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bt_llm.exceptions import PromptError
from bt_llm.models import ModelIdentity, Prompt
from bt_llm.prompts._template import chat_text

__all__ = ["AnalystTemplate", "Example"]

FORMAT = 1
_TYPES = {"format": int, "name": str, "version": int, "system": str, "user": str, "examples": list}
_QUESTION = "\u27e6question\u27e7"  # stands for the question while the chat around it is rendered


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question's variables, and the answer as the model should write it."""

    values: Mapping[str, Any]
    answer: str


@dataclass(frozen=True, kw_only=True)
class AnalystTemplate:
    """The words of an analyst's question, read from a TOML file.

    Parameters
    ----------
    name, version : str, int
        Name and version of the words; not in an answer's key: the text is.
    system : str
        The instructions; may be empty.
    user : str
        Jinja source of a question.
    examples : tuple of Example
        Turns shown before the question.
    """

    name: str
    version: int
    system: str
    user: str
    examples: tuple[Example, ...] = ()

    @classmethod
    def load(cls, source: str) -> AnalystTemplate:
        """Read a template that ships with the package, by name, or a file, by path.

        Raises
        ------
        PromptError
            If there is no such template, or the file is not one.

        Examples
        --------
        >>> AnalystTemplate.load("news").name
        'news'
        """
        folder = resources.files("bt_llm.prompts") / "templates" / "analysts"
        shipped = {p.name.removesuffix(".toml"): p for p in folder.iterdir() if p.name.endswith(".toml")}
        try:
            if source in shipped:
                return cls.parse(shipped[source].read_text(encoding="utf-8"), source)
            if Path(source).is_file():
                return cls.parse(Path(source).read_text(encoding="utf-8"), source)
        except (OSError, ValueError) as error:
            raise PromptError(f"template {source!r} cannot be read ({error})") from error
        raise PromptError(f"no template {source!r}: give a .toml file, or one of {sorted(shipped)}")

    @classmethod
    def parse(cls, text: str, where: str) -> AnalystTemplate:
        """Read the text of a template file; `where` names it in errors."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PromptError(f"{where}: not TOML ({error})") from error
        if table.get("format") != FORMAT:
            raise PromptError(f"{where}: format {table.get('format')!r}; this version reads format {FORMAT}")
        if unknown := sorted(set(table) - set(_TYPES)):
            raise PromptError(f"{where}: unknown keys {unknown}; known are {sorted(_TYPES)}")
        for key, kind in _TYPES.items():
            given = table.get(key, [] if kind is list else "" if key == "system" else None)
            if not isinstance(given, kind):
                raise PromptError(f"{where}: {key!r} is {given!r:.60}; expected {kind.__name__}")
        return cls(
            name=table["name"],
            version=table["version"],
            system=table.get("system", "").strip(),
            user=table["user"].strip("\n"),
            examples=tuple(_example(entry, where) for entry in table.get("examples", [])),
        )

    def question(self, values: Mapping[str, Any]) -> str:
        """Return the user's turn.

        Raises
        ------
        PromptError
            If the template uses a variable that is not there, or says nothing.
        """
        try:
            text = _compiled(self.user).render(**values).strip("\n")
        except jinja2.TemplateError as error:
            raise PromptError(
                f"template {self.name!r} cannot be rendered: {error}; variables are {list(values)}"
            ) from error
        if not text:
            raise PromptError(f"template {self.name!r} gives an empty question: expected at least one line")
        return text

    def prompt(self, values: Mapping[str, Any], identity: ModelIdentity) -> Prompt:
        """Return the prompt, cut into the static part and one chunk a line of the question.

        Parameters
        ----------
        values : mapping
            Variables of the question; nothing in them can reach the chat around it.
        identity : ModelIdentity
            The model whose chat template is used.
        """
        head, tail = self._frame(identity)
        lines = self.question(values).splitlines(keepends=True)
        return Prompt(tuple(chunk for chunk in (head, *lines[:-1], lines[-1] + tail) if chunk))

    def _frame(self, identity: ModelIdentity) -> tuple[str, str]:
        """Return what stands before and after the question, the same for every one."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for example in self.examples:
            messages.append({"role": "user", "content": self.question(example.values)})
            messages.append({"role": "assistant", "content": example.answer})
        messages.append({"role": "user", "content": _QUESTION})
        head, mark, tail = chat_text(identity, messages).partition(_QUESTION)
        if not mark:
            raise PromptError(f"chat template of model {identity.name!r} drops the question: unusable")
        return head, tail


def _example(entry: Any, where: str) -> Example:
    right = isinstance(entry, dict) and set(entry) == {"values", "answer"}
    if not right or not isinstance(entry["values"], dict) or not isinstance(entry["answer"], str):
        raise PromptError(f"{where}: example {entry!r:.80}; expected a table 'values' and a text 'answer'")
    return Example(values=entry["values"], answer=entry["answer"].strip())
