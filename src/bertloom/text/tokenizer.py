"""A vocabulary in use: text to ids and back, loaded from and saved to Hugging Face's files."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
from bertloom.text.places import places

# The special tokens by role, as BERT spells them; their order is that of a vocabulary we train.
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
# As RoBERTa and as ALBERT spell them.
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
ALBERT = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
SPELLINGS = (SPECIAL, ROBERTA, ALBERT)
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
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
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    if cls in vocabulary and sep in vocabulary:
        tokenizer.post_processor = _joined(cls, sep, vocabulary[cls], vocabulary[sep])
    return tokenizer


def byte_pairs(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], spelt: Mapping[str, str] = ROBERTA, spaced: bool = True
) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer (Radford et al. 2019, §2.2): no text is unknown to byte pairs, and none is changed.

    `spaced` is whether a text's first word is spelt as one after a space.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    _add_special(tokenizer, spelt)
    sep, cls = ((spelt[role], vocabulary[spelt[role]]) for role in ("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=spaced)
    return tokenizer


def unigram(
    pieces: list[tuple[str, float]], lowercase: bool, strip_accents: bool = False, spelt: Mapping[str, str] = ALBERT
) -> tokenizers.Tokenizer:
    """ALBERT's tokenizer (Kudo 2018) over pieces and their log-probabilities, `▁` where a word begins."""
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, ids[spelt["unk"]]))
    steps = [normalizers.NFKD(), normalizers.StripAccents()] if strip_accents else []
    tokenizer.normalizer = normalizers.Sequence(
        [*steps, normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    _add_special(tokenizer, spelt)
    tokenizer.post_processor = _joined(spelt["cls"], spelt["sep"], ids[spelt["cls"]], ids[spelt["sep"]])
    return tokenizer


def _joined(cls: str, sep: str, cls_id: int, sep_id: int, between: int = 1) -> processors.TemplateProcessing:
    """One text, or two as segments, between special tokens."""
    pair = [f"{cls} $A {sep}", *[f"{sep}:1"] * (between - 1), f"$B:1 {sep}:1"]
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=" ".join(pair), special_tokens=[(cls, cls_id), (sep, sep_id)]
    )


def _add_special(tokenizer: tokenizers.Tokenizer, spelt: Mapping[str, str]) -> None:
    """Special tokens as such; a mask takes in the space before it, which is spelt in no other token there."""
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, lstrip=role == "mask", special=True) for role, token in spelt.items()]
    )


