"""LlamaModel: one local GGUF that writes text, fills schemas and scores labels, with one set of weights."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bt_llm import plain_text
from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    ModelError,
    ModelNotLoadedError,
    PromptError,
)
from bt_llm.locks import ForkableLock
from bt_llm.models._base import Answer, LabelScores, ModelIdentity, Numerics, Prompt
from bt_llm.models._chat import check_messages, render_chat
from bt_llm.models._config import ModelConfig
from bt_llm.models._files import file_stamp, find_model
from bt_llm.models._gguf import ModelFacts, read_facts
from bt_llm.models.llama._call_settings import call_settings
from bt_llm.models.llama._device import compute_device
from bt_llm.models.llama._files import IdentifiedFile
from bt_llm.models.llama._generation import GrammarWriter, json_grammar
from bt_llm.models.llama._memory import check_fits
from bt_llm.models.llama._native import computing_threads, cpu_threads, library, system_info
from bt_llm.models.llama._scorer import Scorer
from bt_llm.models.llama._session import Session
from bt_llm.models.llama._text import TextWriter
from bt_llm.models.llama._tokens import continued
from bt_llm.models.llama._trial import try_load
from bt_llm.models.llama._weights import Weights
from bt_llm.settings import instance, number

__all__ = ["Keeper", "LlamaModel"]

_log = plain_text.logger("bt_llm.llama")

_KEEP_FREE_MB = 256.0
"""Left free by contexts for many prompts: these take fewer at a time where memory is short."""


class Keeper(Protocol):
    """Somebody who is told what becomes of a model, such as its manager."""

    def before_load(self) -> None:
        """Weights are about to be loaded; what it raises prevents that."""
        ...

    def after_load(self, seconds: float) -> None:
        """Note that weights were loaded."""
        ...

    def after_use(self) -> None:
        """Note that a call, or a batch of one, has ended, with an answer or not."""
        ...

    def after_unload(self) -> None:
        """Note that what was loaded is free again."""
        ...


class LlamaModel:
    """A local model: it writes text, fills schemas and scores labels. Thread-safe: one decode at a time.

    Weights are loaded once, whatever is asked and however many models of this process have the file; each use
    has a context of its own, made when it is first needed. Weights are not repacked for the processor, since
    that changes how sums are rounded with the size of a batch. No answer depends on the calls before it.

    Text needs a `load`; scores and JSON load by themselves.

    Parameters
    ----------
    config : ModelConfig
        Which file, how it is loaded, and the defaults of the sampling.
    memory_threshold_mb : float
        Memory in MB that must remain free after loading.
    file : IdentifiedFile, optional
        The file, where it has been hashed: another one under its name is refused.
    n_seq : int
        Prompts scored side by side, fewer where memory is short. No result depends on it.
    keeper : Keeper, optional
        Who is told of loads and uses.

    Examples
    --------
    >>> from bt_llm.models import ModelConfig
    >>> with LlamaModel(ModelConfig(model_path="smollm2")) as model:             # doctest: +SKIP
    ...     print(model.generate("Analyze the trend of EUR/USD:", max_tokens=50))
    ...     (scores,) = next(model.score([Prompt(("Up or down?",))], [" up", " down"]))
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        memory_threshold_mb: float = 0.0,
        file: IdentifiedFile | None = None,
        n_seq: int = 128,
        keeper: Keeper | None = None,
    ) -> None:
        instance("config", config, ModelConfig, "a ModelConfig")
        self.config = config
        self.memory_threshold_mb = number("memory_threshold_mb", memory_threshold_mb, 0)
        self.keeper = keeper
        self.lock = ForkableLock()
        self._n_seq = n_seq
        self._file = file
        self._facts: ModelFacts | None = None
        self._session: Session | None = None
        self._writer: TextWriter | None = None
        self._loads_itself = False  # text too, after a first load
        self._numerics: Numerics = "canonical"
        self._pid = os.getpid()

    # Loading

    @property
    def path(self) -> Path:
        """The file; looked for until it is found."""
        return self._file.path if self._file is not None else find_model(self.config.model_path)

    @property
    def facts(self) -> ModelFacts:
        """What the file's header says."""
        if self._facts is None:
            self._facts = read_facts(self.path)
        return self._facts

    @property
    def session(self) -> Session:
        """What scores and fills schemas; made, but not loaded, when first asked for."""
        with self.lock:
            if self._session is None:
                self._session = Session(
                    self.path,
                    facts=self.facts,
                    n_threads=self.config.n_threads,
                    n_gpu_layers=self.config.n_gpu_layers,
                    n_seq=self._n_seq,
                    memory_threshold_mb=max(_KEEP_FREE_MB, self.memory_threshold_mb),
                    load=self._weights,
                    lock=self.lock,
                )
            return self._session

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._in_use() is not None

    def load_model(self) -> bool:
        """Load the model; False, and one line in the log that says what to do, if that fails."""
        try:
            self.load()
        except ModelError as error:
            _log.error("%s", error)
            return False
        return True

    def load(self) -> None:
        """Load the model, unless it is loaded.

        Raises
        ------
        ModelNotFoundError, ModelFileError, InsufficientMemoryError
            What `load_model` turns into False.
        """
        with self.lock:
            self._after_fork()
            if self._writer is None:
                self._writer = self._make_writer()
            self._loads_itself = True

    def _make_writer(self) -> TextWriter:
        config, facts = self.config, self.facts
        if config.n_gpu_layers == 0:  # with a GPU, the weights are not in the memory that is measured
            check_fits(facts, config.n_ctx, keep_free_mb=self.memory_threshold_mb)
        n_threads = computing_threads(cpu_threads(config.n_threads))
        if config.n_threads not in (None, n_threads):
            _log.debug("n_threads=%d: using %d, one a core", config.n_threads, n_threads)
        if config.n_ctx > facts.n_ctx_train:
            _log.warning(
                "n_ctx=%d: %s was trained for %d tokens", config.n_ctx, facts.name, facts.n_ctx_train
            )
        return TextWriter(self._weights("canonical"), n_ctx=config.n_ctx, n_threads=n_threads)

    def _in_use(self, numerics: Numerics | None = None) -> Weights | None:
        """Return the weights in memory, of the given numerics or any."""
        if self._pid != os.getpid():
            return None
        held = [
            self._writer.weights if self._writer else None,
            self._session.loaded if self._session else None,
        ]
        fitting = [
            w for w in held if w is not None and numerics in (None, "fast" if w.repack else "canonical")
        ]
        return fitting[0] if fitting else None

    def _weights(self, numerics: Numerics) -> Weights:
        """Return the weights for these numerics, loading them unless they are in use here."""
        if (found := self._in_use(numerics)) is not None:
            return found
        if self.keeper is not None:
            self.keeper.before_load()
        config = self.config
        try_load(self.path, file_stamp(self.path), file=self._file, n_gpu_layers=config.n_gpu_layers)
        started = time.perf_counter()
        found = Weights.load(
            self.path,
            n_gpu_layers=config.n_gpu_layers,
            repack=numerics == "fast",
            verbose=config.verbose,
        )
        if self._file is not None:
            self._file.check(found.stamp)
        if self.keeper is not None:
            self.keeper.after_load(time.perf_counter() - started)
        return found

    def _after_fork(self) -> None:
        """In a forked child, leave alone what the parent made: it is not ours to use, nor to free."""
        if self._pid != os.getpid():
            self._pid, self._writer = os.getpid(), None

    def unload_model(self) -> None:
        """Free the model's memory; it can be loaded again, and then has the file that is there then."""
        with self.lock:
            self.close()
            self._loads_itself, self._facts, self._session = False, None, None

    def close(self) -> None:
        """Free the model's memory; whoever uses it again loads it again."""
        with self.lock:
            loaded = self.is_loaded
            self._after_fork()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._session is not None:
                self._session.close()
            if loaded and self.keeper is not None:
                self.keeper.after_unload()

    def __enter__(self) -> Self:
        """Load the model; unlike `load_model`, raises if that fails."""
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory."""
        self.unload_model()

    # Text

    def generate(self, prompt: str, **overrides: Any) -> str:
        """Return what the model writes after a prompt.

        Parameters
        ----------
        prompt : str
            Not empty.
        **overrides
            For this call: `temperature`, `max_tokens`, `top_p`, `top_k`, `repeat_penalty` and `seed`,
            as in `ModelConfig`; `stop`, a text or list of texts before which to stop; `timeout_s`,
            seconds after which to give up, inside a decode too.

        Raises
        ------
        ModelNotLoadedError
            Before `load_model`.
        ConfigError
            For an unknown or bad override, or a prompt that does not fit `n_ctx`.
        GenerationTimeout
            When `timeout_s` is over. The model can be used again.
        """
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError(f"prompt={prompt!r}: expected some text")
        return self._complete(prompt, overrides)

    def chat(self, messages: Sequence[Mapping[str, str]], **overrides: Any) -> str:
        """Return the model's answer in a conversation, put into its own chat template.

        Parameters
        ----------
        messages : sequence of mapping
            ``{"role": "system" | "user" | "assistant", "content": text}``, in order.
        **overrides
            As in `generate`.

        Raises
        ------
        PromptError
            If the model has no chat template, or its template refuses the messages.
        ModelNotLoadedError, ConfigError, GenerationTimeout
            As in `generate`.
        """
        checked = check_messages(messages)
        with self.lock:
            self._ready_to_write()
            facts = self.facts
            if not facts.chat_template:
                raise PromptError(f"{facts.name} has no chat template: use generate(), or an Instruct model")
            text = render_chat(
                facts.chat_template, checked, bos_token=facts.bos_token, eos_token=facts.eos_token
            )
            return self._complete(text, overrides)

    def _ready_to_write(self) -> TextWriter:
        if not (self._loads_itself or self.is_loaded):
            raise ModelNotLoadedError("the model is not loaded: call load_model(), or use it in a with block")
        self.load()
        assert self._writer is not None
        return self._writer

    def _complete(self, text: str, overrides: Mapping[str, Any]) -> str:
        settings, stop, timeout_s = call_settings(self.config, overrides)
        with self.lock:
            writer = self._ready_to_write()
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                return writer.write(text, settings, stop, deadline)
            except GenerationTimeout:
                if timeout_s is None:  # whoever asked has given up
                    raise
                raise GenerationTimeout(
                    f"timeout_s={timeout_s:g}: over before the answer was complete; allow more time, "
                    f"or fewer max_tokens than {settings.max_tokens}"
                ) from None
            finally:
                self._used()

    def _used(self) -> None:
        if self.keeper is not None:
            self.keeper.after_use()

    # Scores and JSON

    @property
    def identity(self) -> ModelIdentity:
        """Who answers. Hashes the file, unless that was done before."""
        with self.lock:
            if self._file is None:
                self.recognise(IdentifiedFile.of(self.path))
            assert self._file is not None
            return self._file.identity

    def recognise(self, file: IdentifiedFile) -> None:
        """Take a file that was hashed for the model's; a ModelFileError if another one is loaded."""
        with self.lock:
            if (weights := self._in_use()) is not None:
                file.check(weights.stamp)
            self._file = file

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The build, the CPU's features, the threads and the numerics of the last call."""
        lc = library()
        device = compute_device(self.config.n_gpu_layers)
        return {
            "backend": "llama.cpp",
            "llama_cpp_python": version("llama-cpp-python"),
            "llama_cpp": lc.llama_version().decode("ascii", "replace"),
            "cpu_features": system_info(),
            "n_threads": self.session.n_threads,
            "n_gpu_layers": self.config.n_gpu_layers,
            "numerics": self._numerics,
            **({"device": device} if device else {}),
        }

    def tokens(
        self, prompt: Prompt, labels: Sequence[str]
    ) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[tuple[int, str], ...], ...]]:
        """Return a prompt's tokens, and those of each label after it: numbers and texts; loads the model."""
        with self.lock:
            weights = self.session.weights(self._numerics)
            found, after = continued(weights, prompt, labels)

            def shown(tokens: Sequence[int]) -> tuple[tuple[int, str], ...]:
                pieces = (weights.piece(token, special=True) for token in tokens)
                return tuple((t, p.decode("utf-8", "replace")) for t, p in zip(tokens, pieces, strict=True))

            return shown(found.prefix + found.suffix), tuple(map(shown, after))

    @property
    def decoding(self) -> str:
        """How prompts are decoded: ``tree``, ``batches`` or ``one at a time``; loads the model."""
        with self.lock:
            weights = self.session.weights(self._numerics)
        if weights.has_experts:
            return "one at a time"
        return "tree" if weights.rewinds and self.session.sharing_is_exact is not False else "batches"

    def score(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        numerics: Numerics = "canonical",
        timeout_s: float | None = None,
    ) -> Iterator[list[LabelScores]]:
        """Yield the labels' log-probabilities in the prompts' order, batch by batch; see `Scorer.score`."""
        self._numerics = numerics
        scores = Scorer(self.session).score(prompts, labels, numerics=numerics, timeout_s=timeout_s)
        yield from self._noting(scores)

    def generate_json(
        self,
        prompts: Sequence[Prompt],
        schema: Mapping[str, Any],
        *,
        max_tokens: int,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """Yield one answer a prompt, in order, constrained to the schema's grammar, decoded greedily.

        The seed changes nothing, since nothing is drawn; numerics are canonical.
        """
        self._numerics = "canonical"
        writer = GrammarWriter(self.session)
        answers = writer.write(prompts, json_grammar(schema), max_tokens=max_tokens, timeout_s=timeout_s)
        yield from self._noting(answers)

    def _noting(self, answers: Iterator[Any]) -> Iterator[Any]:
        """Yield what comes, and note that the model was used until then."""
        self._loads_itself = True
        try:
            for answer in answers:
                self._used()
                yield answer
        finally:
            self._used()
