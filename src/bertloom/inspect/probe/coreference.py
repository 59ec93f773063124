"""Heads that look from a mention to what it means (Clark et al. 2019, §4.3), in texts whose mentions are bracketed.

L layers, N heads, C mentions that stand before one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bootstrap import Array
from bertloom.inspect.probe import reading
from bertloom.inspect.probe.heads import draw_maps
from bertloom.inspect.probe.reading import ARROWS, Question, Table, share
from bertloom.text.bracketed import Mentioned, Span, mentioned
from bertloom.text.sources import ReadCounts

BASELINES = ("chance", "nearest", "same head word, else nearest")
# The best head is chosen among hundreds on what it is measured on; this is what is left where it is not.
CROSSED = "chosen on the other half"
# Ways a head looks: from the mention to what it means, or back.
WAYS = ("to antecedent", "to mention")


@dataclass(frozen=True)
class Rule:
    """A share of mentions whose antecedent is found, with the bootstrap's bounds over texts."""

    name: str
    accuracy: float
    interval: tuple[float, float]


@dataclass
class Coreference:
    """The best head, from 1, its way, its rule, others beside it; every head's accuracy (2, L, N) by `WAYS`."""

    head: tuple[int, int]
    way: str
    best: Rule
    others: list[Rule]
    accuracies: Array
    mentions: int
    texts: int
    counts: ReadCounts = field(default_factory=ReadCounts)


def coreference(model: Model, given: Iterable[Mentioned], seed: int = 0) -> Coreference:
    """Of each bracketed mention but a text's first: which of the mentions before it is the same thing?

    Mentions that can be meant are all phrases that are bracketed anywhere in the file, where they stand in the text.
    The last word of each is its head word, as in English.
    """
    texts = list(given)
    phrases = _phrases(texts)
    counts, hits, sizes = ReadCounts(), [], []
    shape: tuple[int, ...] = ()
    for one in reading.seen(model, texts, counts):
        own = _questions(one.source, phrases)
        attentions = one.attentions
        shape = attentions.shape[:2]
        found, asked = np.zeros(2 * shape[0] * shape[1] + len(BASELINES)), 0
        for mention, candidates, right in own:
            spans = [_head_word(one.source, span) for span in (mention, *candidates)]
            to = one.to_words(sorted(spans))[np.argsort(np.argsort([start for start, _ in spans]))]
            if not to.any(1).all():
                counts.mended["mention that the vocabulary makes nothing of"] += 1
                continue
            words = reading.means(to) @ attentions @ to.T  # (L, N, 1 + C, 1 + C)
            best = np.stack([words[..., 0, 1:].argmax(-1), words[..., 1:, 0].argmax(-1)]).flatten()
            found[: best.size] += np.array(right)[best]
            found[best.size :] += _ruled(one.source, mention, candidates, right)
            asked += 1
        if asked:
            hits.append(found)
            sizes.append(asked)
    if not hits:
        raise InputError("no mention has two to choose from before it, the bracketed one and another, some needed")
    return _summed(np.array(hits), np.array(sizes), shape, seed, counts)


def _summed(hits: Array, sizes: Array, shape: Sequence[int], seed: int, counts: ReadCounts) -> Coreference:
    shares = hits.sum(0) / sizes.sum()
    size = 2 * shape[0] * shape[1]
    best = int(shares[:size].argmax())
    columns = [best, *range(size, size + len(BASELINES))]
    way, layer, head = (int(one) for one in np.unravel_index(best, (2, *shape)))
    names = [f"head {layer + 1}-{head + 1}", *BASELINES]
    if len(hits) > 1:
        names[1:1], columns[1:1] = [CROSSED], [hits.shape[1]]
        hits = np.concatenate([hits, _crossed(hits[:, :size], sizes)[:, None]], 1)
    low, high = reading.bounds(hits[:, columns], sizes, seed)
    shares = hits.sum(0) / sizes.sum()
    rules = [Rule(name, float(shares[at]), (float(a), float(b))) for name, at, a, b in zip(names, columns, low, high)]
    accuracies = shares[:size].reshape(2, *shape)
    place = (layer + 1, head + 1)
    return Coreference(place, WAYS[way], rules[0], rules[1:], accuracies, int(sizes.sum()), len(sizes), counts)


