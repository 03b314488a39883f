"""From a model's name to who answers: a GGUF, a server, a script, or in replay what the cache knows."""

from __future__ import annotations

from pathlib import Path

from bt_llm.cache import CacheMode, VerdictCache
from bt_llm.exceptions import ModelNotFoundError
from bt_llm.models import (
    PREFIX,
    Backend,
    LlamaBackend,
    ModelIdentity,
    RemoteBackend,
    RemoteConfig,
    ScriptedBackend,
    find_model,
    identify,
)

__all__ = ["look_up_model"]


def look_up_model(
    name: str, cache: VerdictCache, *, n_threads: int | None = None, n_gpu_layers: int = 0
) -> tuple[ModelIdentity, Backend | None]:
    """Return the identity of a model, and what asks it; nothing is loaded yet.

    Parameters
    ----------
    name : str
        A GGUF file, a name in `models/`, ``smollm2``, ``scripted:NAME``, or ``openai:URL``.
    cache : VerdictCache
        Remembers the hash of a file, so that it is read once, and knows models whose file is not here.
    n_threads : int, optional
        CPU threads; by default one a physical core.
    n_gpu_layers : int
        Layers on the GPU.

    Returns
    -------
    ModelIdentity, Backend or None
        The second is None in replay mode where the model's file is not on this machine: its stored
        answers can be used, but it cannot be asked.

    Raises
    ------
    ModelNotFoundError
        If there is no such model; in replay mode, if the cache knows none or several of that name.
    ConfigError
        If there is no such script.

    Examples
    --------
    >>> identity, backend = look_up_model("scripted:trend", VerdictCache(mode="off"))
    >>> identity.name
    'scripted:trend'
    """
    if name.startswith(PREFIX):
        return _remote(name, cache)
    if name.startswith("scripted"):
        script = ScriptedBackend.named(name)
        return script.identity, script
    try:
        path = find_model(name)
    except ModelNotFoundError:
        if cache.mode is CacheMode.REPLAY:
            return _stored_identity(name, cache), None
        raise
    identity = _file_identity(path, name, cache)
    return identity, LlamaBackend(path, identity=identity, n_threads=n_threads, n_gpu_layers=n_gpu_layers)


def _remote(name: str, cache: VerdictCache) -> tuple[ModelIdentity, Backend]:
    """Return a server's model: in replay as the cache knows it, without asking."""
    config = RemoteConfig.parse(name)
    if cache.mode is CacheMode.REPLAY:
        identity = _stored_identity(config.name, cache)
        return identity, RemoteBackend(config, identity=identity)
    remote = RemoteBackend(config, known=cache.find_models(config.name))
    return remote.identity, remote


def _stored_identity(name: str, cache: VerdictCache) -> ModelIdentity:
    """Return the identity that the cache knows under a name, or under the start of a hash."""
    found = cache.find_models(name) or cache.find_models(Path(name).stem)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(
            f"replay: no model file {name!r} and none of that name in the cache {cache.directory}; "
            f"import a pack that has it (bt-llm cache import FILE)"
        )
    hashes = ", ".join(identity.sha256[:12] for identity in found)
    raise ModelNotFoundError(
        f"replay: the cache knows {len(found)} models named {name!r} ({hashes}); give the start of a hash"
    )


def _file_identity(path: Path, name: str, cache: VerdictCache) -> ModelIdentity:
    """Return the identity of a GGUF, memoised by path, size and time of change."""
    status = path.stat()
    memo = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    shown = name if not Path(name).suffix else path.stem
    known = cache.get_document("file", memo)
    if known is None:
        identity = identify(path)
        fields = ("sha256", "chat_template", "bos_token", "eos_token", "details")
        known = {field: getattr(identity, field) for field in fields}
        cache.put_document("file", memo, known)
    return ModelIdentity(name=shown, **known)
