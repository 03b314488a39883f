"""Every error that bt_llm raises on purpose, as one tree.

::

    BtLlmError
    ├── ConfigError            a setting is out of range, unknown or misspelt (also a ValueError)
    ├── DataError              bars or a CSV that cannot be used as they are
    ├── StrategyError          a strategy file or class that cannot be loaded
    │   └── StrategyFailed           its own code has raised, or broken a rule, while it ran
    ├── MissingExtraError      an optional dependency is not installed (also an ImportError)
    ├── ClusterError           a Dask cluster that does not answer, or not as it should
    ├── PromptError            a template that cannot be read or rendered
    ├── ModelError
    │   ├── ModelNotFoundError       no such file or name (also a FileNotFoundError)
    │   ├── ModelFileError           not a GGUF, truncated, or one that llama.cpp refuses
    │   ├── InsufficientMemoryError  the estimate exceeds what is free
    │   ├── ModelNotLoadedError      used before load_model() or after unload_model()
    │   └── GenerationTimeout        the time limit ran out inside a decode (also a TimeoutError)
    └── CacheError
        ├── CacheCorruptError        a database or row that cannot be trusted
        ├── ReplayMiss               replay mode, and the verdict is not stored
        └── PackError                a pack that fails its checks, or conflicts on merge

Each message says what happened, the value, what was expected and what to do next.
"""

from __future__ import annotations

from bt_llm.plain_text import printable

__all__ = [
    "BtLlmError",
    "CacheCorruptError",
    "CacheError",
    "ClusterError",
    "ConfigError",
    "DataError",
    "GenerationTimeout",
    "InsufficientMemoryError",
    "MissingExtraError",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "ModelNotLoadedError",
    "PackError",
    "PromptError",
    "ReplayMiss",
    "StrategyError",
    "StrategyFailed",
]


class BtLlmError(Exception):
    """Base of every error that bt_llm raises on purpose; its message is printable, whatever it quotes."""

    def __str__(self) -> str:
        """Return the message."""
        return printable(super().__str__())


class ConfigError(BtLlmError, ValueError):
    """A setting is out of range, unknown or misspelt."""


class DataError(BtLlmError, ValueError):
    """Bars or a CSV that cannot be used as they are."""


class StrategyError(BtLlmError):
    """A strategy file or class that cannot be loaded."""


class StrategyFailed(StrategyError):  # noqa: N818 - it is what happened, not what is wrong with a file
    """A strategy's own code has raised, or broken a rule, while it ran."""


class MissingExtraError(BtLlmError, ImportError):
    """An optional dependency is not installed."""


class ClusterError(BtLlmError):
    """A Dask cluster that does not answer, has other versions, or has lost work."""


class PromptError(BtLlmError):
    """A template that cannot be read or rendered."""


class ModelError(BtLlmError):
    """Base of what can go wrong with a model."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model of that path or name."""

    def __str__(self) -> str:
        """Return the message alone: FileNotFoundError would look for an errno."""
        return printable(str(self.args[0])) if self.args else ""


class ModelFileError(ModelError):
    """Not a GGUF, truncated, or refused by llama.cpp."""


class InsufficientMemoryError(ModelError):
    """The estimate exceeds what is free."""


class ModelNotLoadedError(ModelError):
    """Used before load_model() or after unload_model()."""


class GenerationTimeout(ModelError, TimeoutError):  # noqa: N818 - the field's name for it
    """The time limit ran out inside a decode."""


class CacheError(BtLlmError):
    """Base of what can go wrong with stored verdicts."""


class CacheCorruptError(CacheError):
    """A database or row that cannot be trusted."""


class ReplayMiss(CacheError, LookupError):  # noqa: N818 - the field's name for it
    """Replay mode, and the verdict is not stored."""


class PackError(CacheError):
    """A pack that fails its checks, or conflicts on merge."""
