"""The span-boundary objective (Joshi et al. 2020, §3.2): name a hidden span by what stands around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import SPAN_POSITIONS, BoundaryHead
from bertloom.model.kernels import linear_cross_entropy
from bertloom.model.packed import Batch
from bertloom.objectives.part import Choices, Measured, Part


class SpanBoundary(Part):
    """Every hidden token named from the tokens before and after its span, and its place in it."""

    weights: ClassVar[Mapping[str, float]] = {"sbo": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"sbo": "words"}
    trains = ("sbo",)
    role = "boundaries"
    beside = ("span",)
    reason = "it names what stands inside of hidden spans"

    def __init__(self, config: EncoderConfig, choices: Choices):
        self.head = BoundaryHead(config)
        self.heads = {"sbo": self.head}

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """Targets at both sides of each run of hidden tokens; labels (m, 2) are the token and its place from 0."""
        hidden, labels = example.targets["mlm"]
        begins = np.flatnonzero(np.diff(hidden, prepend=-2) != 1)  # the first of each run
        sizes = np.diff(begins, append=len(hidden))
        first, last = (np.repeat(hidden[one], sizes) for one in (begins, begins + sizes - 1))
        both = np.stack([labels, np.minimum(hidden - first, SPAN_POSITIONS - 1)], 1)
        example.targets.update({"sbo": (first - 1, both), "sbo right": (last + 1, labels)})
        return example

    def _inputs(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(M, E) vectors and the labels (M,)."""
        (left, labels), (right, _) = batch.targets["sbo"], batch.targets["sbo right"]
        return self.head.transformed(states[left], states[right], labels[:, 1]), labels[:, 0]

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy."""
        vectors, labels = self._inputs(states, batch)
        return {"sbo": linear_cross_entropy(vectors, encoder.embeddings.word.weight, self.head.bias, labels)}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the most probable token is the label."""
        vectors, labels = self._inputs(states, batch)
        word = encoder.embeddings.word.weight
        loss = float(linear_cross_entropy(vectors, word, self.head.bias, labels))
        logits = torch.nn.functional.linear(vectors, word, self.head.bias)
        right = int((logits.argmax(1) == labels).sum()) if len(labels) else 0
        return {"sbo": (loss, right, len(labels))}