@dataclass(frozen=True)
class Special:
    """The ids of the special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    # How many separators stand between two texts.
    between: int = 1
    # Whether the second is told apart by its segment.
    segments: bool = True

    @property
    def ids(self) -> dict[str, int]:
        """By role."""
        return {role: getattr(self, role) for role in SPECIAL}


# How Unicode calls letters that no space parts from the word before.
UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


def _stands_alone(letter: str) -> bool:
    """Whether a letter begins a word wherever it stands; of a part of one, as byte pairs have, nobody knows."""
    if letter in ("", "\ufffd"):
        return False
    kind = unicodedata.category(letter)
    return kind[0] in "PS" or (kind[0] == "L" and unicodedata.name(letter, "").startswith(UNSPACED))


class Tokenizer:
    """Ids of texts; raises `InputError` where a special token is missing from the vocabulary.

    `spelt` says which tokens are special, by role; else they are those of a family that has all of its. `inputs` are
    what a model of another library is given, where they are known.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        where: str = "vocabulary",
        spelt: Mapping[str, str] | None = None,
        inputs: Sequence[str] | None = None,
    ):
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        known = backend.get_vocab(with_added_tokens=True)
        self.spelt = dict(spelt or next((one for one in SPELLINGS if known.keys() >= set(one.values())), SPECIAL))
        missing = [token for token in self.spelt.values() if token not in known]
        if missing:
            raise InputError(
                f"no {' '.join(missing)} in the vocabulary, all of {' '.join(self.spelt.values())} needed", where
            )
        ids = {role: int(known[token]) for role, token in self.spelt.items()}
        if len(set(known.values())) < len(known):
            raise InputError("two tokens have one id, an id for each needed", where)
        if len(self) > SPARSEST * len(known):
            raise InputError(f"ids up to {len(self) - 1:,} for {len(known):,} tokens, fewer gaps allowed", where)
        with blaming(where, "is no tokenizer"):
            backend.encode("\U0001f701")
            pair = backend.encode("a", "a")
        # RoBERTa has two separators between two texts, and gives no segments to a model that has them.
        between = max(1, sum(one == ids["sep"] for one in pair.ids[:-1]))
        segments = any(pair.type_ids) and (inputs is None or "token_type_ids" in inputs)
        self.special = Special(**ids, between=between, segments=segments)
        self.state: dict[str, Any] = json.loads(backend.to_str())
        self.parts = [(self.state[part] or {}).get("type") for part in PARTS]

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder, a run or one file: `tokenizer.json`, `vocab.txt`, `vocab.json`, `merges.txt`."""
        path = Path(path)
        file = path
        if path.is_dir():
            files = [folder / name for folder in (path, path / "model") for name in FILES]
            file = next(filter(Path.is_file, files), files[0])
        if not file.is_file():
            raise InputError(f"no tokenizer there, a folder with {' or '.join(FILES)} allowed", path)
        settings = _settings(file)

        def told(backend: tokenizers.Tokenizer, state: Mapping[str, Any] | None = None) -> Tokenizer:
            return cls(backend, str(file), _spelt(settings, state), _inputs(settings))

        if file.suffix == ".txt":
            return told(_from_vocab_txt(file, settings))
        if file.suffix == ".model":
            return told(_from_sentence_pieces(file, settings))
        given = read_json(file)
        if file.name == "vocab.json":
            return told(_from_merges(file, given, settings))
        if not isinstance(given, dict) or not isinstance(given.get("model"), dict) or "vocab" not in given["model"]:
            raise InputError("is no tokenizer: no model with a vocab in it", file)
        with blaming(file, "is no tokenizer", again=True):
            return told(tokenizers.Tokenizer.from_str(json.dumps(given)), given)

    @property
    def is_berts(self) -> bool:
        """Whether it is WordPiece over BERT's normaliser and pre-tokenizer, which never look across a space."""
        return self.parts == list(PARTS.values())

    @property
    def splits_at_spaces(self) -> bool:
        """Whether what stands between two spaces has the same tokens wherever it stands, but at a text's beginning."""
        if any(
            one["lstrip"] or one["rstrip"] or " " in one["content"]
            for one in self.state["added_tokens"]
            if one["content"] not in self.spelt.values()
        ):
            return False
        cut = self.state["pre_tokenizer"] or {}
        bytes_alone = cut.get("type") == "ByteLevel" and cut.get("use_regex", True) and not self.state["normalizer"]
        metaspace = [one.get("type") for one in cut.get("pretokenizers", [])] == ["WhitespaceSplit", "Metaspace"]
        return self.is_berts or bytes_alone or metaspace

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
        return [encoding.ids for encoding in self._encoded_by(self.backend.encode_batch_fast, texts, special)]

    def _encoded(self, texts: Sequence[str], special: bool) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Of each text its ids and where each stands in it."""
        found = self._encoded_by(self.backend.encode_batch, texts, special)
        return [(encoding.ids, places(text, encoding.offsets)) for text, encoding in zip(texts, found)]

    def _encoded_by(self, encode: Callable[..., list[Any]], texts: Sequence[str], special: bool) -> list[Any]:
        """What a function of the library makes of texts; raises where one is none."""
        self.backend.encode_special_tokens = not special
        try:
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            return encode(list(texts), add_special_tokens=False)
        except TypeError:
            bad = next((text for text in texts if not _is_text(text)), texts)
            raise InputError(f"text: {bad!r} given, a string of whole characters allowed") from None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each of a text's tokens stands in it, first character and one past the last."""
        return self._encoded([text], special=True)[0][1]

    def pieces(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Of each text its ids and where each stands in it; special tokens written out in it are ordinary letters."""
        return self._encoded(texts, special=False)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's spelling of each id."""
        return [self.backend.id_to_token(int(number)) or "" for number in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out but for `[MASK]`."""
        special = set(self.special.ids.values()) - {self.special.mask}
        kept = [int(number) for number in ids if int(number) not in special]
        return str(self.backend.decode(kept, skip_special_tokens=False))

    def shown(self, ids: Sequence[int]) -> list[str]:
        """Tokens for people: byte pairs are spelt in a text's own letters, with `▁` for the space before."""
        tokens = self.tokens(ids)
        if self.parts[2] != "ByteLevel":
            return tokens
        special = self.special.ids.values()
        return [
            token if number in special else str(self.backend.decode([number])).replace(" ", SPACES[1])
            for number, token in zip(ids, tokens)
        ]

    def surface(self, number: int) -> str:
        """A token's letters, without what marks it as a word's beginning or rest."""
        token = self.tokens([number])[0]
        if number in self.special.ids.values():
            return token
        return token.removeprefix("##") if self.parts[0] == "WordPiece" else str(self.backend.decode([number])).strip()

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token, by id."""
        return self.tokens(range(len(self)))

    @cached_property
    def starts_word(self) -> npt.NDArray[np.bool_]:
        """(V,) whether a token begins a word, or goes on one (`##ing`).

        Where spaces are spelt out those begin words, and so do punctuation and letters that are written without spaces.
        """
        if self.parts[0] == "WordPiece":
            return np.array([not token.startswith("##") for token in self.vocabulary])
        return np.array(
            [
                token.startswith(SPACES) or _stands_alone(self.surface(id_)[:1])
                for id_, token in enumerate(self.vocabulary)
            ]
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides which ids a text gets."""
        deciding = {key: self.state.get(key) for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
        model = self.state["model"]
        if isinstance(model["vocab"], list):
            # The last bit of a score changes when `tokenizers` writes and reads it.
            deciding["model"] = {**model, "vocab": [(token, round(score, 6)) for token, score in model["vocab"]]}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]

    def save(self, folder: Path, longest: int = 512, segments: bool | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers` opens, and the family's own files.

        `segments` is whether a model takes them, where there is one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        backend = self.backend
        if segments and not self.is_berts:
            # RoBERTa's own way of joining two texts tells no segments.
            backend = tokenizers.Tokenizer.from_str(backend.to_str())
            backend.post_processor = _joined(
                self.spelt["cls"], self.spelt["sep"], self.special.cls, self.special.sep, self.special.between
            )
        (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if self.is_berts:
            (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in self.vocabulary), encoding="utf-8")
            normalizer = self.state["normalizer"]
            settings = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": bool(normalizer.get("lowercase")),
                "strip_accents": normalizer.get("strip_accents"),
                "tokenize_chinese_chars": bool(normalizer.get("handle_chinese_chars", True)),
            }
        elif self.parts[0] == "BPE" and self.parts[2] == "ByteLevel":
            self.backend.model.save(str(folder))
            settings["add_prefix_space"] = bool(self.state["pre_tokenizer"]["add_prefix_space"])
        if segments is not None:
            settings["model_input_names"] = ["input_ids", *["token_type_ids"] * segments, "attention_mask"]
        spelt = {f"{role}_token": token for role, token in self.spelt.items()}
        write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": longest, **spelt})


def _is_text(value: object) -> bool:
    """Whether a value is a string without half a surrogate pair, as bytes that are not UTF-8 become in arguments."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _settings(file: Path) -> dict[str, Any]:
    """What `tokenizer_config.json` beside a file says, and of special tokens the older `special_tokens_map.json`."""
    settings: dict[str, Any] = {}
    for beside in (file.with_name("special_tokens_map.json"), file.with_name("tokenizer_config.json")):
        told = read_json(beside) if beside.is_file() else {}
        if not isinstance(told, dict):
            raise InputError("is not a JSON object", beside)
        settings |= told
    for name in ("do_lower_case", "strip_accents", "keep_accents", "add_prefix_space"):
        if not isinstance(settings.get(name), bool | None):
            raise InputError(f"{name}: {settings[name]!r} given, true, false or null allowed", beside)
    return settings


def _spelt(settings: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> dict[str, str] | None:
    """Which tokens are special where the settings name all of them, in a vocabulary that has them."""
    found = {}
    for role in SPECIAL:
        given = settings.get(f"{role}_token")
        found[role] = given.get("content") if isinstance(given, dict) else given
    if not all(isinstance(token, str) for token in found.values()):
        return None
    if state is not None:
        vocab = state["model"]["vocab"]
        known = set(vocab) if isinstance(vocab, dict) else {one[0] for one in vocab}
        known |= {one["content"] for one in state.get("added_tokens") or ()}
        if not known.issuperset(found.values()):
            return None
    return {role: str(token) for role, token in found.items()}


def _inputs(settings: Mapping[str, Any]) -> list[str] | None:
    """What a model is given, where the settings name it."""
    found = settings.get("model_input_names")
    return found if isinstance(found, list) else None


def _from_vocab_txt(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A WordPiece tokenizer of one token a line; case and accents from the settings beside it."""
    vocabulary: dict[str, int] = {}
    text = read_text(file)
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        token = line.rstrip("\r")
        if token in vocabulary:
            raise InputError(f"token {token!r} stands in line {vocabulary[token] + 1} too", file, number)
        vocabulary[token] = number - 1
    lowercase = settings.get(
        "do_lower_case", not any(token.isalpha() and token != token.lower() for token in vocabulary)
    )
    return word_piece(vocabulary, bool(lowercase), settings.get("strip_accents"))


def _from_merges(file: Path, vocabulary: Any, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer of `vocab.json` and `merges.txt` beside it, one pair a line."""
    beside = file.with_name("merges.txt")
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise InputError("is no vocabulary: an object of tokens and their numbers needed", file)
    if not beside.is_file():
        raise InputError("no merges.txt beside it, one needed", file)
    merges = []
    for number, line in enumerate(read_text(beside).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.rstrip("\r").split(" "))
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise InputError(
                f"{line!r} given, two tokens of vocab.json that it holds joined too allowed", beside, number
            )
        merges.append(pair)
    spelt = _spelt(settings) or ROBERTA
    if missing := [token for token in spelt.values() if token not in vocabulary]:
        raise InputError(f"no {' '.join(missing)} in the vocabulary, all of {' '.join(spelt.values())} needed", file)
    with blaming(file, "is no tokenizer"):
        return byte_pairs(vocabulary, merges, spelt, bool(settings.get("add_prefix_space")))


def _from_sentence_pieces(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """ALBERT's tokenizer of `spiece.model`."""
    with blaming(file, "is no model of sentence pieces"):
        processor = sentence_pieces().SentencePieceProcessor(model_proto=file.read_bytes())
        pieces = [(processor.id_to_piece(number), processor.get_score(number)) for number in range(len(processor))]
    spelt, known = _spelt(settings) or ALBERT, {piece for piece, _ in pieces}
    if missing := [token for token in spelt.values() if token not in known]:
        raise InputError(f"no {' '.join(missing)} in the vocabulary, all of {' '.join(spelt.values())} needed", file)
    lowercase, strip_accents = settings.get("do_lower_case") is not False, settings.get("keep_accents") is not True
    made = unigram(pieces, lowercase, strip_accents, spelt)
    # As ALBERT's own code, and its accents are dropped unless told otherwise.
    quotes = [normalizers.Replace(pair, '"') for pair in ("``", "''")]
    made.normalizer = normalizers.Sequence([*quotes, made.normalizer])
    return made


def sentence_pieces() -> Any:
    """The library of sentence pieces; raises where it is not installed."""
    try:
        import sentencepiece
    except ImportError:
        raise InputError("unigram: no sentencepiece here; pip install 'bertloom[unigram]' brings it") from None
    return sentencepiece
