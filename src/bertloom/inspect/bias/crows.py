"""CrowS-Pairs (Nangia et al. 2020): of two sentences about different people, which does a model find likelier?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import hidden, summed
from bertloom.example import Example
from bertloom.inspect.bias.masked import whole
from bertloom.inspect.bias.suite import Suite, masks, one_file
from bertloom.inspect.bootstrap import Array
from bertloom.text.records import Place, Row, rows, text_of
from bertloom.text.sources import ReadCounts, ReadOptions

DIRECTIONS = ("stereo", "antistereo")
# Decimals to which scores are rounded before they are compared, as the authors' scorer does.
DECIMALS = 3


@dataclass(frozen=True)
class Pair:
    """`more` says the worse of the historically disadvantaged group, `less` is of another."""

    place: Place
    more: str
    less: str
    kind: str
    direction: str


class CrowsPairs(Suite[Pair]):
    """The share of pairs whose `more` has the higher pseudo-log-likelihood, by the tokens that both have (§4)."""

    neutral: ClassVar = {"stereotype, %": 50.0, "without ties, %": 50.0}
    caution = (
        "It compares sentences about groups in the USA that crowd workers wrote; Blodgett et al. (2021) found many "
        "that are unclear or not about a stereotype. 50 % may hide preferences that cancel out."
    )

    def read(self, files: Sequence[str], options: ReadOptions, counts: ReadCounts) -> list[Pair]:
        """The pairs of a CSV file with sent_more, sent_less, stereo_antistereo and bias_type."""
        pairs = []
        for place, row in rows(one_file(files, "CrowS-Pairs"), (), options, counts):
            try:
                pairs.append(_pair(row, place))
            except InputError:
                if options.on_bad == "error":
                    raise
                counts.mended["malformed pair, left out"] += 1
        if not pairs:
            raise InputError("no pairs in it, at least one needed", files[0])
        return pairs

    def groups(self, items: Sequence[Pair]) -> dict[str, Array]:
        """All, each type of bias, and both directions."""
        directions = masks([one.direction for one in items])
        return {
            **masks([one.kind for one in items]),
            **{name: directions[name] for name in DIRECTIONS if name in directions},
        }

    def outcomes(self, model: Model, items: Sequence[Pair]) -> Array:
        """(I, 2) the rounded scores of both sentences."""
        scores = shared_scores(model, [(one.more, one.less) for one in items], [one.place for one in items])
        return np.round(scores, DECIMALS)

    def figures(self, outcomes: Array) -> dict[str, float]:
        """A tie is no stereotype, and counts; the authors' scores of either direction are those without ties."""
        more, less = outcomes.T
        found = {"stereotype, %": 100 * float((more > less).mean())}
        told = more != less
        if told.any() and not told.all():
            found["without ties, %"] = 100 * float((more > less)[told].mean())
        return found

    def exact(self, outcomes: Array, rng: np.random.Generator) -> dict[str, float]:
        """How many pairs are told apart by nothing."""
        ties = int((outcomes[:, 0] == outcomes[:, 1]).sum())
        return {"ties": float(ties)} if ties else {}


def _pair(row: Row, place: Place) -> Pair:
    more, less, direction, kind = (
        text_of(row, name, place) for name in ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
    )
    if direction not in DIRECTIONS:
        raise place.error(f"stereo_antistereo: {direction!r} given, stereo or antistereo allowed")
    return Pair(place, more, less, kind, direction)


def shared_scores(model: Model, pairs: Sequence[tuple[str, str]], places: Sequence[Place]) -> Array:
    """(len(pairs), 2) of both texts the log-probabilities, summed, of the tokens they share, each hidden alone."""
    sides = [model.tokenizer.ids([pair[side] for pair in pairs]) for side in (0, 1)]

    def copies() -> Iterator[tuple[int, Example]]:
        for number, (both, where) in enumerate(zip(zip(*sides), places)):
            wholes = [whole(model, ids, where) for ids in both]
            first, second = (one.tolist() for one in wholes)
            for block in SequenceMatcher(None, first, second).get_matching_blocks():
                for side, start in ((0, block.a), (1, block.b)):
                    for place in range(start, start + block.size):
                        if 0 < place < len(wholes[side]) - 1:
                            yield 2 * number + side, hidden(wholes[side], [place], model)

    return summed(model, copies(), 2 * len(pairs)).reshape(-1, 2)
