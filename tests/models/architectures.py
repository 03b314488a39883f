"""Tiny models of many architectures, in K-quants, for what does not depend on their random weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType

from tests.tiny_gguf import byte_tokens

W, HEADS, KV, HEAD, FF, LAYERS, EXPERTS = 256, 4, 2, 64, 512, 3, 4

WORDS = ("▁Bullish", "▁Neutral", "▁Bearish", "▁Trend", "▁Volatility", "▁down", "▁low", "▁Verdict")


class TinyModel:
    """A GGUF being written: tensors by their names, random from one seed.

    Parameters
    ----------
    path : Path
        Where.
    architecture : str
        As llama.cpp calls it.
    tensors_a_part : int
        Tensors in each of several files; 0 is one file.
    """

    def __init__(self, path: Path, architecture: str, tensors_a_part: int = 0) -> None:
        self.writer = GGUFWriter(path, architecture, split_max_tensors=tensors_a_part)
        self.random = np.random.default_rng(7)
        w = self.writer
        w.add_name("tiny")
        w.add_block_count(LAYERS)
        w.add_context_length(2048)
        w.add_embedding_length(W)
        w.add_feed_forward_length(FF)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_dimension_count(HEAD)
        w.add_file_type(int(LlamaFileType.ALL_F32))

    def weights(self, name: str, *shape: int, spread: float = 0.08, center: float = 0.0) -> None:
        """Add a tensor; rows first."""
        values = self.random.standard_normal(shape) * spread + center
        self.writer.add_tensor(name, values.astype(np.float32))

    def norms(self, *names: str, size: int = W) -> None:
        """Add norms, each near 1."""
        for name in names:
            self.weights(f"{name}.weight", size, spread=0.1, center=1.0)

    def attention(self, at: str, *, bias: bool = False, norms: bool = False, gated: bool = False) -> None:
        """Add one layer's attention."""
        kv = KV
        for name, rows in (("q", HEADS * HEAD * (1 + gated)), ("k", kv * HEAD), ("v", kv * HEAD)):
            self.weights(f"{at}.attn_{name}.weight", rows, W)
            if bias:
                self.weights(f"{at}.attn_{name}.bias", rows)
        self.weights(f"{at}.attn_output.weight", W, HEADS * HEAD)
        if norms:
            self.norms(f"{at}.attn_q_norm", f"{at}.attn_k_norm", size=HEAD)

    def feed_forward(self, at: str, norm: str = "ffn_norm.weight") -> None:
        """Add one layer's feed-forward part."""
        if norm:
            self.weights(f"{at}.{norm}", W, spread=0.1, center=1.0)
        self.weights(f"{at}.ffn_gate.weight", FF, W)
        self.weights(f"{at}.ffn_up.weight", FF, W)
        self.weights(f"{at}.ffn_down.weight", W, FF)

    def vocabulary(self, spaced: bool) -> int:
        """Add bytes, either as byte pairs or as SentencePiece with a space prefix and some words."""
        w = self.writer
        if not spaced:
            tokens = [*byte_tokens(), "ab", "<s>", "</s>"]
            w.add_tokenizer_model("gpt2")
            w.add_tokenizer_pre("gpt-2")
            w.add_token_merges(["a b"])
            w.add_token_types([1] * 257 + [3, 3])
            w.add_bos_token_id(257)
            w.add_eos_token_id(258)
        else:
            letters = ["▁", *(chr(code) for code in range(33, 127))]
            parts = sorted({word[:size] for word in WORDS for size in range(2, len(word) + 1)}, key=len)
            tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *parts]
            w.add_tokenizer_model("llama")
            w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259))
            w.add_token_scores([0.0] * 259 + [-1e6] * len(letters) + [-1.0 - n for n in range(len(parts))])
            w.add_add_space_prefix(True)
            w.add_bos_token_id(1)
            w.add_eos_token_id(2)
        w.add_token_list(tokens)
        w.add_add_bos_token(True)
        return len(tokens)

    def ends(self, n_vocab: int, norm: str = "output_norm", *, tied: bool = False) -> None:
        """Add embedding and output."""
        self.weights("token_embd.weight", n_vocab, W, spread=0.3)
        self.norms(norm)
        if not tied:
            self.weights("output.weight", n_vocab, W, spread=0.3)


def _llama(m: TinyModel) -> None:
    m.writer.add_head_count_kv(KV)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        m.attention(at)
        m.feed_forward(at)


def _granite(m: TinyModel) -> None:
    m.writer.add_logit_scale(4.0)
    m.writer.add_residual_scale(0.5)
    m.writer.add_embedding_scale(2.0)
    m.writer.add_attention_scale(0.1)
    _llama(m)


def _qwen2(m: TinyModel) -> None:
    m.writer.add_head_count_kv(KV)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        m.attention(at, bias=True)
        m.feed_forward(at)


def _qwen3(m: TinyModel) -> None:
    m.writer.add_head_count_kv(KV)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        m.attention(at, norms=True)
        m.feed_forward(at)


