"""A key is bound to a host by the user, and goes nowhere else."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.models.openai._keys import ApiKey, host_and_port, key_for

KEY = "sk-a-key-of-this-file-alone"


def sent(key: ApiKey) -> str:
    return key.headers.get("Authorization", "").removeprefix("Bearer ")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The user's file, empty; BT_LLM_KEYS_FILE names it in every test."""
    path = tmp_path / "keys.toml"
    path.touch(mode=0o600)
    return path


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bt_llm.models.openai._keys.find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("api.example.com", "api.example.com:443"),
        ("https://API.example.com/v1", "api.example.com:443"),
        ("http://localhost", "localhost:80"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_host_is_named_in_one_way(text: str, place: str) -> None:
    assert host_and_port(text) == place


@pytest.mark.parametrize("text", ["", "https://", "a:port", "user:word@host", "two hosts", "[::1"])
def test_what_names_no_host_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one such as"):
        host_and_port(text)


def test_a_key_of_the_environment_is_for_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_LLM_API_KEY", KEY)
    assert not key_for("https://api.example.com/v1")
    monkeypatch.setenv("BT_LLM_API_HOST", "api.example.com")
    assert sent(key_for("https://api.example.com/v1")) == KEY
    for other in ("api.example.com:8443", "api.example.com.evil.org", "evil.org", "example.com"):
        assert not key_for(f"https://{other}/v1")


def test_a_file_binds_keys_to_hosts(keys: Path) -> None:
    keys.write_text(f'api.example.com = "{KEY}"\n"127.0.0.1:8000" = "local"\n')
    assert sent(key_for("https://api.example.com/v1")) == KEY
    assert sent(key_for("http://127.0.0.1:8000/v1")) == "local"
    assert not key_for("http://127.0.0.1:8001/v1")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(keys: Path, mode: int) -> None:
    keys.write_text(f'"api.example.com" = "{KEY}"')
    keys.chmod(mode)
    with pytest.raises(ConfigError, match=f"of mode {mode:04o}: .*chmod 600"):
        key_for("https://api.example.com/v1")


@pytest.mark.parametrize("text", ["api.example.com : KEY", "a = 7", '"user:word@a" = "KEY"', "a = \xff"])
def test_a_file_that_is_none_is_refused_without_repeating_it(keys: Path, text: str) -> None:
    keys.write_bytes(text.replace("KEY", KEY).encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        key_for("https://api.example.com/v1")
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("host", ["192.168.0.7:8000", "gpu.example.com:80", "127.0.0.1.evil.org:80"])
def test_a_key_never_goes_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("BT_LLM_API_KEY", KEY)
    monkeypatch.setenv("BT_LLM_API_HOST", host)
    with pytest.raises(ConfigError, match="unencrypted: expected https; nothing is sent"):
        key_for(f"http://{host}/v1")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "127.8.7.6:8000", "[::1]:8000"])
def test_a_key_goes_unencrypted_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("BT_LLM_API_KEY", KEY)
    monkeypatch.setenv("BT_LLM_API_HOST", host)
    assert sent(key_for(f"http://{host}/v1")) == KEY


def test_a_keyring_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {("bt_llm", "api.example.com"): KEY}
    keyring = types.ModuleType("keyring")
    keyring.get_password = lambda service, name: kept.get((service, name))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setattr("bt_llm.models.openai._keys.find_spec", lambda name: keyring)
    assert sent(key_for("https://api.example.com/v1")) == KEY
    assert not key_for("https://evil.org/v1")

    def locked(service: str, name: str) -> str:
        raise RuntimeError(KEY)

    keyring.get_password = locked  # type: ignore[attr-defined]
    assert not key_for("https://api.example.com/v1")
