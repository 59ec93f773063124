"""What a model's heads look at (Clark et al. 2019): the relations of words, and how each head spreads its attention.

L layers, N heads, n words or tokens of a sentence, S sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.files import whole_file
from bertloom.inspect.bootstrap import Array
from bertloom.inspect.probe import reading
from bertloom.inspect.probe.reading import ARROWS, Question, Table, share
from bertloom.text.sources import ReadCounts
from bertloom.text.trees import Tree

# Which way a head looks: from a word to its head, or from the head to the word.
DIRECTIONS = ("to head", "to dependent")
# Fixed offsets that are tried, up to so many words either way.
FARTHEST = 15
OFFSETS = [step for step in range(-FARTHEST, FARTHEST + 1) if step]
# Relations that no head is asked for (§4.2).
LEFT_OUT = ("root", "punct")


@dataclass(frozen=True)
class Relation:
    """The head and the fixed offset that find a relation's words best, with shares that are right.

    `head` is layer and head from 1, `interval` the bootstrap's of its accuracy over sentences; `accuracies` (2, L, N)
    are every head's, by `DIRECTIONS`.
    """

    name: str
    count: int
    head: tuple[int, int]
    direction: str
    accuracy: float
    interval: tuple[float, float]
    offset: int
    offset_accuracy: float
    offset_interval: tuple[float, float]
    accuracies: Array


@dataclass
class Heads:
    """All relations, the most frequent first, `all` before them, and each head's habits, (L, N) by name."""

    relations: list[Relation]
    habits: dict[str, Array]
    sentences: int
    words: int
    counts: ReadCounts = field(default_factory=ReadCounts)


@dataclass
class _Hits:
    """Of each sentence how many words of a relation were found (S, 2 L N heads and offsets), and how many there are."""

    hits: list[Array] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def heads(model: Model, given: Iterable[Tree], least: int = 20, seed: int = 0) -> Heads:
    """Read trees through a model; relations of fewer than `least` words are left out.

    Sentences that are longer than the model reads, and words that its vocabulary makes nothing of, are counted.
    """
    counts, found = ReadCounts(), dict[str, _Hits]()
    sums: dict[str, Array] = {}
    number = words = tokens = 0
    for one in reading.seen(model, given, counts):
        tree, attentions = one.source, one.attentions
        number, words, tokens = number + 1, words + len(tree.words), tokens + len(one.example)
        for name, value in habits(attentions, one.example, model).items():
            sums[name] = sums.get(name, 0) + value
        # To a word the sum over its pieces, from it their mean (§4.1).
        to = one.to_words(tree.spans)
        _count(tree, reading.means(to) @ attentions @ to.T, found, counts)
    if not number:
        raise InputError("no sentence is left that the model can read, at least one needed")
    shape = sums["entropy"].shape
    relations = [_relation(name, one, shape, seed) for name, one in found.items() if sum(one.sizes) >= least]
    if not relations:
        raise InputError(f"no relation of {least} words or more in the file; --least asks for fewer")
    relations.sort(key=lambda one: (one.name != "all", -one.count, one.name))
    return Heads(relations, {name: one / tokens for name, one in sums.items()}, number, words, counts)


def _count(tree: Tree, words: Array, found: dict[str, _Hits], counts: ReadCounts) -> None:
    """Add what every head and every offset finds of a sentence's relations."""
    size = len(tree.words)
    there = ~np.isnan(words[0, 0, :, 0])
    counts.mended["word that the vocabulary makes nothing of"] += int((~there).sum())
    asked = [
        (word, head, relation)
        for word, (head, relation) in enumerate(zip(tree.heads, tree.relations))
        if head >= 0 and relation not in LEFT_OUT and there[word] and there[head]
    ]
    if not asked:
        return
    words = np.where(there[:, None] & there[None, :], words, -1)
    words[..., np.arange(size), np.arange(size)] = -1
    best = np.stack([words.argmax(-1), words.argmax(-2)]).reshape(-1, size)  # (2 L N, n)
    places = np.arange(size)
    best = np.concatenate([best, np.stack([np.clip(places + step, 0, size - 1) for step in OFFSETS])])
    dependents, wanted = (np.array([one[side] for one in asked]) for side in (0, 1))
    # What a head cannot see, or gives nothing, it does not find.
    top = np.stack([words.max(-1), words.max(-2)]).reshape(-1, size)
    looks = np.concatenate([top > 0, np.ones((len(OFFSETS), size), bool)])
    right = (best[:, dependents] == wanted) & looks[:, dependents]  # (2 L N + offsets, asked)
    names = np.array([relation for _, _, relation in asked])
    for name in ("all", *dict.fromkeys(names)):
        one = found.setdefault(name, _Hits())
        chosen = slice(None) if name == "all" else names == name
        own = right[:, chosen]
        one.hits.append(own.sum(1))
        one.sizes.append(own.shape[1])


