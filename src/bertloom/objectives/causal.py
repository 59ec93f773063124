"""The next token, from what stands before it (Radford et al. 2018), or from either side (Peters et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead
from bertloom.model.packed import Batch
from bertloom.objectives.masked import named
from bertloom.objectives.part import Choices, Measured, Part


class NextToken(Part):
    """Every token predicted from those before it; nothing is hidden, since no token sees what comes."""

    name: ClassVar[str] = "causal"
    weights: ClassVar[Mapping[str, float]] = {"causal": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"causal": "words"}
    trains = ("mlm",)
    beside = ()
    reason = "its tokens see one side alone"
    direction = "left-to-right"
    reads = names = 1.0

    def __init__(self, config: EncoderConfig, choices: Choices):
        self.head = LanguageHead(config)
        self.heads = {"mlm": self.head}

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """Every place but the last, and what follows it."""
        ids = example.input_ids
        example.targets[self.name] = (np.arange(len(ids) - 1), ids[1:])
        return example

    def _sides(self, encoder: Encoder, states: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """States and labels of each direction."""
        rows, labels = batch.targets[self.name]
        yield states[rows], labels

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy."""
        word = encoder.embeddings.word.weight
        found = [self.head.loss(side, word, labels) for side, labels in self._sides(encoder, states, batch)]
        return {self.name: found[0] if len(found) == 1 else found[0] + found[1]}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the most probable token is the label."""
        sides = [named(self.head, encoder, side, labels) for side, labels in self._sides(encoder, states, batch)]
        loss, right, count = zip(*sides)
        return {self.name: (sum(loss), sum(right), sum(count))}


class BothWays(NextToken):
    """The next token by the half that sees what is before, the one before it by the half that sees what is after."""

    name = "bilm"
    weights: ClassVar[Mapping[str, float]] = {"bilm": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"bilm": "words"}
    direction = "two-way"

    @classmethod
    def config(cls, config: EncoderConfig) -> EncoderConfig:
        """Two stacks of half the width each."""
        return replace(super().config(config), model_type="two-way")

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """And every place but the first, with what stands before it."""
        ids = example.input_ids
        example.targets["bilm back"] = (np.arange(1, len(ids)), ids[:-1])
        return super().example(corpus, example, places, starts, rng)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Of both directions."""
        return {self.name: 2 * len(batch.targets[self.name][1])}

    def _sides(self, encoder: Encoder, states: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        for half, target in zip(encoder.sides(states), ("bilm", "bilm back")):
            rows, labels = batch.targets[target]
            yield half[rows], labels
