from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.tasks.schemes import Span, iob2, spans, split, told

TYPES = ("PER", "LOC")


@st.composite
def sentences(draw: st.DrawFn) -> tuple[int, list[Span]]:
    """Units of a sentence and spans apart or side by side in it."""
    found, place = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 3))
        found.append(Span(start, place, draw(st.sampled_from(TYPES))))
    return place + draw(st.integers(0, 2)), found


def written(count: int, found: list[Span], scheme: str) -> list[str]:
    """Tags of spans in a scheme, independently of the code under test."""
    tags = ["O"] * count
    for number, (start, stop, label) in enumerate(found):
        touches = number and found[number - 1].stop == start and found[number - 1].label == label
        for place in range(start, stop):
            first, last = place == start, place == stop - 1
            kind = {
                "iob2": "B" if first else "I",
                "iob1": "B" if first and touches else "I",
                "io": "I",
                "bioes": "S" if first and last else "B" if first else "E" if last else "I",
            }[scheme]
            tags[place] = f"{kind}-{label}"
    return tags


def fail(place: int, said: str) -> None:
    raise AssertionError(f"{place}: {said}")


@given(sentences(), st.sampled_from(["iob1", "iob2", "bioes"]))
def test_every_scheme_gives_its_spans_back(sentence: tuple[int, list[Span]], scheme: str) -> None:
    count, found = sentence
    assert spans(written(count, found, scheme), scheme, fail) == found


@given(sentences())
def test_iob2_is_written_as_it_is_read(sentence: tuple[int, list[Span]]) -> None:
    count, found = sentence
    assert iob2(count, found) == written(count, found, "iob2")


def test_the_scheme_is_told() -> None:
    found = [Span(0, 2, "PER"), Span(3, 4, "LOC"), Span(4, 6, "LOC")]
    for scheme in ("iob1", "iob2", "bioes"):
        assert told([written(7, found, scheme)]) == scheme
    assert told([written(7, found[:2], "io")]) == "io"
    assert told([["L-PER", "U-LOC"]]) == "bioes", "BILOU has other letters for the same"
    assert told([["NOUN", "VERB"]]) == "plain"
    assert told([["O", "O"]]) == "iob2"


@pytest.mark.parametrize(
    ("tags", "scheme", "place", "said"),
    [
        (["O", "I-PER"], "iob2", 1, "tag 'I-PER' after O is not legal in IOB2"),
        (["B-PER", "I-LOC"], "iob2", 1, "tag 'I-LOC' after B-PER is not legal"),
        (["O", "B-PER"], "iob1", 1, "tag 'B-PER' after O is not legal in IOB1"),
        (["B-PER", "O"], "bioes", 1, "tag 'O' after B-PER is not legal"),
        (["O", "E-PER"], "bioes", 1, "tag 'E-PER' after O"),
        (["B-PER"], "bioes", 0, "at the end is not legal"),
        (["S-PER"], "iob2", 0, "tag 'S-PER' is not legal in IOB2"),
        (["B-PER"], "io", 0, "is not legal in IO"),
    ],
)
def test_illegal_tags_are_named_and_mended(tags: list[str], scheme: str, place: int, said: str) -> None:
    faults: list[tuple[int, str]] = []
    found = spans(tags, scheme, lambda at, why: faults.append((at, why)))
    assert faults[0][0] == place
    assert said in faults[0][1]
    assert spans(tags, scheme) == found, "the same without anyone to tell"


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B-", "-PER", "BI-PER"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="O or one of B- I- E- S-"):
        split(tag)


def test_one_odd_tag_makes_no_other_scheme() -> None:
    good = [["B-PER", "O", "B-LOC", "I-LOC"]] * 9
    assert told([*good, ["S-PER", "O"]]) == "iob2"
    whole = [["S-PER", "O", "B-LOC", "E-LOC"]] * 9
    assert told([*whole, ["B-PER", "O"]]) == "bioes"
    assert told(whole) == "bioes"
    assert told([["U-PER", "O", "B-LOC", "I-LOC", "L-LOC"]]) == "bioes"
