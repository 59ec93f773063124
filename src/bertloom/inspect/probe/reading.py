"""Texts through a model, looked into; and what figures of them are sure of.

L layers, N heads, D hidden size, n tokens or words of a text, S texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.files import TAKEN
from bertloom.inspect import bootstrap
from bertloom.inspect.bootstrap import Array
from bertloom.model.encoder import Insides
from bertloom.model.forms import like
from bertloom.model.init import randomise
from bertloom.model.packed import pack
from bertloom.text.bracketed import Span
from bertloom.text.sequence import room, sequence
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.trees import Tree, trees

TOGETHER = 32
PICTURES = (".png", ".svg")
# How a table shows which way a head looks.
ARROWS = {"to head": "→ head", "to dependent": "head →", "to antecedent": "→ antecedent", "to mention": "antecedent →"}


@dataclass(frozen=True)
class Question:
    """A file that a model is asked of, as the user gave it; every probe reads of it what is its own."""

    file: str
    options: ReadOptions
    counts: ReadCounts
    seed: int = 0
    least: int = 20
    train: str | None = None
    watch: Callable[[str], None] = lambda what: None

    def trees(self, file: str | None = None) -> Iterator[Tree]:
        """The trees of the file, or of another."""
        return trees(file or self.file, self.options, self.counts)


@dataclass(frozen=True)
class Table:
    """What a person sees of what was found."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    remark: str = ""


def share(value: float, interval: tuple[float, float]) -> str:
    """A share in percent, and half of its interval where it has one."""
    half = 50 * (interval[1] - interval[0])
    return f"{100 * value:.1f}" + (f" ± {half:.1f}" if half == half else "")


class HasText(Protocol):
    """What can be read through a model."""

    @property
    def text(self) -> str:
        """As it is written."""


Source = TypeVar("Source", bound=HasText)


@dataclass(frozen=True)
class Seen(Generic[Source]):
    """A text with its example, where its pieces stand in it, and what every layer made of it."""

    source: Source
    example: Example
    places: Sequence[Span]
    insides: Sequence[Insides]
    number: int
    rows: slice

    @property
    def attentions(self) -> Array:
        """(L, N, n, n)."""
        maps = [one.attentions[self.number] for one in self.insides[1:]]
        if len({len(one) for one in maps}) > 1:
            raise InputError("model: heads were taken away, the one that it was made from needed")
        return torch.stack(maps).float().cpu().numpy()

    @property
    def states(self) -> Array:
        """(1 + L, n, D) of the embeddings and every layer."""
        return torch.stack([one.hidden_states[self.rows] for one in self.insides]).float().cpu().numpy()

    def to_words(self, words: Sequence[Span]) -> Array:
        """(words, n) which tokens are pieces of each word of the text."""
        to = np.zeros((len(words), len(self.example)), np.float32)
        starts = [start for start, _ in self.places]
        owner = np.searchsorted([start for start, _ in words], starts, "right") - 1
        for piece, (start, word) in enumerate(zip(starts, owner.tolist()), 1):
            if word >= 0 and start < words[word][1]:
                to[word, piece] = 1
        return to


@torch.no_grad()
def seen(model: Model, given: Iterable[Source], counts: ReadCounts) -> Iterator[Seen[Source]]:
    """Each text that a model reads whole; longer ones are counted and left out."""
    special, most = model.tokenizer.special, room(model.tokenizer.special, model.config.longest)
    stream = iter(given)
    while part := list(islice(stream, TOGETHER)):
        pieces = model.tokenizer.pieces([one.text for one in part])
        counts.mended[f"text of more than {most} tokens, left out"] += sum(len(ids) > most for ids, _ in pieces)
        whole = [
            (one, Example(*sequence(special, ids)), places)
            for one, (ids, places) in zip(part, pieces)
            if 0 < len(ids) <= most
        ]
        if not whole:
            continue
        insides: list[Insides] = []
        model.encoder(pack([one for _, one, _ in whole]).to(model.encoder.embeddings.word.weight.device), trace=insides)
        start = 0
        for number, (one, example, places) in enumerate(whole):
            yield Seen(one, example, places, insides, number, slice(start, start + len(example)))
            start += len(example)


def means(to: Array) -> Array:
    """(words, n) shares of each word's pieces, nan for a word that has none."""
    sizes = to.sum(1, keepdims=True)
    made: Array = np.divide(to, sizes, out=np.full_like(to, np.nan), where=sizes > 0)
    return made


def bounds(hits: Array, sizes: Array, seed: int) -> Array:
    """(2, K) bounds of shares of which S texts have `hits` (S, K) among `sizes` (S,), by drawing texts."""
    drawn = bootstrap.sums(np.concatenate([hits, sizes[:, None]], 1), seed)
    return bootstrap.bounds(drawn[:, :-1] / drawn[:, -1:])


def plain(interval: tuple[float, float]) -> list[float] | None:
    """Bounds as JSON, which knows no nan."""
    return None if np.isnan(interval[0]) else list(interval)


def untrained(model: Model, seed: int = 0) -> Model:
    """The model with random weights, matrices of deviation 0.02 as BERT's began, which a probe is compared with."""
    encoder = like(model.encoder)
    randomise(encoder, 0.02, torch.Generator().manual_seed(seed))
    encoder.to(model.encoder.embeddings.word.weight.device)
    return Model(encoder, torch.nn.ModuleDict(), model.tokenizer, {}, model.path)


def require_picture(path: Path | None) -> None:
    """Raise where a name is not a picture's, or taken."""
    if path is not None and path.suffix not in PICTURES:
        raise InputError(f"output: {path.name!r} given, a name in .png or .svg allowed")
    if path is not None and path.exists():
        raise InputError(TAKEN, path)
