"""Masked language modelling (Devlin et al. 2019, §3.1): name the hidden tokens, single ones, whole words or spans."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus
from bertloom.corpus.masks import FATES, MASKS, SHARE, corrupted
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead
from bertloom.model.packed import Batch
from bertloom.objectives.part import Choices, Measured, Part


class Masked(Part):
    """Hides a share of an example's ordinary tokens and predicts them; `--mask` says which."""

    weights: ClassVar[Mapping[str, float]] = {"mlm": 1.0}
    guessed: ClassVar[Mapping[str, str]] = {"mlm": "words"}
    choices: ClassVar[tuple[str, ...]] = ("mask", "mask_share")
    trains = ("mlm",)
    # What is hidden, where the name of the objective says so, and what becomes of it: [MASK], a random token.
    mask: ClassVar[str] = ""
    fates: ClassVar[tuple[float, float]] = FATES

    def __init__(self, config: EncoderConfig, choices: Choices):
        self.head = LanguageHead(config)
        self.heads = {"mlm": self.head}
        self.hidden, self.share = self.mask or choices.mask, choices.mask_share

    def asked(self, beside: Collection[str]) -> Self:
        """Single tokens, as many as published; spans stay where something is asked of them."""
        made = copy.copy(self)
        made.hidden, made.share = self.hidden if "boundaries" in beside else "tokens", SHARE
        return made

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """The example with some of its `places` corrupted, and what stood there as the target `mlm`.

        [UNK] is never hidden: there is nothing to learn from naming it.
        """
        known = example.input_ids[places] != corpus.special["unk"]
        places, starts = places[known], starts[known]
        chosen = places[MASKS[self.hidden](starts, rng, self.share)]
        special = corpus.special["mask"]
        together = self.hidden == "spans"
        ids = corrupted(example.input_ids, chosen, special, corpus.ordinary, rng, self.fates, together)
        target = (chosen, example.input_ids[chosen])
        return Example(ids, example.segment_ids, {**example.targets, "mlm": target})

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy."""
        rows, labels = batch.targets["mlm"]
        return {"mlm": self.head.loss(states[rows], encoder.embeddings.word.weight, labels)}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the most probable token is the label."""
        rows, labels = batch.targets["mlm"]
        return {"mlm": named(self.head, encoder, states[rows], labels)}


class WholeWords(Masked):
    """Of whole words."""

    mask, choices = "words", ("mask_share",)


class Spans(Masked):
    """Of spans of words (Joshi et al. 2020, §3.1)."""

    mask, choices = "spans", ("mask_share",)


def named(head: LanguageHead, encoder: Encoder, states: Tensor, labels: Tensor) -> Measured:
    """How well a language head names labels (M,) at states (M, D)."""
    word = encoder.embeddings.word.weight
    guesses = [head(part, word).argmax(1) for part in torch.split(states, 1024)] if len(labels) else [labels]
    return (
        float(head.loss(states, word, labels)),
        int((torch.cat(guesses) == labels).sum()) * bool(len(labels)),
        len(labels),
    )
