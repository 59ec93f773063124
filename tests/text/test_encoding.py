from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.text import encoding
from bertloom.text.encoding import BulkEncoder
from bertloom.text.tokenizer import SPECIAL, Tokenizer, word_piece

LETTERS = "abAB ,.!-éÉ한국が\u0301\u200d\t\u00a0\x1c博🙂[MASK]"
VOCABULARY = [*SPECIAL.values(), *"abé,.!-한국が博[]", *(f"##{c}" for c in "abé한국が"), "ab", "##ba", "mask"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=40), max_size=6), st.booleans(), st.sampled_from([None, True, False]))
def test_equal_to_tokenising_each_sentence(sentences: list[str], lowercase: bool, accents: bool | None) -> None:
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(word_piece(vocabulary, lowercase, accents))
    bulk = BulkEncoder(tokenizer, np.uint16)
    assert bulk.separable
    for _ in range(2):
        tokens, lengths = bulk(sentences)
        want = tokenizer.ids(sentences, special=False)
        assert lengths.tolist() == [len(ids) for ids in want]
        assert tokens.tolist() == [number for ids in want for number in ids]


def test_special_tokens_written_out_in_a_text_are_ordinary_letters(tokenizer: Tokenizer) -> None:
    tokens, _ = BulkEncoder(tokenizer, np.uint16)(["end [SEP] of [MASK] a [CLS] segment [PAD]"])
    special = vars(tokenizer.special)
    assert not {special[role] for role in ("sep", "mask", "cls", "pad")} & set(tokens.tolist())
    assert special["mask"] in tokenizer.ids(["a [MASK]"])[0], "but who asks for a mask gets one"


def test_memory_is_bounded(tokenizer: Tokenizer, monkeypatch: object) -> None:
    bulk = BulkEncoder(tokenizer, np.uint16)
    before = encoding.MOST_REMEMBERED
    try:
        encoding.MOST_REMEMBERED = 50
        for start in range(0, 2000, 40):
            bulk([f"w{number}" for number in range(start, start + 40)])
            assert len(bulk.known) <= 50
    finally:
        encoding.MOST_REMEMBERED = before


def test_a_tokenizer_that_looks_across_spaces_is_not_cut(tokenizer_folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer = Tokenizer(backend)
    bulk = BulkEncoder(tokenizer, np.int32)
    assert not bulk.separable
    tokens, _ = bulk(["the cat meows"])
    assert tokens.tolist() == tokenizer.ids(["the cat meows"], special=False)[0]
