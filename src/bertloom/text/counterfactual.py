"""Text with one group of people in place of another (counterfactual data augmentation, Lu et al. 2018; Maudslay et al.
2019): words of pairs are exchanged, grammar and capitals kept."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bertloom.errors import InputError
from bertloom.files import read_text
from bertloom.text.readers import Passage

# A word with what hangs on it by an apostrophe; letters of any script, with the marks that stand on them.
_MARKS = "".join(re.escape(chr(code)) for code in range(0x300, 0x1E000) if unicodedata.category(chr(code))[0] == "M")
_LETTERS = rf"[^\W\d_](?:[^\W\d_]|[{_MARKS}])*"
WORD = re.compile(rf"{_LETTERS}(?:['’.-]{_LETTERS})*['’.]?")
# Pronouns that stand before what they own, or alone: what each becomes, in the one place and in the other.
PRONOUNS = {"her": ("his", "him"), "his": ("her", "hers")}
# `his or her`: both own the same.
OR_THE_OTHER = re.compile(r"(?:\s+(?:or|and)\s+|/)(?:his|her)\b", re.IGNORECASE)
# What cannot begin a noun phrase: after such a word a pronoun stood alone.
ALONE = """
a about above after again against ahead alive all alone along already also although always am among an and any
anymore anything anyway apart are aren't around as ashamed aside at away back be because been before behind being
below beside between both but by can can't cannot come could couldn't did didn't die directly do does doesn't don't
down during each easily either enough especially even ever every everything exactly except feel find for forever
forward free from fully further get go had hadn't happy has hasn't have haven't he her here herself highly him
himself his home how however i if in inside instead into is isn't it its itself just know later many may maybe me
might mine more most much must my myself near never no nobody none nor not nothing now of off often okay on once one
only onto or our ourselves out outside over past perhaps personally please prior properly quickly quietly quite
really recently safely several she should shouldn't since slowly so some something sometimes soon still suddenly
tell than that the their them then there therefore these they think this those though through throughout till to
today together tomorrow tonight too toward towards twice under unless until up upon us very was wasn't we well were
weren't what whatever when whenever where whether which while who whom whose why will with within without won't
would wouldn't yesterday yet you your yourself
"""
STAND_ALONE = frozenset(ALONE.split())


def read_pairs(file: str | Path) -> list[tuple[str, str]]:
    """Pairs of words, one a line with a tab or spaces between; a line of another form raises with its number."""
    found: dict[tuple[str, str], None] = {}
    for number, line in enumerate(read_text(Path(file)).split("\n"), 1):
        words = [one for part in line.split("\t") for one in [unicodedata.normalize("NFC", part.strip())] if one]
        if len(words) == 1:
            words = words[0].split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0].lower() == words[1].lower():
            raise InputError(f"{line.strip()!r} given, two different words with a tab between allowed", file, number)
        found[words[0], words[1]] = None
    if not found:
        raise InputError("no pairs in it, at least one needed", file)
    return list(found)


@dataclass
class Swapper:
    """Exchanges the words of `pairs`, and of `names` where they are written as they are there.

    The first word of a pair becomes the second, and the second the first unless another pair says otherwise; of several
    pairs that begin with a word the first counts. Where `her` and `his` become one another, or `him`, what follows them
    decides.
    """

    pairs: Sequence[tuple[str, str]]
    names: Sequence[tuple[str, str]] = ()
    words: dict[str, str] = field(init=False)
    named: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        for what, pairs in (("counterfactual", self.pairs), ("names", self.names)):
            if unmatched := [one for pair in pairs for one in pair if not WORD.fullmatch(one)]:
                raise InputError(f"{what}: {unmatched[0]!r} given, single words of letters allowed")
        self.words = _both_ways([(first.lower(), second.lower()) for first, second in self.pairs])
        self.named = _both_ways(self.names)

    @classmethod
    def of_files(cls, pairs: Path | None, names: Path | None = None) -> Swapper | None:
        """The one of the pairs and names in files, none where none is given."""
        found = [read_pairs(file) if file else [] for file in (pairs, names)]
        return cls(*found) if any(found) else None

    @property
    def sizes(self) -> dict[str, int]:
        """How many words and names are exchanged for another."""
        return {"words": len(self.words), "names": len(self.named)}

    @property
    def fingerprint(self) -> str:
        """A hash of what is exchanged for what."""
        told = repr((sorted(self.words.items()), sorted(self.named.items())))
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def __call__(self, text: str) -> tuple[str, int]:
        """The text with its words exchanged, and how many were."""
        made: list[str] = []
        end = count = 0
        for found in WORD.finditer(text):
            word = found[0]
            other = self._other(word, text, found.end())
            while other is None and (cut := max(word.rfind(mark) for mark in "'’.-")) > 0:
                word = word[:cut]
                other = self._other(word, text, found.start() + len(word))
            if other is not None:
                made += [text[end : found.start()], other]
                end, count = found.start() + len(word), count + 1
        return "".join([*made, text[end:]]), count

    def _other(self, word: str, text: str, end: int) -> str | None:
        word = unicodedata.normalize("NFC", word)
        if word in self.named:
            return self.named[word]
        low = word.lower()
        if low not in self.words:
            return None
        other, forms = self.words[low], PRONOUNS.get(low, ())
        if other in forms:
            other = forms[not _owns(text, end)]
        if word.isupper() and len(word) > 1:
            return other.upper()
        return other[0].upper() + other[1:] if word[0].isupper() else other


def with_copies(stream: Iterable[Passage], swapper: Swapper) -> Iterator[Passage]:
    """Behind each document that has words to exchange a copy with them exchanged; one document is held at a time."""
    copy: list[Passage] = []
    changed = 0
    for passage in stream:
        yield passage
        swapped = [swapper(paragraph) for paragraph in passage.paragraphs]
        copy.append(replace(passage, paragraphs=[text for text, _ in swapped], copied=True))
        changed += sum(count for _, count in swapped)
        if passage.last:
            yield from copy if changed else ()
            copy, changed = [], 0


def _both_ways(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for first, second in pairs:
        made.setdefault(first, second)
    for first, second in pairs:
        made.setdefault(second, first)
    return made


def _owns(text: str, end: int) -> bool:
    """Whether what follows a pronoun at `end` is a thing that it owns: a word next to it that can begin one."""
    if other := OR_THE_OTHER.match(text, end):
        end = other.end()
    following = WORD.match(text, end + 1) if text[end : end + 1].isspace() else None
    if following is None:
        # A quote, a bracket or a number may begin a thing; other signs, and the text's end, close a phrase.
        return bool(re.match(r"\s+[\"“'‘(\d]", text[end:]))
    return following[0].rstrip("'’.").lower() not in STAND_ALONE
