"""Where tokens stand in a text as it was given: in whole letters, whatever was normalised."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Voiced kana's marks at half width, and what joins emoji.
JOINED = "\uff9e\uff9f\u200d"
# Medial and final letters of Hangul syllables that are spelt out, tones of skin, and tags of flags.
FOLLOWERS = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7fb"), ("\U0001f3fb", "\U0001f3ff"), ("\U000e0020", "\U000e007f"))
# Letters that make a flag two by two.
FLAGS = "".join(map(chr, range(0x1F1E6, 0x1F200)))


def places(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets without the space before, which some tokenizers make part of a word, and with whole letters.

    What normalisation joined or took away has no offset of its own, and a part of a letter is no place.
    """
    letters = None if text.isascii() else _letters(text)
    made = []
    for start, end in offsets:
        begin = end - len(text[start:end].lstrip())
        if begin < end:
            start, end = (letters[begin][0], letters[end - 1][1]) if letters else (begin, end)
        made.append((start, end))
    return made


def _letters(text: str) -> list[tuple[int, int]]:
    """Of each character the letter that it is part of, as its first character and one past its last."""
    found: list[tuple[int, int]] = []
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not _goes_on(text[place], text[place - 1], place - start):
            found += [(start, place)] * (place - start)
            start = place
    return found


def _goes_on(character: str, before: str, length: int) -> bool:
    """Whether a character belongs to the letter before it, of so many characters."""
    if before.isspace():
        return False
    if character in FLAGS:
        return before in FLAGS and length == 1
    joins = unicodedata.category(character)[0] == "M" or character in JOINED or before == "\u200d"
    return joins or any(first <= character <= last for first, last in FOLLOWERS)
