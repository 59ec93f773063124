"""Association tests: of words (WEAT, Caliskan et al. 2017) and of sentences (SEAT, May et al. 2019).

n words, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias.suite import Suite
from bertloom.inspect.bootstrap import Array
from bertloom.text.records import json_of
from bertloom.text.sources import ReadCounts, ReadOptions

ROLES = ("targ1", "targ2", "attr1", "attr2")
# Ways to cut the targets in two; where there are more so many are drawn.
PARTITIONS = 100_000


@dataclass(frozen=True)
class Target:
    """A text of one of a test's two targets, beside what both attributes are."""

    test: str
    text: str
    first: bool
    attributes: tuple[tuple[str, ...], tuple[str, ...]]


class Association(Suite[Target]):
    """Effect sizes, and p of a permutation test that a cut of the targets by chance goes as far (one-sided)."""

    least: ClassVar = 1
    neutral: ClassVar = {"effect": 0.0, "effect of [CLS]": 0.0, "effect of means": 0.0}
    caution = (
        "A positive effect is a link between the first target and the first attribute. None found is no proof that "
        "there is none, for the words are few. Words' vectors are the input embeddings, not what the layers make of"
        " them in a text; of sentences' May et al. (2019) found results inconsistent, whose cosines may not mean "
        "what those of words do."
    )

    def __init__(self, sentences: bool):
        self.sentences = sentences

    def read(self, files: Sequence[str], options: ReadOptions, counts: ReadCounts) -> list[Target]:
        """The tests of JSON files of the authors' form, by their names, or of folders of them."""
        found: list[Target] = []
        for given in files:
            path = Path(given)
            inside = sorted([*path.glob("*.jsonl"), *path.glob("*.json")]) if path.is_dir() else [path]
            if not inside:
                raise InputError("folder without tests, files in .jsonl or .json needed", given)
            for file in inside:
                made = _test(file)
                if any(one.test == file.stem for one in found):
                    raise InputError(f"a second test {file.stem!r} given, tests of different names allowed", file)
                found += made
        return found

    def require(self, model: Model, items: Sequence[Target]) -> None:
        """Any encoder."""

    def groups(self, items: Sequence[Target]) -> dict[str, Array]:
        """Each test."""
        names = np.array([one.test for one in items])
        return {name: names == name for name in dict.fromkeys(names.tolist())}

    def outcomes(self, model: Model, items: Sequence[Target]) -> Array:
        """(I, 2 or 3) whether a text is of the first target, and by how much it is nearer to the first attribute.

        Sentences have two such numbers: of `[CLS]`, as the authors have it, and of the mean of all tokens.
        """
        texts = list(
            dict.fromkeys(text for one in items for text in (one.text, *one.attributes[0], *one.attributes[1]))
        )
        ways = [_states(model, texts, way) for way in ("cls", "mean")] if self.sentences else [_words(model, texts)]
        of = {text: number for number, text in enumerate(texts)}
        columns = [np.array([float(one.first) for one in items])]
        for vectors in ways:
            units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            near = [
                [float((units[[of[text] for text in side]] @ units[of[one.text]]).mean()) for side in one.attributes]
                for one in items
            ]
            columns.append(np.subtract(*np.array(near).T))
        return np.stack(columns, 1)

    def figures(self, outcomes: Array) -> dict[str, float]:
        """The means' distance by the deviation of all (of a sample)."""
        return {
            f"effect{name}": _effect(outcomes[:, 0] > 0, outcomes[:, column])
            for column, name in self._columns(outcomes)
        }

    def exact(self, outcomes: Array, rng: np.random.Generator) -> dict[str, float]:
        """p of each effect."""
        return {
            f"p{name}": permuted(outcomes[:, 0] > 0, outcomes[:, column], rng)
            for column, name in self._columns(outcomes)
        }

    def drawn(self, outcomes: Array, rng: np.random.Generator) -> Array:
        """As many of either target."""
        sides = [np.flatnonzero(outcomes[:, 0] == side) for side in (1, 0)]
        return np.concatenate([rng.choice(side, len(side)) for side in sides])

    def _columns(self, outcomes: Array) -> list[tuple[int, str]]:
        return list(enumerate((" of [CLS]", " of means") if outcomes.shape[1] > 2 else ("",), 1))


def _test(file: Path) -> list[Target]:
    given = json_of(str(file))
    sets = [given.get(role) if isinstance(given, dict) else None for role in ROLES]
    for role, one in zip(ROLES, sets):
        texts = one.get("examples") if isinstance(one, dict) else None
        if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) and text for text in texts):
            raise InputError(f"is no association test: {role} with a list of two examples or more needed", file)
    first, second, *attributes = (tuple(one["examples"]) for one in sets if one)
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} examples of targ1 and targ2 given, as many needed", file)
    sides = (attributes[0], attributes[1])
    return [Target(file.stem, text, side, sides) for side, texts in ((True, first), (False, second)) for text in texts]


def _states(model: Model, texts: Sequence[str], way: str) -> Array:
    """(n, D) of texts that a model reads whole."""
    for text in texts:
        model.whole(text)
    return model.encode(texts, pooling=way).astype(np.float64)


def _words(model: Model, words: Sequence[str]) -> Array:
    """(n, D) of words the means of their pieces' embeddings."""
    made = []
    for word, ids in zip(words, model.tokenizer.ids(words, special=False)):
        if not ids or model.tokenizer.special.unk in ids:
            raise InputError(f"word {word!r} given, one that the vocabulary makes something of needed", model.path)
        made.append(model.encoder.embeddings.word(torch.tensor(ids)).detach().float().cpu().numpy().mean(0))
    return np.array(made, np.float64)


def _effect(first: Array, near: Array) -> float:
    return float((near[first].mean() - near[~first].mean()) / near.std(ddof=1))


def permuted(first: Array, near: Array, rng: np.random.Generator) -> float:
    """How likely an even cut of the targets by chance is to put as much in the first; exact where it can be."""
    size, reached = int(first.sum()), near[first].sum()
    # Sums in another order differ in their last bits, and a cut that is equal counts.
    reached -= 1e-12 * np.abs(near).sum()
    if math.comb(len(near), size) <= PARTITIONS:
        sums = [near[list(chosen)].sum() for chosen in combinations(range(len(near)), size)]
        return float(np.mean(np.array(sums) >= reached))
    drawn = near[rng.permuted(np.tile(np.arange(len(near)), (PARTITIONS - 1, 1)), axis=1)[:, :size]].sum(1)
    # What was seen is one of the cuts.
    return float((1 + (drawn >= reached).sum()) / PARTITIONS)
