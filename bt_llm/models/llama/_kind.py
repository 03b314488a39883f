"""GGUF files by path or name, as a kind of models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bt_llm.exceptions import ModelError, ModelNotFoundError
from bt_llm.models._base import Backend, ModelIdentity, Prompt
from bt_llm.models._config import ModelConfig
from bt_llm.models._cost import Cost, Rates
from bt_llm.models._files import FileStamp, file_stamp, find_model
from bt_llm.models._gguf import read_facts
from bt_llm.models._parts import whole_stem
from bt_llm.models._registry import Capability, KnownModels, ModelKind, kinds_hint, stored_identity
from bt_llm.models.llama._device import compute_device
from bt_llm.models.llama._files import IdentifiedFile
from bt_llm.models.llama._llama import LlamaModel
from bt_llm.models.llama._memory import estimate_memory_mb

__all__ = ["FileModel"]

_BILLIONS = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*b(?![a-z])", re.IGNORECASE)


class FileModel(ModelKind):
    """A GGUF that llama.cpp runs in this process: a path, a name in the models folder, or ``smollm2``.

    Examples
    --------
    >>> FileModel("models/llama-3.2-1b.gguf").name
    'models/llama-3.2-1b.gguf'
    """

    kind: ClassVar[str] = "file"
    form: ClassVar[str] = "PATH.gguf"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"score", "generate_json", "generate"})

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        self._file: IdentifiedFile | None = None

    @property
    def name(self) -> str:
        """The path or name, as it was given."""
        return self.rest

    @property
    def address(self) -> str:
        """The file itself; the name while there is none."""
        try:
            return str(find_model(self.rest).resolve())
        except ModelError:
            return self.rest

    @property
    def addresses(self) -> tuple[str, ...]:
        """None: it answers in this process."""
        return ()

    def open(self, config: ModelConfig) -> LlamaModel:
        """Return the model, not loaded; the file must then be the one that was identified, if one was."""
        return LlamaModel(config, file=self._file)

    def recognise(self, backend: Backend) -> None:
        """Have a model know the file that was identified; a ModelFileError if it has loaded another one."""
        if self._file is not None and isinstance(backend, LlamaModel):
            backend.recognise(self._file)

    def identify(self, known: KnownModels, *, replay: bool = False) -> ModelIdentity:
        """Return the identity of the file; its hash is remembered with its stamp, and taken once."""
        try:
            path = find_model(self.rest)
        except ModelNotFoundError as error:
            if replay:
                return stored_identity(self.rest, known)
            raise ModelNotFoundError(f"{error}{kinds_hint(self.rest)}") from None
        stamp = file_stamp(path)
        if self._file is None or (self._file.path, self._file.stamp) != (path, stamp):
            self._file = self._remembered(path, stamp, known)
        return self._file.identity

    def _remembered(self, path: Path, stamp: FileStamp, known: KnownModels) -> IdentifiedFile:
        shown = self.rest if not Path(self.rest).suffix else whole_stem(path)
        facts = known.get_document("file", _memo(path, stamp))
        if facts is None:
            file = IdentifiedFile.of(path)
            stamp = file.stamp
            fields = ("sha256", "chat_template", "bos_token", "eos_token", "details")
            facts = {field: getattr(file.identity, field) for field in fields}
            known.put_document("file", _memo(path, stamp), facts)
        return IdentifiedFile(path, stamp, ModelIdentity(name=shown, **facts))

    def device(self, n_gpu_layers: int) -> str:
        """Return what computes beside the processor, see `compute_device`."""
        return compute_device(n_gpu_layers)

    def cost(self, prompts: Sequence[Prompt], identity: ModelIdentity | None, rates: Rates) -> Cost:
        """Return the tokens and the time of a prompt on this machine; what prompts share counts once."""
        whole = sum(len(prompt.text) for prompt in prompts) / len(prompts) / rates.letters_per_token
        shared = len(prompts[0].chunks[0]) / rates.letters_per_token
        tokens = whole - shared + shared / len(prompts) + 2
        billions = self._billions(identity)
        if billions is None:
            return Cost(tokens=tokens, milliseconds=None, source="constants; size of the model unknown")
        token_ms = max(rates.least_token_ms, billions * rates.token_ms_per_billion)
        source = f"constants for {billions:.2g} billion parameters"
        return Cost(tokens=tokens, milliseconds=tokens * token_ms, source=source)

    def _billions(self, identity: ModelIdentity | None) -> float | None:
        """Return the size of the model from its file, or from a name such as ``llama-3.2-1b``.

        Examples
        --------
        >>> FileModel("llama-3.2-1b.gguf")._billions(None)
        1.0
        """
        parameters = identity.details.get("parameters") if identity is not None else None
        if type(parameters) is int and parameters > 0:
            return parameters / 1e9
        match = _BILLIONS.search(self.rest)
        return float(match[1]) if match else None

    def memory_mb(self, n_ctx: int) -> float | None:
        """Return the memory that it takes, from the file's header."""
        try:
            return estimate_memory_mb(read_facts(find_model(self.rest)), n_ctx=n_ctx)
        except ModelError:  # a replay needs no file
            return None


def _memo(path: Path, stamp: FileStamp) -> str:
    return f"2|{path.resolve()}|{stamp.inode}|{stamp.size}|{stamp.modified_ns}|{stamp.changed_ns}"
