"""One or two texts' ids between special tokens: the input of every model here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertloom.text.tokenizer import Special

Ints = npt.NDArray[np.int64]


def sequence(special: Special, first: Sequence[int], second: Sequence[int] | None = None) -> tuple[Ints, Ints]:
    """(n,) ids and segments: `[CLS] first [SEP]`, and `second [SEP]` after it where there is one."""
    ids = [special.cls, *first, special.sep]
    segments = np.zeros(len(ids) + (0 if second is None else len(second) + 1), np.int64)
    if second is not None:
        segments[len(ids) :] = 1
        ids += [*second, special.sep]
    return np.array(ids, np.int64), segments


def room(most: int, pair: bool = False) -> int:
    """How many of a sequence's `most` tokens are left for one text, or for two together."""
    return most - (3 if pair else 2)


def kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens each of two texts keeps of `room`: the longer gives way, as in `tokenizers`' longest first."""
    if first + second <= room:
        return first, second
    small = min(first, second)
    large = max(small, room - small)
    if small + large > room:
        small, large = room // 2, room - room // 2
    return (small, large) if first <= second else (large, small)
