"""Batches of a run: each step's micro-batches are a function of (recipe, step)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from bertloom.corpus import Corpus, Draw
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


class StepBatches(Dataset[list[Batch]]):
    """The micro-batches of every step, by its number."""

    def __init__(self, corpus: Corpus, objective: Any, recipe: Recipe):
        self.corpus, self.objective, self.recipe = corpus, objective, recipe

    def __getitem__(self, step: int) -> list[Batch]:
        examples = [
            self.objective.example(self.corpus, draw_of(self.recipe, step, place))
            for place in range(self.recipe.batch_size)
        ]
        return micro_batches(examples, self.recipe.micro_tokens)


def batches(corpus: Corpus, objective: Any, recipe: Recipe, first: int) -> Iterator[list[Batch]]:
    """The micro-batches of steps `first` to the last, in order, the same for any number of workers."""
    epoch = objective.epoch(corpus, recipe.length)
    if epoch < recipe.batch_size:
        raise InputError(
            f"corpus of {epoch} examples of length {recipe.length}, at least batch_size ({recipe.batch_size}) needed",
            corpus.path,
        )
    return iter(
        DataLoader(
            StepBatches(corpus, objective, recipe),
            sampler=range(first, recipe.steps),
            batch_size=None,
            num_workers=recipe.workers,
        )
    )
