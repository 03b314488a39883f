"""LlamaModel: text from a local GGUF. LlamaBackend: verdicts from one."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    ModelError,
    ModelFileError,
    ModelNotLoadedError,
    PromptError,
)
from bt_llm.models._base import Answer, LabelScores, ModelIdentity, Numerics, Prompt
from bt_llm.models._chat import check_messages, render_chat
from bt_llm.models._config import ModelConfig
from bt_llm.models._files import file_sha256, find_model
from bt_llm.models._gguf import ModelFacts, read_facts
from bt_llm.models.llama._generation import GrammarWriter, json_grammar
from bt_llm.models.llama._memory import check_fits
from bt_llm.models.llama._native import Watch, computing_threads, cpu_threads, library
from bt_llm.models.llama._scorer import Scorer
from bt_llm.models.llama._session import Session

__all__ = ["LlamaBackend", "LlamaModel", "identify", "system_info"]

_log = logging.getLogger("bt_llm.llama")

_SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "repeat_penalty", "seed")
_OVERRIDES = (*_SAMPLING, "stop", "timeout_s")
_LAST_SEED = 2**32 - 2  # the one after it asks llama.cpp for a random seed


def identify(path: Path) -> ModelIdentity:
    """Return a GGUF's identity, named after the file; this hashes the file, so keep the result."""
    facts = read_facts(path)
    return ModelIdentity(
        name=path.stem,
        sha256=file_sha256(path),
        chat_template=facts.chat_template,
        bos_token=facts.bos_token,
        eos_token=facts.eos_token,
        details={
            "title": facts.name,
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "quantization": facts.quantization,
            "n_ctx_train": facts.n_ctx_train,
            "file_bytes": facts.file_bytes,
        },
    )


def system_info() -> str:
    """Return llama.cpp's line on its build and the CPU features it uses; loads the library."""
    text = library().llama_print_system_info().decode("ascii", "replace")
    return " ".join(text.split()).strip("| ")


class LlamaModel:
    """A local model that writes text. Thread-safe: one call at a time.

    A call's text depends on the prompt, the settings and the seed, not on the calls before it.

    Parameters
    ----------
    config : ModelConfig
        Which file, how it is loaded, and the defaults of the sampling.
    memory_threshold_mb : float
        Memory in MB that must remain free after loading.

    Examples
    --------
    >>> from bt_llm.models import ModelConfig
    >>> with LlamaModel(ModelConfig(model_path="smollm2")) as model:             # doctest: +SKIP
    ...     print(model.generate("Analyze the trend of EUR/USD:", max_tokens=50))
    """

    def __init__(self, config: ModelConfig, *, memory_threshold_mb: float = 0.0) -> None:
        self.config = config
        self.memory_threshold_mb = memory_threshold_mb
        self._lock = threading.RLock()
        self._llama: Any = None
        self._facts: ModelFacts | None = None
        self._pid = os.getpid()
        self._left_behind: list[Any] = []

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._llama is not None

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
        with self._lock:
            if self._llama is None:
                self._pid = os.getpid()
                self._llama = self._open()

    def _open(self) -> Any:
        config = self.config
        path = find_model(config.model_path)
        self._facts = facts = read_facts(path)
        if config.n_gpu_layers == 0:  # with a GPU, the weights are not in the memory that is measured
            check_fits(
                facts, config.n_ctx, keep_free_mb=self.memory_threshold_mb, repacked=config.n_gpu_layers == 0
            )
        n_threads = computing_threads(cpu_threads(config.n_threads))
        if n_threads != config.n_threads:
            _log.debug("n_threads=%d: using %d, one a core", config.n_threads, n_threads)
        if config.n_ctx > facts.n_ctx_train:
            _log.warning(
                "n_ctx=%d: %s was trained for %d tokens", config.n_ctx, facts.name, facts.n_ctx_train
            )
        lc = library(verbose=config.verbose)
        try:
            return lc.Llama(
                str(path),
                n_ctx=config.n_ctx,
                n_threads=n_threads,
                n_threads_batch=n_threads,
                n_gpu_layers=config.n_gpu_layers,
                verbose=config.verbose,
            )
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"llama.cpp cannot load {path}: {error}") from error

    def unload_model(self) -> None:
        """Free the model's memory; it can be loaded again."""
        with self._lock:
            if self._llama is not None and self._pid == os.getpid():
                self._llama.close()
            self._llama = None

    def __enter__(self) -> Self:
        """Load the model; unlike `load_model`, raises if that fails."""
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model's memory."""
        self.unload_model()

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
        with self._lock:
            facts = self._loaded()[1]
            if not facts.chat_template:
                raise PromptError(f"{facts.name} has no chat template: use generate(), or an Instruct model")
            tokens = {"bos_token": facts.bos_token, "eos_token": facts.eos_token}
            return self._complete(render_chat(facts.chat_template, checked, **tokens), overrides)

    def _loaded(self) -> tuple[Any, ModelFacts]:
        if self._llama is not None and self._pid != os.getpid():
            # Forked: the parent's model is not ours to use, nor to free.
            self._left_behind.append(self._llama)
            self._llama = None
            self.load()
        if self._llama is None or self._facts is None:
            raise ModelNotLoadedError("the model is not loaded: call load_model(), or use it in a with block")
        return self._llama, self._facts

    def _complete(self, text: str, overrides: Mapping[str, Any]) -> str:
        settings, stop, timeout_s = self._settings(overrides)
        with self._lock:
            llama, _ = self._loaded()
            tokens = self._tokens(llama, text)
            llama.reset()  # nothing of the calls before
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                with Watch(llama.ctx, deadline) as watch:
                    completion = llama.create_completion(
                        tokens,
                        max_tokens=settings.max_tokens,
                        temperature=float(settings.temperature),
                        top_p=float(settings.top_p),
                        top_k=settings.top_k,
                        min_p=0.0,  # a default of llama-cpp-python that ModelConfig does not have
                        repeat_penalty=float(settings.repeat_penalty),
                        seed=min(settings.seed, _LAST_SEED),
                        stop=stop,
                    )
            except RuntimeError as error:
                if watch.late:
                    raise GenerationTimeout(
                        f"timeout_s={timeout_s:g}: over before the answer was complete; allow more time, "
                        f"or fewer max_tokens than {settings.max_tokens}"
                    ) from None
                raise ModelError(f"llama.cpp failed: {error}") from error
        return str(completion["choices"][0]["text"])

    def _tokens(self, llama: Any, text: str) -> list[int]:
        tokens = list(llama.tokenize(text.encode(), add_bos=True, special=True))
        if tokens[:2] == [llama.token_bos()] * 2:  # the chat template wrote one already
            del tokens[0]
        if len(tokens) >= self.config.n_ctx:
            raise ConfigError(
                f"a prompt of {len(tokens)} tokens does not fit n_ctx={self.config.n_ctx} with room for an "
                "answer: shorten it, or load the model with a larger n_ctx"
            )
        return tokens

    def _settings(self, overrides: Mapping[str, Any]) -> tuple[ModelConfig, list[str], float | None]:
        for name in overrides:
            if name not in _OVERRIDES:
                near = difflib.get_close_matches(name, _OVERRIDES, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"unknown option {name!r}{hint} (options: {', '.join(_OVERRIDES)})")
        stop, timeout_s = overrides.get("stop", []), overrides.get("timeout_s")
        stop = [stop] if isinstance(stop, str) else stop
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) and text for text in stop):
            raise ConfigError(f"stop={stop!r}: expected a text, or a list of texts")
        if timeout_s is not None and not _is_positive(timeout_s):
            raise ConfigError(f"timeout_s={timeout_s!r}: expected a number of seconds above 0")
        sampling = {name: overrides[name] for name in _SAMPLING if name in overrides}
        return dataclasses.replace(self.config, **sampling), list(stop), timeout_s


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


