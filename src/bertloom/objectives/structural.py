"""The word structural objective (Wang et al. 2020, §2.2): name hidden tokens, and put shuffled ones right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bertloom.corpus import Corpus
from bertloom.corpus.masks import SHARE
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.objectives.masked import Masked, named
from bertloom.objectives.part import Measured

# Tokens shuffled together, and the share of all of them in such groups.
TOGETHER, SHUFFLED = 3, 0.05


class WordStructure(Masked):
    """Beside masked language modelling: groups of three tokens that are not hidden stand in another order."""

    weights: ClassVar[Mapping[str, float]] = {"mlm": 1.0, "wso": 1.0}
    names = SHARE + SHUFFLED
    guessed: ClassVar[Mapping[str, str]] = {"mlm": "words", "wso": "words"}

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """The example with hidden tokens and shuffled groups, and what stood at the places of both."""
        own = example.input_ids
        made = super().example(corpus, example, places, starts, rng)
        free = np.ones(len(own), bool)
        free[made.targets["mlm"][0]] = False
        free &= own != corpus.special["unk"]
        # Every third token, from any of the first three, begins a group that is wholly free and stands side by side.
        rest = places[rng.integers(TOGETHER) :]
        groups = rest[: len(rest) // TOGETHER * TOGETHER].reshape(-1, TOGETHER)
        groups = groups[free[groups].all(1) & (np.ptp(groups, axis=1) == TOGETHER - 1)]
        count = min(len(groups), max(1, round(SHUFFLED * len(places) / TOGETHER)))
        chosen = np.sort(groups[rng.permutation(len(groups))[:count]], axis=0)  # (G, TOGETHER)
        made.input_ids[chosen] = own[rng.permuted(chosen, axis=1)]
        made.targets["wso"] = (chosen.ravel(), own[chosen.ravel()])
        return made

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy of both."""
        rows, labels = batch.targets["wso"]
        loss = self.head.loss(states[rows], encoder.embeddings.word.weight, labels)
        return {**super().losses(encoder, states, batch), "wso": loss}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the most probable token is the label."""
        rows, labels = batch.targets["wso"]
        return {**super().measured(encoder, states, batch), "wso": named(self.head, encoder, states[rows], labels)}
