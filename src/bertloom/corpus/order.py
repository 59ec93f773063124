"""Where examples begin: documents cut into runs, every run once in an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bertloom.corpus.arrays import Corpus
from bertloom.corpus.draw import Draw, mix, permuted
from bertloom.errors import InputError


@dataclass(frozen=True)
class Place:
    """Where an example begins: a document, and a token of the corpus inside it, at a sentence's start if it can be."""

    document: int
    token: int


class Chunks:
    """Documents cut into runs of `stride` tokens; each epoch shifts the cuts and visits every run once.

    Documents with fewer than `least` sentences have no runs; raises `InputError` where none is left.
    """

    def __init__(self, corpus: Corpus, stride: int, least: int):
        self.corpus, self.stride = corpus, stride
        tokens = np.diff(corpus.spans)
        sentences = np.diff(np.asarray(corpus.documents))
        counts = np.where(sentences >= least, -(-tokens // stride), 0)
        self.ends = np.cumsum(counts)
        if not len(self.ends) or not self.ends[-1]:
            raise InputError(f"no document with {least} sentences or more, at least one needed", corpus.path)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, draw: Draw) -> Place:
        """Where example `draw.index` begins: epoch and permutation are functions of seed and index."""
        epoch, position = divmod(draw.index, len(self))
        run = permuted(position, len(self), mix(draw.seed, self.stride, epoch))
        document = int(np.searchsorted(self.ends, run, side="right"))
        first, end = int(self.corpus.spans[document]), int(self.corpus.spans[document + 1])
        runs = -(-(end - first) // self.stride)
        shift = mix(draw.seed, epoch, document) % (runs * self.stride - (end - first) + 1)
        part = run - (int(self.ends[document - 1]) if document else 0)
        return Place(document, self._snapped(document, max(first, first + part * self.stride - shift)))

    def _snapped(self, document: int, token: int) -> int:
        """The start of the sentence around a token, unless that lies a whole run back."""
        start = int(self.corpus.sentences[sentence_of(self.corpus, token)])
        return start if token - start < self.stride else token


@lru_cache(maxsize=1024)
def chunks(corpus: Corpus, stride: int, least: int = 1) -> Chunks:
    """The runs of a corpus, made once for each stride."""
    return Chunks(corpus, stride, least)


def sentence_of(corpus: Corpus, token: int) -> int:
    """The number of the sentence that holds a token of the corpus."""
    return int(np.searchsorted(corpus.sentences, token, side="right")) - 1