def _qwen3moe(m: TinyModel) -> None:
    w = m.writer
    w.add_head_count_kv(KV)
    w.add_expert_count(EXPERTS)
    w.add_expert_used_count(2)
    w.add_expert_feed_forward_length(W)
    for at in _layers():
        m.norms(f"{at}.attn_norm", f"{at}.ffn_norm")
        m.attention(at, norms=True)
        m.weights(f"{at}.ffn_gate_inp.weight", EXPERTS, W)
        for name in ("gate", "up", "down"):
            m.weights(f"{at}.ffn_{name}_exps.weight", EXPERTS, W, W)


def _gemma(m: TinyModel, *, third: bool) -> None:
    w = m.writer
    w.add_head_count_kv(KV)
    w.add_key_length(HEAD)
    w.add_value_length(HEAD)
    w.add_sliding_window(64)
    if not third:
        w.add_attn_logit_softcapping(50.0)
        w.add_final_logit_softcapping(30.0)
    for at in _layers():
        m.norms(f"{at}.attn_norm", f"{at}.post_attention_norm", f"{at}.post_ffw_norm")
        m.attention(at, norms=third)
        m.feed_forward(at)


def _phi3(m: TinyModel) -> None:
    m.writer.add_head_count_kv(KV)
    for at in _layers():
        m.norms(f"{at}.attn_norm", f"{at}.ffn_norm")
        m.weights(f"{at}.attn_qkv.weight", (HEADS + 2 * KV) * HEAD, W)
        m.weights(f"{at}.attn_output.weight", W, HEADS * HEAD)
        m.weights(f"{at}.ffn_up.weight", 2 * FF, W)
        m.weights(f"{at}.ffn_down.weight", W, FF)


def _lfm2(m: TinyModel) -> None:
    heads = [0, KV, 0]
    m.writer.add_head_count_kv(heads)
    m.writer.add_shortconv_l_cache(3)
    for at, kv in zip(_layers(), heads, strict=True):
        m.norms(f"{at}.attn_norm")
        if kv:
            m.attention(at, norms=True)
        else:
            m.weights(f"{at}.shortconv.conv.weight", W, 3, spread=0.5)
            m.weights(f"{at}.shortconv.in_proj.weight", 3 * W, W)
            m.weights(f"{at}.shortconv.out_proj.weight", W, W)
        m.feed_forward(at)


def _mamba(m: TinyModel) -> None:
    w, inner, state, rank, kernel = m.writer, 2 * W, 16, 16, 4
    w.add_ssm_conv_kernel(kernel)
    w.add_ssm_inner_size(inner)
    w.add_ssm_state_size(state)
    w.add_ssm_time_step_rank(rank)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        m.weights(f"{at}.ssm_in.weight", 2 * inner, W)
        m.weights(f"{at}.ssm_conv1d.weight", inner, kernel, spread=0.3)
        m.weights(f"{at}.ssm_conv1d.bias", inner)
        m.weights(f"{at}.ssm_x.weight", rank + 2 * state, inner)
        m.weights(f"{at}.ssm_dt.weight", inner, rank)
        m.weights(f"{at}.ssm_dt.bias", inner, center=-3.0)  # a state that lasts
        m.writer.add_tensor(f"{at}.ssm_a", -np.exp(m.random.random((inner, state))).astype(np.float32))
        m.weights(f"{at}.ssm_d", inner, center=1.0)
        m.weights(f"{at}.ssm_out.weight", W, inner)


def _mamba2_layer(m: TinyModel, at: str, inner: int, state: int, heads: int, kernel: int) -> None:
    m.weights(f"{at}.ssm_in.weight", 2 * inner + 2 * state + heads, W)
    m.weights(f"{at}.ssm_conv1d.weight", inner + 2 * state, kernel, spread=0.3)
    m.weights(f"{at}.ssm_conv1d.bias", inner + 2 * state)
    m.weights(f"{at}.ssm_dt.bias", heads, center=-3.0)
    m.writer.add_tensor(f"{at}.ssm_a", -np.exp(m.random.random((heads, 1))).astype(np.float32))
    m.weights(f"{at}.ssm_d", heads, 1, center=1.0)
    m.weights(f"{at}.ssm_norm.weight", 1, inner, center=1.0)
    m.weights(f"{at}.ssm_out.weight", W, inner)


def _ssm(w: GGUFWriter, inner: int, state: int, heads: int, kernel: int, groups: int = 1) -> None:
    w.add_ssm_conv_kernel(kernel)
    w.add_ssm_inner_size(inner)
    w.add_ssm_state_size(state)
    w.add_ssm_time_step_rank(heads)
    w.add_ssm_group_count(groups)


def _mamba2(m: TinyModel) -> None:
    sizes = (2 * W, 64, 8, 4)
    _ssm(m.writer, *sizes)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        _mamba2_layer(m, at, *sizes)


