"""Tagging schemes: tags in any of them to spans, spans to IOB2; what is not legal is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

# What stands before a type: B begins, I goes on, E ends, S is one alone (BIOES); L and U are BILOU's names.
ALIASES = {"L": "E", "U": "S"}
SCHEMES = ("io", "iob1", "iob2", "bioes")
PLAIN = "plain"
OUTSIDE = "O"


class Span(NamedTuple):
    """Units `start` to `stop` of one type."""

    start: int
    stop: int
    label: str


def split(tag: str, scheme: str = "") -> tuple[str, str]:
    """`B-PER` as `("B", "PER")`, the outside tag as `("O", "")`; raises `ValueError` where it is neither.

    In IO a bare type, `PER` or `person-actor`, is `("I", …)`.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if scheme == "io" and tag and tag[:2] not in ("B-", "I-", "E-", "S-", "L-", "U-"):
        return "I", tag
    kind, dash, label = tag.partition("-")
    kind = ALIASES.get(kind, kind)
    if not dash or not label or kind not in "BIES" or len(kind) != 1:
        raise ValueError(f"tag {tag!r} given, O or one of B- I- E- S- with a type allowed")
    return kind, label


def is_tag(tag: str) -> bool:
    """Whether a tag can be split."""
    try:
        split(tag)
    except ValueError:
        return False
    return True


def told(sentences: Sequence[Sequence[str]]) -> str:
    """The scheme of tagged sentences: plain labels, or the one of `SCHEMES` they are written in."""
    kinds: set[str] = set()
    begun = inside = other = 0
    for tags in sentences:
        before = (OUTSIDE, "")
        for tag in tags:
            try:
                now = split(tag)
            except ValueError:
                other += 1
                continue
            kinds.add(now[0])
            if now[0] != OUTSIDE and (before[0] == OUTSIDE or before[1] != now[1]):
                begun += now[0] in "BS"
                inside += now[0] == "I"
            before = now
    if other > begun + inside:
        return PLAIN
    if kinds <= {OUTSIDE}:
        return "iob2"
    # In IOB1 most entities begin with I, in IOB2 none does but by mistake.
    scheme = "iob2" if begun and begun >= inside else "iob1" if "B" in kinds else "io"
    # An odd E or S may be a mistake too.
    ends = kinds & {"E", "S"} and _faults(sentences, "bioes") <= _faults(sentences, scheme)
    return "bioes" if ends else scheme


def _faults(sentences: Sequence[Sequence[str]], scheme: str) -> int:
    """How many tags are not legal in a scheme."""
    found: list[int] = []
    for tags in sentences:
        spans([tag for tag in tags if is_tag(tag)], scheme, lambda unit, said: found.append(unit))
    return len(found)


def _goes_on(scheme: str, before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether a tag continues the entity before it."""
    if OUTSIDE in (before[0], now[0]) or before[1] != now[1]:
        return False
    if scheme == "bioes" and before[0] in "ES":
        return False
    return now[0] == "I" or (scheme == "bioes" and now[0] == "E")


def spans(tags: Sequence[str], scheme: str, fault: Callable[[int, str], None] | None = None) -> list[Span]:
    """The entities of a sentence's tags; what is not legal is told to `fault` by unit, and mended as conlleval does."""
    found: list[Span] = []
    before = (OUTSIDE, "")
    start = 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        now = split(tag, scheme)
        on = _goes_on(scheme, before, now)
        if place < len(tags) and fault and (why := _illegal(scheme, before, now, on)):
            fault(place, f"tag {tag!r} {why}")
        if place == len(tags) and fault and scheme == "bioes" and before[0] in "BI":
            fault(place - 1, f"tag {tags[-1]!r} at the end is not legal in BIOES")
        if not on:
            if before[0] != OUTSIDE:
                found.append(Span(start, place, before[1]))
            start = place
        before = now
    return found


def _illegal(scheme: str, before: tuple[str, str], now: tuple[str, str], on: bool) -> str | None:
    named = "O" if before[0] == OUTSIDE else "-".join(before)
    allowed = {"io": "OI", "iob1": "OIB", "iob2": "OIB", "bioes": "OIBES"}[scheme]
    if now[0] not in allowed:
        return f"is not legal in {scheme.upper()}"
    if scheme == "iob1" and now[0] == "B" and (before[0] == OUTSIDE or before[1] != now[1]):
        return f"after {named} is not legal in IOB1, where B divides two entities of one type"
    if scheme in ("iob2", "bioes") and now[0] in "IE" and not on:
        return f"after {named} is not legal in {scheme.upper()}"
    if scheme == "bioes" and before[0] in "BI" and not on:
        return f"after {named} is not legal in BIOES"
    return None


def iob2(count: int, found: Sequence[Span]) -> list[str]:
    """The tags of `count` units with these spans."""
    tags = [OUTSIDE] * count
    for start, stop, label in found:
        tags[start:stop] = [f"B-{label}", *[f"I-{label}"] * (stop - start - 1)]
    return tags
