from __future__ import annotations

import dataclasses
import random

import pytest

from bt_llm.models.llama._context import ContextShape
from bt_llm.models.llama._forest import Forest, TokenisedPrompt, decodes, forests, tokens_decoded

WIDE = ContextShape(n_seq=32, n_ctx_seq=512, n_batch=1000, n_outputs=64)


def prompt(prefix: tuple[int, ...], *paths: tuple[int, ...]) -> TokenisedPrompt:
    return TokenisedPrompt(prefix, paths)


def members(found) -> list[list[int]]:
    return [list(forest.new_tokens) for forest in found]


def sequences(groups) -> list[list[int]]:
    return [[node.sequence for node in group] for group in groups]


def test_a_prompts_suffix_is_all_after_its_prefix():
    one = prompt((1, 2), (3,), (4, 5))
    assert one.suffix == (3, 4, 5)
    assert len(one) == 5


def test_prompts_of_one_prefix_come_together_in_their_order():
    prompts = [prompt((n,), (7, k)) for k, n in enumerate((1, 2, 1, 1, 2))]
    assert members(forests(prompts, shared=False, n_seq=32)) == [[0, 2, 3], [1, 4]]


def test_unshared_prompts_are_one_level_of_whole_suffixes():
    (forest,) = forests([prompt((1,), (2,), (3, n)) for n in (4, 5)], shared=False, n_seq=32)
    (level,) = forest.levels()
    assert [(n.path, n.start, n.end, n.sequence, n.members) for n in level] == [
        ((2, 3, 4), 1, 4, 0, [0]),
        ((2, 3, 5), 1, 4, 1, [1]),
    ]
    assert forest.new_tokens == {0: 3, 1: 3}


def test_shared_lines_are_nodes_level_by_level():
    a, b, x, y, z = (10,), (11, 11), (20,), (21,), (22, 22)
    prompts = [prompt((), a, x), prompt((), a, y), prompt((), b, x), prompt((), b, x, z)]
    (forest,) = forests(prompts, shared=True, n_seq=32)
    first, second, third = forest.levels()
    assert [(n.path, n.start, n.members) for n in first] == [(a, 0, []), (b, 0, [])]
    assert [(n.path, n.start, n.members) for n in second] == [(x, 1, [0]), (x, 2, [2]), (y, 1, [1])]
    assert [(n.path, n.start, n.end, n.members) for n in third] == [(z, 3, 5, [3])]
    assert third[0].parent is second[1]
    assert second[2].parent is first[0]
    assert forest.new_tokens == {0: 2, 1: 1, 2: 3, 3: 2}


def test_a_line_leaves_its_sequence_to_its_shortest_child_unless_a_prompt_ends_there():
    prompts = [prompt((), (1,), (2, 2, 2)), prompt((), (1,), (3,)), prompt((), (4,)), prompt((), (4,), (5,))]
    (forest,) = forests(prompts, shared=True, n_seq=32)
    first, second = forest.levels()
    assert [(n.path, n.sequence) for n in first] == [((1,), 0), ((4,), 1)]
    assert [(n.path, n.sequence) for n in second] == [((3,), 0), ((5,), 2), ((2, 2, 2), 3)]


def test_in_the_end_every_sequence_holds_one_prompt_and_its_lines():
    rng = random.Random(3)
    prompts = [
        prompt((), *(tuple([line] * (1 + line)) for line in rng.choices(range(4), k=rng.randint(1, 4))))
        for _ in range(60)
    ]
    for forest in forests(prompts, shared=True, n_seq=16):
        held: dict[int, tuple[int, ...]] = {}
        for level in forest.levels():
            before = dict(held)
            for node in level:
                held[node.sequence] = (before[node.parent.sequence] if node.parent else ()) + node.path
        ends = [node for level in forest.levels() for node in level if node.members]
        assert sorted(node.sequence for node in ends) == list(range(len(ends))) == sorted(held)
        assert len(ends) <= 16
        for node in ends:
            assert all(prompts[number].suffix == held[node.sequence] for number in node.members)


