"""Vocabularies that are the same bytes for the same text, in any process and with any thread count.

WordPiece: the trainer of `tokenizers` numbers the pieces `##x` in the order of a hash map, and ties between merges
follow those numbers. Handing it every character, whole and as a continuation, in sorted order leaves it no choice.
Byte pairs have no such pieces. Its unigram trainer adds up numbers in that order; sentencepiece on one thread does
not.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bertloom.errors import InputError, nearest
from bertloom.text.tokenizer import (
    ALBERT,
    LONGEST_WORD,
    ROBERTA,
    SPACES,
    SPECIAL,
    Tokenizer,
    byte_pairs,
    sentence_pieces,
    unigram,
    word_piece,
)

# Characters are kept, the most frequent first, until they make up this share of the text; the rest read as [UNK].
COVERAGE = 0.9999
SMALLEST, LARGEST = 64, 1 << 31


def count_words(texts: Iterable[str], pieces: Any) -> Counter[str]:
    """How often each word stands in `texts`, words being what a tokenizer's normaliser and pre-tokenizer make of them.

    Both must never look across a space, as those of `KINDS`.
    """
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(text.split())
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in pieces.pre_tokenizer.pre_tokenize_str(pieces.normalizer.normalize_str(chunk)):
            words[word] += count
    return words


def alphabet(words: Counter[str], most: int) -> tuple[set[str], list[str]]:
    """The characters kept, and their pieces (`x`, `##x`) in sorted order, at most `most` of them."""
    characters: Counter[str] = Counter()
    seen: dict[str, set[str]] = {}
    for word, count in words.items():
        for place, character in enumerate(word):
            characters[character] += count
            seen.setdefault(character, {character}).add(f"##{character}" if place else character)
    kept: set[str] = set()
    pieces: list[str] = []
    covered, total = 0, characters.total()
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= COVERAGE * total or len(pieces) + len(seen[character]) > most:
            break
        kept.add(character)
        pieces.extend(seen[character])
        covered += count
    return kept, sorted(pieces)


def train_vocabulary(
    texts: Iterable[str],
    size: int,
    lowercase: bool = True,
    strip_accents: bool = False,
    min_frequency: int = 2,
    kind: str = "wordpiece",
) -> Tokenizer:
    """A vocabulary of exactly `size` tokens, of a kind of `KINDS`; raises where the text supports no such number.

    Byte pairs keep every text as it is, so that `lowercase` and `strip_accents` are not for them.
    """
    if kind not in KINDS:
        raise InputError(f"kind: {nearest(kind, KINDS)}")
    if not SMALLEST <= size < LARGEST:
        raise InputError(f"size: {size} given, {SMALLEST} to {LARGEST - 1:,} allowed")
    if not 0 <= min_frequency < LARGEST:
        raise InputError(f"min_frequency: {min_frequency} given, 0 to {LARGEST - 1:,} allowed")
    if isinstance(texts, str):
        raise InputError("texts: one text given, an iterable of texts allowed")
    return KINDS[kind](texts, size, lowercase, strip_accents, min_frequency)


def _word_pieces(
    texts: Iterable[str], size: int, lowercase: bool, strip_accents: bool, min_frequency: int
) -> Tokenizer:
    words = _some(count_words(texts, word_piece({SPECIAL["unk"]: 0}, lowercase, strip_accents)))
    tokens = _learned(words, size, min_frequency)
    if len(tokens) < size:
        most = len(tokens)
        # Fewer tokens leave room for fewer characters, so that a number may not be reached once it is asked for.
        while len(tokens := _learned(words, most, min_frequency)) < most:
            most = len(tokens)
        raise _too_large(size, most)
    return Tokenizer(word_piece({token: number for number, token in enumerate(tokens)}, lowercase, strip_accents))


def _byte_pairs(texts: Iterable[str], size: int, lowercase: bool, strip_accents: bool, min_frequency: int) -> Tokenizer:
    """RoBERTa's order: `<s>`, `<pad>`, `</s>`, `<unk>`, the 256 bytes, what is joined, and `<mask>` at the end."""
    *first, mask = ROBERTA.values()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(ROBERTA) + len(letters)
    if size < least:
        raise InputError(f"size: {size} given, at least {least} allowed: every byte is a token")
    cut = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = _some(count_words(texts, _Pieces(cut)))
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, min_frequency=min_frequency, special_tokens=first, initial_alphabet=letters,
        show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(_repeated(words), trainer)
    state = json.loads(learner.to_str())["model"]
    if len(state["vocab"]) < size - 1:
        raise _too_large(size, len(state["vocab"]) + 1)
    return Tokenizer(byte_pairs({**state["vocab"], mask: size - 1}, [tuple(pair) for pair in state["merges"]]))


