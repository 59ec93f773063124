from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertloom.corpus.masks import corrupted, number_to_mask, tokens, whole_words

starts_lists = st.lists(st.booleans(), min_size=0, max_size=200)


@given(starts_lists, st.integers(0, 2**32))
def test_places_are_distinct_in_order_and_of_the_right_number(starts: list[bool], seed: int) -> None:
    made = tokens(np.array(starts, bool), np.random.default_rng(seed))
    assert len(made) == number_to_mask(len(starts)) == len(set(made.tolist()))
    assert made.tolist() == sorted(made.tolist())
    assert all(0 <= place < len(starts) for place in made)


def test_the_share() -> None:
    assert [number_to_mask(n) for n in (0, 1, 3, 10, 100, 126)] == [0, 1, 1, 2, 15, 19]


@given(starts_lists, st.integers(0, 2**32))
def test_words_are_hidden_whole(starts: list[bool], seed: int) -> None:
    made = set(whole_words(np.array(starts, bool), np.random.default_rng(seed)).tolist())
    if not starts:
        assert made == set()
        return
    words, most = np.cumsum(starts), number_to_mask(len(starts))
    assert 1 <= len(made) <= most
    if min(np.unique(words, return_counts=True)[1]) > most:
        assert len(made) == most, "single tokens, where every word is too long"
        return
    touched = {int(words[place]) for place in made}
    assert made == {place for place in range(len(starts)) if int(words[place]) in touched}


def test_words_of_one_piece_fill_the_share_exactly() -> None:
    assert len(whole_words(np.ones(100, bool), np.random.default_rng(0))) == 15


def test_eighty_ten_ten_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    ids = np.full(60_000, 7)
    places = np.arange(0, 60_000, 2)
    ordinary = np.arange(5, 105)
    made = corrupted(ids, places, 4, ordinary, rng)
    assert (made[1::2] == 7).all()
    assert (ids == 7).all(), "the original stays"
    share = [np.mean(made[places] == 4), np.mean(made[places] == 7)]
    # A random token is the original one time in a hundred.
    assert np.allclose(share, [0.8, 0.1 + 0.001], atol=0.01)
    assert set(np.unique(made)) <= {4, *ordinary.tolist()}
    assert 0 not in made, "no special token but [MASK] is put in"
