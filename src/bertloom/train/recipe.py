"""A run's recipe: every flag of `bertloom pretrain` is a key of it, and the other way round."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from bertloom.errors import InputError, nearest
from bertloom.files import read_text, whole_file

PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULES = ("linear", "cosine", "constant")
# Masks are bytes compared with 256 times the rate, which has to be under 256.
MOST_DROPPED = 0.99


def _key(default: Any, text: str, *, shapes: bool = True) -> Any:
    """A field with its help; `shapes` is whether it decides what the run computes."""
    return field(default=default, metadata={"help": text, "shapes": shapes})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a pretraining run is; raises `InputError` naming the key where a value cannot be."""

    # Checkpoints know the corpus by its hash, wherever it lies.
    corpus: str = _key("", "Folder made by `bertloom prepare`.", shapes=False)
    output: str = _key("", "Run folder; the same command again goes on from its newest checkpoint.", shapes=False)
    model: str = _key(
        "", "Size: tiny, mini, small, medium, base, large or a preset's full name; mini, or that of --start."
    )
    start: str = _key("", "Begin with the weights of this model instead of new ones.")
    objective: str = _key("mlm+nsp", "What is learned: mlm or mlm+nsp.")
    mask: str = _key("tokens", "What is hidden: tokens or whole words.")
    mask_share: float = _key(0.15, "Share of the tokens that is hidden; measures always hide 0.15.")
    segments: str = _key("full", "Segments without NSP: full (to the length, within a document) or sentence.")
    steps: int = _key(10_000, "Optimiser steps.")
    batch_size: int = _key(32, "Sequences of one step.")
    length: int = _key(128, "Most tokens of a sequence.")
    short_length: int = _key(0, "Length of the first steps; 0 for none.")
    short_share: float = _key(0.9, "Share of the steps at the short length.")
    learning_rate: float = _key(0.0, "Peak rate; 0 takes one that suits the model's width.")
    schedule: str = _key("linear", "After the warm-up: linear, cosine or constant.")
    warmup: float = _key(0.05, "Share of the steps in which the rate rises.")
    weight_decay: float = _key(0.01, "Decay of matrices and embeddings.")
    clip: float = _key(1.0, "Largest norm of the gradient; 0 for no limit.")
    dropout: float = _key(0.1, "Dropout of hidden states and attention.")
    initializer_range: float = _key(0.02, "Deviation of new matrices.")
    seed: int = _key(0, "Seed of weights, order, masks and dropout.")
    micro_tokens: int = _key(4096, "Tokens of a micro-batch, which bounds memory.")
    precision: str = _key("auto", "auto, fp32 or bf16; auto is bf16 on a GPU that has it, else fp32.")
    save_every: int = _key(500, "Steps between checkpoints.", shapes=False)
    keep: int = _key(2, "Checkpoints kept.", shapes=False)
    evaluate_every: int = _key(0, "Steps between measures on held-out examples; 0 for checkpoints only.", shapes=False)
    evaluate_examples: int = _key(256, "Held-out examples of a measure.", shapes=False)
    workers: int = _key(0, "Processes that make batches; the batches are the same for any number.", shapes=False)
    tensorboard: bool = _key(False, "Write TensorBoard events too.", shapes=False)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Recipe).items():
            value = getattr(self, name)
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise InputError(f"{name}: {value!r} given, a {kind.__name__} allowed")
            # Names of files may hold bytes that are no text, and TOML is text.
            if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value):
                raise InputError(f"{name}: {value!r} given, a text without control characters allowed")
            if kind is float and not math.isfinite(value):
                raise InputError(f"{name}: {value!r} given, a finite number allowed")
        for name, known in (("precision", PRECISIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name}: {nearest(getattr(self, name), known)}")
        limits = {
            "steps": 1, "batch_size": 1, "length": 8, "micro_tokens": 1, "save_every": 1, "keep": 1, "workers": 0,
            "evaluate_every": 0, "evaluate_examples": 1, "learning_rate": 0, "weight_decay": 0, "clip": 0,
            "initializer_range": 0, "seed": 0,
        }  # fmt: skip
        for name, least in limits.items():
            if not getattr(self, name) >= least:
                raise InputError(f"{name}: {getattr(self, name)} given, at least {least} allowed")
        if self.seed >= 1 << 63:
            raise InputError(f"seed: {self.seed} given, under 2**63 allowed")
        for name in ("warmup", "short_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: {getattr(self, name)} given, a share from 0 to 1 allowed")
        if not 0 < self.mask_share < 1:
            raise InputError(f"mask_share: {self.mask_share} given, above 0 and under 1 allowed")
        if not 0 <= self.dropout <= MOST_DROPPED:
            raise InputError(f"dropout: {self.dropout} given, from 0 to {MOST_DROPPED} allowed")
        if self.short_length and not 8 <= self.short_length <= self.length:
            raise InputError(f"short_length: {self.short_length} given, from 8 to length ({self.length}) allowed")

    @property
    def short_steps(self) -> int:
        """How many of the first steps are at the short length."""
        return round(self.steps * self.short_share) if self.short_length else 0

    def length_at(self, step: int) -> int:
        """Most tokens of a sequence in the step of that number, from 0."""
        return self.short_length if step < self.short_steps else self.length

    def differing(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The keys that decide what is computed and in which two recipes differ, with both values."""
        pairs = {
            one.name: (getattr(self, one.name), getattr(other, one.name))
            for one in fields(self)
            if one.metadata["shapes"]
        }
        return {name: values for name, values in pairs.items() if values[0] != values[1]}

    def write(self, path: Path) -> None:
        """The recipe as TOML, every key there."""
        # A TOML string, number or boolean of these types is spelt as in JSON.
        text = "".join(
            f"{one.name} = {json.dumps(getattr(self, one.name), ensure_ascii=False)}\n" for one in fields(self)
        )
        with whole_file(path) as beside:
            beside.write_text(text, encoding="utf-8")


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys a TOML recipe gives; an unknown one raises and names the nearest, with file and line."""
    text = read_text(path)
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML: {error}", path) from None
    known = [one.name for one in fields(Recipe)]
    for key in given:
        if key not in known:
            parts = enumerate((one.partition("=")[0].strip(" \t[]\"'") for one in text.splitlines()), 1)
            line = next((number for number, part in parts if part == key), None)
            raise InputError(f"key {nearest(key, known)}", path, line)
    return given


def resolved(file: Path | None, flags: Mapping[str, Any]) -> Recipe:
    """A recipe from a TOML file and flags over it."""
    given = read_recipe(file) if file else {}
    try:
        return Recipe(**{**given, **flags})
    except InputError as error:
        # A flag stands over the file, and is blamed before it.
        raise InputError(str(error), None if str(error).partition(":")[0] in flags else file) from None
