"""New training texts out of old ones, for small sets (Wei & Zou 2019; Wu et al. 2019): plain functions."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

MASK = "[MASK]"
# Given a text with masks, of each the likeliest words with their probabilities.
Fill = Callable[[str], Sequence[Sequence[tuple[str, float]]]]


def _chosen(count: int, share: float, rng: np.random.Generator) -> list[int]:
    """A share of `count` places, at least one."""
    return sorted(rng.permutation(count)[: max(1, round(share * count))].tolist())


def _bounds(word: str) -> tuple[int, int]:
    """Where a word stands among the signs at its ends, quotes, brackets, commas, which stay; nowhere in signs alone."""
    own = [place for place, letter in enumerate(word) if unicodedata.category(letter)[0] not in "PS"]
    return (own[0], own[-1] + 1) if any(map(str.isalnum, word)) else (0, 0)


def delete(text: str, share: float, rng: np.random.Generator) -> str:
    """The text without a share of its words; one word always stays."""
    words = text.split()
    gone = set(_chosen(len(words), share, rng)) if len(words) > 1 else set()
    return " ".join(word for number, word in enumerate(words) if number not in gone) or words[0]


def swap(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with a share of its words exchanged for others of it."""
    words = text.split()
    for place in _chosen(len(words), share / 2, rng) if len(words) > 1 else []:
        other = int(rng.integers(len(words)))
        words[place], words[other] = words[other], words[place]
    return " ".join(words)


def replace(text: str, share: float, rng: np.random.Generator, fill: Fill) -> str:
    """The text with a share of its words replaced by others that a masked language model puts there."""
    words = text.split()
    if MASK in text:
        # Its own masks would be filled too.
        return text
    places = _chosen(len(words), share, rng) if words else []
    bounds = list(map(_bounds, words))
    places = [place for place in places if bounds[place][0] < bounds[place][1]]
    masked = list(words)
    for place in places:
        start, stop = bounds[place]
        masked[place] = words[place][:start] + MASK + words[place][stop:]
    for place, candidates in zip(places, fill(" ".join(masked)) if places else []):
        start, stop = bounds[place]
        old = words[place][start:stop]
        new = [(word, share) for word, share in candidates if word.isalnum() and word.lower() != old.lower()]
        if new:
            shares = np.array([share for _, share in new])
            chosen = new[int(rng.choice(len(new), p=shares / shares.sum()))][0]
            words[place] = words[place][:start] + chosen + words[place][stop:]
    return " ".join(words)


# By name; `mask` needs the model to fill in.
WAYS = ("mask", "delete", "swap")


def augmented(text: str, way: str, share: float, rng: np.random.Generator, fill: Fill) -> str:
    """The text changed in the way of that name."""
    if way == "mask":
        return replace(text, share, rng, fill)
    return (delete if way == "delete" else swap)(text, share, rng)