def _granitehybrid(m: TinyModel) -> None:
    sizes, heads = (2 * W, 64, 8, 4), [0, KV, 0]
    m.writer.add_head_count_kv(heads)
    m.writer.add_logit_scale(4.0)
    m.writer.add_residual_scale(0.5)
    m.writer.add_embedding_scale(2.0)
    m.writer.add_attention_scale(0.1)
    _ssm(m.writer, *sizes)
    for at, kv in zip(_layers(), heads, strict=True):
        m.norms(f"{at}.attn_norm")
        if kv:
            m.attention(at)
        else:
            _mamba2_layer(m, at, *sizes)
        m.feed_forward(at)


def _falcon_h1(m: TinyModel) -> None:
    sizes = (2 * W, 64, 8, 4)
    m.writer.add_head_count_kv(KV)
    m.writer.add_key_length(HEAD)
    m.writer.add_value_length(HEAD)
    _ssm(m.writer, *sizes)
    for at in _layers():
        m.norms(f"{at}.attn_norm")
        m.attention(at)
        _mamba2_layer(m, at, *sizes)
        m.feed_forward(at, norm="ffn_norm")


def _qwen35(m: TinyModel) -> None:
    w, state, groups, heads, kernel = m.writer, 64, 2, 4, 4
    keys, values = state * groups, state * heads
    w.add_head_count_kv(KV)
    w.add_key_length(HEAD)
    w.add_value_length(HEAD)
    w.add_rope_dimension_sections([HEAD // 2, 0, 0, 0])
    w.add_uint32("qwen35.full_attention_interval", LAYERS)
    _ssm(w, values, state, heads, kernel, groups)
    for layer, at in enumerate(_layers(), 1):
        m.norms(f"{at}.attn_norm", f"{at}.post_attention_norm")
        if layer == LAYERS:
            m.attention(at, norms=True, gated=True)
        else:
            m.weights(f"{at}.attn_qkv.weight", 2 * keys + values, W)
            m.weights(f"{at}.attn_gate.weight", values, W)
            m.weights(f"{at}.ssm_conv1d.weight", 2 * keys + values, kernel, spread=0.3)
            m.weights(f"{at}.ssm_dt.bias", heads)
            m.writer.add_tensor(f"{at}.ssm_a", -np.exp(m.random.random(heads)).astype(np.float32))
            m.weights(f"{at}.ssm_beta.weight", heads, W)
            m.weights(f"{at}.ssm_alpha.weight", heads, W)
            m.norms(f"{at}.ssm_norm", size=state)
            m.weights(f"{at}.ssm_out.weight", W, values)
        m.feed_forward(at, norm="")


def _layers() -> Iterable[str]:
    return (f"blk.{layer}" for layer in range(LAYERS))


ARCHITECTURES: dict[str, tuple[str, Callable[[TinyModel], None], dict[str, Any]]] = {
    "llama": ("llama", _llama, {}),
    "mistral": ("llama", _llama, {"spaced": True}),
    "qwen2": ("qwen2", _qwen2, {}),
    "qwen3": ("qwen3", _qwen3, {}),
    "qwen3moe": ("qwen3moe", _qwen3moe, {}),
    "gemma2": ("gemma2", functools.partial(_gemma, third=False), {"tied": True}),
    "gemma3": ("gemma3", functools.partial(_gemma, third=True), {}),
    "phi3": ("phi3", _phi3, {"spaced": True}),
    "granite": ("granite", _granite, {}),
    "granitehybrid": ("granitehybrid", _granitehybrid, {}),
    "falcon-h1": ("falcon-h1", _falcon_h1, {}),
    "lfm2": ("lfm2", _lfm2, {"norm": "token_embd_norm"}),
    "qwen3.5": ("qwen35", _qwen35, {}),
    "mamba": ("mamba", _mamba, {"heads": 0}),
    "mamba2": ("mamba2", _mamba2, {"heads": 0}),
}
"""Architecture as llama.cpp calls it, and how its layers are written, by the name of a family."""


def write_model(path: Path, family: str, file_type: int = LlamaFileType.MOSTLY_Q4_K_M, **extra: Any) -> Path:
    """Write a model of a family, quantised by llama.cpp; `extra` are further fields of the header."""
    from bt_llm.models.llama._native import library

    full = write_full(path.with_suffix(".f32.gguf"), family, **extra)
    lc = library()
    params = lc.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(file_type), 1
    assert lc.llama_model_quantize(os.fsencode(full), os.fsencode(path), params) == 0
    full.unlink()
    return path


def write_full(path: Path, family: str, tensors_a_part: int = 0, **extra: Any) -> Path:
    """Write a model of a family in 32 bits; in parts, the path of the first of which is returned."""
    architecture, layers, options = ARCHITECTURES[family]
    model = TinyModel(path, architecture, tensors_a_part)
    n_vocab = model.vocabulary(options.get("spaced", False))
    model.writer.add_vocab_size(n_vocab)
    for name, value in extra.items():
        getattr(model.writer, f"add_{name}")(value)
    model.writer.add_head_count(options.get("heads", HEADS))
    layers(model)
    model.ends(n_vocab, **{name: options[name] for name in ("norm", "tied") if name in options})
    model.writer.write_header_to_file()
    model.writer.write_kv_data_to_file()
    model.writer.write_tensors_to_file()
    model.writer.close()
    return next(iter(sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))), path)
