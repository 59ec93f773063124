"""Segments: which tokens of the corpus make an example. Plain functions of a corpus and a draw.

Each gives token ranges of the corpus that never cross a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertloom.corpus.arrays import Corpus
from bertloom.corpus.draw import Draw, mix, permuted
from bertloom.corpus.order import Chunks, chunks, sentence_of
from bertloom.errors import InputError
from bertloom.example import Example, Ints
from bertloom.text.sequence import kept

SHORT_SHARE = 0.1
SHORTEST = 2


class Span(NamedTuple):
    """Tokens `start` to `stop` of the corpus."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


class Pair(NamedTuple):
    """Two spans, and whether the second follows the first in its document."""

    first: Span
    second: Span
    is_next: bool


def full(corpus: Corpus, draw: Draw, rng: np.random.Generator) -> list[Span]:
    """One segment filled to the length, or to its document's end."""
    capacity = draw.length - 2
    place = chunks(corpus, capacity).place(draw)
    return [Span(place.token, min(int(corpus.spans[place.document + 1]), place.token + capacity))]


def sentences(corpus: Corpus, draw: Draw, rng: np.random.Generator) -> list[Span]:
    """As many whole sentences as the length has room for; one too long is cut."""
    (span,) = full(corpus, draw, rng)
    end = int(corpus.sentences[sentence_of(corpus, span.stop)]) if span.stop < len(corpus.tokens) else span.stop
    return [Span(span.start, end if end > span.start else span.stop)]


def sentence(corpus: Corpus, draw: Draw, rng: np.random.Generator) -> list[Span]:
    """One sentence, cut at the length."""
    count = len(corpus.sentences) - 1
    epoch, position = divmod(draw.index, count)
    number = permuted(position, count, mix(draw.seed, epoch))
    start, stop = int(corpus.sentences[number]), int(corpus.sentences[number + 1])
    return [Span(start, min(stop, start + draw.length - 2))]


def _pair_chunks(corpus: Corpus, length: int, elsewhere: bool = True) -> Chunks:
    if elsewhere and len(corpus.documents) < 3:
        raise InputError("one document, at least two needed to draw a second segment from elsewhere", corpus.path)
    return chunks(corpus, length - 3, 2)


def pair(corpus: Corpus, draw: Draw, rng: np.random.Generator) -> Pair:
    """Two segments filled to the length, the second true half the time, else from another document (§A.2).

    One in ten is short, to soften the difference to fine-tuning's lengths.
    """
    capacity = draw.length - 3
    place = _pair_chunks(corpus, draw.length).place(draw)
    if rng.random() < SHORT_SHARE:
        capacity = int(rng.integers(SHORTEST, capacity + 1))
    first = _first_half(corpus, place.document, place.token, capacity, rng)
    room = capacity - first.size
    is_next = bool(rng.random() < 0.5)
    start, document = (first.stop, place.document) if is_next else _elsewhere(corpus, place.document, rng)
    return Pair(first, Span(start, min(start + room, int(corpus.spans[document + 1]))), is_next)


def ordered(corpus: Corpus, draw: Draw, rng: np.random.Generator) -> Pair:
    """Two neighbouring segments within the length, swapped half the time (Lan et al. 2020, §3.1).

    `is_next` is whether they stand as in their document; one in ten is short, as pairs are. A run of whole sentences
    is split at one of its inner ends, and two sentences too long are cut at either side: what always ended in the
    middle of a sentence, or was the longer half, would tell the order without a word being read.
    """
    capacity = draw.length - 3
    place = _pair_chunks(corpus, draw.length, elsewhere=False).place(draw)
    if rng.random() < SHORT_SHARE:
        capacity = int(rng.integers(SHORTEST, capacity + 1))
    last = int(corpus.documents[place.document + 1])
    begin = min(sentence_of(corpus, place.token), last - 2)
    start = int(corpus.sentences[begin])
    fitting = int(np.searchsorted(corpus.sentences[: last + 1], start + capacity, side="right")) - 1
    end = max(begin + 2, fitting)
    middle, stop = (int(corpus.sentences[one]) for one in (rng.integers(begin + 1, end), end))
    halves = [Span(start, middle), Span(middle, stop)]
    # An even room, since an odd one would give one of two equal halves a token more.
    sizes = kept(halves[0].size, halves[1].size, capacity // 2 * 2)
    for number, (half, size) in enumerate(zip(halves, sizes)):
        ahead = (half.size - size) * int(rng.random() < 0.5)
        halves[number] = Span(half.start + ahead, half.start + ahead + size)
    first, second = halves
    return Pair(first, second, True) if rng.random() < 0.5 else Pair(second, first, False)


def _first_half(corpus: Corpus, document: int, token: int, capacity: int, rng: np.random.Generator) -> Span:
    """A segment that ends where a sentence of its document ends and another one follows."""
    last = int(corpus.documents[document + 1]) - 1
    begin = min(sentence_of(corpus, token), last - 1)
    # Sentences that start inside the room; the second segment begins at one of them.
    end = min(last, sentence_of(corpus, int(corpus.sentences[begin]) + capacity - 1))
    following = int(rng.integers(begin + 1, max(begin + 1, end) + 1))
    stop = int(corpus.sentences[following])
    start = int(corpus.sentences[begin])
    if stop - start > capacity - 1:
        start = stop - max(1, capacity // 2)
    return Span(max(start, int(corpus.spans[document])), stop)


def _elsewhere(corpus: Corpus, document: int, rng: np.random.Generator) -> tuple[int, int]:
    """The start of a sentence of another document, documents drawn by their size in tokens."""
    first, end = int(corpus.spans[document]), int(corpus.spans[document + 1])
    token = int(rng.integers(len(corpus.tokens) - (end - first)))
    token += (end - first) * (token >= first)
    number = sentence_of(corpus, token)
    other = int(np.searchsorted(corpus.documents, number, side="right")) - 1
    return int(corpus.sentences[number]), other


def assembled(corpus: Corpus, spans: Sequence[Span]) -> tuple[Example, Ints, npt.NDArray[Any]]:
    """[CLS] A [SEP] (B [SEP]), the places of the ordinary tokens in it, and whether each of those starts a word."""
    special = corpus.special
    cls, sep = np.array([special["cls"]]), np.array([special["sep"]])
    pieces, places, at = [cls], [], 1
    for start, stop in spans:
        pieces += [corpus.tokens[start:stop], sep]
        places.append(np.arange(at, at + stop - start))
        at += stop - start + 1
    lengths = [stop - start + 1 for start, stop in spans]
    segment_ids = np.repeat(np.arange(len(spans)), [lengths[0] + 1, *lengths[1:]])
    starts = np.concatenate([corpus.word_starts[start:stop] for start, stop in spans])
    return Example(np.concatenate(pieces).astype(np.int64), segment_ids), np.concatenate(places), starts


SEGMENTS = {"full": full, "sentences": sentences, "sentence": sentence}


def examples_per_epoch(corpus: Corpus, kind: str, length: int) -> int:
    """How many examples of a kind of segment one pass over the corpus has."""
    match kind:
        case "sentence":
            return len(corpus.sentences) - 1
        case "pair" | "ordered":
            return len(_pair_chunks(corpus, length, kind == "pair"))
    return len(chunks(corpus, length - 2))
