"""A fine-tuning's recipe: keys that every task has, and the options of the task beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bertloom.errors import InputError, nearest
from bertloom.tasks import TASKS, Task
from bertloom.tasks.augment import WAYS
from bertloom.tasks.task import MATCHES, options
from bertloom.train.keys import Keys, blamed, check_kind, key, name_of, read_keys
from bertloom.train.recipe import LARGEST_SEED, MOST_DROPPED, PRECISIONS, SCHEDULES, trained_rate

# The rate of a new head on frozen features.
FEATURE_RATE = 1e-3
# Models of fewer dimensions learn whole texts better without dropout, tags no better (measured at 384,
# docs/finetuning.md).
NARROW = 512


@dataclass(frozen=True, kw_only=True)
class Tuning(Keys):
    """What a fine-tuning is; raises `InputError` naming the key where a value cannot be."""

    task: Task
    model: str = key("", "Model to start from: a folder, a run or a Hub id.", shapes=False)
    train: str = key("", "Training data: a file, or hf:NAME[:CONFIG][:SPLIT].", shapes=False)
    dev: str = key("", "Data that chooses the checkpoint and is scored.", shapes=False)
    output: str = key("", "Folder to make; the same command again goes on where it stopped.", shapes=False)
    epochs: float = key(3.0, "Passes over the training data.")
    batch_size: int = key(32, "Examples of one step, however few fit at once.")
    learning_rate: float = key(0.0, "Peak rate; 0 takes 5e-5 at width 768, more where the model is narrower.")
    schedule: str = key("linear", "After the warm-up: linear, cosine or constant.")
    warmup: float = key(0.1, "Share of the steps in which the rate rises.")
    weight_decay: float = key(0.01, "Decay of matrices and embeddings.")
    clip: float = key(1.0, "Largest norm of the gradient; 0 for no limit.")
    dropout: float = key(
        -1.0, "Share dropped; -1 for the model's own, none in one epoch or of whole texts under width 512."
    )
    layer_decay: float = key(1.0, "Each layer's rate as a share of that of the layer above.")
    freeze: int = key(0, "Layers from the bottom that stay as they are, the embeddings with them.")
    metric: str = key("", "Score that chooses the best checkpoint and seed; the task's main one unless given.")
    patience: float = key(0.0, "Epochs without a better measure after which a run ends; 0 for never.")
    evaluate_every: int = key(0, "Steps between measures on dev; 0 for each epoch's end, and more where dev is small.")
    seed: int = key(0, "Seed of the head, order and dropout; the first of several.")
    seeds: int = key(1, "Runs, each with a seed of its own; the best on dev is shipped.", shapes=False)
    restarts: int = key(3, "Further seeds that a run is given which learned nothing.", shapes=False)
    augment: str = key("", f"New examples from old ones, joined by +: {', '.join(WAYS)}.")
    augment_share: float = key(0.15, "Share of the words that are changed in one.")
    augment_copies: int = key(1, "New examples for each old one and each way.")
    teacher: str = key(
        "", "Fine-tuned model whose answers are learned; training records need none of their own.", shapes=False
    )
    match: str = key("", f"What else of the teacher is learned, joined by +: {', '.join(MATCHES)}.")
    calibrate: bool = key(False, "Fit a temperature on dev, so that probabilities mean what they say.")
    micro_tokens: int = key(4096, "Tokens of a micro-batch, which bounds memory.")
    precision: str = key("auto", "auto, fp32 or bf16; auto is bf16 on a GPU that has it, else fp32.")
    save_every: int = key(500, "Steps between checkpoints.", shapes=False)
    tensorboard: bool = key(False, "Write TensorBoard events too.", shapes=False)

    def __post_init__(self) -> None:
        least = {
            "batch_size": 1, "learning_rate": 0, "weight_decay": 0, "clip": 0, "layer_decay": 0, "freeze": 0,
            "patience": 0, "evaluate_every": 0, "seed": 0, "seeds": 1, "restarts": 0, "augment_copies": 1,
            "micro_tokens": 1, "save_every": 1,
        }  # fmt: skip
        known = {"precision": PRECISIONS, "schedule": SCHEDULES}
        self.check(least, ("warmup", "layer_decay", "augment_share"), known)
        if not self.epochs > 0:
            raise InputError(f"epochs: {self.epochs} given, above 0 allowed")
        if not self.layer_decay > 0:
            raise InputError(f"layer_decay: {self.layer_decay} given, above 0 allowed")
        if self.dropout != -1 and not 0 <= self.dropout <= MOST_DROPPED:
            raise InputError(f"dropout: {self.dropout} given, from 0 to {MOST_DROPPED} allowed, or -1")
        if self.seed + self.seeds > LARGEST_SEED:
            raise InputError(f"seed: {self.seed} given, under 2**63 allowed")
        for way in self.ways:
            if way not in WAYS:
                raise InputError(f"augment: {nearest(way, WAYS)}")
        for one in self.matches:
            if one not in MATCHES:
                raise InputError(f"match: {nearest(one, MATCHES)}")
        if self.match and not self.teacher:
            raise InputError("match: given, a --teacher to match needed")
        for name in ("model", "train", "dev", "output"):
            if not getattr(self, name):
                raise InputError(f"{name}: none given, one needed")

    @property
    def ways(self) -> list[str]:
        """How new examples are made."""
        return self.augment.split("+") if self.augment else []

    @property
    def matches(self) -> list[str]:
        """What of a teacher is learned beside its answers."""
        return self.match.split("+") if self.match else []

    def rate(self, hidden_size: int) -> float:
        """The peak rate."""
        if self.learning_rate:
            return self.learning_rate
        return FEATURE_RATE if self.task.frozen else trained_rate(hidden_size)

    def dropped(self, hidden_size: int) -> float | None:
        """The share that is dropped, None for the model's own.

        Nothing is learned by heart that is seen once, and whole texts by a narrow model are rather underfitted.
        """
        if self.dropout != -1:
            return self.dropout
        return 0.0 if self.epochs <= 1 or (self.task.pooled and hidden_size < NARROW) else None

    def values(self) -> dict[str, Any]:
        """Every key, the task's options among them."""
        own = {name: value for name, value in super().values().items() if name != "task"}
        return {"task": self.task.name, **own, **self._of_task()}

    def shaping(self) -> dict[str, Any]:
        """Those that decide what is computed."""
        own = {name_of(one): getattr(self, one.name) for one in fields(self) if one.metadata.get("shapes")}
        return {"task": self.task.name, **own, **self._of_task()}

    def _of_task(self) -> dict[str, Any]:
        return {one.name: getattr(self.task, one.name) for one in options(self.task)}


