"""Fetching a known model file from Hugging Face: resumed where it broke off, checked before it is used."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
from pathlib import Path

from bt_llm.exceptions import MissingExtraError, ModelError, ModelFileError, ModelNotFoundError
from bt_llm.models._catalogue import KnownFile
from bt_llm.models._files import file_sha256
from bt_llm.models._gguf import read_facts

__all__ = ["fetch", "manual_command"]

_UNFINISHED = ".fetching"
"""Folder in the models folder for what is not complete or not checked yet."""


def manual_command(known: KnownFile, folder: Path) -> str:
    r"""Return the shell command that fetches a file on a machine that reaches the network.

    Examples
    --------
    >>> from bt_llm.models import known_file
    >>> print(manual_command(known_file("llama-3.2-1b"), Path("models")).replace(" && ", "\n"))
    hf download bartowski/Llama-3.2-1B-Instruct-GGUF Llama-3.2-1B-Instruct-Q4_K_M.gguf --local-dir models
    mv models/Llama-3.2-1B-Instruct-Q4_K_M.gguf models/llama-3.2-1b.gguf
    """
    paths = (folder, folder / known.file, folder / known.saved_as)
    into, source, target = (shlex.quote(path.as_posix()) for path in paths)
    return f"hf download {known.repository} {known.file} --local-dir {into} && mv {source} {target}"


def fetch(known: KnownFile, folder: Path, *, revision: str | None = None) -> tuple[Path, bool]:
    """Download a file into a folder, unless it is there already.

    A download that broke off is continued. The file gets its name only once its SHA-256 is the known one,
    or, where none is known, once it is seen to be a whole GGUF.

    Parameters
    ----------
    known : KnownFile
        What to fetch.
    folder : Path
        The models folder; made if need be.
    revision : str, optional
        A commit of the repository to keep to; by default its newest one.

    Returns
    -------
    Path, bool
        The file, and whether it had to be downloaded.

    Raises
    ------
    MissingExtraError
        If huggingface_hub is not installed.
    ModelNotFoundError
        If the download fails; it names the command to run where the network is open.
    ModelFileError
        If the file that is there, or the one that came, is not the known one.
    """
    target = folder / known.saved_as
    if target.is_file():
        _check(target, known)
        return target, False
    partial = folder / _UNFINISHED / Path(known.file).stem
    partial.mkdir(parents=True, exist_ok=True)
    _check_space(known, folder)
    came = _download(known, partial, folder, revision)
    try:
        _check(came, known)
        os.replace(came, target)
    finally:  # what is wrong would only be found again
        _remove(partial)
    return target, True


def _download(known: KnownFile, partial: Path, folder: Path, revision: str | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError(
            "huggingface_hub is not installed: pip install 'bt-llm[fetch]', or: "
            + manual_command(known, folder)
        ) from error
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it warns at every attempt
    try:
        return Path(
            hf_hub_download(
                repo_id=known.repository, filename=known.file, revision=revision, local_dir=partial
            )
        )
    except Exception as error:  # whatever the network and its libraries raise
        if not any(partial.rglob("*.incomplete")):
            _remove(partial)
        raise ModelNotFoundError(
            f"cannot fetch {known.file} of {known.repository} ({_reason(error)}); where the network is open, "
            f"run: {manual_command(known, folder)}"
        ) from error
    finally:
        hub.setLevel(level)


def _remove(partial: Path) -> None:
    shutil.rmtree(partial)
    with contextlib.suppress(OSError):  # another file is being fetched
        partial.parent.rmdir()


def _reason(error: BaseException) -> str:
    """Return the first line of the error that began it all, such as that a name was not resolved."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _check_space(known: KnownFile, folder: Path) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < known.gigabytes:
        raise ModelError(
            f"{known.file} needs {known.gigabytes} GB, and {free:.2f} GB are free in {folder}: make room, or "
            "set BT_LLM_MODELS_DIR to another folder"
        )


def _check(file: Path, known: KnownFile) -> None:
    if not known.sha256:
        read_facts(file)
        return
    found = file_sha256(file)
    if found != known.sha256:
        raise ModelFileError(
            f"{file} has the SHA-256 {found[:16]}..., expected {known.sha256[:16]}... of {known.file}: it is "
            f"damaged, another file, or replaced in {known.repository}; move it away, or give --revision"
        )
