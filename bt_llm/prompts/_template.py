"""PromptTemplate: a versioned file with the words of a question, its answers, and worked examples."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from bt_llm.exceptions import PromptError
from bt_llm.models import BoundedEnvironment, ModelIdentity, Prompt, open_thought
from bt_llm.plain_json import canonical_json
from bt_llm.prompts._chat_text import chat_text
from bt_llm.prompts._states import example_values, state_values
from bt_llm.prompts._template_files import parsed, shipped, template_text
from bt_llm.settings import path_text
from bt_llm.verdicts import LabelSet, StateSpace

__all__ = ["Example", "PromptTemplate", "wordings"]

_QUESTION = "\u27e6question\u27e7"  # stands for the question while the chat around it is rendered

# Templates come from anyone; a variable that is missing is an error.
_SANDBOX = BoundedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    return _SANDBOX.compiled(source)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question's variables, and the answer to it.

    Parameters
    ----------
    values : mapping
        In a template with labels numbers by feature, of a state; otherwise the variables themselves.
    answer : str
        In a template with labels a label's name; otherwise the text as the model should write it.
    """

    values: Mapping[str, Any]
    answer: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PromptTemplate:
    """The words of a question, read from a TOML file.

    A template is its words, wherever they came from: two are equal, and hash alike, when the same words
    reach the model. It can stand in an `AdvisorConfig` or `AnalystConfig` itself.

    Parameters
    ----------
    name, version : str, int
        Name and version of the words; shown in tables and manifests. Not in an answer's key: the text is.
    user : str
        Jinja source of a question.
    system : str
        The instructions; may be empty.
    labels : LabelSet, optional
        What the model chooses from. A template without labels is for answers of another form.
    answer : str
        What the answer begins with, such as ``Verdict:``; a label follows it.
    examples : tuple of Example
        Turns shown before the question.
    reason : str
        Why the words are as they are, for people; no model is told.
    text : str
        The file's text.

    Attributes
    ----------
    sha256 : str
        Hash of the words, 64 hex digits; comments are not among them.

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
    >>> print(PromptTemplate.load("news").question({"market": "Gold", "headline": "Quiet day"}))
    Market: Gold
    <headline>Quiet day</headline>
    """

    name: str
    version: int
    user: str
    system: str = ""
    labels: LabelSet | None = None
    answer: str = ""
    examples: tuple[Example, ...] = ()
    reason: str = ""
    text: str = ""
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        """Check that the question compiles and the examples are plain, and hash the words."""
        for name in ("name", "user", "system", "answer", "reason", "text"):
            if not isinstance(value := getattr(self, name), str):
                raise PromptError(f"template {self.name!r:.60}: {name}={value!r:.60}: expected a text")
        what = f"template {self.name!r:.60}"
        if not self.name.strip() or not self.name.isprintable():
            raise PromptError(
                f"{what}: name={self.name!r:.60}: expected a text that is not blank, in one line"
            )
        if type(self.version) is not int:
            raise PromptError(f"{what}: version={self.version!r:.60}: expected a whole number")
        if self.labels is not None and not isinstance(self.labels, LabelSet):
            raise PromptError(f"{what}: labels={self.labels!r:.60}: expected a LabelSet, or None")
        if not isinstance(self.examples, list | tuple) or not all(
            isinstance(one, Example) for one in self.examples
        ):
            raise PromptError(f"{what}: examples={self.examples!r:.60}: expected a list of Example")
        try:
            _compiled(self.user)
            digest = hashlib.sha256(canonical_json(self._words()).encode()).hexdigest()
        except jinja2.TemplateError as error:
            raise PromptError(f"template {self.name!r} cannot be rendered: {error}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise PromptError(
                f"template {self.name!r}: an example has more than text, numbers, lists and tables ({error})"
            ) from error
        object.__setattr__(self, "sha256", digest)

    def _words(self) -> dict[str, Any]:
        """Return what the hash is of; default labels are known by their words."""
        default = self.labels is not None and self.labels.is_default
        labels = self.labels and (list(self.labels.words) if default else self.labels.to_dict())
        return {
            "name": self.name,
            "version": self.version,
            "labels": labels,
            "answer": self.answer,
            "system": self.system,
            "user": self.user,
            "examples": [[[list(item) for item in e.values.items()], e.answer] for e in self.examples],
        }

    def __repr__(self) -> str:
        """Return what a person needs to tell two apart."""
        return f"PromptTemplate({self.name!r}, version={self.version}, sha256={self.sha256[:12]!r})"

    def __eq__(self, other: object) -> bool:
        """Compare the words."""
        return self.sha256 == other.sha256 if isinstance(other, PromptTemplate) else NotImplemented

    def __hash__(self) -> int:
        """Hash the words."""
        return hash(self.sha256)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | PromptTemplate) -> PromptTemplate:
        """Read a template that ships with the package, by name, or a file, by path, as it is now.

        A template that was read already is returned as it is.

        Raises
        ------
        PromptError
            If there is no such template, or the file is not one.
        ConfigError
            If it is neither a name nor a path.
        """
        if isinstance(source, PromptTemplate):
            return source
        name = path_text("template", source, expected="the name or the path of a template")
        return cls.parse(template_text(name), name)

    @classmethod
    def parse(cls, text: str, where: str = "template") -> PromptTemplate:
        """Read the text of a template file; `where` names it in errors.

        Raises
        ------
        PromptError
            If it is not one.
        """
        fields = parsed(text, where)
        examples = tuple(Example(**example) for example in fields.pop("examples"))
        try:
            return cls(**fields, examples=examples, text=text)
        except PromptError as error:
            raise PromptError(f"{where}: {error}") from error

    @property
    def choices(self) -> LabelSet:
        """The labels of a template that must have some.

        Raises
        ------
        PromptError
            If it has none.
        """
        if self.labels is None:
            raise PromptError(
                f"template {self.name!r} has no labels: expected words that a verdict is read by"
            )
        return self.labels

    @property
    def continuations(self) -> tuple[str, ...]:
        """The labels' words as they follow `answer`, with the space between."""
        space = " " if self.answer and not self.answer[-1].isspace() else ""
        return tuple(space + word for word in self.choices.words)

    def question(self, values: Mapping[str, Any]) -> str:
        """Return the user's turn.

        Raises
        ------
        PromptError
            If the template uses a variable that is not there, or says nothing.
        """
        try:
            text = _SANDBOX.rendered(_compiled(self.user), values).strip("\n")
        except jinja2.TemplateError as error:
            raise PromptError(
                f"template {self.name!r} cannot be rendered: {error}; variables are {list(values)}"
            ) from error
        if not text:
            raise PromptError(f"template {self.name!r} gives an empty question: expected at least one line")
        return text

    def prompt(self, values: Mapping[str, Any], identity: ModelIdentity) -> Prompt:
        """Return the prompt of one question, cut into the static part and one chunk a line.

        Parameters
        ----------
        values : mapping
            Variables of the question; nothing in them can reach the chat around it.
        identity : ModelIdentity
            The model whose chat template is used.
        """
        return self._prompt(self._frame(identity, [example.values for example in self.examples]), values)

    def prompts(
        self, space: StateSpace, cells: Sequence[int], identity: ModelIdentity, *, identify: str = ""
    ) -> list[Prompt]:
        """Return the prompt of each cell of a state space; all begin with the same static part.

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
        head, tail = self._frame(identity, [example_values(space, e.values) for e in self.examples])
        head += f"{identify}\n" if identify else ""
        return [self._prompt((head, tail), state_values(space, cell)) for cell in cells]

    def named_prompts(
        self, space: StateSpace, cells: Sequence[int | None], identity: ModelIdentity, lines: Sequence[str]
    ) -> list[Prompt]:
        r"""Return prompts that name market and time, each its own; the static part is still the same.

        Parameters
        ----------
        space, identity
            As in `prompts`.
        cells : sequence of int or None
            Cells of `space`; None leaves the state out, so that nothing but the line is asked about.
        lines : sequence of str
            What stands before each state, one a cell; see `AdvisorConfig.identify`.

        Examples
        --------
        >>> template, base = PromptTemplate.load("market"), ModelIdentity(name="base", sha256="0" * 64)
        >>> one, other = template.named_prompts(StateSpace(), [52, None], base, ["Gold, 2020-03-09"] * 2)
        >>> print("".join(other.chunks[1:]))
        Gold, 2020-03-09
        Verdict:
        >>> "Trend: flat" in one.text and one.chunks[:2] == ("".join(other.chunks[:1]), "Gold, 2020-03-09\n")
        True
        """
        head, tail = self._frame(identity, [example_values(space, e.values) for e in self.examples])
        asked = dict.fromkeys(cell for cell in cells if cell is not None)
        states = {cell: self._prompt(("", tail), state_values(space, cell)).chunks for cell in asked}
        made = []
        for cell, line in zip(cells, lines, strict=True):
            chunks = (line + tail,) if cell is None else (f"{line}\n", *states[cell])
            made.append(Prompt((head, *chunks) if head else chunks))
        return made

    def check_answer(self, identity: ModelIdentity) -> None:
        """Find out now that an answer would begin inside a thought, where no label is said.

        Raises
        ------
        PromptError
            If it would: only answers under a grammar are of use then.
        """
        turns = [{"role": "user", "content": _QUESTION}]
        if identity.chat_template and (mark := open_thought(chat_text(identity, turns))):
            raise PromptError(
                f"chat template of model {identity.name!r} begins answers inside a thought ({mark}) that "
                "cannot be closed: no label has any probability there; use reader='json'"
            )

    def check_states(self, space: StateSpace) -> None:
        """Find a misspelt variable now, not at the first bar.

        Raises
        ------
        PromptError
            If a state or an example cannot be rendered.
        """
        for values in (state_values(space, 0), *(example_values(space, e.values) for e in self.examples)):
            self.question(values)

    def _prompt(self, frame: tuple[str, str], values: Mapping[str, Any]) -> Prompt:
        head, tail = frame
        lines = self.question(values).splitlines(keepends=True)
        return Prompt(tuple(chunk for chunk in (head, *lines[:-1], lines[-1] + tail) if chunk))

    def _frame(self, identity: ModelIdentity, examples: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Return what stands before and after the question, the same for every one."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for example, values in zip(self.examples, examples, strict=True):
            messages.append({"role": "user", "content": self.question(values)})
            messages.append({"role": "assistant", "content": self._answer_of(example)})
        messages.append({"role": "user", "content": _QUESTION})
        head, mark, tail = chat_text(identity, messages).partition(_QUESTION)
        if not mark:
            raise PromptError(f"chat template of model {identity.name!r} drops the question: unusable")
        return head, tail + self.answer

    def _answer_of(self, example: Example) -> str:
        if self.labels is None:
            return example.answer
        return self.answer + self.continuations[self.labels.names.index(example.answer)]


def wordings() -> tuple[PromptTemplate, ...]:
    """Return the ways in which the question about a market state is put, the usual one first.

    All have the same answers and take the same features, and each says the reason for its words.

    Examples
    --------
    >>> [one.name for one in wordings()][:3]
    ['market', 'market/action', 'market/brief']
    """
    others = sorted(name for name in shipped() if name.startswith("market/"))
    return tuple(PromptTemplate.load(name) for name in ("market", *others))
