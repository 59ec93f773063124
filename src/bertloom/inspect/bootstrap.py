"""Intervals by drawing what was measured again and again (Efron 1979).

S things that were measured, K figures of each, R draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SAMPLES, TAILS = 1000, (2.5, 97.5)


def sums(parts: Array, seed: int) -> Array:
    """(R, K) of parts (S, K) the sums over drawn things; of one thing, which can be drawn in one way alone, none."""
    size = len(parts)
    draws = np.random.default_rng(seed).integers(0, size, (SAMPLES if size > 1 else 0, size))
    return np.asarray(parts[draws].sum(1))


def bounds(drawn: Array) -> Array:
    """(2, K) the interval of 95 % of drawn figures (R, K), nan where none is known.

    A draw in which a figure cannot be had (none of one kind in it) tells nothing.
    """
    made = [np.percentile(known, TAILS) if len(known := one[~np.isnan(one)]) else np.full(2, np.nan) for one in drawn.T]
    return np.array(made).reshape(-1, 2).T
