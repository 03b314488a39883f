from __future__ import annotations

from pathlib import Path

import pytest

from bt_llm.advice import look_up_model
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError, ModelNotFoundError
from bt_llm.models import ScriptedBackend
from tests.cache_cases import MODEL, identity


def test_a_script_is_its_own_backend() -> None:
    who, backend = look_up_model("scripted:random:7", VerdictCache(mode="off"))
    assert isinstance(backend, ScriptedBackend)
    assert who == backend.identity
    with pytest.raises(ConfigError, match="want scripted:NAME"):
        look_up_model("scripted:no", VerdictCache(mode="off"))


def test_replay_knows_a_model_by_any_of_its_names_without_its_file(tmp_path: Path) -> None:
    VerdictCache(tmp_path).put_model(identity())
    VerdictCache(tmp_path).put_model(identity(name="tiny"))
    for name in ("small", "tiny", "/elsewhere/tiny.gguf", MODEL[:8]):
        who, backend = look_up_model(name, VerdictCache(tmp_path, "replay"))
        assert (who.sha256, backend) == (MODEL, None)
    with pytest.raises(ModelNotFoundError, match="no model file 'other' and none of that name"):
        look_up_model("other", VerdictCache(tmp_path, "replay"))
    with pytest.raises(ModelNotFoundError):
        look_up_model("small", VerdictCache(tmp_path))


def test_a_name_of_two_models_needs_the_start_of_a_hash(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    cache.put_model(identity())
    cache.put_model(identity(sha256="12" * 32))
    with pytest.raises(ModelNotFoundError, match="knows 2 models named 'small'"):
        look_up_model("small", VerdictCache(tmp_path, "replay"))


def test_the_hash_of_a_file_is_remembered(
    tmp_path: Path, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, backend = look_up_model(str(smollm2_path), VerdictCache(tmp_path))
    assert backend is not None
    assert first.name == smollm2_path.stem
    monkeypatch.setattr("bt_llm.advice._lookup.identify", None)
    again, _ = look_up_model(str(smollm2_path), VerdictCache(tmp_path))
    assert again == first
