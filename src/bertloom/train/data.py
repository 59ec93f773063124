"""Batches of a run: each step's micro-batches are a function of (recipe, step)."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from bertloom.corpus import Draw, Source
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.model.packed import Batch, by_tokens, pack
from bertloom.train.recipe import Recipe


def draw_of(recipe: Recipe, step: int, place: int) -> Draw:
    """What the example at a place of a step's batch is drawn from."""
    since = step if step < recipe.short_steps else step - recipe.short_steps
    return Draw(recipe.seed, since * recipe.batch_size + place, recipe.length_at(step))


def micro_batches(examples: list[Example], budget: int) -> list[Batch]:
    """A step's examples packed into micro-batches of at most `budget` tokens."""
    return [pack(examples[part]) for part in by_tokens([len(example) for example in examples], budget)]


class StepExamples(Dataset[list[Example]]):
    """The examples of every step, by its number; packed by who trains, since tensors would cross between processes
    as open files, and a system's limit of those is soon reached."""

    def __init__(self, corpus: Source, objective: Any, recipe: Recipe):
        self.corpus, self.objective, self.recipe = corpus, objective, recipe

    def __getitem__(self, step: int) -> list[Example]:
        return [
            self.objective.example(self.corpus, draw_of(self.recipe, step, place))
            for place in range(self.recipe.batch_size)
        ]


def require_epoch(corpus: Source, objective: Any, length: int, batch_size: int) -> None:
    """Raise unless a corpus has examples for one batch."""
    epoch = objective.epoch(corpus, length)
    if epoch < batch_size:
        raise InputError(
            f"corpus of {epoch} examples of length {length}, at least batch_size ({batch_size}) needed", corpus.path
        )


def batches(corpus: Source, objective: Any, recipe: Recipe, first: int) -> Iterator[list[Batch]]:
    """The micro-batches of steps `first` to the last, in order, the same for any number of workers."""
    # Who asks for more processes than there are cores knows why.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    examples = DataLoader(
        StepExamples(corpus, objective, recipe),
        sampler=range(first, recipe.steps),
        batch_size=None,
        collate_fn=_as_they_are,
        num_workers=recipe.workers,
        worker_init_fn=_leave_signals,
    )
    return (micro_batches(step, recipe.micro_tokens) for step in examples)


def _leave_signals(worker: int) -> None:
    """A signal to every process of a run is for the one that trains, which needs a batch more to end well."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_they_are(examples: list[Example]) -> list[Example]:
    return examples
