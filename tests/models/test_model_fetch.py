from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import sys
import types

import pytest

from bt_llm.exceptions import MissingExtraError, ModelError, ModelFileError, ModelNotFoundError
from bt_llm.models import _fetch as model_fetch
from bt_llm.models import known_file

KNOWN = known_file("llama-3.2-1b")
MANUAL = "hf download bartowski/Llama-3.2-1B-Instruct-GGUF Llama-3.2-1B-Instruct-Q4_K_M.gguf --local-dir "


class Hub:
    """A stand-in for huggingface_hub: gives some bytes, or breaks off like a network does."""

    def __init__(self, monkeypatch, content=b"weights"):
        self.content, self.error, self.calls = content, None, []
        module = types.ModuleType("huggingface_hub")
        module.hf_hub_download = self.download
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)

    def download(self, *, repo_id, filename, revision, local_dir):
        part = local_dir / ".cache" / "huggingface" / "download" / f"{filename}.incomplete"
        found = part.read_bytes() if part.exists() else b""
        self.calls.append((repo_id, filename, revision, found))
        part.parent.mkdir(parents=True, exist_ok=True)
        logging.getLogger("huggingface_hub").warning("Retrying in 1s")
        if self.error is not None:
            part.write_bytes(self.content[:4])
            raise self.error
        part.unlink(missing_ok=True)
        (local_dir / filename).write_bytes(self.content)
        return str(local_dir / filename)


@pytest.fixture
def hub(monkeypatch):
    return Hub(monkeypatch)


@pytest.fixture
def known():
    return dataclasses.replace(KNOWN, sha256=hashlib.sha256(b"weights").hexdigest(), gigabytes=0.0)


def test_a_file_is_fetched_checked_and_given_the_models_name(hub, known, tmp_path, caplog):
    path, downloaded = model_fetch.fetch(known, tmp_path / "models", revision="abc")
    assert (path, downloaded) == (tmp_path / "models" / "llama-3.2-1b.gguf", True)
    assert path.read_bytes() == b"weights"
    assert hub.calls == [(KNOWN.repository, KNOWN.file, "abc", b"")]
    assert [item.name for item in path.parent.rglob("*")] == ["llama-3.2-1b.gguf"]
    assert caplog.records == [], "the hub's warnings at every attempt are kept back"


def test_a_file_that_is_there_is_checked_and_not_fetched_again(hub, known, tmp_path):
    (tmp_path / "llama-3.2-1b.gguf").write_bytes(b"weights")
    assert model_fetch.fetch(known, tmp_path) == (tmp_path / "llama-3.2-1b.gguf", False)
    assert hub.calls == []
    (tmp_path / "llama-3.2-1b.gguf").write_bytes(b"other")
    with pytest.raises(
        ModelFileError, match=r"expected \w{16}\.\.\. of Llama.*: it is damaged, another file"
    ):
        model_fetch.fetch(known, tmp_path)
    assert (tmp_path / "llama-3.2-1b.gguf").read_bytes() == b"other", "what the user has is left alone"


def test_where_the_network_is_closed_one_line_has_the_command_to_run(hub, known, tmp_path):
    hub.error = OSError("cannot find the file in the local cache.\nPlease check your connection.")
    hub.error.__cause__ = ConnectionError("[Errno -2] Name or service not known")
    with pytest.raises(ModelNotFoundError, match=r"\(\[Errno -2\] Name or service not known\)") as caught:
        model_fetch.fetch(known, tmp_path)
    assert f"where the network is open, run: {MANUAL}{tmp_path} && mv {tmp_path}/" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert logging.getLogger("huggingface_hub").level == logging.NOTSET
    assert not (tmp_path / "llama-3.2-1b.gguf").exists()


def test_a_download_that_broke_off_is_continued(hub, known, tmp_path):
    hub.error = TimeoutError()
    with pytest.raises(ModelNotFoundError, match=r"\(TimeoutError\)"):
        model_fetch.fetch(known, tmp_path)
    hub.error = None
    path, downloaded = model_fetch.fetch(known, tmp_path)
    assert downloaded
    assert path.read_bytes() == b"weights"
    assert [found for *_, found in hub.calls] == [b"", b"weig"]


def test_a_file_with_another_hash_is_not_kept_and_not_resumed(hub, known, tmp_path):
    hub.content = b"replaced"
    with pytest.raises(ModelFileError, match=r"replaced in bartowski/.*; move it away, or give --revision"):
        model_fetch.fetch(known, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_download_that_never_began_leaves_nothing(monkeypatch, hub, known, tmp_path):
    def refuse(**_):
        raise ConnectionError("no")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "hf_hub_download", refuse)
    with pytest.raises(ModelNotFoundError):
        model_fetch.fetch(known, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_without_a_known_hash_the_file_must_be_a_whole_gguf(hub, known, tmp_path, smollm2_path):
    unhashed = dataclasses.replace(known, sha256="")
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        model_fetch.fetch(unhashed, tmp_path)
    hub.content = smollm2_path.read_bytes()
    assert model_fetch.fetch(unhashed, tmp_path)[1]


def test_without_huggingface_hub_the_extra_and_the_command_are_named(monkeypatch, known, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bt-llm\[fetch\]', or: hf download"):
        model_fetch.fetch(known, tmp_path)


def test_a_full_disk_is_seen_before_the_download(hub, known, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=int(0.5e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ModelError, match=r"needs 0\.81 GB, and 0\.50 GB are free"):
        model_fetch.fetch(dataclasses.replace(known, gigabytes=0.81), tmp_path)
    assert hub.calls == []


def test_the_command_is_safe_to_paste():
    command = model_fetch.manual_command(KNOWN, model_fetch.Path("my models; rm -rf"))
    assert command.count("'my models; rm -rf") == 3


def test_the_call_fits_the_real_library():
    """What is asked of the stand-in above can be asked of huggingface_hub, where it is installed."""
    import inspect

    real = pytest.importorskip("huggingface_hub")
    names = set(inspect.signature(real.hf_hub_download).parameters)
    assert {"repo_id", "filename", "revision", "local_dir"} <= names
