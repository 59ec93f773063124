from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bertloom.text.sequence import kept, room, sequence
from bertloom.text.tokenizer import Special


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_two_texts_are_cut_as_tokenizers_cuts_them(first: int, second: int, most: int) -> None:
    backend = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.pre_tokenizer = Whitespace()
    backend.enable_truncation(most, strategy="longest_first")
    found = backend.encode(" ".join("a" * first), " ".join("b" * second)).ids
    assert kept(first, second, most) == (found.count(0), found.count(1))


def test_one_text_or_two_between_special_tokens() -> None:
    special = Special(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert [one.tolist() for one in sequence(special, [7, 8])] == [[2, 7, 8, 3], [0, 0, 0, 0]]
    assert [one.tolist() for one in sequence(special, [7], [8])] == [[2, 7, 3, 8, 3], [0, 0, 0, 1, 1]]
    assert (room(special, 10), room(special, 10, True)) == (8, 7)
    two = Special(pad=0, unk=1, cls=2, sep=3, mask=4, between=2)
    assert [one.tolist() for one in sequence(two, [7], [8])] == [[2, 7, 3, 3, 8, 3], [0, 0, 0, 1, 1, 1]]
    assert (room(two, 10), room(two, 10, True)) == (8, 6)
