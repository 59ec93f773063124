"""WordPiece training that gives the same bytes for the same text, in any process and with any thread count.

The trainer of `tokenizers` numbers the pieces `##x` in the order of a hash map, and ties between merges follow
those numbers. Handing it every character, whole and as a continuation, in sorted order leaves it no choice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bertloom.errors import InputError
from bertloom.text.tokenizer import LONGEST_WORD, SPECIAL, Tokenizer, word_piece

# Characters are kept, the most frequent first, until they make up this share of the text; the rest read as [UNK].
COVERAGE = 0.9999
SMALLEST, LARGEST = 64, 1 << 31


def count_words(texts: Iterable[str], pieces: tokenizers.Tokenizer) -> Counter[str]:
    """How often each word stands in `texts`, words being what a tokenizer's normaliser and pre-tokenizer make of them.

    Both must never look across a space, as BERT's.
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
) -> Tokenizer:
    """A WordPiece vocabulary of exactly `size` tokens; raises where the text supports no such number."""
    if not SMALLEST <= size < LARGEST:
        raise InputError(f"size: {size} given, {SMALLEST} to {LARGEST - 1:,} allowed")
    if not 0 <= min_frequency < LARGEST:
        raise InputError(f"min_frequency: {min_frequency} given, 0 to {LARGEST - 1:,} allowed")
    if isinstance(texts, str):
        raise InputError("texts: one text given, an iterable of texts allowed")
    words = count_words(texts, word_piece({SPECIAL["unk"]: 0}, lowercase, strip_accents))
    if not words:
        raise InputError("no words in the text, at least one needed")
    tokens = _learned(words, size, min_frequency)
    if len(tokens) < size:
        most = len(tokens)
        # Fewer tokens leave room for fewer characters, so that a number may not be reached once it is asked for.
        while len(tokens := _learned(words, most, min_frequency)) < most:
            most = len(tokens)
        allowed = f"at most {most}" if most >= SMALLEST else "none"
        raise InputError(f"size: {size} given, {allowed} supported by this text")
    return Tokenizer(word_piece({token: number for number, token in enumerate(tokens)}, lowercase, strip_accents))


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
