from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertloom.tasks.augment import augmented, delete, replace, swap

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "한국어"]), min_size=1, max_size=12)


@given(words, st.floats(0, 1), st.integers(0, 2**32))
def test_deletion_keeps_order_and_a_word(given: list[str], share: float, seed: int) -> None:
    left = delete(" ".join(given), share, np.random.default_rng(seed)).split()
    assert left
    rest = iter(given)
    assert all(word in rest for word in left), "a subsequence"
    if len(given) > 1:
        assert len(left) == max(1, len(given) - max(1, round(share * len(given))))


@given(words, st.floats(0, 1), st.integers(0, 2**32))
def test_swaps_keep_the_words(given: list[str], share: float, seed: int) -> None:
    swapped = swap(" ".join(given), share, np.random.default_rng(seed)).split()
    assert Counter(swapped) == Counter(given)


def test_masked_words_are_replaced_by_what_the_model_puts_there() -> None:
    asked: list[str] = []

    def fill(text: str) -> list[list[tuple[str, float]]]:
        asked.append(text)
        return [[("cat", 0.6), ("dog", 0.3), ("##s", 0.1)] for _ in range(text.count("[MASK]"))]

    made = replace("the cat met the cat", 0.4, np.random.default_rng(0), fill)
    assert asked[0].count("[MASK]") == 2
    before, after = ["the", "cat", "met", "the", "cat"], made.split()
    changed = [(one, other) for one, other in zip(before, after) if one != other]
    assert changed
    for one, other in changed:
        assert other == ("dog" if one == "cat" else other)
        assert other in ("cat", "dog")


def test_signs_around_a_word_stay() -> None:
    masked: list[str] = []

    def fill(text: str) -> list[list[tuple[str, float]]]:
        masked.append(text)
        return [[("dog", 1.0)] for _ in range(text.count("[MASK]"))]

    assert replace('"it", … (cat).', 1.0, np.random.default_rng(0), fill) == '"dog", … (dog).'
    assert masked == ['"[MASK]", … ([MASK]).']
    assert replace("¿Qué? ‹oui› हिन्दी!", 1.0, np.random.default_rng(0), fill) == "¿dog? ‹dog› dog!"
    assert replace("… —", 1.0, np.random.default_rng(0), fill) == "… —"


def test_the_same_rng_gives_the_same_text() -> None:
    for way in ("delete", "swap"):
        texts = {
            augmented("one two three four five", way, 0.4, np.random.default_rng(3), lambda text: []) for _ in "ab"
        }
        assert len(texts) == 1


def test_a_text_with_masks_of_its_own_stays() -> None:
    text = "the [MASK] lives here"
    assert replace(text, 0.5, np.random.default_rng(0), lambda masked: [[("dog", 1.0)]] * 3) == text
