"""PromptTemplate: a versioned file that turns a cell of the state space into a prompt."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bt_llm.exceptions import PromptError
from bt_llm.models import ModelIdentity, Prompt, render_chat
from bt_llm.verdicts import ACTIONS, Feature, StateSpace

__all__ = ["PromptTemplate", "chat_text"]

FORMAT = 1
_KNOWN = {"format", "name", "version", "labels", "answer", "system", "user", "examples"}
_ACTION_NAMES = tuple(action.name.lower() for action in ACTIONS)
_STATE_MARK = "\u27e6state\u27e7"  # stands for the state while the chat around it is rendered


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    """Compile in a sandbox, since templates come from anyone; a variable that is missing is an error."""
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def chat_text(identity: ModelIdentity, messages: Sequence[Mapping[str, str]]) -> str:
    r"""Return the text of a conversation in the model's own chat template, open for its answer.

    A model without a chat template gets plain text: the contents, a blank line between turns and none
    after a question. Templates that print today's date get no clock, and print their built-in date.

    Parameters
    ----------
    identity : ModelIdentity
        Carries the template and the special tokens that it refers to.
    messages : sequence of mapping
        ``{"role": "system" | "user" | "assistant", "content": text}``.

    Raises
    ------
    PromptError
        If the model's template cannot be rendered.

    Examples
    --------
    >>> plain = ModelIdentity(name="base", sha256="0" * 64)
    >>> chat_text(plain, [{"role": "user", "content": "Trend: up"}])
    'Trend: up\n'
    """
    if not identity.chat_template:
        ends = {"system": "\n\n", "user": "\n", "assistant": "\n\n"}
        return "".join(m["content"] + ends.get(m["role"], "\n") for m in messages)
    tokens = {"bos_token": identity.bos_token, "eos_token": identity.eos_token}
    try:
        return render_chat(identity.chat_template, messages, **tokens)
    except PromptError as error:
        raise PromptError(f"model {identity.name!r}: {error}; use another GGUF of it") from error


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """A prompt's words, read from a TOML file.

    Parameters
    ----------
    name, version : str, int
        Name and version of the words; shown in tables and manifests. Not in a verdict's key: the text is.
    labels : tuple of str
        The words for bullish, neutral and bearish, in this order.
    answer : str
        What the answer begins with, such as ``Verdict:``; the labels follow it.
    system : str
        The instructions; may be empty.
    user : str
        Jinja source of a question.
    examples : tuple of (state, action name)
        Turns shown before the question.

    Examples
    --------
    >>> template = PromptTemplate.load("market")
    >>> prompts = template.prompts(StateSpace(), [0, 52], ModelIdentity(name="base", sha256="0" * 64))
    >>> print("".join(prompts[1].chunks[1:]))
    Volatility: normal
    RSI: 45 to 55
    Trend: flat
    Verdict:
    >>> prompts[0].chunks[0] == prompts[1].chunks[0]
    True
    """

    name: str
    version: int
    labels: tuple[str, str, str]
    answer: str
    system: str
    user: str
    examples: tuple[tuple[tuple[tuple[str, float], ...], str], ...] = ()

    @classmethod
    def load(cls, source: str | Path) -> PromptTemplate:
        """Read a template that ships with the package, by name, or a file, by path.

        Raises
        ------
        PromptError
            If there is no such template, or the file is not one.
        """
        shipped = resources.files("bt_llm.prompts") / "templates" / f"{source}.toml"
        path = Path(source)
        try:
            if path.suffix == ".toml" or path.is_file():
                text = path.read_text(encoding="utf-8")
            elif isinstance(source, str) and source.isidentifier() and shipped.is_file():
                text = shipped.read_text(encoding="utf-8")
            else:
                names = sorted(
                    p.name.removesuffix(".toml")
                    for p in (resources.files("bt_llm.prompts") / "templates").iterdir()
                    if p.name.endswith(".toml")
                )
                raise PromptError(f"no template {str(source)!r}: give a .toml file, or one of {names}")
            return cls.parse(text, str(source))
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(f"template {str(source)!r} cannot be read ({error})") from error

    @classmethod
    def parse(cls, text: str, where: str = "template") -> PromptTemplate:
        """Read the text of a template file; `where` names it in errors."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PromptError(f"{where}: not TOML ({error})") from error
        if table.get("format") != FORMAT:
            raise PromptError(f"{where}: format {table.get('format')!r}; this version reads format {FORMAT}")
        if unknown := sorted(set(table) - _KNOWN):
            raise PromptError(f"{where}: unknown keys {unknown}; known are {sorted(_KNOWN)}")
        for key, kind in (("name", str), ("version", int), ("labels", dict), ("user", str)):
            if not isinstance(table.get(key), kind):
                raise PromptError(f"{where}: {key!r} is {table.get(key)!r}; expected {kind.__name__}")
        labels = table["labels"]
        if set(labels) != set(_ACTION_NAMES) or len(set(labels.values())) != len(_ACTION_NAMES):
            raise PromptError(f"{where}: labels {labels}; expected three different words for {_ACTION_NAMES}")
        template = cls(
            name=table["name"],
            version=table["version"],
            labels=(labels["bullish"], labels["neutral"], labels["bearish"]),
            answer=str(table.get("answer", "")),
            system=str(table.get("system", "")).strip(),
            user=table["user"].strip("\n"),
            examples=tuple(_example(entry, where) for entry in table.get("examples", [])),
        )
        template._check(where)
        return template

    def _check(self, where: str) -> None:
        """Find a misspelt variable now, not at the first bar."""
        try:
            self.question(StateSpace(), 0)
        except PromptError as error:
            raise PromptError(f"{where}: {error}") from error

    def question(self, space: StateSpace, cell: int) -> str:
        """Return the user's turn for a cell: one line a feature.

        Raises
        ------
        PromptError
            If the template uses a variable that the state space does not have.
        """
        described, titles = space.describe(cell), space.titles()
        features = [
            {"name": name, "title": titles[name], "label": label} for name, label in described.items()
        ]
        try:
            return _compiled(self.user).render(features=features, **described).strip("\n")
        except jinja2.TemplateError as error:
            raise PromptError(
                f"template {self.name!r} cannot be rendered: {error}; "
                f"variables are 'features' and {list(described)}"
            ) from error

    @property
    def continuations(self) -> tuple[str, str, str]:
        """The labels as they follow `answer`, with the space between."""
        space = " " if self.answer and not self.answer[-1].isspace() else ""
        bullish, neutral, bearish = (space + label for label in self.labels)
        return bullish, neutral, bearish

    def prompts(
        self, space: StateSpace, cells: Sequence[int], identity: ModelIdentity, *, identify: str = ""
    ) -> list[Prompt]:
        """Return the prompt of each cell, cut into the static part and one chunk a line.

        Parameters
        ----------
        space : StateSpace
            Says what a cell means.
        cells : sequence of int
            Cells of `space`.
        identity : ModelIdentity
            The model whose chat template is used.
        identify : str
            A line before the state that says what and when the market is; see `AdvisorConfig`. It is the
            end of the static part, so that all cells still share that; without it the text is what it was.
        """
        head, tail = self._frame(space, identity)
        head += f"{identify}\n" if identify else ""
        prompts = []
        for cell in cells:
            lines = self.question(space, cell).splitlines(keepends=True)
            prompts.append(Prompt((head, *lines[:-1], lines[-1] + tail)))
        return prompts

    def _frame(self, space: StateSpace, identity: ModelIdentity) -> tuple[str, str]:
        """Return what stands before and after the state, the same for every cell."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for values, action in self.examples:
            question = self.question(space, _example_cell(space, dict(values)))
            label = self.continuations[_ACTION_NAMES.index(action)]
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": self.answer + label},
            ]
        messages.append({"role": "user", "content": _STATE_MARK})
        head, mark, tail = chat_text(identity, messages).partition(_STATE_MARK)
        if not mark or not head:
            raise PromptError(
                f"chat template of model {identity.name!r} drops or leads with the question: unusable"
            )
        return head, tail + self.answer


def _example(entry: Any, where: str) -> tuple[tuple[tuple[str, float], ...], str]:
    state, action = entry.get("state"), entry.get("verdict")
    numbers = isinstance(state, dict) and all(type(v) in (int, float) for v in state.values())
    if not numbers or action not in _ACTION_NAMES:
        raise PromptError(
            f"{where}: example {entry}; expected a state of numbers and a verdict of {_ACTION_NAMES}"
        )
    return tuple((name, float(value)) for name, value in state.items()), action


def _example_cell(space: StateSpace, values: dict[str, float]) -> int:
    """Return the cell of an example; a feature that it does not name takes its middle bucket."""
    return space.cell({f.name: values.get(f.name, _middle(f)) for f in space.features})


def _middle(feature: Feature) -> float:
    """Return a value in the feature's middle bucket."""
    return feature.edges[(len(feature.labels) // 2) - 1] if feature.edges else 0.0
