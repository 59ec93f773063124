"""A tagged text: its units and their tags, made of words or of spans."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from bertloom.tasks import schemes
from bertloom.tasks.task import Record
from bertloom.text.records import Place, Row

Unit = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Tagged(Record):
    """A text, where its units (words, or single characters) stand in it, and a tag for each as it was written."""

    text: str
    units: tuple[Unit, ...]
    words: bool
    tags: tuple[str, ...] | None = None
    # Whether the units are the user's own, whose tags are told beside the entities.
    given: bool = True
    # The line of each unit where units have lines.
    lines: tuple[int, ...] = ()

    def place_of(self, unit: int) -> Place:
        """Where a unit stands, as exactly as is known."""
        return replace(self.place, line=self.lines[unit]) if self.lines else self.place


def joined(words: Sequence[str], between: str) -> tuple[str, tuple[Unit, ...]]:
    """Words as one text, and where each stands in it."""
    units, start = [], 0
    for word in words:
        units.append((start, start + len(word)))
        start += len(word) + len(between)
    return between.join(words), tuple(units)


def words_of(text: str) -> tuple[Unit, ...]:
    """Runs of letters and digits, and single other signs, as most tagged corpora cut words."""
    return tuple(match.span() for match in re.finditer(r"\w+|[^\w\s]", text))


def tags_of_words(row: Row, name: str | None, count: int, place: Place) -> tuple[str, ...] | None:
    """A row's list of tags, one for each word; None where it has none."""
    if name is None or row[name] is None:
        return None
    given = row[name]
    if not isinstance(given, list) or len(given) != count:
        raise place.error(f"field {name!r} holds no list of {count} tags, as many as words needed")
    for tag in given:
        if not isinstance(tag, str | int) or isinstance(tag, bool) or not str(tag).strip():
            raise place.error(f"field {name!r} holds the tag {tag!r}, texts allowed")
    return tuple(str(tag).strip() for tag in given)


def tags_of_spans(given: Any, text: str, name: str, place: Place) -> tuple[str, ...]:
    """IOB2 tags of characters, from `{"start", "end", "label"}` or `[start, end, label]`."""
    if not isinstance(given, list):
        raise place.error(f"field {name!r} holds a {type(given).__name__}, a list of spans allowed")
    found = []
    for one in given:
        start, end, label = (one.get(key) for key in ("start", "end", "label")) if isinstance(one, dict) else (
            one if isinstance(one, list) and len(one) == 3 else (None, None, None)
        )  # fmt: skip
        if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label:
            raise place.error(f"span {json.dumps(one, ensure_ascii=False)[:80]} given, start, end and label allowed")
        if not 0 <= start < end <= len(text):
            raise place.error(f"span {start} to {end} given, inside the text's {len(text)} characters allowed")
        # A space at an end belongs to no entity, and no piece stands for it.
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start == end:
            raise place.error(f"span {json.dumps(one, ensure_ascii=False)[:80]} given, which holds space alone")
        found.append(schemes.Span(start, end, label))
    found.sort()
    for before, after in pairwise(found):
        if before.stop > after.start:
            raise place.error(f"spans {before[:2]} and {after[:2]} overlap, apart allowed")
    return tuple(schemes.iob2(len(text), found))