KEYS = [name_of(one) for one in fields(Tuning) if one.name != "task"]


def tuning(task: str, given: Mapping[str, Any]) -> Tuning:
    """A recipe of keys, those of the task and the others; raises naming a key whose value cannot be."""
    if not isinstance(task, str) or task not in TASKS:
        raise InputError(f"task: {nearest(str(task), TASKS)}")
    kind = TASKS[task]
    # Names of files may be paths.
    given = {name: str(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
    known = {one.name: one for one in options(kind)}
    own = {name: value for name, value in given.items() if name in known}
    for name, value in own.items():
        check_kind(name, type(known[name].default), value)
    rest = {name: value for name, value in given.items() if name not in own}
    for name in rest:
        if name not in KEYS:
            raise InputError(f"key {nearest(name, [*KEYS, *known])}")
    return Tuning(task=kind(**own), **rest)


def read_tuning(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The task and the keys of a TOML recipe; an unknown key raises with file and line."""
    every = {name: [one.name for one in options(kind)] for name, kind in TASKS.items()}
    given = read_keys(path, ["task", *KEYS, *sorted({one for names in every.values() for one in names})])
    task = given.pop("task", None)
    if task is not None:
        if not isinstance(task, str) or task not in TASKS:
            raise blamed(InputError(f"task: {nearest(task, TASKS)}"), path)
        read_keys(path, ["task", *KEYS, *every[task]])  # none of another task's
    return task, given
