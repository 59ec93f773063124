"""A student made of its teacher's own layers; how it learns is fine-tuning with a `teacher` (`finetuning/`)."""

from __future__ import annotations

from pathlib import Path

from bertloom.api import Model, load
from bertloom.errors import InputError
from bertloom.ship.measure import changed
from bertloom.ship.prune import with_layers
from bertloom.train.run import STUDENT


def of_layers(teacher: Model, layers: int) -> Model:
    """A model of so many of a teacher's layers at even distances, the first among them (Sanh et al. 2019, §3)."""
    most = teacher.config.num_hidden_layers
    if not 0 < layers < most:
        raise InputError(f"layers: {layers} given, from 1 to {most - 1} allowed")
    teacher.require_learning()
    made = changed(teacher, f"{layers} of {most} layers")
    made.encoder = with_layers(teacher.encoder, [number * most // layers for number in range(layers)])
    return made


def student_of(teacher: Model, layers: int, output: Path) -> Path:
    """The folder of such a model in a run's folder, where it may be already."""
    folder = output / STUDENT
    if folder.is_dir():
        had = load(folder).config.num_hidden_layers
        if had != layers:
            raise InputError(f"layers: {layers} given, the run there has {had}; give another --output", output)
    else:
        of_layers(teacher, layers).save(folder)
    return folder
