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
from bertloom.inspect.bias.crows import shared_scores
from bertloom.inspect.bias.masked import hidden_word, require_masked
from bertloom.inspect.bias.suite import Suite, masks, one_file
from bertloom.inspect.bootstrap import Array
from bertloom.text.bracketed import Span, unbracketed
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
    """Two words for the place of a template."""

    place: Place
    template: str
    words: tuple[str, str]

    def text(self, side: int) -> tuple[str, Span, list[Span]]:
        """The text with one of the words, where the word stands in it, and where the attribute, if there is one."""
        word = self.words[side]
        found = unbracketed(self.template.replace(HERE, word))
        assert not isinstance(found, str), "a template's brackets are looked at before"
        start = len(self.template.split(HERE)[0].replace("[", "").replace("]", ""))
        return found[0], (start, start + len(word)), found[1]


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

        texts = [[one.text(side) for side in (0, 1)] for one in items]

        def copies() -> Iterator[tuple[int, Example]]:
            for number, (one, both) in enumerate(zip(items, texts)):
                for side, (text, word, attribute) in enumerate(both):
                    yield 4 * number + side, hidden_word(model, text, word, one.place)
                    if attribute:
                        yield 4 * number + 2 + side, hidden_word(model, text, word, one.place, attribute)

        scores = summed(model, copies(), 4 * len(items)).reshape(-1, 4)
        shared = shared_scores(model, [(first[0], second[0]) for first, second in texts], [one.place for one in items])
        likelier, prior = scores[:, 0] - scores[:, 1], scores[:, 2] - scores[:, 3]
        known = np.array([bool(first[2]) for first, _ in texts])
        return np.stack([likelier, np.where(known, likelier - prior, np.nan), shared[:, 0] - shared[:, 1]], 1)

    def figures(self, outcomes: Array) -> dict[str, float]:
        """Means, and how often the rest of a text is likelier with the first word, a tie being half."""
        likelier, beyond, shared = outcomes.T
        found = {"first likelier": float(likelier.mean())}
        if not np.isnan(beyond).any():
            found["beyond the prior"] = float(beyond.mean())
        return found | {"first preferred, %": 50 * float(((shared > 0) + 1.0 * (shared >= 0)).mean())}
