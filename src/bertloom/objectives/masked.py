"""Masked language modelling (Devlin et al. 2019, §3.1): name the hidden tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus
from bertloom.corpus.masks import MASKS, SHARE, corrupted
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead


class Masked(LanguageHead):
    """Hides a share of an example's ordinary tokens, single ones or whole `words`, and predicts them."""

    name = "mlm"

    def __init__(self, config: EncoderConfig, mask: str = "tokens", share: float = SHARE):
        super().__init__(config)
        self.mask, self.share = MASKS[mask], share

    def hide(
        self,
        corpus: Corpus,
        example: Example,
        places: Ints,
        starts: npt.NDArray[Any],
        rng: np.random.Generator,
    ) -> Example:
        """The example with some of its `places` corrupted, and what stood there as the target `mlm`.

        [UNK] is never hidden: there is nothing to learn from naming it.
        """
        known = example.input_ids[places] != corpus.special["unk"]
        places, starts = places[known], starts[known]
        chosen = places[self.mask(starts, rng, self.share)]
        ids = corrupted(example.input_ids, chosen, corpus.special["mask"], corpus.ordinary, rng)
        return Example(ids, example.segment_ids, {**example.targets, self.name: (chosen, example.input_ids[chosen])})

    def summed(self, encoder: Encoder, states: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy of labels (M,) at states (M, D)."""
        return self.loss(states, encoder.embeddings.word.weight, labels)

    def right(self, encoder: Encoder, states: Tensor, labels: Tensor) -> Tensor:
        """(M,) whether the most probable token is the label."""
        guesses = [self(part, encoder.embeddings.word.weight).argmax(1) for part in torch.split(states, 1024)]
        return torch.cat(guesses) == labels
