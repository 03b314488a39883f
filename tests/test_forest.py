from __future__ import annotations

import pytest

from bt_llm.backends.forest import Forest, Limits, TokenisedPrompt, forests, tokens_decoded

BOUNDS = {"n_seq": 32, "n_ctx_seq": 512, "n_batch": 1000, "n_outputs": 64}
WIDE = Limits(**BOUNDS)


def prompt(prefix: tuple[int, ...], *paths: tuple[int, ...]) -> TokenisedPrompt:
    return TokenisedPrompt(prefix, paths)


def members(found) -> list[list[int]]:
    return [list(forest.new_tokens) for forest in found]


def test_a_prompts_suffix_is_all_after_its_prefix():
    one = prompt((1, 2), (3,), (4, 5))
    assert one.suffix == (3, 4, 5)
    assert len(one) == 5


def test_prompts_of_one_prefix_come_together_in_their_order():
    prompts = [prompt((n,), (7, k)) for k, n in enumerate((1, 2, 1, 1, 2))]
    assert members(forests(prompts, shared=False, limits=WIDE)) == [[0, 2, 3], [1, 4]]


def test_unshared_prompts_are_one_level_of_whole_suffixes():
    (forest,) = forests([prompt((1,), (2,), (3, n)) for n in (4, 5)], shared=False, limits=WIDE)
    (level,) = forest.levels()
    assert [(n.path, n.start, n.end, n.sequence, n.members) for n in level] == [
        ((2, 3, 4), 1, 4, 0, [0]),
        ((2, 3, 5), 1, 4, 1, [1]),
    ]
    assert forest.new_tokens == {0: 3, 1: 3}


def test_shared_lines_are_nodes_numbered_level_by_level():
    a, b, x, y, z = (10,), (11, 11), (20,), (21,), (22, 22)
    prompts = [prompt((), a, x), prompt((), a, y), prompt((), b, x), prompt((), b, x, z)]
    (forest,) = forests(prompts, shared=True, limits=WIDE)
    first, second, third = forest.levels()
    assert [(n.path, n.sequence, n.start, n.members) for n in first] == [(a, 0, 0, []), (b, 1, 0, [])]
    assert [(n.path, n.sequence, n.start, n.members) for n in second] == [
        (x, 2, 1, [0]),
        (y, 3, 1, [1]),
        (x, 4, 2, [2]),
    ]
    assert [(n.path, n.sequence, n.start, n.end, n.members) for n in third] == [(z, 5, 3, 5, [3])]
    assert third[0].parent is second[2]
    assert second[1].parent is first[0]
    assert forest.new_tokens == {0: 2, 1: 1, 2: 3, 3: 2}


def test_nodes_where_prompts_end_come_first_in_their_level():
    prompts = [prompt((), (1,), (2,)), prompt((), (3,)), prompt((), (4,), (5,))]
    (forest,) = forests(prompts, shared=True, limits=WIDE)
    assert [(n.path, bool(n.members)) for n in forest.levels()[0]] == [
        ((3,), True),
        ((1,), False),
        ((4,), False),
    ]


def test_equal_prompts_are_decoded_once():
    prompts = [prompt((1,), (2, 3))] * 3
    for shared in (False, True):
        (forest,) = forests(prompts, shared=shared, limits=WIDE)
        ((node,),) = forest.levels()
        assert node.members == [0, 1, 2]
        assert tokens_decoded(prompts, shared=shared, limits=WIDE) == 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"n_seq": 2}, [[0, 1], [2, 3]]),
        ({"n_batch": 18}, [[0, 1], [2, 3]]),  # rows are padded to the longest, or to 8: 2 x 8, then 2 x 9
        ({"n_outputs": 3}, [[0, 1, 2], [3]]),
        ({"n_outputs": 6, "tail": 2}, [[0, 1, 2], [3]]),
        ({"n_batch": 60, "tail": 30}, [[0, 1], [2, 3]]),
    ],
)
def test_forests_keep_to_the_limits(limits, expected):
    prompts = [prompt((), (n,) * size) for n, size in ((1, 3), (2, 4), (3, 9), (4, 2))]
    given = Limits(**(BOUNDS | limits))
    assert members(forests(prompts, shared=False, limits=given)) == expected


def test_inner_nodes_take_sequences_too():
    prompts = [prompt((), (n // 3,), (n,)) for n in range(6)]
    tight = Limits(**(BOUNDS | {"n_seq": 5}))
    assert members(forests(prompts, shared=True, limits=tight)) == [[0, 1, 2], [3, 4, 5]]
    assert tokens_decoded(prompts, shared=True, limits=tight) == 8
    assert tokens_decoded(prompts, shared=False, limits=tight) == 12


def test_a_late_node_is_not_padded_beyond_its_sequence():
    """Side by side in the second level, 2 tokens from position 51 on would be padded to 50."""
    prompts = [prompt((9,), (1,) * 50, (2, 2)), prompt((9,), (3, 3), (4,) * 50)]
    enough = [[0, 1]]
    assert members(forests(prompts, shared=True, limits=Limits(**(BOUNDS | {"n_ctx_seq": 101})))) == enough
    assert members(forests(prompts, shared=True, limits=Limits(**(BOUNDS | {"n_ctx_seq": 100})))) == [
        [0],
        [1],
    ]
    assert members(forests(prompts, shared=False, limits=Limits(**(BOUNDS | {"n_ctx_seq": 61})))) == enough


def test_the_first_prompt_always_fits():
    forest = Forest((), shared=True, limits=Limits(n_seq=1, n_ctx_seq=1, n_batch=8, n_outputs=1, tail=50))
    assert forest.add(0, prompt((), (1,) * 50, (2,)))
    assert not forest.add(1, prompt((), (3,)))