def test_equal_prompts_are_decoded_once():
    prompts = [prompt((1,), (2, 3))] * 3
    for shared in (False, True):
        (forest,) = forests(prompts, shared=shared, n_seq=32)
        ((node,),) = forest.levels()
        assert node.members == [0, 1, 2]
        assert tokens_decoded(prompts, shared=shared, n_seq=1) == 2


def test_forests_hold_so_many_different_prompts():
    prompts = [prompt((), (n // 3,), (n,)) for n in (0, 1, 1, 2, 3, 4, 0)]
    assert members(forests(prompts, shared=False, n_seq=3)) == [[0, 1, 2, 3], [4, 5, 6]]
    assert members(forests(prompts, shared=True, n_seq=3)) == [[0, 1, 2, 3], [4, 5, 6]]
    assert tokens_decoded(prompts, shared=False, n_seq=3) == 12
    assert tokens_decoded(prompts, shared=True, n_seq=3) == 9


def test_a_prompt_that_ends_where_others_go_on_takes_a_sequence():
    prompts = [prompt((), (1,), (2,)), prompt((), (1,))]
    assert members(forests(prompts, shared=True, n_seq=1)) == [[0], [1]]
    assert members(forests(prompts, shared=True, n_seq=2)) == [[0, 1]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, [[0, 1, 2, 3]]),
        ({"n_batch": 18}, [[0, 1], [2], [3]]),  # rows are padded to the longest, or to 8
        ({"n_outputs": 3}, [[0, 1, 2], [3]]),
        ({"n_ctx_seq": 10}, [[0, 1, 2], [3]]),  # a longer one would push padding beyond the sequence
        ({"n_batch": 20}, [[0, 1], [2, 3]]),
    ],
)
def test_decodes_keep_to_the_sizes_of_the_context(sizes, expected):
    prompts = [prompt((0,), (n,) * size) for n, size in ((1, 3), (2, 4), (3, 9), (4, 10))]
    (forest,) = forests(prompts, shared=False, n_seq=32)
    (level,) = forest.levels()
    shape = dataclasses.replace(WIDE, **sizes)
    assert sequences(decodes(level, shape)) == expected


@pytest.mark.parametrize(("short", "expected"), [(16, [46]), (17, [17, 30])])
def test_a_decode_ends_where_padding_would_cost_more_than_another_one(short, expected):
    prompts = [prompt((), (n,) * (10 if n < short else 12)) for n in range(short + 30)]
    (level,) = next(forests(prompts, shared=False, n_seq=60)).levels()
    assert [len(group) for group in decodes(level, WIDE)] == expected


def test_a_decode_counts_the_tokens_and_the_rows_that_follow_prompts():
    prompts = [prompt((), (n,) * 10) for n in range(8)]
    (level,) = next(forests(prompts, shared=False, n_seq=60)).levels()
    shape = dataclasses.replace(WIDE, n_batch=40, n_outputs=8)
    assert sequences(decodes(level, shape)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sequences(decodes(level, shape, head=(1, 2))) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert sequences(decodes(level, shape, rows=3)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_sequences_of_a_decode_are_consecutive():
    prompts = [prompt((), (n,)) if n == 1 else prompt((), (n,), (n,)) for n in range(3)]
    (forest,) = forests(prompts, shared=True, n_seq=8)
    first, second = forest.levels()
    assert sequences(decodes(first, WIDE)) == [[0, 1, 2]]
    assert sequences(decodes(second, WIDE)) == [[0], [2]]


def test_the_first_prompt_always_fits():
    forest = Forest((), shared=True, n_seq=1)
    assert forest.add(0, prompt((), (1,) * 50, (2,)))
    assert not forest.add(1, prompt((), (3,)))
    assert forest.add(2, prompt((), (1,) * 50, (2,))), "the same once more"
