"""Kinds of models, by the names they are asked for: ``kind:rest``, or the bare name of a file.

========================  ============================================================================
name                      model
========================  ============================================================================
``models/my.gguf``        a GGUF file: a path, a name in the models folder, or ``smollm2``; also written
                          ``file:models/my.gguf``
``scripted:NAME``         a script that stands in for a model
``memory:FILE``           a script that has read a file of bars, and remembers it
``openai:URL``            a model behind an OpenAI-compatible server
``ollama:NAME:TAG``       a model of an Ollama server
``systemone:URL``         a model of a decision server
``dated:FAMILY.toml``     a family of models: at each bar the newest whose knowledge ended before it
``decisions:FILE.csv``    what another tool decided, at the bars in which it did
========================  ============================================================================

A package adds a kind of its own by a class and an entry point of the group ``bt_llm.models``::

    [project.entry-points."bt_llm.models"]
    parrot = "my_package:Parrot"

and a script by `register_model_kind`. Nothing else knows which kinds there are.
"""

from __future__ import annotations

import abc
import difflib
import functools
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from bt_llm import plain_text
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models._base import Backend, ModelIdentity, Prompt
from bt_llm.models._config import ModelConfig
from bt_llm.models._cost import Cost, Rates

__all__ = [
    "Capability",
    "KnownModels",
    "ModelKind",
    "kind_of",
    "kinds_hint",
    "model_kinds",
    "register_model_kind",
    "split_name",
    "stored_identity",
]

_log = plain_text.logger("bt_llm.models")

GROUP = "bt_llm.models"
"""Entry points by which packages add kinds; the name of one is the kind's."""

BARE = "file"
"""The kind of a name that names none."""

Capability = Literal["score", "generate_json", "generate"]

_PREFIX = re.compile(r"([a-z][a-z0-9_.+-]+):")  # not "C:", which begins a path
_NAME = re.compile(r"[a-z][a-z0-9_.+-]+")


