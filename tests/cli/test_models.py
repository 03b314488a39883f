from __future__ import annotations

import json
import sys
import types

import pytest

from bt_llm.cli import _models as models
from bt_llm.cli import main
from bt_llm.models import cpu_threads
from bt_llm.models.llama import _memory as memory


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run ``bt-llm models`` in this process, with an empty models folder."""
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(tmp_path / "models"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bt-llm", "models", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def as_json(outcome):
    code, out, _ = outcome
    assert code == 0, outcome
    return json.loads(out)


@pytest.fixture
def offline(monkeypatch):
    def download(**_):
        raise ConnectionError("[Errno -2] Name or service not known")

    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_list_shows_what_is_here_and_what_can_be_fetched(cli, tmp_path):
    found = as_json(cli("list", "--format", "json"))
    assert found["folders"] == [str(tmp_path / "models")]
    assert f"Names are looked up in, and fetched into {tmp_path / 'models'}" in cli("list")[1]
    (row,) = found["models"]
    assert (row["name"], row["quantization"], row["parameters"]) == ("smollm2", "Q4_1", 134515008)
    assert [(known["model"], known["here"]) for known in found["known"]] == [
        (f"llama-3.2-{size}", False) for size in ("1b", "1b", "1b", "3b", "3b", "3b")
    ]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "llama-3.2-1b.gguf").write_text("<html>")
    found = as_json(cli("list", "--format", "json"))
    assert "is not a GGUF file" in found["models"][1]["problem"]
    assert [known["here"] for known in found["known"]] == [True] + [False] * 5
    code, out, _ = cli("list")
    assert code == 0
    assert "smollm2" in out
    assert "bartowski/Llama-3.2-3B-Instruct-GGUF" in out


def test_inspect_reads_the_header_and_estimates_the_memory(cli, smollm2_path):
    small, large = (
        as_json(cli("inspect", "smollm2", "--n-ctx", n_ctx, "--format", "json")) for n_ctx in ("512", "8192")
    )
    assert (small["architecture"], small["quantization"], small["n_ctx_train"]) == ("llama", "Q4_1", 8192)
    assert small["file_bytes"] == smollm2_path.stat().st_size
    assert "<|im_start|>" in small["chat_template"]
    assert 100 < small["memory_mb"] < large["memory_mb"]
    assert "sha256" not in small
    code, out, _ = cli("inspect", str(smollm2_path), "--n-ctx", "16384", "--sha256")
    assert code == 0
    assert "it was trained for 8,192" in " ".join(out.split())
    assert "b179c9523d0e6a0f" in out


def test_inspect_of_no_model_is_one_line(cli, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    for name, wanted, says in (("nope", 2, "no model 'nope'"), (str(bad), 1, "truncated")):
        code, out, err = cli("inspect", name)
        assert (code, out) == (wanted, "")
        assert says in err
        assert err.count("\n") == 1


def test_a_name_from_a_file_cannot_steer_the_terminal():
    assert models._plain("a\x1b[2Jb\nc") == "a [2Jb c"


def test_fetch_saves_the_file_under_the_models_name(cli, offline, tmp_path, smollm2_path):
    def download(*, local_dir, filename, **_):
        (local_dir / filename).write_bytes(smollm2_path.read_bytes())
        return local_dir / filename

    offline.hf_hub_download = download
    found = as_json(cli("fetch", "llama-3.2-1b", "--quant", "q8_0", "--format", "json"))
    target = tmp_path / "models" / "llama-3.2-1b-q8_0.gguf"
    assert found == {
        "file": str(target),
        "downloaded": True,
        "checked": "header",
        "model": "llama-3.2-1b",
        "quantization": "Q8_0",
    }
    assert target.is_file()
    code, out, err = cli("fetch", "llama-3.2-1b", "--quant", "Q8_0")
    assert (code, out) == (0, "")
    assert "was here, header checked; use it as llama-3.2-1b-q8_0" in err


def test_fetch_without_a_network_ends_with_the_command_to_run(cli, offline, tmp_path):
    code, out, err = cli("fetch", "llama-3.2-1b", "--folder", str(tmp_path))
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "Name or service not known" in line
    assert "hf download bartowski/Llama-3.2-1B-Instruct-GGUF Llama-3.2-1B-Instruct-Q4_K_M.gguf" in line
    assert "Traceback" not in err


def test_fetch_of_an_unknown_model_names_the_near_one(cli):
    code, _, err = cli("fetch", "lama-3.2-1b")
    assert code == 2
    assert "did you mean llama-3.2-1b?" in err


@pytest.mark.parametrize(
    ("gigabytes", "model", "n_ctx", "n_threads", "temperature"),
    [
        (4, "llama-3.2-1b", 1024, 2, 0.7),
        (8, "llama-3.2-3b", 2048, 4, 0.7),
        (16, "llama-3.2-3b", 4096, 8, 0.6),
        (64, "llama-3.2-3b", 4096, 8, 0.6),
    ],
)
def test_recommend_gives_the_table_and_this_machines_row(
    cli, monkeypatch, gigabytes, model, n_ctx, n_threads, temperature
):
    monkeypatch.setattr("bt_llm.models.total_memory_mb", lambda: gigabytes * 1024.0)
    found = as_json(cli("recommend", "--format", "json"))
    mine = found["recommended"]
    shown = tuple(mine[name] for name in ("model", "n_ctx", "n_threads", "temperature"))
    assert shown == (model, n_ctx, cpu_threads(n_threads), temperature)
    assert [row["model"] for row in found["table"]] == ["llama-3.2-1b", "llama-3.2-3b", "llama-3.2-3b"]
    assert (mine["here"], mine["fetch"]) == (False, f"bt-llm models fetch {model}")
    code, out, err = cli("recommend")
    assert code == 0
    assert "16 GB" in out
    assert f"Get it with: bt-llm models fetch {model}" in err


def test_recommend_says_so_where_the_model_is_here(cli, tmp_path):
    (tmp_path / "models").mkdir()
    for size in ("1b", "3b"):
        (tmp_path / "models" / f"llama-3.2-{size}.gguf").write_bytes(b"GGUF")
    assert "is here." in cli("recommend")[2]
    assert memory.total_memory_mb() > 0
