"""A task made an objective, so that fine-tuning runs through the same loop as pretraining."""

from __future__ import annotations

from torch import Tensor, nn

from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.tasks.task import Task


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
