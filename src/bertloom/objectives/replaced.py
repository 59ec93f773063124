"""Replaced-token detection (Clark et al. 2020): a generator writes, the encoder tells what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.config import ELECTRA, EncoderConfig
from bertloom.corpus import Corpus
from bertloom.errors import InputError
from bertloom.example import Example, Ints
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.model.heads import DetectionHead
from bertloom.model.noise import uniform
from bertloom.model.packed import Batch
from bertloom.objectives.masked import Masked, named
from bertloom.objectives.part import Choices, Measured


class ReplacedToken(Masked):
    """The generator learns masked language modelling beside the encoder, whose embeddings it shares (§3.1, §3.2)."""

    weights: ClassVar[Mapping[str, float]] = {"mlm": 1.0, "rtd": 50.0}
    choices: ClassVar[tuple[str, ...]] = (*Masked.choices, "generator")
    guessed: ClassVar[Mapping[str, str]] = {**Masked.guessed, "rtd": "replaced"}
    trains = ("rtd",)
    beside = ()
    reason = "its encoder reads what the generator wrote"
    reads = 1.0
    # At 5e-4 BERT-mini calls every token the text's own for as long as it was watched, at 3e-4 for 400 steps.
    fastest = 3e-4
    # As in the authors' code: the rest stays as it is.
    fates = (0.85, 0.0)

    def __init__(self, config: EncoderConfig, choices: Choices):
        self.sizes = generator_config(config, choices.generator)
        super().__init__(self.sizes, choices)
        self.generator = Encoder(self.sizes)
        del self.generator.embeddings
        self.generator.give_pooler(False)
        self.detector = DetectionHead(config)
        self.heads = {"rtd": self.detector}

    @classmethod
    def config(cls, config: EncoderConfig) -> EncoderConfig:
        """A BERT becomes an ELECTRA of its sizes, which has no pooler."""
        if config.model_type != "bert":
            return config
        names = ("model_type", "head_act", "pooler", "pooler_act")
        return replace(config, **{name: getattr(ELECTRA, name) for name in names})

    @classmethod
    def second(cls, config: EncoderConfig) -> tuple[EncoderConfig, bool] | None:
        """The generator."""
        return generator_config(config, Choices.generator), True

    @property
    def others(self) -> dict[str, nn.Module]:
        """The generator and its head."""
        return {"generator": nn.ModuleDict({"encoder": self.generator, "mlm": self.head})}

    def companions(self, encoder: Encoder) -> dict[str, tuple[EncoderConfig, dict[str, Tensor]]]:
        """The generator, which no one can tell from any other masked language model."""
        shared = {f"embeddings.{name}": one for name, one in encoder.embeddings.state_dict().items()}
        head = {f"mlm.{name}": one for name, one in self.head.state_dict().items()}
        return {"generator": (self.sizes, {**shared, **self.generator.state_dict(), **head})}

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """Every token is asked of; which are replaced is known when the generator has written."""
        made = super().example(corpus, example, places, starts, rng)
        made.targets["rtd"] = (np.arange(len(made)), np.zeros(len(made), np.int64))
        return made

    def before(self, encoder: Encoder, batch: Batch, measure: bool = False) -> tuple[Batch, dict[str, Any]]:
        """What was hidden, written by the generator, drawn from its probabilities."""
        rows, labels = batch.targets["mlm"]
        every = torch.arange(len(batch.input_ids), device=rows.device) if batch.read is None else batch.read
        hidden = every[rows]
        x = self._embedded(encoder, batch)
        states = self.generator.through(x, replace(batch, read=hidden, targets={}))  # (M, D of the generator)
        word = encoder.embeddings.word.weight
        told = named(self.head, encoder, states, labels) if measure else self.head.loss(states, word, labels)
        written = sampled(self.head(states.detach(), word.detach())) if len(labels) else labels
        ids = batch.input_ids.clone()
        ids[hidden] = written
        replaced = torch.zeros(len(every), dtype=torch.long, device=ids.device)
        replaced[rows] = (written != labels).long()
        asked = batch.targets["rtd"][0]
        return replace(batch, input_ids=ids, targets={**batch.targets, "rtd": (asked, replaced[asked])}), {"mlm": told}

    def _embedded(self, encoder: Encoder, batch: Batch) -> Tensor:
        x = encoder.embeddings(batch)
        return self.generator.projection(x) if self.sizes.embedding_size else x  # type: ignore[no-any-return]

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Whether each token is the text's own."""
        rows, labels = batch.targets["rtd"]
        logits = self.detector(states[rows]).float()
        return {"rtd": F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")}

    def measured(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Measured]:
        """Whether the more probable answer is right: of all tokens, and of those that were replaced."""
        rows, labels = batch.targets["rtd"]
        logits = self.detector(states[rows]).float()
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        right, there = (logits > 0) == labels.bool(), labels.bool()
        return {
            name: (float(losses[asked].sum()), int(right[asked].sum()), int(asked.sum()))
            # Who calls every token the text's own is right of most, and finds nothing.
            for name, asked in (("rtd", torch.ones_like(there)), ("replaced", there))
        }


@torch.no_grad()
def sampled(logits: Tensor) -> Tensor:
    """(M,) one token of each row, drawn from its probabilities: the largest logit under Gumbel noise (§3.2)."""
    noise = uniform(tuple(logits.shape), logits.device).clamp_(1e-20, 1 - 1e-7).log_().neg_().log_()
    return (logits.float() - noise).argmax(1)


def generator_config(config: EncoderConfig, share: float) -> EncoderConfig:
    """A generator of a share of a discriminator's width, in whole heads, over the same embeddings (§3.2)."""
    if not 0 < share <= 1:
        raise InputError(f"generator: {share} given, above 0 and at most 1 allowed")
    width = max(1, round(share * config.num_attention_heads)) * config.head_size
    family = FAMILIES[config.model_type]
    if width != config.word_size and "embedding_size" not in family.keys:
        able = " or ".join(name for name, one in FAMILIES.items() if "embedding_size" in one.keys)
        said = f"whose embeddings are as wide as its layers: generator 1, or a model of family {able} needed"
        raise InputError(f"objective: rtd given with a generator of {share} for a {family.title}, {said}")
    return replace(
        config,
        hidden_size=width,
        num_attention_heads=width // config.head_size,
        intermediate_size=max(1, round(config.intermediate_size * width / config.hidden_size)),
        embedding_size=config.word_size if config.word_size != width else None,
    )
