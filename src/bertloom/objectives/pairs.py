"""Two segments: does the second follow (Devlin et al. 2019, §3.1), or were they swapped (Lan et al. 2020, §3.1)?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.segments import Pair, Span, ordered, pair
from bertloom.errors import InputError
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.model.heads import HEADS
from bertloom.model.packed import Batch
from bertloom.objectives.part import Choices, Measured, Part, Targets


class NextSentence(Part):
    """Two logits on the pooled first token; label 0 means "is next", as in every published checkpoint."""

    name: ClassVar[str] = "nsp"
    weights: ClassVar[Mapping[str, float]] = {"nsp": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"nsp": "coin"}
    trains = ("nsp",)
    role = "sentences"
    reason = "both choose the second segment"
    pools = True
    kind = "pair"

    def __init__(self, config: EncoderConfig, choices: Choices):
        if config.type_vocab_size < 2:
            said = f"a model of two segments needed: type_vocab_size is {config.type_vocab_size}"
            raise InputError(f"objective: {self.name} given, {said}")
        if config.pooler != "pretrained":
            title = FAMILIES[config.model_type].title
            raise InputError(f"objective: {self.name} given, a model that pools its first token needed, not {title}")
        self.head = HEADS[self.name](config)
        self.heads = {self.name: self.head}

    def segments(self, corpus: Corpus, draw: Draw, rng: np.random.Generator) -> tuple[list[Span], Targets]:
        """Two spans of the corpus, and the label at the first token: 0 where they are as they stood."""
        drawn = self._drawn(corpus, draw, rng)
        label = 0 if drawn.is_next else 1
        return [drawn.first, drawn.second], {self.name: (np.array([0]), np.array([label]))}

    def _drawn(self, corpus: Corpus, draw: Draw, rng: np.random.Generator) -> Pair:
        return pair(corpus, draw, rng)

    def _logits(self, encoder: Encoder, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        rows, labels = batch.targets[self.name]
        return self.head(encoder.pooler(states[rows])), labels

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy."""
        return {self.name: F.cross_entropy(*self._logits(encoder, states, batch), reduction="sum")}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the more probable answer is the label."""
        logits, labels = self._logits(encoder, states, batch)
        loss = float(F.cross_entropy(logits, labels, reduction="sum"))
        return {self.name: (loss, int((logits.argmax(1) == labels).sum()), len(labels))}


class SentenceOrder(NextSentence):
    """Label 0 where two neighbours are in order, 1 where they were swapped: no topic tells (Lan et al. 2020, §3.1)."""

    name = "sop"
    weights: ClassVar[Mapping[str, float]] = {"sop": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"sop": "coin"}
    trains = ("sop",)
    kind = "ordered"

    def _drawn(self, corpus: Corpus, draw: Draw, rng: np.random.Generator) -> Pair:
        return ordered(corpus, draw, rng)
