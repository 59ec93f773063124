from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.corpus import Corpus, Draw
from bertloom.corpus.draw import mix, permuted
from bertloom.corpus.order import Chunks, chunks, sentence_of
from bertloom.errors import InputError


@given(st.integers(1, 600), st.integers(0, 2**64 - 1))
def test_the_order_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(index, size, key) for index in range(size)) == list(range(size))


def test_the_order_differs_by_key_and_is_not_the_identity() -> None:
    first, second = ([permuted(index, 100, key) for index in range(100)] for key in (1, 2))
    assert first != second != list(range(100))


def test_neighbours_stay_together_as_often_as_chance_has_it() -> None:
    orders = np.array([[permuted(index, 250, mix(11, key)) for index in range(250)] for key in range(300)])
    near = (np.abs(np.diff(orders)) <= 2).sum(1)
    # Chance: about a Poisson number of mean 4, whose variance is that too.
    assert near.mean() == pytest.approx(4, abs=0.4)
    assert near.var() == pytest.approx(4, abs=1.2)


def test_hashes_differ_in_every_argument() -> None:
    assert len({mix(), mix(0), mix(0, 0), mix(1, 0), mix(0, 1)}) == 5


def test_a_draws_numbers_are_its_own_and_begin_anew() -> None:
    draw = Draw(1, 2, 64)
    assert draw.rng().random() == draw.rng().random()
    others = [Draw(2, 2, 64), Draw(1, 3, 64), Draw(1, 2, 65)]
    assert draw.rng().random() not in [other.rng().random() for other in others]


@pytest.mark.parametrize("stride", [7, 30, 1000])
def test_every_token_is_in_a_run_of_its_epoch(corpus: Corpus, stride: int) -> None:
    made = chunks(corpus, stride)
    for epoch in (0, 1):
        seen = np.zeros(len(corpus.tokens), bool)
        for index in range(epoch * len(made), (epoch + 1) * len(made)):
            place = made.place(Draw(9, index, 0))
            first, end = corpus.spans[place.document], corpus.spans[place.document + 1]
            assert first <= place.token < end
            seen[place.token : min(end, place.token + stride)] = True
        # A run begins at its sentence, so that the tail of one may be missed; the next epoch cuts elsewhere.
        assert seen.mean() > 0.8


def test_runs_begin_at_sentences_unless_one_is_longer_than_a_run(corpus: Corpus) -> None:
    made = chunks(corpus, 30)
    longest = int(np.diff(corpus.sentences).max())
    for index in range(200):
        token = made.place(Draw(0, index, 0)).token
        start = int(corpus.sentences[sentence_of(corpus, token)])
        assert token == start or longest > 30


def test_epochs_cut_documents_elsewhere(corpus: Corpus) -> None:
    made = chunks(corpus, 30)
    epochs = [{made.place(Draw(3, epoch * len(made) + n, 0)).token for n in range(len(made))} for epoch in (0, 1)]
    assert epochs[0] != epochs[1]


def test_epochs_visit_documents_in_another_order(corpus: Corpus) -> None:
    made = chunks(corpus, 30)
    first, second = (
        [made.place(Draw(3, epoch * len(made) + n, 0)).document for n in range(len(made))] for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second)
    assert first != second


def test_no_document_long_enough(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="no document with 1000 sentences"):
        Chunks(corpus, 10, 1000)
