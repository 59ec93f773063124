"""A vocabulary in use: text to ids and back, loaded from and saved to Hugging Face's files."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from bertloom.errors import InputError, blaming
from bertloom.files import read_json, read_text, write_json

# The special tokens by role, as BERT spells them; their order is that of a vocabulary we train.
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
FILES = ("tokenizer.json", "vocab.txt")
# What makes a tokenizer BERT's.
PARTS = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
# How other models than WordPiece spell a space before a token.
SPACES = ("Ġ", "▁")
# Ids a token, beyond which a vocabulary's numbers are a mistake.
SPARSEST = 100
LONGEST_WORD = 100


def word_piece(vocabulary: dict[str, int], lowercase: bool, strip_accents: bool | None) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a vocabulary: clean, split at white space and punctuation, longest match first.

    `strip_accents=None` strips them where `lowercase` does, as Google's code; that tears Hangul apart.
    """
    model = models.WordPiece(vocabulary, unk_token=SPECIAL["unk"], max_input_chars_per_word=LONGEST_WORD)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL.values() if token in vocabulary])
    if "[SEP]" in vocabulary and "[CLS]" in vocabulary:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
    return tokenizer


@dataclass(frozen=True)
class Special:
    """The ids of the special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class Tokenizer:
    """Ids of texts; raises `InputError` where a special token is missing from the vocabulary."""

    def __init__(self, backend: tokenizers.Tokenizer, where: str = "vocabulary"):
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        ids = {role: int(backend.token_to_id(token) or 0) for role, token in SPECIAL.items()}
        missing = [token for token in SPECIAL.values() if backend.token_to_id(token) is None]
        if missing:
            raise InputError(
                f"no {' '.join(missing)} in the vocabulary, all of {' '.join(SPECIAL.values())} needed", where
            )
        self.special = Special(**ids)
        known = backend.get_vocab(with_added_tokens=True)
        if len(set(known.values())) < len(known):
            raise InputError("two tokens have one id, an id for each needed", where)
        if len(self) > SPARSEST * len(known):
            raise InputError(f"ids up to {len(self) - 1:,} for {len(known):,} tokens, fewer gaps allowed", where)
        with blaming(where, "is no tokenizer"):
            backend.encode("\U0001f701")
        self.parts = [(json.loads(backend.to_str())[part] or {}).get("type") for part in PARTS]

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder (`tokenizer.json` or `vocab.txt`) or of one such file."""
        path = Path(path)
        file = path
        if path.is_dir():
            file = next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
        if not file.is_file():
            raise InputError(f"no tokenizer there, a folder with {' or '.join(FILES)} allowed", path)
        if file.suffix == ".txt":
            return cls(_from_vocab_txt(file), str(file))
        given = read_json(file)
        if not isinstance(given, dict) or not isinstance(given.get("model"), dict) or "vocab" not in given["model"]:
            raise InputError("is no tokenizer: no model with a vocab in it", file)
        with blaming(file, "is no tokenizer"):
            return cls(tokenizers.Tokenizer.from_str(json.dumps(given)), str(file))

    @property
    def is_berts(self) -> bool:
        """Whether it is WordPiece over BERT's normaliser and pre-tokenizer, which never look across a space."""
        return self.parts == list(PARTS.values())

    @cached_property
    def _size(self) -> int:
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    def __len__(self) -> int:
        """One more than the largest id; ids without a token count, as the embeddings have rows for them."""
        return self._size

    def ids(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """The ids of each text, without `[CLS]` and `[SEP]` around it.

        `special` is whether `[MASK]` and its like, written out in a text, are those tokens or ordinary letters.
        """
        self.backend.encode_special_tokens = not special
        try:
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            found = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            bad = next((text for text in texts if not _is_text(text)), texts)
            raise InputError(f"text: {bad!r} given, a string of whole characters allowed") from None
        return [encoding.ids for encoding in found]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each of a text's tokens stands in it, first character and one past the last."""
        self.backend.encode_special_tokens = False
        return list(self.backend.encode(text, add_special_tokens=False).offsets)

    def pieces(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Of each text its ids and where each stands in it; special tokens written out in it are ordinary letters."""
        self.backend.encode_special_tokens = True
        found = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, _with_marks(text, encoding.offsets)) for text, encoding in zip(texts, found)]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's spelling of each id."""
        return [self.backend.id_to_token(int(number)) or "" for number in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out but for `[MASK]`."""
        special = set(vars(self.special).values()) - {self.special.mask}
        kept = [int(number) for number in ids if int(number) not in special]
        return str(self.backend.decode(kept, skip_special_tokens=False))

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token, by id."""
        return self.tokens(range(len(self)))

    @cached_property
    def starts_word(self) -> npt.NDArray[np.bool_]:
        """(V,) whether a token begins a word, or goes on one (`##ing`; where spaces are spelt out, without one)."""
        if self.parts[0] == "WordPiece":
            return np.array([not token.startswith("##") for token in self.vocabulary])
        return np.array([token.startswith(SPACES) for token in self.vocabulary])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides which ids a text gets."""
        state: dict[str, Any] = json.loads(self.backend.to_str())
        deciding = {key: state.get(key) for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]

    def save(self, folder: Path, longest: int = 512) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers` opens, and BERT's `vocab.txt`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if self.is_berts:
            (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in self.vocabulary), encoding="utf-8")
            normalizer = json.loads(self.backend.to_str())["normalizer"]
            settings = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": bool(normalizer.get("lowercase")),
                "strip_accents": normalizer.get("strip_accents"),
                "tokenize_chinese_chars": bool(normalizer.get("handle_chinese_chars", True)),
            }
        spelt = {f"{role}_token": token for role, token in SPECIAL.items()}
        write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": longest, **spelt})


def _with_marks(text: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places that take in the combining marks after them, which have no piece where accents are stripped."""
    if text.isascii():
        return places
    made = []
    for (start, end), (limit, _) in zip(places, [*places[1:], (len(text), 0)]):
        while end < limit and unicodedata.category(text[end]).startswith("M"):
            end += 1
        made.append((start, end))
    return made


def _is_text(value: object) -> bool:
    """Whether a value is a string without half a surrogate pair, as bytes that are not UTF-8 become in arguments."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _from_vocab_txt(file: Path) -> tokenizers.Tokenizer:
    """A WordPiece tokenizer of one token a line; case and accents from `tokenizer_config.json` beside it."""
    vocabulary: dict[str, int] = {}
    text = read_text(file)
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        token = line.rstrip("\r")
        if token in vocabulary:
            raise InputError(f"token {token!r} stands in line {vocabulary[token] + 1} too", file, number)
        vocabulary[token] = number - 1
    beside = file.with_name("tokenizer_config.json")
    settings = read_json(beside) if beside.is_file() else {}
    if not isinstance(settings, dict):
        raise InputError("is not a JSON object", beside)
    lowercase = settings.get(
        "do_lower_case", not any(token.isalpha() and token != token.lower() for token in vocabulary)
    )
    strip_accents = settings.get("strip_accents")
    for name, value in (("do_lower_case", lowercase), ("strip_accents", strip_accents)):
        if not isinstance(value, bool | None):
            raise InputError(f"{name}: {value!r} given, true, false or null allowed", beside)
    return word_piece(vocabulary, bool(lowercase), strip_accents)
