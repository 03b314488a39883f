"""Tokens as the model sees the whole text: where a prompt can be cut, and what a label is after it.

A vocabulary need not cut a text where its lines end. SentencePiece with a space prefix (Llama 2, Mistral 7B,
TinyLlama, Phi-3, Baichuan) puts a space before every text that is tokenised by itself: cut into lines, a
prompt would be another one, and all labels would begin with the same token. So the whole text's tokens are
what is decoded, always; lines only say where they are cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from bt_llm.exceptions import ConfigError
from bt_llm.models._base import Prompt
from bt_llm.models.llama._forest import TokenisedPrompt, TokenPath
from bt_llm.models.llama._weights import Weights

__all__ = ["continued", "tokenised"]


def tokenised(weights: Weights, prompt: Prompt, *, room: int = 0) -> TokenisedPrompt:
    """Return a prompt's tokens; the kept part is the first chunk, save its last token if it is alone.

    Raises
    ------
    ConfigError
        If there is not one token, or with `room` more of them more than the model was trained for.
    """
    return _checked(weights, _cut(weights, prompt), room)


def continued(
    weights: Weights, prompt: Prompt, labels: Sequence[str]
) -> tuple[TokenisedPrompt, tuple[TokenPath, ...]]:
    """Return a prompt's tokens, and those of each label after it.

    They are the tokens of prompt and label as one text: where a label changes the prompt's last token, that
    token belongs to the labels. Names of control tokens are read in the prompt and not in labels.

    Raises
    ------
    ConfigError
        As `tokenised`, and if there are no labels.
    """
    if not labels:
        raise ConfigError("no labels: expected at least one")
    whole = weights.whole(prompt.text)
    after = []
    for label in labels:
        plain = weights.tokens(label, special=False)
        if plain == weights.tokens(label, special=True):
            after.append(weights.whole(prompt.text + label))
        else:
            after.append((*whole, *plain))
    kept = min(_shared(whole, tokens) for tokens in after)
    paths = _cut(weights, prompt, whole)
    cut = _shortened(paths, kept) if kept < len(whole) else paths
    return _checked(weights, cut, 0), tuple(tokens[kept:] for tokens in after)


def _cut(weights: Weights, prompt: Prompt, whole: TokenPath | None = None) -> list[TokenPath]:
    """Return the whole text's tokens, cut at the ends of chunks or before.

    Chunks of which each has the same tokens alone are cut exactly there. Otherwise a cut is where the text up
    to it and the whole text begin to differ: cuts are then the same for prompts that begin alike.
    """
    whole = weights.whole(prompt.text) if whole is None else whole
    head, *rest = prompt.chunks or ("",)
    alone = [tuple(weights.opening(head)), *(tuple(weights.tokens(c, special=True)) for c in rest)]
    if sum(alone, ()) == whole:
        return alone
    ends, text = [0], ""
    for chunk in prompt.chunks[:-1]:
        text += chunk
        ends.append(max(ends[-1], _shared(tuple(weights.opening(text)), whole)))
    return [whole[start:end] for start, end in zip(ends, [*ends[1:], len(whole)], strict=True)]


def _shortened(paths: Sequence[TokenPath], size: int) -> list[TokenPath]:
    """Return the first tokens of paths."""
    kept = []
    for path in paths:
        kept.append(path[:size])
        size = max(0, size - len(path))
    return kept


def _checked(weights: Weights, paths: Sequence[TokenPath], room: int) -> TokenisedPrompt:
    prefix, *rest = paths
    rest = [path for path in rest if path]
    if not rest:
        prefix, rest = prefix[:-1], [prefix[-1:]]
    if not rest[0]:
        raise ConfigError("an empty prompt: expected some text to answer")
    found = TokenisedPrompt(prefix, tuple(rest))
    if len(found) + room > weights.n_ctx_train:
        answer = f" and {room} for the answer" if room else ""
        raise ConfigError(
            f"a prompt of {len(found)} tokens{answer}: the model was trained for {weights.n_ctx_train}; "
            "shorten it"
        )
    return found


def _shared(one: TokenPath, other: TokenPath) -> int:
    """Return how many tokens two texts begin with alike."""
    size = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        size += 1
    return size
