from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.errors import InputError
from bertloom.text.conll import sentences
from bertloom.text.counterfactual import PRONOUNS, Swapper, read_pairs
from bertloom.text.sources import ReadCounts, ReadOptions

SWAPS = Swapper([("he", "she"), ("him", "her"), ("his", "her"), ("man", "woman"), ("mr.", "mrs.")], [("Al", "May")])


@pytest.mark.parametrize(
    ("text", "changed", "count"),
    [
        ("He gave her his book.", "She gave him her book.", 3),
        ("The book is his, and this one is hers.", "The book is hers, and this one is hers.", 1),
        ("HER house. Her. Her", "HIS house. Him. Him", 3),
        ("I saw her there with his or her mother.", "I saw him there with her or his mother.", 3),
        ("I saw him. Mr. Smith's man’s dog", "I saw her. Mrs. Smith's woman’s dog", 3),
        ("Al may do it; May has al dente. MAN-made", "May may do it; Al has al dente. WOMAN-made", 3),
        ("manly mankind, human, manhattan", "manly mankind, human, manhattan", 0),
        ("한국어 문장은 그대로", "한국어 문장은 그대로", 0),
        ("", "", 0),
    ],
)  # fmt: skip
def test_words_are_exchanged_and_grammar_kept(text: str, changed: str, count: int) -> None:
    assert SWAPS(text) == (changed, count)


@given(st.text(alphabet=st.sampled_from("he she man Woman, mr. Al's\n한"), max_size=60))
def test_twice_is_as_before_where_no_form_has_two_meanings(text: str) -> None:
    swaps = Swapper([("he", "she"), ("man", "woman"), ("mr.", "mrs.")], [("Al", "May")])
    low = text.lower()
    once, count = swaps(low)
    assert swaps(once) == (low, count)


def test_a_pairs_first_word_leads(tmp_path: Path) -> None:
    assert Swapper([("lady", "gentleman"), ("lord", "lady")]).words == {
        "lady": "gentleman", "lord": "lady", "gentleman": "lady"
    }  # fmt: skip
    file = tmp_path / "pairs.txt"
    file.write_text("# people\nking \t queen \n\nhe she\nking\tqueen\n")
    assert read_pairs(file) == [("king", "queen"), ("he", "she")]


@pytest.mark.parametrize(
    ("text", "said"),
    [("he she\nking\n", ":2: 'king' given, two"), ("a A", ":1: 'a A' given, two different"), ("\n", "no pairs in it")],
)
def test_bad_pairs_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        read_pairs(tmp_path / "pairs.txt")
    with pytest.raises(InputError, match="counterfactual: 'construction worker' given, single words"):
        Swapper([("construction worker", "nurse")])


def test_what_a_pair_says_of_a_pronoun_stands() -> None:
    assert Swapper([("he", "they"), ("his", "their")])("He lost his hat.") == ("They lost their hat.", 2)


def test_scripts_with_marks_and_letters_taken_apart() -> None:
    assert Swapper([("लड़का", "लड़की")])("एक लड़का है") == ("एक लड़की है", 1)
    assert Swapper([("caf\u00e9", "bar")])("Cafe\u0301, cafe") == ("Bar, cafe", 1)


def test_the_fingerprint_is_of_what_is_exchanged() -> None:
    one, same, other = (Swapper(pairs) for pairs in ([("a", "b")], [("b", "a")], [("a", "c")]))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_pronouns_of_real_text_are_told_apart(data: Path) -> None:
    """Of a treebank's `her` and `his` nine in ten of each use become what they should."""
    found: dict[tuple[str, str], list[bool]] = {}
    for tokens in sentences(str(data / "probe" / "en_ewt-train.conllu"), ReadOptions(), ReadCounts()):
        text, ends = "", []
        for token in tokens:
            text += token.cells[1]
            ends.append(len(text))
            text += "" if "SpaceAfter=No" in token.cells[9] else " "
        for token, end in zip(tokens, ends):
            low, tag = token.cells[1].lower(), token.cells[4]
            if low in PRONOUNS and tag in ("PRP", "PRP$"):
                said = SWAPS._other(low, text, end)
                found.setdefault((low, tag), []).append(said == PRONOUNS[low][tag == "PRP"])
    assert {use: len(right) for use, right in found.items()} == {
        ("his", "PRP$"): 381, ("his", "PRP"): 5, ("her", "PRP$"): 102, ("her", "PRP"): 110
    }  # fmt: skip
    assert all(sum(right) >= 0.9 * len(right) for right in found.values())
