"""One or two texts' ids between special tokens: the input of every model here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertloom.text.tokenizer import Special

Ints = npt.NDArray[np.int64]


def sequence(special: Special, first: Sequence[int], second: Sequence[int] | None = None) -> tuple[Ints, Ints]:
    """(n,) ids and segments: `[CLS] first [SEP]`, and `second [SEP]` after it where there is one.

    Some tokenizers have two separators between two texts, of which the other begins the second, and some no segments.
    """
    ids = [special.cls, *first, special.sep]
    if second is None:
        return np.array(ids, np.int64), np.zeros(len(ids), np.int64)
    after = [*[special.sep] * (special.between - 1), *second, special.sep]
    return np.array(ids + after, np.int64), np.repeat([0, int(special.segments)], [len(ids), len(after)])


def room(special: Special, most: int, pair: bool = False) -> int:
    """How many of a sequence's `most` tokens are left for one text, or for two together."""
    return most - 2 - pair * special.between


def kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens each of two texts keeps of `room`: the longer gives way, as in `tokenizers`' longest first."""
    if first + second <= room:
        return first, second
    small = min(first, second)
    large = max(small, room - small)
    if small + large > room:
        small, large = room // 2, room - room // 2
    return (small, large) if first <= second else (large, small)
