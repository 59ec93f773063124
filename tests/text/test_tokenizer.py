from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from bertloom.errors import InputError
from bertloom.text.tokenizer import SPECIAL, Tokenizer, word_piece

GOOGLE = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ","]


def google(vocabulary: list[str] = GOOGLE) -> dict[str, int]:
    return {token: number for number, token in enumerate(vocabulary)}


def test_googles_full_tokenizer_case() -> None:
    encoding = word_piece(google(), lowercase=True, strip_accents=None).encode(
        "UNwant\u00e9d,running", add_special_tokens=False
    )
    assert encoding.ids == [7, 4, 5, 10, 8, 9]
    assert encoding.tokens == ["un", "##want", "##ed", ",", "runn", "##ing"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("unwanted running", ["un", "##want", "##ed", "runn", "##ing"]),
        ("unwantedX running", ["[UNK]", "runn", "##ing"]),
    ],
)
def test_googles_word_piece_cases(text: str, tokens: list[str]) -> None:
    tokenizer = word_piece(google(), lowercase=False, strip_accents=False)
    assert tokenizer.encode(text, add_special_tokens=False).tokens == tokens


@pytest.mark.parametrize(
    ("text", "lowercase", "words"),
    [
        ("ah\u535a\u63a8zz", True, ["ah", "\u535a", "\u63a8", "zz"]),
        (" \tHeLLo!how  \n Are yoU?  ", True, ["hello", "!", "how", "are", "you", "?"]),
        ("H\u00e9llo", True, ["hello"]),
        (" \tHeLLo!how  \n Are yoU?  ", False, ["HeLLo", "!", "how", "Are", "yoU", "?"]),
    ],
)
def test_googles_basic_tokenizer_cases(text: str, lowercase: bool, words: list[str]) -> None:
    tokenizer = word_piece(google(), lowercase=lowercase, strip_accents=None)
    normal = tokenizer.normalizer.normalize_str(text)
    assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)] == words


def test_hangul_and_kana_survive_an_uncased_vocabulary() -> None:
    tokenizer = word_piece(google(), lowercase=True, strip_accents=False)
    assert tokenizer.normalizer.normalize_str("한국어 が É") == "한국어 が é"


def test_saved_and_loaded_again_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    texts = ["The cat meows loudly.", "한국어 문장도", "never seen: ✂"]
    again, from_list = Tokenizer.load(tmp_path), Tokenizer.load(tmp_path / "vocab.txt")
    assert again.ids(texts) == from_list.ids(texts) == tokenizer.ids(texts)
    assert again.fingerprint == from_list.fingerprint == tokenizer.fingerprint
    assert again.vocabulary[:5] == list(SPECIAL.values())


def test_transformers_opens_it_and_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("The cat meows loudly.", "Élan 한국어 문장도, [MASK]!"):
        (ours,) = tokenizer.ids([text])
        assert theirs(text)["input_ids"] == [2, *ours, 3]
    assert theirs.mask_token == "[MASK]"
    assert theirs.model_max_length == 512


def test_published_vocabulary(minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    assert len(tokenizer) == 30522
    assert tokenizer.ids(["This is an example sentence"]) == [[2023, 2003, 2019, 2742, 6251]]
    long = "word " * 600
    assert len(tokenizer.ids([long])[0]) == 600, "no truncation hides in the file"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "is not JSON"),
        ("tokenizer.json", "{}", "is no tokenizer"),
        ("vocab.txt", "[PAD]\nx\n", r"no \[UNK\]"),
        ("vocab.txt", "[PAD]\n[UNK]\na\na\n", "vocab.txt:4: token 'a' stands in line 3 too"),
        ("nothing", "", "no tokenizer there"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        Tokenizer.load(tmp_path)


def test_a_list_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        Tokenizer.load(tmp_path)


def test_case_of_a_bare_list_is_told_by_its_tokens_or_its_settings(tmp_path: Path) -> None:
    tokens = [*SPECIAL.values(), "Paris", "paris"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    assert Tokenizer.load(tmp_path).ids(["Paris"]) == [[5]]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert Tokenizer.load(tmp_path).ids(["Paris"]) == [[6]]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokenizers_of_other_kinds_stay_what_they_are(kind: str, tmp_path: Path) -> None:
    lines = ["The cat lives in the house.", "Every house has a cat, and the cat has it."] * 20
    backend = tokenizers.Tokenizer(models.BPE() if kind == "bpe" else models.Unigram())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = byte_level if kind == "bpe" else pre_tokenizers.Metaspace()
    special = list(SPECIAL.values())
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    if kind == "unigram":
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="[UNK]", show_progress=False)
    backend.train_from_iterator(lines, trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    made = Tokenizer.load(tmp_path)
    assert not made.is_berts
    made.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.txt").exists()
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    (ours,) = made.ids([lines[1]])
    assert theirs(lines[1], add_special_tokens=False)["input_ids"] == ours
    assert Tokenizer.load(tmp_path / "saved").ids([lines[1]]) == [ours]
    words = sum(made.starts_word[ours])
    assert words == lines[1].count(" ") + 2 + (kind == "unigram"), (
        "a space, spelt out, begins a word, and so do , and ."
    )


def vocabulary_json(tmp_path: Path, **ids: int) -> Path:
    """A tokenizer.json with a vocabulary that nobody would train."""
    word_piece({token: number for number, token in enumerate([*SPECIAL.values(), "the"])}, True, False).save(
        str(tmp_path / "tokenizer.json")
    )
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"]["vocab"] |= ids
    state["model"]["vocab"] = {token: number for token, number in state["model"]["vocab"].items() if number >= 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    return tmp_path


def test_ids_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two tokens have one id"):
        Tokenizer.load(vocabulary_json(tmp_path, the=0))
    with pytest.raises(InputError, match="ids up to 1,000,000,000 for 6 tokens"):
        Tokenizer.load(vocabulary_json(tmp_path, the=10**9))
    with pytest.raises(InputError, match=r"is no tokenizer: .*UNK"):
        Tokenizer.load(vocabulary_json(tmp_path, **{"[UNK]": -1, "the": 7}))


def test_settings_beside_a_list_are_true_false_or_null(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\ufeff" + "".join(f"{token}\n" for token in [*SPECIAL.values(), "a"]))
    assert Tokenizer.load(tmp_path).ids(["a"]) == [[5]]
    for name in ("strip_accents", "do_lower_case"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: "no"}))
        with pytest.raises(InputError, match=f"tokenizer_config.json: {name}: 'no' given, true, false or null"):
            Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "last"), [("in Cafe\u0301 now", "Cafe\u0301"), ("नमस्ते जी", "नमस्ते"), ("e\u0301t", "e\u0301t")]
)
def test_places_take_in_the_marks_that_have_no_piece(minilm: Path, text: str, last: str) -> None:
    tokenizer = Tokenizer.load(minilm)
    ((_, places),) = tokenizer.pieces([text])
    start = text.index(last)
    assert start + len(last) in [end for _, end in places]
    assert all(first[0] <= second[0] and first[1] <= second[1] for first, second in pairwise(places)), "in order"
    plain = tokenizer.pieces(["in Café now"])[0][1]
    assert plain == [(0, 2), (3, 7), (8, 11)]
