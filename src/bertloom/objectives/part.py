"""What an objective is made of (the contract), and what its parts may be told."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.masks import SHARE
from bertloom.corpus.segments import Span
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead
from bertloom.model.packed import Batch

Targets = dict[str, tuple[Ints, npt.NDArray[Any]]]
# A summed loss, how many labels were the first choice, and how many there are.
Measured = tuple[float, int, int]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user may choose of objectives; a part reads what is its own."""

    # Single segments where no part chooses others.
    segments: str = "full"
    # What is hidden, and how much.
    mask: str = "tokens"
    mask_share: float = SHARE
    # Width of the generator as a share of the discriminator's.
    generator: float = 0.25
    # A trained model to learn from, and what its logits are divided by.
    teacher: tuple[Encoder, LanguageHead] | None = None
    temperature: float = 2.0


class Part(ABC):
    """One thing that is learned of an example; a subclass sets what stands below, and does what it must of the rest."""

    # The losses with their weights in the sum.
    weights: ClassVar[Mapping[str, float]]
    # What shares of all tokens have their last states read and are named among all words, if more than are hidden.
    reads: ClassVar[float] = 0.0
    names: ClassVar[float] = 0.0
    # Arrays of a logit for every word that are held for those hidden.
    holds: ClassVar[int] = 0
    # The highest rate taken where none is given.
    fastest: ClassVar[float] = math.inf
    # What it reads of the choices.
    choices: ClassVar[tuple[str, ...]] = ()
    # What its measures stand beside: `words`, who knows how often each is, a `coin`, or another measure, of the labels
    # that are wrong to who always gives one answer; of others nobody can say.
    guessed: ClassVar[Mapping[str, str]] = {}
    # The heads that folders hold.
    trains: ClassVar[tuple[str, ...]]
    # `tokens`, `sentences` or `boundaries`: an objective has one part of the first role, at most one of each other.
    role: ClassVar[str] = "tokens"
    # The parts it stands beside, () for none, None for any of other roles; and why no other.
    beside: ClassVar[tuple[str, ...] | None] = None
    reason: ClassVar[str] = ""
    # What the tokens see of a model that learns it.
    direction: ClassVar[str] = "both"
    # Whether it stands on the pooled first token.
    pools: ClassVar[bool] = False
    # The kind of segments it has, where it chooses them.
    kind: ClassVar[str] = ""

    # Its heads, by the names that folders hold them under.
    heads: dict[str, nn.Module]

    @abstractmethod
    def __init__(self, config: EncoderConfig, choices: Choices): ...

    @classmethod
    def config(cls, config: EncoderConfig) -> EncoderConfig:
        """The config of a new model that learns it."""
        return replace(config, direction=cls.direction)

    @classmethod
    def second(cls, config: EncoderConfig) -> tuple[EncoderConfig, bool] | None:
        """Of the model that is asked beside the encoder, as it usually is, the config and whether it learns."""
        return None

    @property
    def others(self) -> dict[str, nn.Module]:
        """Modules that learn beside the encoder and are saved apart, each as a model of its own."""
        return {}

    def companions(self, encoder: Encoder) -> dict[str, tuple[EncoderConfig, dict[str, Tensor]]]:
        """Of each such model its config and its whole state."""
        return {}

    def asked(self, beside: Collection[str]) -> Self:
        """The part as every model is measured by it, whatever was chosen for training; `beside` are all roles there."""
        return copy.copy(self)

    def segments(self, corpus: Corpus, draw: Draw, rng: np.random.Generator) -> tuple[list[Span], Targets]:
        """Spans of the corpus, and labels of them, where the part chooses any."""
        raise NotImplementedError

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """The example with what the part hides and labels; `places` are its ordinary tokens, `starts` begin words."""
        return example

    def before(self, encoder: Encoder, batch: Batch, measure: bool = False) -> tuple[Batch, dict[str, Any]]:
        """The batch as the encoder reads it, and of what was done to make it so the losses, or what was measured."""
        return batch, {}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Labels by loss."""
        return {name: len(batch.targets[name][1]) for name in self.weights}

    @abstractmethod
    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Summed losses given the rows read (R, D); 0 where there are no labels."""

    @abstractmethod
    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """What held-out text says of it."""
