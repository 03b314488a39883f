"""A tiny Llama with random weights in K-quants, written in a second: its words mean nothing, its kernels do.

The real SmolLM2 is in Q4_1, for which ggml has one kernel. K-quants have several, chosen by the number of
rows, so only they can show that results do not depend on it. Its tokens are single bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, LlamaFileType

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD = 2, 256, 4, 2, 64, 512
BOS, EOS = 257, 258


def byte_tokens() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, others for a letter after 255."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_tiny_model(
    path: Path,
    *,
    add_bos: bool = True,
    file_type: int = LlamaFileType.MOSTLY_Q4_K_M,
    ascii_only: bool = False,
) -> Path:
    """Write the model, quantised by llama.cpp; `ascii_only` has it say no byte that is no letter alone."""
    from bt_llm.models.llama._native import library

    full = path.with_suffix(".f32.gguf")
    _write_full(full, add_bos, ascii_only)
    lc = library()
    params = lc.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(file_type), 1
    assert lc.llama_model_quantize(os.fsencode(full), os.fsencode(path), params) == 0
    full.unlink()
    return path


def _write_full(path: Path, add_bos: bool, ascii_only: bool) -> None:
    random = np.random.default_rng(7)
    tokens = [*byte_tokens(), "ab", "<s>", "</s>"]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_file_type(int(LlamaFileType.ALL_F32))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(add_bos)

    def weights(name: str, rows: int, columns: int, spread: float = 0.08) -> None:
        values = random.standard_normal((rows, columns)) * spread
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    weights("token_embd", len(tokens), WIDTH, 0.3)
    for i in range(LAYERS):
        norm(f"blk.{i}.attn_norm")
        weights(f"blk.{i}.attn_q", HEADS * HEAD, WIDTH)
        weights(f"blk.{i}.attn_k", KV_HEADS * HEAD, WIDTH)
        weights(f"blk.{i}.attn_v", KV_HEADS * HEAD, WIDTH)
        weights(f"blk.{i}.attn_output", WIDTH, HEADS * HEAD)
        norm(f"blk.{i}.ffn_norm")
        weights(f"blk.{i}.ffn_gate", FEED_FORWARD, WIDTH)
        weights(f"blk.{i}.ffn_up", FEED_FORWARD, WIDTH)
        weights(f"blk.{i}.ffn_down", WIDTH, FEED_FORWARD)
    norm("output_norm")
    if ascii_only:
        output = random.standard_normal((len(tokens), WIDTH)) * 0.3
        output[[i for i in range(len(tokens)) if not 32 < i < 127]] = 0.0
        writer.add_tensor("output.weight", output.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
