"""A task made an objective, so that fine-tuning runs through the same loop as pretraining; of gold answers or a
teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.errors import InputError
from bertloom.model.encoder import Encoder, Insides
from bertloom.model.packed import Batch
from bertloom.tasks.task import SOFT, Task

# The most heads that queries, keys and values are told apart by.
RELATION_HEADS = 12


class TaskObjective(nn.Module):
    """A task's one loss, under its name; its only module is the head."""

    def __init__(self, task: Task, head: nn.Module):
        super().__init__()
        self.task, self.head = task, head
        self.weights = {task.name: 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Labels in a batch."""
        return {self.task.name: self.task.count(batch)}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """The summed loss."""
        return {self.task.name: self.task.loss(self.head(encoder, batch), batch)}


class Taught(TaskObjective):
    """A teacher's logits in place of gold answers (Ba & Caruana 2014, §2.1), and what `match` names of its insides:

    `states` at even distances (Jiao et al. 2020, §3.1), in the directions in which they differ most where the student
    is narrower; `relations` of the last layer's queries, keys and values (Wang et al. 2021, §3).
    """

    def __init__(self, task: Task, head: nn.Module, teacher: Encoder, match: Sequence[str], sample: Batch):
        super().__init__(task, head)
        # In a tuple, which no module looks into: the teacher is neither trained nor saved.
        self.teacher, self.match = (teacher.eval(),), tuple(match)
        self.weights = dict.fromkeys([SOFT, *match], 1.0)
        self.sample, self.narrowing = sample, dict[int, tuple[Tensor, Tensor]]()

    def counts(self, batch: Batch) -> dict[str, int]:
        """Logits that are compared, and tokens of what else is."""
        return {SOFT: batch.targets[SOFT][1].numel(), **dict.fromkeys(self.match, len(batch.input_ids))}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Squared differences of logits and states, divergences of relations."""
        mine: list[Insides] = []
        head = self.head(_Traced(encoder, mine) if self.match else encoder, batch)
        found = {SOFT: F.mse_loss(head.float(), batch.targets[SOFT][1], reduction="sum")}
        if self.match:
            its = self._seen(replace(batch, read=None))
            if "states" in self.match:
                pairs = list(self._pairs([one.hidden_states for one in mine], [one.hidden_states for one in its]))
                each = [(one - self._narrowed(layer, other, one.shape[1])).square().mean(1).sum()
                        for layer, one, other in pairs]  # fmt: skip
                found["states"] = torch.stack(each).mean()
            if "relations" in self.match:
                found["relations"] = _relations(mine[-1], its[-1], batch)
        return found

    @torch.no_grad()
    def _seen(self, batch: Batch) -> list[Insides]:
        (teacher,) = self.teacher
        trace: list[Insides] = []
        teacher.through(teacher.embedded(batch), batch, trace, "projections" if "relations" in self.match else "states")
        return trace

    @staticmethod
    def _pairs(mine: Sequence[Tensor], its: Sequence[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The teacher's layer, 0 the embeddings, and both's states, of each of the student's."""
        for number, one in enumerate(mine):
            layer = number * (len(its) - 1) // max(1, len(mine) - 1)
            yield layer, one, its[layer]

    def _narrowed(self, layer: int, states: Tensor, width: int) -> Tensor:
        """A teacher's states (T, D) in the directions in which a sample of them differs most, the same in every run."""
        if states.shape[1] == width:
            return states
        if not self.narrowing:
            for number, one in enumerate(self._seen(self.sample.to(states.device))):
                middle = one.hidden_states.mean(0)
                _, _, directions = torch.linalg.svd(one.hidden_states - middle, full_matrices=False)
                self.narrowing[number] = middle, directions[:width].t()
        middle, directions = self.narrowing[layer]
        return (states - middle) @ directions


def require_match(match: Sequence[str], teacher: Encoder, width: int, same_words: bool) -> None:
    """Raise where what is to be learned of a teacher cannot be compared."""
    for one in match:
        if not same_words:
            raise InputError(f"match: {one} given, none allowed where teacher and student have other vocabularies")
        if one == "states" and width > teacher.config.hidden_size:
            its = teacher.config.hidden_size
            raise InputError(f"match: states given, a student at most as wide as its teacher ({its}) needed")


class _Traced:
    """An encoder that leaves what is inside of it in a list, and is the encoder in all else."""

    def __init__(self, encoder: Encoder, trace: list[Insides]):
        self.encoder, self.trace = encoder, trace

    def __call__(self, batch: Batch) -> Tensor:
        del self.trace[:]
        states = self.encoder.through(self.encoder.embedded(batch), batch, self.trace, "projections")
        return states

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


def _relations(mine: Insides, its: Insides, batch: Batch) -> Tensor:
    """Divergence of how tokens' queries, keys and values resemble each other, meaned over the three and their heads."""
    total = mine.hidden_states.new_zeros(())
    for name in ("queries", "keys", "values"):
        one, other = (getattr(side, name).flatten(1) for side in (mine, its))  # (T, N * H) each
        heads = _common(one.shape[1], other.shape[1])
        start = 0
        for length, run in groupby(batch.lengths):
            count = len(list(run))
            told, wanted = (
                _resemblance(side[start : start + count * length].view(count, length, heads, -1))
                for side in (one, other)
            )
            total = total + F.kl_div(told, wanted, log_target=True, reduction="sum") / heads
            start += count * length
    return total / 3


def _common(one: int, other: int) -> int:
    """The most heads that both widths can be told apart by."""
    return next(heads for heads in range(RELATION_HEADS, 0, -1) if one % heads == other % heads == 0)


def _resemblance(vectors: Tensor) -> Tensor:
    """(B, N, n, n) log-probabilities of each token's likenesses to all, of vectors (B, n, N, H)."""
    rows = vectors.transpose(1, 2)
    return torch.log_softmax(rows @ rows.transpose(2, 3) * rows.shape[-1] ** -0.5, -1)
