from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    InsufficientMemoryError,
    MissingExtraError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    ModelNotLoadedError,
    PromptError,
)
from bt_llm.models import (
    LlamaModel,
    ModelConfig,
    Prompt,
    file_sha256,
    identify,
    system_info,
)
from bt_llm.models.llama import _llama as llama
from bt_llm.models.llama import _memory as memory

PROMPT = "Analyze the trend of EUR/USD:"
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> Iterator[LlamaModel]:
    with LlamaModel(ModelConfig(model_path=smollm2_path, n_ctx=512, n_threads=1, max_tokens=12)) as loaded:
        yield loaded


@pytest.fixture
def backend(smollm2_path: Path) -> Iterator[LlamaModel]:
    made = LlamaModel(ModelConfig(model_path=smollm2_path, n_threads=1))
    yield made
    made.close()


# -- LlamaModel: loading


def test_a_new_model_is_not_loaded():
    model = LlamaModel(ModelConfig(model_path="smollm2"))
    assert not model.is_loaded
    for call in (lambda: model.generate(PROMPT), lambda: model.chat(HELLO)):
        with pytest.raises(ModelNotLoadedError, match="call load_model"):
            call()
    model.unload_model()


@pytest.mark.model
def test_load_and_unload(smollm2_path):
    model = LlamaModel(ModelConfig(model_path=smollm2_path, n_ctx=256, n_threads=1))
    assert model.load_model()
    first = model._in_use()
    assert model.load_model()
    assert model._in_use() is first, "loaded once"
    model.unload_model()
    assert not model.is_loaded
    with pytest.raises(ModelNotLoadedError):
        model.generate(PROMPT)


def failing(path: Path | str, caplog: pytest.LogCaptureFixture, **config) -> str:
    """Load a model that cannot be; return the one line that is logged."""
    caplog.clear()
    model = LlamaModel(ModelConfig(model_path=path, **config))
    assert model.load_model() is False
    assert not model.is_loaded
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "\n" not in record.message
    return record.message


def test_a_missing_file_is_false_and_says_where_to_get_one(caplog):
    assert "models/README.md" in failing("models/llama-3.2-9b.gguf", caplog)
    with (
        pytest.raises(ModelNotFoundError),
        LlamaModel(ModelConfig(model_path="models/llama-3.2-9b.gguf")),
    ):
        pass


@pytest.mark.model
def test_a_truncated_file_is_false_and_names_both_sizes(smollm2_path, tmp_path, caplog):
    path = tmp_path / "cut.gguf"
    with smollm2_path.open("rb") as whole:
        path.write_bytes(whole.read(3_000_000))
    assert "truncated, 3,000,000 bytes are there and its tensors demand 98,362,432" in failing(path, caplog)


@pytest.mark.model
def test_too_little_memory_is_false_and_names_what_would_fit(smollm2_path, caplog, monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 300.0)
    line = failing(smollm2_path, caplog, n_ctx=8192)
    assert "300 MB are free" in line
    assert "instead of 8192 would fit" in line
    with (
        pytest.raises(InsufficientMemoryError),
        LlamaModel(ModelConfig(model_path=smollm2_path), memory_threshold_mb=290),
    ):
        pass


@pytest.mark.model
def test_a_file_that_llama_cpp_refuses_is_an_error(smollm2_path, monkeypatch):
    monkeypatch.setattr(llama.library(), "llama_model_load_from_file", lambda *_: None)
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load .*: it gave no reason"):
        LlamaModel(ModelConfig(model_path=smollm2_path, n_gpu_layers=1)).load()


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtraError, match="pip install --force-reinstall llama-cpp-python"):
        system_info()


@pytest.mark.model
def test_threads_beyond_the_cores_and_tokens_beyond_training_are_told(smollm2_path, caplog):
    config = ModelConfig(model_path=smollm2_path, n_ctx=8448, n_threads=4096)
    with caplog.at_level(logging.DEBUG, logger="bt_llm.llama"), LlamaModel(config):
        pass
    assert f"n_threads=4096: using {llama.cpu_threads()}, one a core" in caplog.messages
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["n_ctx=8448: Smollm2 135M 8k Lc100K Mix1 Ep2 was trained for 8192 tokens"]


