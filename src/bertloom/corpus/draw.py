"""The order of examples: computed from (seed, index), never stored, so a step number is all a resume needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MASK = (1 << 64) - 1
# Of four, some keys leave neighbours together in small corpora.
ROUNDS = 8


def mix(*words: int) -> int:
    """A 64-bit hash of whole numbers (the finaliser of splitmix64, chained)."""
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


def permuted(index: int, size: int, key: int) -> int:
    """Where a pseudo-random permutation of `range(size)` sends `index`: a Feistel network, walked until inside."""
    assert 0 <= index < size
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(ROUNDS):
            left, right = right, left ^ (mix(key, turn, right) & low)
        index = (left << half) | right
        if index < size:
            return index


@dataclass(frozen=True)
class Draw:
    """What one example is drawn from: the run's seed, the example's index from 0, and its most tokens."""

    seed: int
    index: int
    length: int

    def rng(self) -> np.random.Generator:
        """The one stream of random numbers of this example, from its beginning."""
        return np.random.Generator(np.random.Philox(key=mix(self.seed, self.length, self.index)))
