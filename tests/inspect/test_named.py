from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertloom.inspect.named import by_layer, hidden, ranks_of
from tests.inspect.conftest import DIRECTIONS, loaded

TEXT = "The cat lives in the garden."


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_last_layer_says_what_fill_says(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name])
    example, (_, insides) = model.whole("The [MASK] lives."), model.trace("The [MASK] lives.")
    (place,) = np.flatnonzero(example.input_ids == model.tokenizer.special.mask).tolist()
    found = by_layer(model, insides, [place], top=3)
    assert found.ids.shape == (model.config.num_hidden_layers + 1, 1, 3)
    (want,) = model.fill("The [MASK] lives.", top=3)
    assert model.tokenizer.shown(found.ids[-1, 0].tolist()) == [one.token for one in want]
    assert found.probabilities[-1, 0] == pytest.approx([one.probability for one in want], rel=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_hidden_token_is_a_mask_in_its_place(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name])
    example, size = model.whole(TEXT), model.config.vocab_size
    places = list(range(1, len(example) - 1))
    found = hidden(model, example, places, top=4)
    for row, place in enumerate(places):
        spans = model.tokenizer.spans(TEXT)
        start, end = spans[place - 1]
        (want,) = model.fill(f"{TEXT[:start]}[MASK]{TEXT[end:]}", top=size)
        tokens = [one.token for one in want]
        own = model.tokenizer.shown([int(example.input_ids[place])])[0]
        if model.whole(f"{TEXT[:start]}[MASK]{TEXT[end:]}").input_ids.tolist().count(model.tokenizer.special.mask) != 1:
            continue
        if len(model.whole(f"{TEXT[:start]}[MASK]{TEXT[end:]}")) != len(example):
            continue
        assert want[int(found.own_rank[row]) - 1].probability == pytest.approx(found.own_probability[row], rel=1e-3)
        assert want[tokens.index(own)].probability == pytest.approx(found.own_probability[row], rel=1e-3)
        assert model.tokenizer.shown(found.candidates.ids[row].tolist()) == tokens[:4]
        assert sorted(found.ranks[row]) == list(range(1, size + 1))
        points = ranks_of(size)
        assert found.curve[row] == pytest.approx([want[one - 1].probability for one in points], rel=1e-3)
        for rank in (1, 2, 50, size):
            assert found.share_of(rank)[row] == pytest.approx(want[rank - 1].probability, rel=0.2)


def test_layers_before_a_last_norm_are_given_it(runs: dict[str, Path]) -> None:
    model = loaded(runs["mlm+nsp"])
    _, insides = model.trace(TEXT)
    places = [1, 2]
    with torch.no_grad():
        want = model.named(insides[1].hidden_states, torch.tensor(places)).exp().max(-1).values
    assert by_layer(model, insides, places, top=1).probabilities[1, :, 0] == pytest.approx(want.numpy(), rel=1e-5)
