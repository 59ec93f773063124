"""A user's own pairs of words in a user's own sentences (Kurita et al. 2019; Nangia et al. 2020)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import summed
from bertloom.example import Example
from bertloom.inspect.bias.crows import require_masked, shared_scores
from bertloom.inspect.bias.suite import Array, Suite, masks, one_file
from bertloom.inspect.bias.winobias import hidden_word
from bertloom.text.counterfactual import read_pairs
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.tokenizer import SPECIAL

HERE = "{}"
PLAIN = r"[^][{}]*"
ATTRIBUTE = rf"\[{PLAIN}[^][{{}}\s]{PLAIN}\]"
TEMPLATE = re.compile(rf"{PLAIN}(?:{ATTRIBUTE}{PLAIN})?\{{\}}{PLAIN}|{PLAIN}\{{\}}{PLAIN}{ATTRIBUTE}{PLAIN}")


@dataclass(frozen=True)
class Filled:
    """Two words for the place of a template, whose attribute stands at `attribute` of what is before or after it."""

    place: Place
    template: str
    words: tuple[str, str]

    def parts(self) -> tuple[str, str, tuple[int, int] | None]:
        """What is before and after the word, and where the attribute stands, in the text or -1 from its end."""
        before, after = self.template.split(HERE)
        marks = [(one.find("["), one.find("]")) for one in (before, after)]
        attribute = None
        if marks[0][0] >= 0:
            attribute = (marks[0][0], marks[0][1] - 1)
        elif marks[1][0] >= 0:
            attribute = (len(before) + marks[1][0], len(before) + marks[1][1] - 1)
        bare = [one.replace("[", "").replace("]", "") for one in (before, after)]
        return bare[0], bare[1], attribute


class Template(Suite[Filled]):
    """How much likelier the first word is than the second, in nats; less what it is with the attribute hidden too."""

    least: ClassVar = 1
    neutral: ClassVar = {"first likelier": 0.0, "beyond the prior": 0.0, "first preferred, %": 50.0}
    caution = "It speaks of these words in these sentences, whose wording moves it much: try several."

    def __init__(self, templates: Sequence[str]):
        self.templates = templates
        for one in templates:
            if not TEMPLATE.fullmatch(one) or not one.replace(HERE, "").strip():
                raise InputError(
                    f"template: {one!r} given, a sentence with one {HERE} and at most one [attribute] allowed"
                )
            if SPECIAL["mask"] in one:
                raise InputError(
                    f"template: {one!r} given, words for an [attribute] and {HERE} for what is hidden allowed"
                )

    def read(self, files: Sequence[str], options: ReadOptions, counts: ReadCounts) -> list[Filled]:
        """Every pair of a file in every template."""
        file = one_file(files, "pairs of words")
        pairs = read_pairs(file)
        return [Filled(Place(file), template, pair) for template in self.templates for pair in pairs]

    def groups(self, items: Sequence[Filled]) -> dict[str, Array]:
        """All, each template, each pair."""
        templates = masks([one.template for one in items]) if len(self.templates) > 1 else masks([""] * len(items))
        pairs = masks([" – ".join(one.words) for one in items])
        return {**{name: one for name, one in templates.items() if name}, **pairs}

    def require(self, model: Model, items: Sequence[Filled]) -> None:
        """A masked language model that can tell the words of each pair apart."""
        require_masked(model)
        for one in items:
            first, second = model.tokenizer.ids(one.words, special=False)
            if first == second:
                raise one.place.error(f"pair {' '.join(one.words)!r} given, words that the model can tell apart needed")

    def outcomes(self, model: Model, items: Sequence[Filled]) -> Array:
        """(I, 3) by how much the first word is likelier, that beyond the prior, and the rest of the text with it."""

        def copies() -> Iterator[tuple[int, Example]]:
            for number, one in enumerate(items):
                before, after, attribute = one.parts()
                for side, word in enumerate(one.words):
                    moved = len(word) if attribute and attribute[0] >= len(before) else 0
                    where = attribute and (attribute[0] + moved, attribute[1] + moved)
                    yield 4 * number + side, hidden_word(model, before, word, after, one.place)
                    if where:
                        yield 4 * number + 2 + side, hidden_word(model, before, word, after, one.place, [where])

        scores = summed(model, copies(), 4 * len(items)).reshape(-1, 4)
        texts = []
        for one in items:
            before, after, _ = one.parts()
            texts.append((before + one.words[0] + after, before + one.words[1] + after))
        shared = shared_scores(model, texts, [one.place for one in items])
        likelier, prior = scores[:, 0] - scores[:, 1], scores[:, 2] - scores[:, 3]
        known = np.array([one.parts()[2] is not None for one in items])
        return np.stack([likelier, np.where(known, likelier - prior, np.nan), shared[:, 0] - shared[:, 1]], 1)

    def figures(self, outcomes: Array) -> dict[str, float]:
        """Means, and how often the rest of a text is likelier with the first word, a tie being half."""
        likelier, beyond, shared = outcomes.T
        found = {"first likelier": float(likelier.mean())}
        if not np.isnan(beyond).any():
            found["beyond the prior"] = float(beyond.mean())
        return found | {"first preferred, %": 50 * float(((shared > 0) + 1.0 * (shared >= 0)).mean())}
