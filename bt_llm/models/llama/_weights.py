"""The weights and the vocabulary of a GGUF file, loaded once for all who use them in a process."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bt_llm.exceptions import ConfigError, ModelError, ModelFileError
from bt_llm.locks import ForkableLock, begin_anew_in_child
from bt_llm.models._files import file_stamp
from bt_llm.models._interrupts import NotedInterrupt, given_up
from bt_llm.models.llama._native import forget_errors, free_in, free_nothing, last_error, library

__all__ = ["Weights"]


class Weights:
    """The weights and the vocabulary of one GGUF file, mapped into memory.

    `load` gives them once for all who use them in this process; they are freed when nobody does.

    Parameters
    ----------
    path : Path
        An existing GGUF file.
    n_gpu_layers : int
        Layers kept on the GPU; -1 is all.
    repack : bool
        Let llama.cpp repack the weights for this CPU. Repacked kernels round differently for
        different numbers of rows, so canonical numerics go without.

    Raises
    ------
    ModelFileError
        If llama.cpp refuses the file, or it changes meanwhile.

    Attributes
    ----------
    stamp : FileStamp
        Of the file that was loaded.
    rewinds : bool
        Whether a sequence can forget its last tokens. What is recurrent (Mamba, and in part LFM2, Qwen3.5,
        Granite-4-H, Falcon-H1) keeps one state a sequence, which can be copied and dropped, not cut.
    has_experts : bool
        Whether each token is computed by a few experts of many. How many tokens one of them gets in a decode
        depends on all of them, and so do the kernels that compute them.
    """

    def __init__(
        self, path: Path, *, n_gpu_layers: int = 0, repack: bool = False, verbose: bool = False
    ) -> None:
        self.path = path
        self._lc = library(verbose=verbose)
        self.n_gpu_layers, self.repack = n_gpu_layers, repack
        self.stamp = file_stamp(path)
        params = self._lc.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = repack
        forget_errors()
        with NotedInterrupt() as interrupt:
            progress = self._lc.llama_progress_callback(lambda share, _: not (interrupt.came or given_up()))
            params.progress_callback = progress
            self.pointer = self._lc.llama_model_load_from_file(os.fsencode(path), params)
            free = self._lc.llama_model_free if self.pointer else free_nothing
            self._free = weakref.finalize(self, free_in, os.getpid(), free, self.pointer)
            self._free.atexit = False  # the operating system is quicker, and the library may be gone by then
        if not self.pointer:
            raise ModelFileError(f"llama.cpp cannot load {path}: {last_error()}")
        self.vocabulary = self._lc.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(self._lc.llama_vocab_n_tokens(self.vocabulary))
        self.n_ctx_train = int(self._lc.llama_model_n_ctx_train(self.pointer))
        self.rewinds = not (
            self._lc.llama_model_is_recurrent(self.pointer) or self._lc.llama_model_is_hybrid(self.pointer)
        )
        self.has_experts = self._number("expert_count") > 0
        tokenise = functools.partial(_tokenise, self._lc, self.vocabulary)  # no cycle through self
        self._tokenise = functools.lru_cache(maxsize=4096)(tokenise)  # prompts share most of their lines
        if file_stamp(path) != self.stamp:
            raise ModelFileError(f"{path} changed while it was loaded: wait until it is complete")

    def _number(self, key: str) -> int:
        """Return a whole number of the file's header, of those that are named after its architecture."""
        buffer = ctypes.create_string_buffer(64)
        self._lc.llama_model_meta_val_str(self.pointer, b"general.architecture", buffer, len(buffer))
        full = buffer.value + b"." + key.encode()
        count = self._lc.llama_model_meta_val_str(self.pointer, full, buffer, len(buffer))
        return int(buffer.value) if count > 0 and buffer.value.isdigit() else 0

    @classmethod
    def load(
        cls, path: Path, *, n_gpu_layers: int = 0, repack: bool = False, verbose: bool = False
    ) -> Weights:
        """Return the weights of a file, loaded unless somebody in this process has them already."""
        library(verbose=verbose)
        with _pool.lock:
            key = (path.resolve(), file_stamp(path), n_gpu_layers, repack)
            found = _pool.weights.get(key)
            if found is None:
                found = cls(path, n_gpu_layers=n_gpu_layers, repack=repack, verbose=verbose)
                _pool.weights[key] = found
            return found

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Tokenise a text on its own; `special` reads texts such as ``<|im_end|>`` as control tokens."""
        return list(self._tokenise(text, special))

    def opening(self, text: str) -> list[int]:
        """Tokenise the text that a prompt begins with, after exactly one BOS if the model wants one."""
        return self._begun(self.tokens(text, special=True))

    def whole(self, text: str) -> tuple[int, ...]:
        """Tokenise a whole prompt as `opening` does; nothing of it is remembered."""
        return tuple(self._begun(_tokenise(self._lc, self.vocabulary, text, True)))

    def _begun(self, text: Sequence[int]) -> list[int]:
        tokens = list(text)
        bos = int(self._lc.llama_vocab_bos(self.vocabulary))
        wanted = bool(self._lc.llama_vocab_get_add_bos(self.vocabulary)) and bos >= 0
        return [bos, *tokens] if wanted and tokens[:1] != [bos] else tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes a token stands for; control tokens are empty unless `special`."""
        buffer = ctypes.create_string_buffer(256)
        count = self._lc.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._lc.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        return bytes(buffer.raw[:count])

    def ends_generation(self, token: int) -> bool:
        """Whether a token ends an answer (EOS, EOT and their like)."""
        return bool(self._lc.llama_vocab_is_eog(self.vocabulary, token))


class _Pool:
    """The weights that are in use in this process; a forked child begins with none."""

    def __init__(self) -> None:
        begin_anew_in_child(self.reset)

    def reset(self) -> None:
        self.lock = ForkableLock()
        self.weights: weakref.WeakValueDictionary[tuple[Any, ...], Weights] = weakref.WeakValueDictionary()


_pool = _Pool()


def _tokenise(lc: Any, vocabulary: Any, text: str, special: bool) -> tuple[int, ...]:
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"a text cannot be written as UTF-8 ({error.reason}): {text[:40]!r}") from None
    size = len(raw) + 8
    buffer = (lc.llama_token * size)()
    count = lc.llama_tokenize(vocabulary, raw, len(raw), buffer, size, False, special)
    if count < 0:
        raise ModelError(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
    return tuple(buffer[:count])