def _relation(name: str, seen: _Hits, shape: tuple[int, ...], seed: int) -> Relation:
    hits, sizes = np.stack(seen.hits), np.array(seen.sizes)
    shares = hits.sum(0) / sizes.sum()
    heads, offsets = shares[: 2 * shape[0] * shape[1]], shares[2 * shape[0] * shape[1] :]
    best, step = int(heads.argmax()), int(offsets.argmax())
    way, layer, head = np.unravel_index(best, (2, *shape))
    low, high = reading.bounds(hits[:, [best, len(heads) + step]], sizes, seed)
    return Relation(
        name=name,
        count=int(sizes.sum()),
        head=(int(layer) + 1, int(head) + 1),
        direction=DIRECTIONS[int(way)],
        accuracy=float(heads[best]),
        interval=(float(low[0]), float(high[0])),
        offset=OFFSETS[step],
        offset_accuracy=float(offsets[step]),
        offset_interval=(float(low[1]), float(high[1])),
        accuracies=heads.reshape(2, *shape),
    )


def habits(attentions: Array, example: Example, model: Model) -> dict[str, Array]:
    """Summed over a sentence's tokens (L, N): entropy in nats, distance in tokens, share on [CLS] and on [SEP] (§3)."""
    places = np.arange(len(example))
    special = model.tokenizer.special
    logs = np.log(np.maximum(attentions, 1e-30))
    return {
        "entropy": -(attentions * logs).sum((-2, -1)),
        "distance": (attentions * np.abs(places[:, None] - places)).sum((-2, -1)),
        "on [CLS]": attentions[..., example.input_ids == special.cls].sum((-2, -1)),
        "on [SEP]": attentions[..., example.input_ids == special.sep].sum((-2, -1)),
    }


def draw(found: Heads, path: Path, without: Heads | None = None, most: int = 11) -> None:
    """A map of heads for each of the most frequent relations, and for each habit."""
    maps = [
        (f"{one.name}: {one.accuracy:.0%}, offset {one.offset_accuracy:.0%}", one.accuracies.max(0), 1.0)
        for one in found.relations[: most + 1]
    ]
    draw_maps([*maps, *((name, one, float(one.max())) for name, one in found.habits.items())], path)


def draw_maps(maps: Sequence[tuple[str, Array, float]], path: Path) -> None:
    """Maps of heads (L, N) with a title each and the value that is darkest."""
    from matplotlib.figure import Figure

    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure((2.6 * columns, 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for one in axes[len(maps) :]:
        one.axis("off")
    for one, (title, values, top) in zip(axes, maps):
        one.imshow(values, cmap="Blues", vmin=0, vmax=top or 1)
        one.set_title(title, fontsize=8)
        layers, count = values.shape
        one.set_xticks([0, count - 1], ["1", str(count)], fontsize=7)
        one.set_yticks([0, layers - 1], ["1", str(layers)], fontsize=7)
    figure.supxlabel("head", fontsize=8)
    figure.supylabel("layer", fontsize=8)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=150)


def told(found: Heads) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "sentences": found.sentences,
        "words": found.words,
        "relations": [
            {
                "relation": one.name, "n": one.count, "layer": one.head[0], "head": one.head[1],
                "direction": one.direction, "accuracy": one.accuracy, "interval": reading.plain(one.interval),
                "offset": one.offset, "offset_accuracy": one.offset_accuracy,
                "offset_interval": reading.plain(one.offset_interval), "accuracies": one.accuracies.tolist(),
            }
            for one in found.relations
        ],
        "habits": {name: one.tolist() for name, one in found.habits.items()},
    }  # fmt: skip


def of_file(model: Model, asked: Question) -> Heads:
    """Of the trees of a file."""
    found = heads(model, asked.trees(), asked.least, asked.seed)
    asked.counts.mended.update(found.counts.mended)
    return found


def tables(found: Heads, without: Heads | None = None) -> list[Table]:
    """A relation a row; beside it the share that random weights find."""
    beside = {one.name: one.accuracy for one in without.relations} if without else {}
    columns = ["relation", "n", "head", "looks", "right, %", "step", "right, %"] + ["new, %"] * bool(without)
    rows = [
        (
            one.name, f"{one.count:,}", f"{one.head[0]}-{one.head[1]}", ARROWS[one.direction],
            share(one.accuracy, one.interval), f"{one.offset:+d}", share(one.offset_accuracy, one.offset_interval),
            *([f"{100 * beside[one.name]:.1f}"] if without else []),
        )
        for one in found.relations
    ]  # fmt: skip
    title = f"{found.sentences:,} sentences of {found.words:,} words; ± is half of the 95 % interval"
    return [Table(title, columns, rows)]
