"""IdentifiedFile: whose bytes were hashed, and by what it is known again when it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bt_llm.exceptions import ModelFileError
from bt_llm.models._base import WHOLE_TEXT, ModelIdentity
from bt_llm.models._files import FileStamp, hashed_file
from bt_llm.models._gguf import read_facts
from bt_llm.models._parts import whole_stem

__all__ = ["IdentifiedFile", "identify"]


@dataclass(frozen=True, slots=True)
class IdentifiedFile:
    """A GGUF whose bytes were hashed, and by what it will be known again."""

    path: Path
    stamp: FileStamp
    identity: ModelIdentity

    @classmethod
    def of(cls, path: Path) -> IdentifiedFile:
        """Read and hash a file; the identity is named after it."""
        facts = read_facts(path)
        sha256, stamp = hashed_file(path)
        identity = ModelIdentity(
            name=whole_stem(path),
            sha256=sha256,
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
                **({"tokens": WHOLE_TEXT} if facts.spaced else {}),
            },
        )
        return cls(path, stamp, identity)

    def check(self, stamp: FileStamp) -> None:
        """Raise a ModelFileError if what was loaded is not what was hashed."""
        if stamp != self.stamp:
            raise ModelFileError(
                f"{self.path} is not the file whose hash was taken any more: it was replaced or changed "
                "meanwhile; run again to have its answers under its own hash"
            )


def identify(path: Path) -> ModelIdentity:
    """Return a GGUF's identity, named after the file; this hashes the file, so keep the result."""
    return IdentifiedFile.of(path).identity
