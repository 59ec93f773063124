"""Texts whose mentions of one thing stand in brackets, as WinoBias': `1 [The clerk] saw the nurse after [she] ran.`"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bertloom.text.records import Place, require_file
from bertloom.text.sources import ReadCounts, ReadOptions, lines, open_bytes

Span = tuple[int, int]


@dataclass(frozen=True)
class Mentioned:
    """A text without its brackets, and where its `mentions` stand in it, in their order."""

    place: Place
    text: str
    mentions: tuple[Span, ...]

    def named(self, span: Span) -> str:
        """The words of a mention."""
        return self.text[span[0] : span[1]]


def mentioned(source: str, options: ReadOptions, counts: ReadCounts) -> Iterator[Mentioned]:
    """The texts of a file, one a line, each with two mentions or more; a leading number is the line's own.

    A malformed line raises with its number, or is left out and counted.
    """
    require_file(source)
    with open_bytes(source) as stream:
        for number, line in lines(source, stream, options, counts):
            if not line.strip():
                continue
            place = Place(source, number)
            found = _mentioned(place, re.sub(r"^\d+\s+", "", line.strip()))
            if isinstance(found, Mentioned):
                yield found
            elif options.on_bad == "error":
                raise place.error(found)
            else:
                counts.mended["malformed line, left out"] += 1


def unbracketed(line: str) -> tuple[str, list[Span]] | str:
    """A text without its brackets and what stood in them, or what is wrong with these."""
    text, opened = "", None
    spans: list[Span] = []
    for part in re.split(r"([\[\]])", line):
        if part == "[" and opened is None:
            opened = len(text)
        elif part == "]" and opened is not None:
            spans.append((opened, len(text)))
            opened = None
        elif part in ("[", "]"):
            return f"a {part!r} without its other given, brackets around mentions allowed, none in another"
        else:
            text += part
    return (text, spans) if opened is None else "a '[' without its other given, brackets around mentions allowed"


def _mentioned(place: Place, line: str) -> Mentioned | str:
    """The text of a line, or what is wrong with it."""
    found = unbracketed(line)
    if isinstance(found, str):
        return found
    text, spans = found[0], [_trimmed(found[0], span) for span in found[1]]
    if len(spans) < 2 or any(start >= end for start, end in spans):
        return f"{len(spans)} mentions in brackets given, at least 2 of a word or more needed"
    return Mentioned(place, text, tuple(spans))


def _trimmed(text: str, span: Span) -> Span:
    """A span without the spaces at its ends, as a few of WinoBias' have."""
    said = text[span[0] : span[1]]
    return span[0] + len(said) - len(said.lstrip()), span[1] - len(said) + len(said.rstrip())