# -- LlamaModel: writing


@pytest.mark.model
def test_a_text_depends_on_its_seed_and_not_on_the_calls_before(model):
    first = model.generate(PROMPT)
    assert isinstance(first, str)
    assert first
    model.generate(PROMPT + first)
    model.chat(HELLO)
    assert model.generate(PROMPT) == first
    assert model.generate(PROMPT, seed=0) == first, "0 is the default, and no random seed"
    others = {model.generate(PROMPT, seed=seed, temperature=1.5) for seed in range(3)}
    assert len(others) > 1
    last = 2**32 - 1
    assert model.generate(PROMPT, seed=last, temperature=2) == model.generate(
        PROMPT, seed=last, temperature=2
    )


@pytest.mark.model
def test_overrides_hold_for_one_call(model):
    greedy = model.generate(PROMPT, temperature=0)
    assert model.generate(PROMPT, top_k=1, seed=9) == greedy, "the most probable token, whatever the seed"
    assert model.generate(PROMPT, temperature=0, max_tokens=3) != greedy
    assert greedy.startswith(model.generate(PROMPT, temperature=0, max_tokens=3))
    stop = greedy.split()[1]
    cut = model.generate(PROMPT, temperature=0, stop=stop)
    assert cut == greedy[: greedy.index(stop)]
    assert model.generate(PROMPT, temperature=0, stop=[stop, "zzz"]) == cut
    assert model.config.temperature == 0.7


@pytest.mark.model
def test_a_chat_is_put_into_the_models_template(model):
    answer = model.chat(HELLO, temperature=0, max_tokens=8)
    prompt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay hello.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert answer == model.generate(prompt, temperature=0, max_tokens=8)
    assert "<|im" not in answer


@pytest.mark.model
def test_a_model_without_a_chat_template_cannot_chat(model, monkeypatch):
    import dataclasses

    monkeypatch.setattr(model, "_facts", dataclasses.replace(model.facts, chat_template=""))
    with pytest.raises(PromptError, match="has no chat template"):
        model.chat(HELLO)


@pytest.mark.model
@pytest.mark.parametrize(
    ("prompt", "overrides", "words"),
    [
        ("", {}, "expected some text"),
        (3, {}, "expected some text"),
        (PROMPT, {"temprature": 1}, "unknown option 'temprature'; did you mean temperature?"),
        (PROMPT, {"n_ctx": 1}, "unknown option 'n_ctx'"),
        (PROMPT, {"temperature": 3}, "temperature=3: expected a number from 0 to 2"),
        (PROMPT, {"max_tokens": 0}, "max_tokens=0"),
        (PROMPT, {"stop": [""]}, "stop="),
        (PROMPT, {"stop": 3}, "stop=3"),
        (PROMPT, {"timeout_s": 0}, "timeout_s=0"),
        (PROMPT, {"timeout_s": "1"}, "timeout_s='1'"),
        ("word " * 600, {}, "601 tokens does not fit n_ctx=512"),
    ],
)
def test_bad_calls_are_refused(model, prompt, overrides, words):
    with pytest.raises(ConfigError, match=words):
        model.generate(prompt, **overrides)


@pytest.mark.model
def test_bad_messages_are_refused(model):
    with pytest.raises(ConfigError, match="message 0: role 'usr'"):
        model.chat([{"role": "usr", "content": "x"}])


@pytest.mark.model
def test_a_timeout_stops_and_leaves_the_model_usable(model):
    before = model.generate(PROMPT)
    with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.05: over before the answer was complete"):
        model.generate(PROMPT * 20, timeout_s=0.05, max_tokens=300)
    assert model.generate(PROMPT, timeout_s=600) == before


