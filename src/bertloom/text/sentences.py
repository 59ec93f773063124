"""Sentences of a paragraph, by the `sentencex` library, in the language the script suggests or the user names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import sentencex

# The script of a letter tells the language well enough for its sentence marks; Latin text is read as English.
SCRIPTS: dict[str, re.Pattern[str]] = {
    "ko": re.compile("[\uac00-\ud7a3\u1100-\u11ff]"),
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "hy": re.compile("[\u0530-\u058f]"),
}
NOT_LATIN = re.compile("|".join(script.pattern for script in SCRIPTS.values()))


def language_of(text: str) -> str:
    """A language code for `text` by the script of at least a fifth of its first thousand characters."""
    head = text[:1000]
    if not NOT_LATIN.search(head):
        return "en"
    return next((code for code, script in SCRIPTS.items() if 5 * len(script.findall(head)) >= len(head)), "en")


def sentences(paragraphs: Iterable[str], language: str = "auto") -> Iterator[str]:
    """The sentences of each paragraph, without the white space around them; no sentence is empty."""
    for paragraph in paragraphs:
        code = language_of(paragraph) if language == "auto" else language
        for sentence in sentencex.segment(code, paragraph):
            if sentence := sentence.strip():
                yield sentence