def _unigram(texts: Iterable[str], size: int, lowercase: bool, strip_accents: bool, min_frequency: int) -> Tokenizer:
    """ALBERT's vocabulary by sentencepiece (Kudo 2018)."""
    library = sentence_pieces()
    seed = [(token, 0.0) for token in ALBERT.values()]
    words = _some(_cut(count_words(texts, unigram(seed, lowercase, strip_accents))))
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "words.tsv"
        spelt = (f"{word.removeprefix(SPACES[1])}\t{count}\n" for word, count in sorted(words.items()))
        table.write_text("".join(spelt), encoding="utf-8")
        ids = {f"{name}_id": number for number, name in enumerate(("pad", "unk", "bos", "eos"))}
        try:
            library.SentencePieceTrainer.train(
                input=str(table), input_format="tsv", model_writer=model, model_type="unigram", vocab_size=size,
                num_threads=1, character_coverage=COVERAGE, normalization_rule_name="identity", minloglevel=2,
                pad_piece=ALBERT["pad"], unk_piece=ALBERT["unk"], bos_piece=ALBERT["cls"], eos_piece=ALBERT["sep"],
                user_defined_symbols=ALBERT["mask"], **ids,
            )  # fmt: skip
        except RuntimeError as error:
            found, letters = (re.search(said, str(error)) for said in (r"<= (\d+)", r"required_chars.* vs (\d+)"))
            if letters:
                said = f"at least {letters[1]} allowed: every letter that is kept is a token"
                raise InputError(f"size: {size} given, {said}") from None
            if found is None:
                raise InputError(f"size: {size} given, more text needed: {str(error)[-120:]}") from None
            raise _too_large(size, int(found[1])) from None
    processor = library.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(processor.id_to_piece(number), processor.get_score(number)) for number in range(len(processor))]
    return Tokenizer(unigram(pieces, lowercase, strip_accents))


def _cut(words: Counter[str]) -> Counter[str]:
    """Words in stretches that the library takes: a paragraph without spaces, as of Japanese, is one word to it."""
    cut: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(0, len(word), LONGEST_WORD):
            cut[word[start : start + LONGEST_WORD]] += count
    return cut


class _Pieces:
    """A pre-tokenizer alone, where a normaliser changes nothing."""

    def __init__(self, pre_tokenizer: Any):
        self.pre_tokenizer, self.normalizer = pre_tokenizer, self

    def normalize_str(self, text: str) -> str:
        return text


def _some(words: Counter[str]) -> Counter[str]:
    if not words:
        raise InputError("no words in the text, at least one needed")
    return words


def _too_large(size: int, most: int) -> InputError:
    allowed = f"at most {most}" if most >= SMALLEST else "none"
    return InputError(f"size: {size} given, {allowed} supported by this text")


KINDS: dict[str, Callable[[Iterable[str], int, bool, bool, int], Tokenizer]] = {
    "wordpiece": _word_pieces,
    "bpe": _byte_pairs,
    "unigram": _unigram,
}


def extended_vocabulary(
    tokenizer: Tokenizer, texts: Iterable[str], size: int, min_frequency: int = 5
) -> tuple[Tokenizer, dict[str, list[int]]]:
    """The tokenizer with the `size` words of `texts` that save most pieces, and the old pieces of each, in their order.

    Raises where it is not WordPiece, or the text has fewer such words.
    """
    if not tokenizer.is_berts:
        raise InputError("tokenizer of another kind given, BERT's WordPiece allowed")
    if not 1 <= size < LARGEST:
        raise InputError(f"size: {size} given, 1 to {LARGEST - 1:,} allowed")
    counts = count_words(texts, tokenizer.backend)
    state = json.loads(tokenizer.backend.to_str())
    # Longer words are unknown whatever the vocabulary holds.
    longest = state["model"]["max_input_chars_per_word"]
    words = sorted(
        word for word, count in counts.items() if count >= min_frequency and word.isalpha() and len(word) <= longest
    )
    old = dict(zip(words, tokenizer.ids(words, special=False)))
    unknown = tokenizer.special.unk
    gains = {word: counts[word] * max(len(ids) - 1, ids.count(unknown)) for word, ids in old.items()}
    best = sorted((word for word in words if gains[word]), key=lambda word: (-gains[word], word))[:size]
    if len(best) < size:
        said = f"at most {len(best)}" if best else "none"
        raise InputError(f"size: {size} given, {said} supported by this text (words in pieces, {min_frequency} times)")
    state["model"]["vocab"] |= {word: len(tokenizer) + number for number, word in enumerate(best)}
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state))), {word: old[word] for word in best}


def _learned(words: Counter[str], size: int, min_frequency: int) -> list[str]:
    """The tokens in order, fewer than `size` where the words hold no more.

    Characters take half the room, and more where their joins do not fill the rest.
    """
    tokens = _learned_over(words, size, size // 2, min_frequency)
    return tokens if len(tokens) == size else _learned_over(words, size, size - len(SPECIAL), min_frequency)


def _learned_over(words: Counter[str], size: int, characters: int, min_frequency: int) -> list[str]:
    kept, pieces = alphabet(words, characters)
    known = {word: count for word, count in words.items() if len(word) <= LONGEST_WORD and kept.issuperset(word)}
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL.values(), *pieces],
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL["unk"]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(known), trainer)
    found = learner.get_vocab(with_added_tokens=False)
    return sorted(found, key=found.__getitem__)


def _repeated(words: dict[str, int], most: int = 10_000) -> Iterator[str]:
    """Each word as often as it was counted, in sorted order, in strings of bounded size."""
    for word, count in sorted(words.items()):
        for start in range(0, count, most):
            yield " ".join([word] * min(most, count - start))
