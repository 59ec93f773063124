from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.example import Example
from bertloom.model.packed import BLOCK, by_tokens, pack
from tests.conftest import random_examples, small

lengths_lists = st.lists(st.integers(1, 300), min_size=1, max_size=30)


@given(lengths_lists)
def test_blocks_hold_whole_sequences_in_order(lengths: list[int]) -> None:
    batch = pack([Example(np.zeros(n, np.int64), np.zeros(n, np.int64)) for n in lengths])
    edges = np.cumsum([0, *lengths]).tolist()
    assert [block.start for block in batch.blocks()] + [batch.blocks()[-1].stop] == [
        0, *(block.stop for block in batch.blocks())
    ]  # fmt: skip
    for block in batch.blocks():
        inside = [n for n, start in zip(lengths, edges) if block.start <= start < block.stop]
        assert sum(inside) == block.stop - block.start
        assert len(inside) == 1 or block.stop - block.start <= BLOCK
        assert (block.mask is None) == (len(inside) == 1)
        if block.mask is not None:
            owner = np.repeat(np.arange(len(inside)), inside)
            assert torch.equal(block.mask[0] == 0, torch.from_numpy(owner[:, None] == owner[None, :]))
    assert batch.starts.tolist() == edges[:-1]
    assert batch.position_ids.tolist() == [place for n in lengths for place in range(n)]


reach = st.one_of(st.none(), st.integers(0, 200))


@settings(deadline=None)
@given(lengths_lists, reach, reach)
def test_under_a_window_every_row_asks_once_and_sees_what_it_may(
    lengths: list[int], before: int | None, after: int | None
) -> None:
    batch = pack([Example(np.zeros(n, np.int64), np.zeros(n, np.int64)) for n in lengths])
    total = sum(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    distance = np.arange(total)[None, :] - np.arange(total)[:, None]
    want = owner[:, None] == owner[None, :]
    want &= (before is None) | (-distance <= (before or 0))
    want &= (after is None) | (distance <= (after or 0))
    seen = np.zeros((total, total), int)
    for block in batch.blocks((before, after)):
        part = seen[block.start : block.stop, block.first : block.last]
        part += 1 if block.mask is None else (block.mask[0] == 0).numpy()
        if before is not None and after is not None:
            assert block.last - block.first <= BLOCK + before + after, "the cost of a row does not grow with the text"
    assert np.array_equal(seen, want)


@given(lengths_lists, st.integers(1, 500))
def test_micro_batches_are_within_the_budget(lengths: list[int], budget: int) -> None:
    parts = by_tokens(lengths, budget)
    assert [n for part in parts for n in lengths[part]] == lengths
    assert all(sum(lengths[part]) <= budget or len(lengths[part]) == 1 for part in parts)
    assert all(lengths[part] for part in parts)


def test_targets_point_at_what_is_read() -> None:
    examples = random_examples(small(), [7, 3, 12])
    batch = pack(examples)
    assert batch.read is not None
    assert batch.read.tolist() == sorted(set(batch.read.tolist()))
    offsets = [0, 7, 10]
    for name in ("mlm", "nsp"):
        rows, labels = batch.targets[name]
        want = [at + int(p) for at, one in zip(offsets, examples) for p in one.targets[name][0]]
        assert batch.read[rows].tolist() == want
        assert labels.tolist() == [int(label) for one in examples for label in one.targets[name][1]]
    whole = pack([Example(one.input_ids, one.segment_ids) for one in examples])
    assert whole.read is None
    assert batch.read_bounds() == [0, len(batch.read)]


def test_empty_label_sets_pack() -> None:
    none = (np.empty(0, np.int64), np.empty(0, np.int64))
    batch = pack([Example(np.arange(3), np.zeros(3, np.int64), {"mlm": none})])
    assert batch.read is not None
    assert len(batch.read) == 0


def test_a_batch_of_nothing_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        pack([])
