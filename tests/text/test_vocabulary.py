from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bertloom.errors import InputError
from bertloom.text.tokenizer import Tokenizer, word_piece
from bertloom.text.vocabulary import alphabet, count_words, extended_vocabulary, train_vocabulary

TRAIN = """
import hashlib, sys
from bertloom.text.vocabulary import train_vocabulary
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
print(hashlib.sha256("\\n".join(train_vocabulary(lines, int(sys.argv[2])).vocabulary).encode()).hexdigest())
"""


def test_same_text_same_bytes_whatever_the_hash_seed_and_threads(tmp_path: Path) -> None:
    # Many words of equal frequency, where the library's own trainer differs from run to run.
    words = [f"{a}{b}{c}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    file = tmp_path / "ties.txt"
    file.write_text("\n".join(" ".join(words) for _ in range(3)))
    digests = set()
    for seed, threads in [("0", "1"), ("1", "2"), ("2", "4"), ("3", "1"), ("random", "2"), ("5", "3")]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", TRAIN, str(file), "150"]
        digests.add(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    assert len(digests) == 1


def test_size_is_exact_and_order_is_specials_characters_merges(text_file: Path) -> None:
    tokenizer = train_vocabulary(text_file.read_text(encoding="utf-8").splitlines(), 130)
    assert len(tokenizer) == 130
    assert tokenizer.vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [token for token in tokenizer.vocabulary[5:] if len(token.removeprefix("##")) == 1]
    assert tokenizer.vocabulary[5 : 5 + len(pieces)] == sorted(pieces)


def test_every_word_that_is_made_of_kept_characters_can_be_spelt(text_file: Path) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines()
    tokenizer = train_vocabulary(lines, 150)
    assert not any(tokenizer.special.unk in ids for ids in tokenizer.ids(lines))


def test_cased_and_uncased_and_accents() -> None:
    assert count_words(["Élan élan"], word_piece({"[UNK]": 0}, True, False)) == {"élan": 2}
    assert count_words(["Élan élan"], word_piece({"[UNK]": 0}, True, True)) == {"elan": 2}
    assert count_words(["Élan élan"], word_piece({"[UNK]": 0}, False, False)) == {"Élan": 1, "élan": 1}


def test_rare_characters_go_the_rarest_first() -> None:
    kept, pieces = alphabet(Counter({"ab": 50_000, "zb": 1, "yb": 1}), most=100)
    assert kept == {"a", "b"}
    assert pieces == ["##b", "a", "b"]
    kept, _ = alphabet(Counter({"ab": 10, "cd": 5}), most=3)
    assert kept == {"a", "b"}


@pytest.mark.parametrize(
    ("texts", "size", "said"),
    [
        (["a b c"], 20_000, "none supported"),
        ([], 100, "no words"),
        (["a"], 10, "64 to"),
        ("a text", 100, "one text given"),
    ],
)
def test_sizes_that_cannot_be_are_refused(texts: list[str], size: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_vocabulary(texts, size)


def test_the_size_that_is_named_is_the_largest_that_works() -> None:
    texts = [" ".join(chr(0xAC00 + 7 * n) + 9 * chr(0xAC00 + 7 * (n % 40)) for n in range(60)) for _ in range(3)]
    with pytest.raises(InputError, match="at most") as refused:
        train_vocabulary(texts, 1000)
    most = int(re.search(r"at most (\d+)", str(refused.value))[1])  # type: ignore[index]
    assert len(train_vocabulary(texts, most)) == most
    with pytest.raises(InputError, match=f"at most {most} "):
        train_vocabulary(texts, most + 1)


def test_a_text_of_many_letters_and_few_joins_fills_its_size() -> None:
    lines = ["abcdefghij klmnopqrst uvwxyz" for _ in range(3)]
    assert len(train_vocabulary(lines, 77).vocabulary) == 77
    with pytest.raises(InputError, match="size: 1000 given, at most 77 supported"):
        train_vocabulary(lines, 1000)


def test_a_domains_words_are_added_to_a_vocabulary(tokenizer: Tokenizer) -> None:
    texts = ["the cardiologist meows"] * 9 + ["the stenosis barks"] * 7 + ["rare words"] * 2
    made, pieces = extended_vocabulary(tokenizer, texts, 2)
    assert set(pieces) == {"cardiologist", "stenosis"}
    assert len(made) == len(tokenizer) + 2
    assert made.tokens(made.ids(["The Cardiologist meows"])[0])[:2] == ["the", "cardiologist"]
    for word, ids in pieces.items():
        assert tokenizer.ids([word])[0] == ids
    before, after = (one.ids(["the cat lives in the house ."]) for one in (tokenizer, made))
    assert before == after, "other words read as before"
    for size, said in ((9, "size: 9 given, at most "), (0, "size: 0 given, 1 to")):
        with pytest.raises(InputError, match=said):
            extended_vocabulary(tokenizer, texts, size)
    with pytest.raises(InputError, match="size: 1 given, none supported"):
        extended_vocabulary(tokenizer, ["the cat"], 1)


def test_words_too_long_to_be_looked_up_are_not_added(tokenizer: Tokenizer) -> None:
    long = "qzj" * 40
    texts = [f"{long} zqjx"] * 9
    made, words = extended_vocabulary(tokenizer, texts, 1)
    assert list(words) == ["zqjx"]
    with pytest.raises(InputError, match="at most 1 supported"):
        extended_vocabulary(made, [long] * 9 + ["qjzxqj"] * 9, 2)
