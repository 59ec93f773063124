"""Distillation (Sanh et al. 2019, §3): a smaller model learns what a trained one would have said, and seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.config import DISTILBERT, EncoderConfig
from bertloom.corpus import Corpus
from bertloom.errors import InputError
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead
from bertloom.model.packed import Batch
from bertloom.objectives.masked import Masked
from bertloom.objectives.part import Choices


class Distilled(Masked):
    """The teacher's probabilities of hidden tokens, the tokens themselves, and the direction of its last states."""

    weights: ClassVar[Mapping[str, float]] = {"soft": 5.0, "mlm": 2.0, "cosine": 1.0}
    choices: ClassVar[tuple[str, ...]] = (*Masked.choices, "teacher", "temperature")
    reads, holds = 1.0, 5
    beside = ()
    reason = "it has its own way of naming hidden tokens"

    def __init__(self, config: EncoderConfig, choices: Choices):
        super().__init__(config, choices)
        # In a tuple, which no module looks into: the teacher is neither trained nor saved.
        self.teacher, self.temperature = choices.teacher, choices.temperature
        if self.teacher:
            mine, its = config.hidden_size, self.teacher[0].config.hidden_size
            require_teacher(self.teacher[0].config)
            if mine != its:
                raise InputError(f"objective: distill given, a model of the teacher's width ({its}) needed, not {mine}")

    @classmethod
    def second(cls, config: EncoderConfig) -> tuple[EncoderConfig, bool] | None:
        """A teacher of twice the layers."""
        return replace(config, num_hidden_layers=2 * config.num_hidden_layers), False

    def example(
        self, corpus: Corpus, example: Example, places: Ints, starts: npt.NDArray[Any], rng: np.random.Generator
    ) -> Example:
        """Hidden tokens, and every place for the states."""
        made = super().example(corpus, example, places, starts, rng)
        every = np.arange(len(made))
        made.targets |= {"soft": made.targets["mlm"], "cosine": (every, np.zeros(len(every), np.int64))}
        return made

    def losses(self, encoder: Encoder, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Divergence of tempered probabilities, cross entropy, and one less the cosine of states."""
        assert self.teacher is not None
        rows, labels = batch.targets["mlm"]
        with torch.no_grad():
            wanted = self.teacher[0](replace(batch, read=None))  # (T, D)
            soft = self.teacher[1](wanted[rows], self.teacher[0].embeddings.word.weight).float() / self.temperature
        logits = self.head(states[rows], encoder.embeddings.word.weight).float()  # (M, V)
        told = F.kl_div(
            (logits / self.temperature).log_softmax(1), soft.log_softmax(1), log_target=True, reduction="sum"
        )
        return {
            # Gradients of tempered probabilities are smaller by the square (Hinton et al. 2015, §2).
            "soft": told * self.temperature**2,
            "mlm": F.cross_entropy(logits, labels, reduction="sum"),
            "cosine": (1 - F.cosine_similarity(states.float(), wanted.float(), dim=1)).sum(),
        }


def require_teacher(config: EncoderConfig) -> None:
    """Raises where a model cannot be asked of hidden tokens."""
    if config.direction != "both":
        raise InputError(f"teacher: a model that sees both sides needed, not one whose direction is {config.direction}")


def narrowed(encoder: Encoder, head: LanguageHead, size: int) -> None:
    """Take from a teacher the rows that its tables are padded with beyond its vocabulary's `size` words."""
    encoder.config = replace(encoder.config, vocab_size=size)
    encoder.embeddings.word.weight = nn.Parameter(encoder.embeddings.word.weight.detach()[:size])
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[:size])


def student_config(teacher: EncoderConfig) -> EncoderConfig:
    """Half a teacher's layers; of a BERT a DistilBERT, which has neither segments nor a pooler."""
    layers = max(1, teacher.num_hidden_layers // 2)
    groups = min(teacher.num_hidden_groups, layers) if teacher.num_hidden_groups else None
    half = replace(teacher, num_hidden_layers=layers, num_hidden_groups=groups)
    if teacher.model_type != "bert" or teacher.direction != "both":
        return half
    names = ("model_type", "type_vocab_size", "pooler", "pooler_act", "layer_norm_eps")
    return replace(half, **{name: getattr(DISTILBERT, name) for name in names})


def inherited(student: Encoder, teacher: Encoder) -> dict[str, Tensor]:
    """A student's weights taken from its teacher: embeddings, and layers at even distances (§3)."""
    own = student.state_dict()
    found: dict[str, Tensor] = {}
    numbers = {
        mine: teacher.order[layer * len(teacher.order) // len(student.order)]
        for layer, mine in reversed(list(enumerate(student.order)))
    }
    for name, value in teacher.state_dict().items():
        first, _, rest = name.partition(".")
        if first == "layers":
            number, _, inner = rest.partition(".")
            names = [f"layers.{mine}.{inner}" for mine, its in numbers.items() if its == int(number)]
        else:
            names = [name]
        found |= {one: value for one in names if one in own and own[one].shape == value.shape}
    segment = teacher.embeddings.segment
    if segment is not None and student.embeddings.segment is None:
        # Every token of the teacher's was in the first segment, whose vector the student needs too.
        found["embeddings.word.weight"] = found["embeddings.word.weight"] + segment.weight[0].detach()
    return found
