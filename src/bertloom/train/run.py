"""A run: a folder that a recipe becomes, from its beginning or from where it stopped."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import torch

from bertloom.errors import InputError
from bertloom.files import remains, remove_remains
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.train import checkpoint
from bertloom.train.keys import Keys
from bertloom.train.loop import Objective, Step, steps
from bertloom.train.memory import give_back_memory
from bertloom.train.metrics import FILE, Metrics

RECIPE = "recipe.toml"
# A model that was made for a run to start from.
STUDENT = "student"
M = TypeVar("M")


class Run(ABC, Generic[M]):
    """What pretraining and fine-tuning share; M is what one measure of theirs is.

    A subclass sets what stands below, and says how to measure, to write a model and to draw.
    """

    folder: Path
    encoder: Encoder
    objective: Any
    optimizer: torch.optim.Optimizer
    # Where a step's rate, batches and dropout come from.
    rate: Callable[[int], float]
    seed: int
    clip: float
    precision: str
    # The step to go on from, and the last one.
    first: int
    last: int
    save_every: int
    evaluate_every: int
    keep: int
    tensorboard: bool
    # What the order of the data goes by.
    identity: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What is trained, in a word or two."""

    @abstractmethod
    def batches(self) -> Iterable[list[Batch]]:
        """The micro-batches of each step from `first` on."""

    @abstractmethod
    def measure(self, done: int) -> dict[str, M]:
        """Measures on held-out examples after so many steps, by loss."""

    @abstractmethod
    def write_model(self, folder: Path, done: int, measures: dict[str, M], tokens: int) -> None:
        """A model's folder, as it is after so many steps."""

    @abstractmethod
    def draw(self, rows: list[dict[str, Any]]) -> None:
        """The picture of the run so far."""

    @abstractmethod
    def recipe_of_run(self) -> Keys:
        """What `recipe.toml` says."""

    def best(self, measured: list[dict[str, Any]]) -> int | None:
        """The step whose checkpoint stays and is pointed at, None for the newest."""
        return None

    def ends(self, measured: list[dict[str, Any]]) -> bool:
        """Whether the run is at its end before its last step."""
        return False

    def due(self, done: int, saving: bool) -> bool:
        """Whether a measure is made after so many steps."""
        return saving or bool(self.evaluate_every and done % self.evaluate_every == 0)

    def worth_saving(self, done: int, measured: list[dict[str, Any]]) -> bool:
        """Whether a measure just made asks for a checkpoint."""
        return False

    def train(self, stopped: Callable[[], bool]) -> Iterator[tuple[Step, dict[str, M]]]:
        """Each step done, with held-out measures where it made them; metrics and checkpoints on the way."""
        made = self.batches()
        self.folder.mkdir(parents=True, exist_ok=True)
        with Metrics(self.folder, self.first) as metrics:
            remove_remains(self.folder)
            self.recipe_of_run().write(self.folder / RECIPE)
            if self.tensorboard:
                metrics.open_board()
            if newest := checkpoint.at(self.folder, self.first):
                # Killed between a checkpoint's rename and the next line, the link is one behind.
                best = self.best(metrics.measures)
                checkpoint.point(self.folder, (checkpoint.at(self.folder, best) if best else None) or newest)
                self.draw(metrics.rows)
            if self.first >= self.last or self.ends(metrics.measures):
                return
            objective: Objective = self.objective
            loop = steps(
                self.encoder, objective, self.optimizer, made,
                first=self.first, rate=self.rate, seed=self.seed, clip=self.clip, precision=self.precision,
            )  # fmt: skip
            for step in loop:
                done = step.number + 1
                metrics.add({"step": done, **{key: value for key, value in asdict(step).items() if key != "number"}})
                last = done == self.last or stopped()
                saving = last or done % self.save_every == 0
                measures: dict[str, M] = {}
                if self.due(done, saving):
                    measures = self.measure(done)
                if measures:
                    held = {name: self.told(one) for name, one in measures.items()}
                    metrics.add({"step": done, "held_out": held})
                    last = last or self.ends(metrics.measures)
                    saving = saving or last or self.worth_saving(done, metrics.measures)
                if saving:
                    self.save(done, measures, metrics)
                    self.draw(metrics.rows)
                    give_back_memory()
                yield step, measures
                if last:
                    return

    def told(self, measure: M) -> dict[str, Any]:
        """A measure as JSON."""
        return asdict(measure)  # type: ignore[call-overload, no-any-return]

    def save(self, done: int, measures: dict[str, M], metrics: Metrics) -> None:
        """A checkpoint after so many steps, with a whole model folder in it."""
        checkpoint.save(
            self.folder, done, lambda folder: self.write_model(folder, done, measures, metrics.tokens), self.optimizer,
            self.keep, self.identity, self.best(metrics.measures),
        )  # fmt: skip


def claim_folder(folder: Path, differing: Callable[[Path], dict[str, tuple[Any, Any]]]) -> None:
    """Take an empty folder, or one whose recipe, given to `differing`, is the very same."""
    file = folder / RECIPE
    if file.is_file():
        if different := differing(file):
            said = "; ".join(f"{key}: {new!r} given, the run has {old!r}" for key, (new, old) in different.items())
            raise InputError(f"is the run of another recipe ({said}); give another --output", folder)
    elif os.path.lexists(folder) and not (folder.is_dir() and _hardly_begun(folder)):
        raise InputError("is there and is no run; give another --output", folder)


def _hardly_begun(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run that was killed at once left behind."""
    metrics = folder / FILE
    left = {metrics} if metrics.is_file() and not metrics.stat().st_size else set()
    left.add(folder / STUDENT)
    return set(folder.iterdir()) <= {*remains(folder), *left}


def precision_on(device: torch.device, asked: str = "auto") -> str:
    """`bf16` or `fp32`: what is asked for, or what the device is fast at."""
    if asked != "auto":
        return asked
    # Older GPUs compute bf16 in software.
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_it else "fp32"


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C and SIGTERM ask for an end instead of making one; a second Ctrl-C makes it."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        # Signals can be caught in the main thread alone; elsewhere the caller has them.
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