class LlamaBackend:
    """Answers prompts with a GGUF through llama.cpp, in this process. Thread-safe.

    The file is opened when something of it is asked for, the model is loaded at the first question,
    and both are remembered until `close`.

    Parameters
    ----------
    path : str or path
        A file or a name, as `bt_llm.models.find_model` takes it.
    identity : ModelIdentity, optional
        The file's, if it is known already: spares the hash.
    n_threads : int, optional
        CPU threads; by default one for each physical core this process may use.
    n_gpu_layers : int
        Layers kept on the GPU; 0 is CPU only, -1 is all.
    n_seq : int
        Prompts decoded side by side, fewer where memory is short. No result depends on it.
    memory_threshold_mb : float
        Memory in MB that must remain free.
    timeout_s : float, optional
        Default limit of a call, in seconds spent in here.
    verbose : bool
        Let llama.cpp write its log to standard error.

    Examples
    --------
    >>> backend = LlamaBackend("smollm2")                                # doctest: +SKIP
    >>> (scores,) = next(backend.score([Prompt(("Up or down?",))], [" up", " down"]))   # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | Path,
        *,
        identity: ModelIdentity | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        n_seq: int = 128,
        memory_threshold_mb: float = 256.0,
        timeout_s: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.path = find_model(path)
        self.timeout_s = timeout_s
        self._identity = identity
        self._facts: ModelFacts | None = None
        self._session: Session | None = None
        self._numerics: Numerics = "canonical"
        self._options: dict[str, Any] = {
            "n_threads": n_threads,
            "n_gpu_layers": n_gpu_layers,
            "n_seq": n_seq,
            "memory_threshold_mb": memory_threshold_mb,
            "verbose": verbose,
        }

    @property
    def facts(self) -> ModelFacts:
        """What the file's header says."""
        if self._facts is None:
            self._facts = read_facts(self.path)
        return self._facts

    @property
    def session(self) -> Session:
        """What decodes; made, but not loaded, when first asked for."""
        if self._session is None:
            self._session = Session(self.path, facts=self.facts, **self._options)
        return self._session

    @property
    def identity(self) -> ModelIdentity:
        """Who answers. Hashes the file unless it was given."""
        if self._identity is None:
            self._identity = identify(self.path)
        return self._identity

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The build, the CPU's features, the threads and the numerics of the last call."""
        lc = library()
        return {
            "backend": "llama.cpp",
            "llama_cpp_python": version("llama-cpp-python"),
            "llama_cpp": lc.llama_version().decode("ascii", "replace"),
            "cpu_features": system_info(),
            "n_threads": self.session.n_threads,
            "n_gpu_layers": self.session.n_gpu_layers,
            "numerics": self._numerics,
        }

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
        limit = self.timeout_s if timeout_s is None else timeout_s
        yield from Scorer(self.session).score(prompts, labels, numerics=numerics, timeout_s=limit)

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
        limit = self.timeout_s if timeout_s is None else timeout_s
        writer = GrammarWriter(self.session)
        yield from writer.write(prompts, json_grammar(schema), max_tokens=max_tokens, timeout_s=limit)

    def close(self) -> None:
        """Free the model; the next question loads it again."""
        if self._session is not None:
            self._session.close()
