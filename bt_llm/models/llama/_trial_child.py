"""Loads a GGUF and decodes a few tokens: a script that `_trial` runs, with nothing of this package in it."""

from __future__ import annotations

import os
import sys

REFUSED, ROWS = 3, 8


def main(path: str, n_gpu_layers: str) -> int:
    """Return 0 if it went well, and 3 if llama.cpp refuses."""
    import llama_cpp as lc

    lc.llama_backend_init()
    model_params = lc.llama_model_default_params()
    model_params.n_gpu_layers = int(n_gpu_layers)
    model_params.use_extra_bufts = False
    model = lc.llama_model_load_from_file(os.fsencode(path), model_params)
    if not model:
        return REFUSED
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = 256, 1, False
    params.n_batch = params.n_ubatch = 256
    params.n_outputs_max = ROWS
    params.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = lc.llama_init_from_model(model, params)
    if not context:
        return REFUSED
    vocabulary = lc.llama_model_get_vocab(model)
    tokens = (lc.llama_token * 64)()
    lc.llama_tokenize(vocabulary, b"Up or down?", 11, tokens, len(tokens), True, True)
    batch = lc.llama_batch_init(ROWS, 0, 1)
    batch.n_tokens = ROWS
    for row in range(ROWS):
        batch.token[row], batch.pos[row] = tokens[row], row
        batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
    if lc.llama_decode(context, batch) or not lc.llama_get_logits_ith(context, ROWS - 1):
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # what llama.cpp does at exit is no part of the trial
