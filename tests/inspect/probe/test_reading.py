from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertloom.api import Model
from bertloom.inspect.probe.reading import bounds, means, seen
from bertloom.text.sources import ReadCounts
from tests.inspect.conftest import DIRECTIONS, loaded
from tests.inspect.probe.test_heads import TREES


@pytest.mark.parametrize("name", DIRECTIONS)
def test_what_is_seen_is_each_texts_own(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name])
    for one in seen(model, TREES[:3], ReadCounts()):
        tokens, insides = model.trace(one.source.text)
        assert len(one.example) == len(tokens)
        assert one.states == pytest.approx(np.stack([layer.hidden_states.numpy() for layer in insides]), abs=1e-4)
        found = np.stack([layer.attentions[0].numpy() for layer in insides[1:]])
        assert one.attentions == pytest.approx(found, abs=1e-5)


def test_words_and_their_pieces(model: Model) -> None:
    (one,) = seen(model, TREES[:1], ReadCounts())
    to = one.to_words(one.source.spans)
    assert to.sum(0).tolist() == [0, *[1] * len(one.places), 0], "each piece is of one word"
    assert to[0].sum() == len(model.tokenizer.ids(["Nobody"])[0])
    some = one.to_words([one.source.spans[3]])
    assert (some == to[3:4]).all(), "other words' pieces are of none"
    assert means(np.array([[0, 2, 0, 2], [0, 0, 0, 0]], np.float32))[0].tolist() == [0, 0.5, 0, 0.5]


def test_bounds_are_of_drawn_texts() -> None:
    hits, sizes = np.array([[1, 0], [1, 0], [0, 0], [1, 0]] * 25), np.array([1, 1, 1, 1] * 25)
    low, high = bounds(hits, sizes, 0)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 100)
    assert (low[0], high[0]) == pytest.approx((0.75 - half, 0.75 + half), abs=0.02)
    assert (low[1], high[1]) == (0, 0)
