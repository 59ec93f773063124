"""Word pieces, byte pairs and sentence pieces behind one interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bertloom.errors import InputError
from bertloom.text.encoding import BulkEncoder
from bertloom.text.sequence import sequence
from bertloom.text.tokenizer import ALBERT, ROBERTA, Tokenizer, _stands_alone, unigram
from bertloom.text.vocabulary import KINDS, train_vocabulary

LINES = [
    "The cat lives in the house, and every house has a cat.",
    "한국어 문장도 여기에 있습니다. 고양이는 집에서 산다.",
    "Ein großer Kater wohnt über dem Café; naïve Füchse nicht.",
    "Nobody knows how many cats are living in these old houses.",
    "그 고양이는 매일 밤 오래된 집의 지붕 위에서 노래를 부른다.",
] * 30
SIZES = {"wordpiece": 150, "bpe": 320, "unigram": 90}


@cache
def trained(kind: str) -> Tokenizer:
    return train_vocabulary(LINES, SIZES[kind], kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_what_was_asked_for(kind: str) -> None:
    assert len(trained(kind)) == SIZES[kind]
    with pytest.raises(InputError, match=r"size: 1000000 given, (at most \d+|none) supported|vocab"):
        train_vocabulary(LINES, 10**6, kind=kind)
    with pytest.raises(InputError, match="no words in the text"):
        train_vocabulary([" ", ""], 500, kind=kind)


def test_paragraphs_without_spaces_are_learned_of() -> None:
    line = "彼女は毎朝駅前の小さな喫茶店で珈琲を飲みながら新聞を読む。猫は窓辺で眠り続ける。"
    lines = [line * 3 + str(number) for number in range(100)] + ["a cat lives here"] * 50
    tokenizer = train_vocabulary(lines, 71, kind="unigram")
    (ids,) = tokenizer.ids([line * 3])
    assert tokenizer.special.unk not in ids
    assert len(ids) < len(line * 3)


def test_kinds_that_are_none() -> None:
    with pytest.raises(InputError, match="kind: unknown 'bppe', did you mean 'bpe'"):
        train_vocabulary(LINES, 500, kind="bppe")
    with pytest.raises(InputError, match="size: 200 given, at least 261 allowed: every byte is a token"):
        train_vocabulary(LINES, 200, kind="bpe")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_same_text_gives_the_same_bytes_in_any_process(kind: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.text.test_kinds import trained; "
        "trained(sys.argv[1]).save(Path(sys.argv[2]))"
    )
    found = set()
    for number, threads in enumerate(("1", "2")):
        folder = tmp_path / str(number)
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "RAYON_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, kind, str(folder)], check=True, env=environment)
        found.add((folder / "tokenizer.json").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same_ids_to_texts_and_pairs(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    first, second = "The Café, 한국어!", "old  cats 🙂"
    ids = tokenizer.ids([first, second])
    assert theirs(first)["input_ids"] == sequence(tokenizer.special, ids[0])[0].tolist()
    assert theirs(first, second)["input_ids"] == sequence(tokenizer.special, *ids)[0].tolist()
    assert theirs.mask_token == tokenizer.spelt["mask"]
    assert Tokenizer.load(tmp_path).ids([first]) == [ids[0]]
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


def test_robertas_files_without_a_tokenizer_json(tmp_path: Path) -> None:
    trained("bpe").save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    again = Tokenizer.load(tmp_path)
    assert again.special.between == 2
    assert again.special.ids == {"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": 319}
    texts = ["Über 한국어 🙂", "", " the  cat "]
    assert again.ids(texts) == trained("bpe").ids(texts)
    first = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()[1]
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{first}\nno pair here\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"merges.txt:3: 'no pair here' given, two tokens"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"vocab.json: no merges.txt beside it"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_text("")
    for content, said in (('{"a": 0}', "no <pad> <unk> <s> </s> <mask> in the vocabulary"), ("[]", "is no vocabulary")):
        (tmp_path / "vocab.json").write_text(content)
        with pytest.raises(InputError, match=said):
            Tokenizer.load(tmp_path)


def test_alberts_sentence_pieces_without_a_tokenizer_json(tmp_path: Path) -> None:
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(LINES), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=90, minloglevel=2,
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece="<pad>", unk_piece="<unk>", bos_piece="[CLS]",
        eos_piece="[SEP]", user_defined_symbols="[MASK]",
    )  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "keep_accents": True}))
    tokenizer = Tokenizer.load(tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for line in LINES[:5]:
        assert tokenizer.ids([line]) == [processor.encode(line)]
    # Without settings as `transformers`, which drops accents and mends quotes; it tears Hangul, which we do not.
    for told in ({}, {"keep_accents": True}, {"do_lower_case": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer", **told}))
        tokenizer, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
        for line in (LINES[0], *LINES[2:4], "Café naïve", "``hello'' x", "İstanbul"):
            assert tokenizer.ids([line]) == [theirs(line, add_special_tokens=False)["input_ids"]]
        assert tokenizer.ids(LINES[1:2]) == [processor.encode(LINES[1])]
    (tmp_path / "spiece.model").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no model of sentence pieces"):
        Tokenizer.load(tmp_path)


def test_a_size_below_the_letters_is_refused_with_the_least() -> None:
    lines = [" ".join(map(chr, range(0xAC00, 0xAC00 + 200)))] * 3
    with pytest.raises(InputError, match=r"size: 100 given, at least 2\d\d allowed: every letter that is kept"):
        train_vocabulary(lines, 100, kind="unigram")


def test_accents_and_hangul_are_kept_unless_asked() -> None:
    pieces = [(token, 0.0) for token in ALBERT.values()]
    kept, stripped = (unigram(pieces, True, strip).normalizer for strip in (False, True))
    assert kept.normalize_str("É 한국어 が") == "é 한국어 が"
    assert stripped.normalize_str("É") == "e"
    assert kept.normalize_str(unicodedata.normalize("NFD", "한국어")) == "한국어"


alphabet = st.sampled_from(
    [*"abc Tthe,.\t\n한국어éÉ", "e\u0301", "🙂", "👨‍👩‍👧", "か\u3099", "ﬁ", "\u1112\u1161\u11ab", "İ", "🇰🇷", "\u00a0"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(alphabet, max_size=30).map("".join), st.sampled_from(list(KINDS)))
@example("e\u0301 🙂 한국어", "bpe")
@example(unicodedata.normalize("NFD", "한국어 café"), "unigram")
def test_places_point_at_the_users_own_string(text: str, kind: str) -> None:
    tokenizer = trained(kind)
    ((ids, places),) = tokenizer.pieces([text])
    assert ids == tokenizer.ids([text], special=False)[0]
    assert len(ids) == len(places)
    for (start, end), number in zip(places, ids):
        assert 0 <= start <= end <= len(text)
        if start == end:
            # A space that byte pairs put before a text, or what a normaliser takes away.
            assert not tokenizer.surface(number).strip() or number == tokenizer.special.unk
        if text[start:end].strip():
            assert text[start:end] == text[start:end].strip(), "no space before or after"
        joined = {place for place in (start, end) if start < end and 0 < place < len(text)}
        assert not any(unicodedata.category(text[one])[0] == "M" for one in joined if text[one - 1].strip())
        assert not any("\u1160" <= text[one] <= "\u11ff" for one in joined if text[one - 1].strip()), "half a syllable"
    assert places == sorted(places), "in the order of the text"
    assert places == tokenizer.spans(text) or "<" in text
    covered = {place for start, end in places for place in range(start, end)}
    for place, character in enumerate(text):
        if place not in covered:
            kinds = unicodedata.category(character)
            assert character.isspace() or kinds[0] in "MC", f"{character!r} is in no piece"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "letter",
    [
        "e\u0301\u0323",
        "\u1112\u1161\u11ab",
        "か\u3099",
        "👨‍👩‍👧",
        "👍🏽",
        "ｶﾞ",
        "🇰🇷",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
)
def test_a_letter_of_several_characters_is_one_place(kind: str, letter: str) -> None:
    text = f"a {letter} b"
    tokenizer = trained(kind)
    for places in (tokenizer.spans(text), tokenizer.pieces([text])[0][1]):
        found = {place for place in places if place[0] < place[1] and text[slice(*place)] not in ("a", "b")}
        assert found == {(2, 2 + len(letter))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segments", [True, False])
def test_transformers_joins_two_texts_as_we_do(kind: str, segments: bool, tmp_path: Path) -> None:
    tokenizer, texts = trained(kind), ["the house", "a cat, the Café"]
    tokenizer.save(tmp_path, segments=segments)
    theirs = AutoTokenizer.from_pretrained(tmp_path)(*texts)
    again = Tokenizer.load(tmp_path)
    ids, of = sequence(again.special, *again.ids(texts))
    assert theirs["input_ids"] == ids.tolist()
    assert theirs.keys() == {"input_ids", "attention_mask", *["token_type_ids"] * segments}
    assert of.tolist() == (theirs["token_type_ids"] if segments else [0] * len(of))
    assert again.special == replace(tokenizer.special, segments=segments)
    assert again.fingerprint == tokenizer.fingerprint


def test_a_model_that_is_given_no_segments_stays_so(tmp_path: Path) -> None:
    backend = trained("wordpiece").backend
    PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(tmp_path)
    assert not Tokenizer.load(tmp_path).special.segments


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_what_a_library_panics_at_is_the_files_fault(kind: str, tmp_path: Path) -> None:
    trained(kind).save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer.json: is no tokenizer"):
        Tokenizer.load(tmp_path)


def test_tokens_are_shown_in_the_texts_own_letters() -> None:
    tokenizer = trained("bpe")
    (ids,) = tokenizer.ids(["the 🙂<mask>"])
    shown = tokenizer.shown(ids)
    assert (shown[0][0], shown[-1]) == ("▁", "<mask>")
    assert not any("Ġ" in one or "ð" in one for one in shown)
    assert tokenizer.shown([tokenizer.special.cls]) == ["<s>"]


@given(st.lists(alphabet, max_size=30).map("".join))
@settings(max_examples=200, deadline=None)
def test_byte_pairs_change_no_text(text: str) -> None:
    tokenizer = trained("bpe")
    decoded = tokenizer.decode(tokenizer.ids([text], special=False)[0])
    assert decoded.removeprefix(" ") == text or decoded == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(alphabet, max_size=20).map("".join), max_size=4), st.sampled_from(["bpe", "unigram"]))
def test_a_corpus_has_the_tokens_of_each_sentence_after_a_space(sentences: list[str], kind: str) -> None:
    tokenizer = trained(kind)
    bulk = BulkEncoder(tokenizer, np.uint16)
    assert bulk.separable
    tokens, lengths = bulk(sentences)
    want = tokenizer.ids([f" {one}" for one in sentences], special=False)
    assert lengths.tolist() == [len(one) for one in want]
    assert tokens.tolist() == [number for one in want for number in one]


@pytest.mark.parametrize("kind", KINDS)
def test_punctuation_is_no_part_of_a_word(kind: str) -> None:
    tokenizer, text = trained(kind), "the house, a Café; the cat."
    (ids,) = tokenizer.ids([text])
    marks = [number for (start, end), number in zip(tokenizer.spans(text), ids) if text[start:end] in set(",;.")]
    assert len(marks) == 3
    assert tokenizer.starts_word[marks].all()


def test_letters_that_are_written_without_spaces_are_words_of_their_own() -> None:
    assert all(map(_stands_alone, "中のカก(,¿🙂"))
    assert not any(map(_stands_alone, ["a", "é", "한", "ß", "7", "\u0301", "\ufffd", ""]))


def test_words_begin_where_a_space_was() -> None:
    for kind in ("bpe", "unigram"):
        tokenizer = trained(kind)
        (ids,) = tokenizer.ids(["the cats live in houses"])
        assert tokenizer.starts_word[ids].sum() == 5


def test_special_tokens_are_told_by_the_settings_or_by_what_is_there(tmp_path: Path) -> None:
    tokenizer = trained("bpe")
    assert tokenizer.spelt == ROBERTA
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "cls_token": "</s>", "sep_token": {"content": "<s>"}}))
    turned = Tokenizer.load(tmp_path)
    assert (turned.special.cls, turned.special.sep) == (2, 0)
    file.write_text(json.dumps({**told, "cls_token": "[NOT THERE]"}))
    assert Tokenizer.load(tmp_path).special == tokenizer.special
    older = {f"{role}_token": token for role, token in {**tokenizer.spelt, "cls": "</s>", "sep": "<s>"}.items()}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    file.write_text("{}")
    assert Tokenizer.load(tmp_path).special == turned.special
    file.write_text(json.dumps({"add_prefix_space": "yes"}))
    with pytest.raises(InputError, match="add_prefix_space: 'yes' given, true, false or null"):
        Tokenizer.load(tmp_path)
