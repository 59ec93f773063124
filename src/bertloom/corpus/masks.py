"""Masks: which tokens are hidden and what stands in their place (Devlin et al. 2019, §3.1). Plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertloom.example import Ints

SHARE = 0.15


def number_to_mask(candidates: int, share: float = SHARE) -> int:
    """How many of `candidates` tokens are hidden: the share, rounded, at least one if there is any."""
    return min(candidates, max(1, round(share * candidates)))


def tokens(starts: npt.NDArray[Any], rng: np.random.Generator, share: float = SHARE) -> Ints:
    """Places of single tokens to hide, in order, among `len(starts)` tokens."""
    size = len(starts)
    return np.sort(rng.permutation(size)[: number_to_mask(size, share)]).astype(np.int64)


def whole_words(starts: npt.NDArray[Any], rng: np.random.Generator, share: float = SHARE) -> Ints:
    """Places of whole words to hide: words drawn at random while they fit in the share; of tokens where none does.

    `starts` (n,) tells where words begin; what stands before the first start is a word of its own.
    """
    size = len(starts)
    if not size:
        return np.empty(0, np.int64)
    begins, ends = _words(starts)
    lengths = ends - begins
    most = number_to_mask(size, share)
    chosen: list[int] = []
    left = most
    for word in rng.permutation(len(begins)):
        if lengths[word] <= left:
            chosen.append(int(word))
            left -= int(lengths[word])
        if not left:
            break
    if not chosen:
        return tokens(starts, rng, share)
    places = [np.arange(begins[word], begins[word] + lengths[word]) for word in sorted(chosen)]
    return np.concatenate(places).astype(np.int64)


def _words(starts: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Where words begin and end; what stands before the first start is a word of its own."""
    begins = np.flatnonzero(starts)
    if not len(begins) or begins[0]:
        begins = np.concatenate([[0], begins])
    return begins, np.append(begins[1:], len(starts))


def spans(starts: npt.NDArray[Any], rng: np.random.Generator, share: float = SHARE) -> Ints:
    """Places of spans of whole words, their lengths geometric with p = 0.2, at most 10 (Joshi et al. 2020, §3.1)."""
    return _stretches(starts, rng, share, SPAN_LENGTHS)


def ngrams(starts: npt.NDArray[Any], rng: np.random.Generator, share: float = SHARE) -> Ints:
    """Places of one to three whole words together, the shorter the likelier: 1/n (Lan et al. 2020, §4.1)."""
    return _stretches(starts, rng, share, NGRAM_LENGTHS)


# Probabilities of lengths from 1, in proportion to these.
SPAN_LENGTHS = [0.2 * 0.8**n for n in range(10)]
NGRAM_LENGTHS = [1 / n for n in range(1, 4)]


def _stretches(starts: npt.NDArray[Any], rng: np.random.Generator, share: float, lengths: Sequence[float]) -> Ints:
    """Places of stretches of words, drawn with the probabilities of their `lengths` until the share is hidden.

    One that would hide too much is shortened by words; where no word is short enough single tokens are hidden.
    """
    size = len(starts)
    if not size:
        return np.empty(0, np.int64)
    begins, ends = _words(starts)
    left = number_to_mask(size, share)
    free = np.ones(len(begins), bool)
    tries = rng.permutation(len(begins))
    wanted = rng.choice(len(lengths), size=len(begins), p=np.divide(lengths, sum(lengths))) + 1
    chosen = np.zeros(size, bool)
    for word, words in zip(tries, wanted):
        last = int(word)
        while last < min(len(begins), word + words) and free[last] and ends[last] - begins[word] <= left:
            free[last] = False
            last += 1
        if last > word:
            chosen[begins[word] : ends[last - 1]] = True
            left -= int(ends[last - 1] - begins[word])
        if not left:
            break
    if not chosen.any():
        return tokens(starts, rng, share)
    return np.flatnonzero(chosen)


# What becomes of a hidden token: [MASK], or a random one; else it stays (Devlin et al. 2019, §3.1).
FATES = (0.8, 0.1)


def corrupted(
    ids: Ints,
    places: Ints,
    mask_id: int,
    ordinary: Ints,
    rng: np.random.Generator,
    fates: tuple[float, float] = FATES,
    together: bool = False,
) -> Ints:
    """A copy of `ids` in which a place becomes [MASK], a random ordinary token, or stays, with the shares of `fates`.

    `together` is whether places that stand side by side share their fate.
    """
    result = ids.copy()
    if together and len(places):
        runs = np.cumsum(np.diff(places, prepend=places[0] - 1) != 1)
        fate = rng.random(runs[-1] + 1)[runs]
    else:
        fate = rng.random(len(places))
    random = ordinary[rng.integers(len(ordinary), size=len(places))]
    hidden, other = fates
    result[places] = np.where(fate < hidden, mask_id, np.where(fate < hidden + other, random, ids[places]))
    return result


MASKS = {"tokens": tokens, "words": whole_words, "ngrams": ngrams, "spans": spans}
