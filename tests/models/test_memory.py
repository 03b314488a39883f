from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from bt_llm.exceptions import InsufficientMemoryError
from bt_llm.models import ModelFacts, available_memory_mb, estimate_memory_mb, total_memory_mb
from bt_llm.models.llama import _memory as memory
from bt_llm.models.llama._memory import check_fits, control_groups

MB = 2**20


def facts(**changes) -> ModelFacts:
    values = {
        "name": "tiny", "architecture": "llama", "parameters": 1000, "quantization": "Q4_K_M",
        "n_ctx_train": 4096, "n_vocab": 32_000, "n_merges": 0, "n_layer": 16, "n_embd": 512, "n_ff": 1024,
        "n_head": 8, "n_head_kv": 8, "head_dim_k": 64, "head_dim_v": 64, "kv_width": 16 * 1024,
        "file_bytes": 100 * MB, "weight_bytes": 100 * MB, "chat_template": "", "bos_token": "",
        "eos_token": "",
    }  # fmt: skip
    return ModelFacts(**(values | changes))


def group(folder: Path, **files: int | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_version_2_takes_the_lowest_limit_up_to_the_root(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("0::/outer/inner\n")
    group(root / "outer", memory__max=800 * MB, memory__current=500 * MB)
    group(root / "outer" / "inner", memory__max="max", memory__current=100 * MB)
    (found,) = control_groups(membership, root)
    assert (found.limit_mb, found.free_mb) == (800, 300)


def test_reclaimable_file_cache_counts_as_free(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("0::/\n")
    group(root, memory__max=1000 * MB, memory__current=900 * MB)
    (root / "memory.stat").write_text(f"anon {300 * MB}\ninactive_file {600 * MB}\n")
    (found,) = control_groups(membership, root)
    assert found.free_mb == 700


def test_version_1_reads_the_memory_controller_only(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    group(root / "memory" / "job", memory__limit_in_bytes=400 * MB, memory__usage_in_bytes=150 * MB)
    (found,) = control_groups(membership, root)
    assert (found.limit_mb, found.free_mb) == (400, 250)


def test_in_a_container_the_groups_files_are_at_the_root(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("0::/docker/0123\n")
    group(root, memory__max=512 * MB, memory__current=12 * MB)
    (found,) = control_groups(membership, root)
    assert found.free_mb == 500


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert control_groups(tmp_path / "nothing", tmp_path) == []


def test_more_used_than_the_limit_leaves_nothing_not_less(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    membership.write_text("0::/\n")
    group(root, memory__max=100 * MB, memory__current=150 * MB)
    assert control_groups(membership, root)[0].free_mb == 0


def test_available_and_total_take_the_lower_of_machine_and_limit(monkeypatch):
    monkeypatch.setattr(memory, "control_groups", lambda: [memory.ControlGroup(64.0, 16.0)])
    assert (available_memory_mb(), total_memory_mb()) == (16.0, 64.0)
    monkeypatch.setattr(memory, "control_groups", list)
    assert total_memory_mb() == psutil.virtual_memory().total / MB
    assert 0 < available_memory_mb() <= total_memory_mb()


def test_what_fits_passes(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 1000.0)
    check_fits(facts(), 512, keep_free_mb=100)


def test_the_error_names_the_context_that_would_fit(monkeypatch):
    model = facts()
    monkeypatch.setattr(memory, "available_memory_mb", lambda: estimate_memory_mb(model, 1024) + 51)
    with pytest.raises(InsufficientMemoryError) as caught:
        check_fits(model, 4096, keep_free_mb=50)
    message = str(caught.value)
    assert "n_ctx=1024 instead of 4096 would fit" in message
    assert f"{estimate_memory_mb(model, 4096) + 50:,.0f} MB" in message
    assert f"{estimate_memory_mb(model, 1024) + 51:,.0f} MB are free" in message
    assert "\n" not in message


def test_the_error_names_a_smaller_model_where_no_context_fits(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 50.0)
    with pytest.raises(InsufficientMemoryError, match="smaller model or quantization"):
        check_fits(facts(), 4096, keep_free_mb=0)
