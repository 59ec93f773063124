"""Masks: which tokens are hidden and what stands in their place (Devlin et al. 2019, §3.1). Plain functions."""

from __future__ import annotations

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
    """Places of whole words to hide: words drawn at random while they fit in the share; at least one token.

    `starts` (n,) tells where words begin; what stands before the first start is a word of its own.
    """
    size = len(starts)
    if not size:
        return np.empty(0, np.int64)
    begins = np.flatnonzero(starts)
    if not len(begins) or begins[0]:
        begins = np.concatenate([[0], begins])
    lengths = np.diff(np.append(begins, size))
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
        chosen = [int(np.argmin(lengths))]
    places = [np.arange(begins[word], begins[word] + lengths[word]) for word in sorted(chosen)]
    return np.concatenate(places).astype(np.int64)


def corrupted(ids: Ints, places: Ints, mask_id: int, ordinary: Ints, rng: np.random.Generator) -> Ints:
    """A copy of `ids` in which a place becomes [MASK] (80 %), a random ordinary token (10 %) or stays (10 %)."""
    result = ids.copy()
    fate = rng.random(len(places))
    random = ordinary[rng.integers(len(ordinary), size=len(places))]
    result[places] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, random, ids[places]))
    return result


MASKS = {"tokens": tokens, "words": whole_words}