def _crossed(hits: Array, sizes: Array) -> Array:
    """(S,) what is found in either half of the texts by the head that was best in the other."""
    half = len(hits) // 2
    halves = (slice(None, half), slice(half, None))
    best = [int((hits[one].sum(0) / sizes[one].sum()).argmax()) for one in halves]
    return np.concatenate([hits[halves[0], best[1]], hits[halves[1], best[0]]])


def _phrases(texts: Sequence[Mentioned]) -> re.Pattern[str]:
    """Every bracketed phrase, the longest first."""
    known = sorted(
        {one.named(span).lower() for one in texts for span in one.mentions}, key=lambda name: (-len(name), name)
    )
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, known))})\b" if known else r"(?!)", re.IGNORECASE)


def _questions(text: Mentioned, phrases: re.Pattern[str]) -> list[tuple[Span, list[Span], list[bool]]]:
    """Of each mention but the first those before it, in their order, and which of them are the same thing."""
    inside = [found.span() for found in phrases.finditer(text.text)]
    known = set(text.mentions)
    others = [span for span in inside if not any(span[0] < end and start < span[1] for start, end in known)]
    mentions = sorted([*known, *others])
    asked = []
    for mention in text.mentions[1:]:
        candidates = [span for span in mentions if span[1] <= mention[0]]
        right = [span in known for span in candidates]
        if any(right) and not all(right):
            asked.append((mention, candidates, right))
    return asked


def _head_word(text: Mentioned, span: Span) -> Span:
    words = list(re.finditer(r"\S+", text.named(span)))
    return span[0] + words[-1].start(), span[0] + words[-1].end()


def _ruled(text: Mentioned, mention: Span, candidates: Sequence[Span], right: Sequence[bool]) -> Array:
    """What the baselines find."""

    def word(span: Span) -> str:
        start, end = _head_word(text, span)
        return text.text[start:end].lower()

    same = [number for number, one in enumerate(candidates) if word(one) == word(mention)]
    return np.array([np.mean(right), right[-1], right[same[-1] if same else -1]], np.float64)


def draw(found: Coreference, path: Path, without: Coreference | None = None) -> None:
    """A map of heads for both ways."""
    draw_maps([(f"{way}, best {one.max():.0%}", one, 1.0) for way, one in zip(WAYS, found.accuracies)], path)


def told(found: Coreference) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "texts": found.texts, "mentions": found.mentions,
        "layer": found.head[0], "head": found.head[1], "way": found.way,
        "rules": [
            {"rule": one.name, "accuracy": one.accuracy, "interval": reading.plain(one.interval)}
            for one in (found.best, *found.others)
        ],
        "accuracies": found.accuracies.tolist(),
    }  # fmt: skip


def of_file(model: Model, asked: Question) -> Coreference:
    """Of the texts of a file."""
    found = coreference(model, mentioned(asked.file, asked.options, asked.counts), asked.seed)
    asked.counts.mended.update(found.counts.mended)
    return found


def tables(found: Coreference, without: Coreference | None = None) -> list[Table]:
    """The best head, that chosen on the other half, random weights, and rules without a model."""
    rules = [(f"{found.best.name} ({ARROWS[found.way]})", found.best)]
    rules += [(one.name, one) for one in found.others if one.name == CROSSED]
    if without is not None:
        chosen = [without.best, *(one for one in without.others if one.name == CROSSED)]
        rules += [(f"random weights, {one.name}", one) for one in chosen]
    rules += [(one.name, one) for one in found.others if one.name != CROSSED]
    title = f"{found.mentions:,} mentions in {found.texts:,} texts; ± is half of the 95 % interval"
    rows = [(name, share(one.accuracy, one.interval)) for name, one in rules]
    return [Table(title, ["finds what is meant", "right, %"], rows)]