class KnownModels(Protocol):
    """What is remembered of models that were met before; a `VerdictCache` is one."""

    @property
    def directory(self) -> Path:
        """Where it is remembered."""
        ...

    def find_models(self, name: str) -> list[ModelIdentity]:
        """Return the models of that name, or whose SHA-256 begins with it."""
        ...

    def get_document(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return a small document that was put there, or None."""
        ...

    def put_document(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Remember a small document of JSON values."""
        ...


class ModelKind(abc.ABC):
    """A kind of models is a class, and each model of it that is named is an instance.

    A subclass says what its name is and how a model is opened; everything else has a default that suits a
    backend in this process which costs nothing.

    Parameters
    ----------
    rest : str
        What follows ``kind:`` in the name; a ConfigError says what is wrong with it.

    Examples
    --------
    >>> from bt_llm.models import ScriptedBackend
    >>> class Coin(ModelKind):
    ...     kind, form = "coin", "coin:SIDE"
    ...     def open(self, config):
    ...         return ScriptedBackend(lambda prompt: (0.5, 0.0, 0.5), name=self.name)
    >>> kind_of("coin:heads")
    Traceback (most recent call last):
    bt_llm.exceptions.ConfigError: no kind of models 'coin', only dated, decisions, file...
    >>> _ = register_model_kind(Coin)
    >>> kind_of("coin:heads").identify(None).name
    'coin:heads'
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    """How a name looks, for messages."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"score", "generate_json"})
    extra: ClassVar[str] = ""
    """The extra of bt-llm, or the package, that it needs."""
    defined_by_name: ClassVar[bool] = False
    """Whether a name always stands for the same answers, so that no hash is needed beside it."""
    by_bar: ClassVar[bool] = False
    """Whether who answers, or what, depends on the bar itself, and not on the state of the market alone."""

    def __init__(self, rest: str) -> None:
        self.rest = rest

    @property
    def name(self) -> str:
        """The model's whole name."""
        return f"{self.kind}:{self.rest}"

    @property
    def address(self) -> str:
        """What two names of the same model have in common: it is loaded once."""
        return self.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses on the network that prompts are sent to; none of what answers in this process.

        Where a file gives the name, the user is asked about them before anything is sent. Of a kind that does
        not say, it is the whole name that is asked about.
        """
        return (self.name,)

    @abc.abstractmethod
    def open(self, config: ModelConfig) -> Backend:
        """Return what answers; nothing need be loaded or asked yet.

        Parameters
        ----------
        config : ModelConfig
            How it is loaded; what is of no use to a kind is left alone.
        """

    def identify(self, known: KnownModels, *, replay: bool = False) -> ModelIdentity:
        """Return who answers.

        Parameters
        ----------
        known : KnownModels
            Spares questions, and the hash of a file.
        replay : bool
            Whether only stored answers are used: then `known` may be all there is of the model.

        Raises
        ------
        ModelNotFoundError, ModelFileError
            If the model is not there, or damaged: what a fallback is for.
        """
        return self.open(ModelConfig()).identity

    def recognise(self, backend: Backend) -> None:
        """Have a backend that was opened before know what `identify` has found out since.

        Raises
        ------
        ModelFileError
            If what it has loaded is another thing: it is opened again then.
        """
        return

    def recall(self, known: KnownModels) -> ModelIdentity | None:
        """Return who answers, as far as that is known without asking anybody."""
        try:
            return self.identify(known)
        except ModelNotFoundError:
            return None

    def device(self, n_gpu_layers: int) -> str:
        """Return what computes, where its sums are rounded in another way than a CPU's; else nothing."""
        return ""

    def cost(self, prompts: Sequence[Prompt], identity: ModelIdentity | None, rates: Rates) -> Cost:
        """Return what one of these prompts takes, all of them asked; nobody is asked for it."""
        return Cost()

    def memory_mb(self, n_ctx: int) -> float | None:
        """Return the memory in MB that it takes on this machine; None if it takes none, or is not here."""
        return None

    def within(self, folder: Path) -> str:
        """Return the name that a file in a folder means: where it has a path, that path from there."""
        return self.name

    def names_to_ask(self, provenances: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the names under which it can be asked again, given what stands beside its stored answers."""
        return [self.name]


K = TypeVar("K", bound=type[ModelKind])

_BUILT_IN = (
    EntryPoint("dated", "bt_llm.models._dated:DatedModel", GROUP),
    EntryPoint("decisions", "bt_llm.models._decisions:DecisionsModel", GROUP),
    EntryPoint("file", "bt_llm.models.llama._kind:FileModel", GROUP),
    EntryPoint("memory", "bt_llm.models._memory:MemoryModel", GROUP),
    EntryPoint("ollama", "bt_llm.models.openai._ollama:OllamaModel", GROUP),
    EntryPoint("openai", "bt_llm.models.openai._kind:ServedModel", GROUP),
    EntryPoint("scripted", "bt_llm.models._scripted:ScriptedModel", GROUP),
    EntryPoint("systemone", "bt_llm.models.openai._systemone:SystemOneModel", GROUP),
)
_registered: dict[str, type[ModelKind]] = {}


def register_model_kind(cls: K) -> K:
    """Add a kind of models in this process; also as a decorator.

    Raises
    ------
    ConfigError
        If it is no `ModelKind`, its name has another form or is another class's.
    """
    if not (isinstance(cls, type) and issubclass(cls, ModelKind)):
        raise ConfigError(f"{cls!r:.60}: expected a subclass of ModelKind")
    name = getattr(cls, "kind", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigError(f"kind={name!r} of {cls.__name__}: expected a word in lower case")
    before = _registered.get(name)
    same = before is not None and (before.__module__, before.__qualname__) == (
        cls.__module__,
        cls.__qualname__,
    )
    if name in _offered() or (before is not None and not same):
        raise ConfigError(f"kind={name!r} of {cls.__name__} is taken: choose another name")
    _registered[name] = cls
    return cls


@functools.cache
def _offered() -> dict[str, EntryPoint]:
    """Return the kinds that this package and others come with, by name; none is loaded."""
    found = {point.name: point for point in _BUILT_IN}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        first = found.setdefault(point.name, point)
        if first.value != point.value:
            _log.warning("kind %r of models is %s; %s is left out", point.name, first.value, point.value)
    return found


def model_kinds() -> dict[str, type[ModelKind]]:
    """Return the kinds there are, by name in order; one that cannot be loaded is logged and left out."""
    kinds = {}
    for name in sorted({*_registered, *_offered()}):
        try:
            kinds[name] = _kind(name)
        except ConfigError as error:
            _log.warning("%s", error)
    return kinds


def _kind(name: str) -> type[ModelKind]:
    if name not in _registered:
        point = _offered()[name]
        try:
            cls = point.load()
        except Exception as error:  # whatever somebody else's module raises
            raise ConfigError(
                f"kind {name!r} of models cannot be loaded from {point.value}: {error}"
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, ModelKind) and cls.kind == name):
            raise ConfigError(f"kind {name!r} of models: {point.value} is no ModelKind of that name")
        _registered[name] = cls
    return _registered[name]


def split_name(name: str) -> tuple[str, str]:
    r"""Return the kind that a name is of, and the rest.

    Raises
    ------
    ConfigError
        If there is no such kind, naming the near one.

    Examples
    --------
    >>> split_name("scripted:random:7"), split_name("C:\\a.gguf")
    (('scripted', 'random:7'), ('file', 'C:\\a.gguf'))
    """
    found = _PREFIX.match(name)
    kinds = {*_registered, *_offered()}
    if found is None or (found[1] not in kinds and os.path.isfile(name)):
        return BARE, name
    if found[1] not in kinds:
        near = difflib.get_close_matches(found[1], sorted(kinds), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        # The rest is not repeated: it may hold a password.
        raise ConfigError(f"no kind of models {found[1]!r}, only {', '.join(sorted(kinds))}{hint}")
    return found[1], name[found.end() :]


def kind_of(name: str) -> ModelKind:
    """Return the model of a name, as far as a name says.

    Raises
    ------
    ConfigError
        If there is no such kind, naming the near one, or the kind does not take the rest.

    Examples
    --------
    >>> kind_of("models/a.gguf").kind
    'file'
    >>> kind_of("scriptd:random")
    Traceback (most recent call last):
    bt_llm.exceptions.ConfigError: no kind of models 'scriptd', ...; did you mean scripted?
    """
    kind, rest = split_name(name)
    return _kind(kind)(rest)


def stored_identity(name: str, known: KnownModels) -> ModelIdentity:
    """Return the identity that is known under a name, or under the start of a hash.

    Raises
    ------
    ModelNotFoundError
        If there is none, or are several.
    """
    found = known.find_models(name) or known.find_models(Path(name).stem)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(
            f"replay: no model file {name!r} and none of that name in the cache {known.directory}; "
            f"import a pack that has it (bt-llm cache import FILE)"
        )
    hashes = ", ".join(identity.sha256[:12] for identity in found)
    raise ModelNotFoundError(
        f"replay: the cache knows {len(found)} models named {name!r} ({hashes}); give the start of a hash"
    )


def kinds_hint(bare: str) -> str:
    """Return what to say of a bare name that is no file but looks like a kind's; usually nothing."""
    word = re.split(r"[:./\\]", bare, maxsplit=1)[0].casefold()
    kinds = sorted({*_registered, *_offered()})
    if Path(bare).suffix or not (near := difflib.get_close_matches(word, kinds, n=1)):
        return ""
    form = _kind(near[0]).form
    return f"; kinds of models are {', '.join(kinds)}: did you mean {form}?"