@pytest.mark.model
def test_a_failed_decode_is_a_model_error(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(llama.library(), "llama_decode", lambda *_: -3)
        with pytest.raises(ModelError, match=r"failed to decode \d+ tokens \(code -3\)"):
            model.generate(PROMPT)
    assert model.generate(PROMPT)


@pytest.mark.model
def test_greedy_text_is_what_llama_cpps_own_class_writes(smollm2_path, model):
    """An independent way: llama-cpp-python's high-level class, with the same settings."""
    lc = llama.library()
    other = lc.Llama(str(smollm2_path), n_ctx=512, verbose=False, n_threads=1)
    expected = other.create_completion(PROMPT, max_tokens=12, temperature=0, repeat_penalty=1.1)
    other.close()
    assert model.generate(PROMPT, temperature=0) == expected["choices"][0]["text"]


@pytest.mark.model
def test_an_answer_ends_where_the_context_does(smollm2_path):
    with LlamaModel(ModelConfig(model_path=smollm2_path, n_ctx=256, n_threads=1)) as small:
        tokens = small._writer.tokens("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15," * 5)
        text = small.generate(
            "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15," * 5, temperature=0, repeat_penalty=1.0
        )
        assert 0 < len(small._writer.weights.tokens(text, special=False)) <= 256 - len(tokens)


FORK = """
import os, sys
from bt_llm.models import LlamaModel
from bt_llm.models import ModelConfig
with LlamaModel(ModelConfig(model_path=sys.argv[1], n_ctx=256, n_threads=2, max_tokens=6)) as model:
    text = model.generate("Gold is")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if model.generate("Gold is") == text else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or model.generate("Gold is") != text)
"""


@pytest.mark.model
def test_a_forked_child_loads_its_own(smollm2_path, tmp_path):
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # quicker on a machine that is busy otherwise
    command = [sys.executable, str(script), str(smollm2_path)]
    subprocess.run(command, check=True, timeout=600, env=environment)


# -- LlamaModel: scores and JSON


@pytest.mark.model
def test_identity_is_that_of_the_file(smollm2_path, backend):
    identity = backend.identity
    assert identity == identify(smollm2_path)
    assert identity.sha256 == file_sha256(smollm2_path)
    assert identity.name == smollm2_path.stem
    assert (identity.bos_token, identity.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert identity.details["quantization"] == "Q4_1"
    json.dumps(dict(identity.details))
    assert not backend.is_loaded, "nothing is loaded for it"


@pytest.mark.model
def test_provenance_says_how_an_answer_came_about(backend):
    list(backend.score([Prompt(("Gold", " is"))], [" up", " down"], numerics="fast"))
    provenance = backend.provenance
    assert provenance["numerics"] == "fast"
    assert provenance["n_threads"] == 1
    assert provenance["cpu_features"] == system_info()
    assert provenance["llama_cpp_python"].count(".") == 2
    json.dumps(provenance)


@pytest.mark.model
def test_scores_come_batch_by_batch_and_close_can_be_undone(smollm2_path, backend):
    prompts = [Prompt(("Gold", f" is {word}")) for word in ("strong", "weak", "dull")]
    one_by_one = LlamaModel(ModelConfig(model_path=smollm2_path, n_threads=1), n_seq=1)
    batches = list(one_by_one.score(prompts, [" up", " down"]))
    assert [len(batch) for batch in batches] == [1, 1, 1]
    one_by_one.close()
    (together,) = backend.score(prompts, [" up", " down"])
    assert [s.logprobs for s in together] == [batch[0].logprobs for batch in batches]
    backend.close()
    backend.close()
    assert next(backend.score(prompts, [" up", " down"]))[0].logprobs == together[0].logprobs


@pytest.mark.model
def test_json_answers_follow_the_schema(backend):
    schema = {"type": "object", "properties": {"up": {"type": "boolean"}}, "required": ["up"]}
    prompts = [Prompt(("As JSON: is gold up?", f" {word}\n")) for word in ("Yes.", "No.")]
    answers = list(backend.generate_json(prompts, schema, max_tokens=30, seed=0))
    assert [type(json.loads(answer.text)["up"]) for answer in answers] == [bool, bool]
    assert all(answer.finished and answer.tokens > 0 and answer.milliseconds > 0 for answer in answers)
    assert backend.provenance["numerics"] == "canonical"


@pytest.mark.model
def test_a_time_limit_holds_for_scores_and_json_too(backend):
    prompts = [Prompt(("Gold is " * 20, "up"))]
    with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.01"):
        list(backend.score(prompts, [" up", " down"], timeout_s=0.01))
    with pytest.raises(GenerationTimeout, match=r"timeout_s=0\.01"):
        list(backend.generate_json(prompts, {"type": "boolean"}, max_tokens=5, seed=0, timeout_s=0.01))
    assert len(list(backend.score(prompts, [" up", " down"], timeout_s=600))) == 1


# -- One load


@pytest.mark.model
def test_text_json_and_scores_use_one_set_of_weights(smollm2_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.symlink_to(smollm2_path)
    backend = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    (before,) = backend.score([Prompt(("Gold", " is"))], [" up", " down"])
    weights = backend.session.loaded
    assert weights is not None
    assert backend.generate("Gold is", max_tokens=2), "what has scored can write"
    list(backend.generate_json([Prompt(("True?",))], {"type": "boolean"}, max_tokens=5))
    assert backend._writer.weights is backend.session.loaded is weights
    (after,) = backend.score([Prompt(("Gold", " is"))], [" up", " down"])
    assert after[0].logprobs == before[0].logprobs, "to the last bit"
    with LlamaModel(ModelConfig(model_path="smollm2", n_threads=1, n_ctx=256)) as other:
        assert other._writer.weights is weights, "another name and context, the same file"
    backend.unload_model()
    assert not backend.is_loaded
    with pytest.raises(ModelNotLoadedError):
        backend.generate("Gold is")


@pytest.mark.model
def test_weights_are_freed_when_nobody_uses_them(smollm2_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    models = [LlamaModel(ModelConfig(model_path=path, n_threads=1, n_ctx=256)) for _ in range(2)]
    for model in models:
        model.load()
    held = weakref.ref(models[0]._writer.weights)
    models[0].unload_model()
    gc.collect()
    assert held() is models[1]._writer.weights
    models[1].unload_model()
    gc.collect()
    assert held() is None


@pytest.mark.model
def test_a_closed_model_comes_back_as_it_was(backend):
    backend.load()
    text = backend.generate("Gold is", max_tokens=3)
    backend.close()
    assert not backend.is_loaded
    assert backend.generate("Gold is", max_tokens=3) == text


def replace_by(path: Path, content: bytes) -> None:
    """Put another file in the place of one, as a finished download does."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


@pytest.mark.model
def test_a_file_replaced_after_its_hash_was_taken_is_noticed(smollm2_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    model = LlamaModel(ModelConfig(model_path=path, n_threads=1))
    before = model.identity.sha256
    replace_by(path, changed(path))
    with pytest.raises(ModelFileError, match="not the file whose hash was taken any more"):
        list(model.score([Prompt(("Gold", " is"))], [" up", " down"]))
    assert not model.is_loaded
    assert LlamaModel(ModelConfig(model_path=path)).identity.sha256 != before


@pytest.mark.model
def test_a_file_replaced_after_the_load_is_not_hashed_for_it(smollm2_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    with LlamaModel(ModelConfig(model_path=path, n_threads=1, n_ctx=256)) as model:
        replace_by(path, changed(path))
        with pytest.raises(ModelFileError, match="not the file whose hash was taken any more"):
            _ = model.identity


@pytest.mark.model
def test_a_file_that_changes_while_it_is_loaded_is_refused(smollm2_path, tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm2_path.read_bytes())
    lc = llama.library()
    load = lc.llama_model_load_from_file

    def slow(name, params):
        replace_by(path, changed(path))
        return load(name, params)

    monkeypatch.setattr(lc, "llama_model_load_from_file", slow)
    with pytest.raises(ModelFileError, match="changed while it was loaded"):
        LlamaModel(ModelConfig(model_path=path, n_threads=1, n_ctx=256)).load()


def changed(path: Path) -> bytes:
    """Return a file's bytes with other weights at its end."""
    content = bytearray(path.read_bytes())
    content[-200_000:] = bytes(reversed(content[-200_000:]))
    return bytes(content)


def test_importing_the_backends_does_not_load_llama_cpp():
    code = (
        "import sys; from bt_llm.models import LlamaModel, ModelManager; sys.exit('llama_cpp' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
