"""A run's recipe: every flag of `bertloom pretrain` is a key of it, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bertloom.errors import InputError
from bertloom.text.shares import EXPONENT
from bertloom.train.keys import Keys, blamed, key, name_of, read_keys

PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULES = ("linear", "cosine", "constant")
# Masks are bytes compared with 256 times the rate, which has to be under 256.
MOST_DROPPED = 0.99
LARGEST_SEED = (1 << 63) - 1
# Beyond it every token is as likely as the others, to the last bit of fp32.
MOST_TEMPERATURE = 1e6


@dataclass(frozen=True, kw_only=True)
class Recipe(Keys):
    """What a pretraining run is; raises `InputError` naming the key where a value cannot be."""

    # Checkpoints know the corpus by its hash, wherever it lies.
    corpus: str = key("", "Folder made by `bertloom prepare`, or a folder of several such.", shapes=False)
    exponent: float = key(EXPONENT, "Of several corpora each is drawn by its share of the tokens to this power.")
    weights: str = key("", "Of several corpora: how often each is drawn instead, as 'en=2, ko=1'.")
    text: str = key(
        "", "Instead of a corpus: text to prepare first, beside the run, with the vocabulary of --from.", shapes=False
    )
    output: str = key("", "Run folder; the same command again goes on from its newest checkpoint.", shapes=False)
    model: str = key(
        "", "Size: tiny, mini, small, medium, base, large or a preset's full name; mini, or that of --from."
    )
    family: str = key(
        "", "Make of that size a bert, roberta, xlm-roberta, albert, distilbert, electra or modernbert, not its own."
    )
    start: str = key("", "Begin with the weights of this model instead of new ones.", name="from")
    objective: str = key(
        "",
        "What is learned, by parts joined with +: mlm, wwm, rtd, causal, mlm+nsp, mlm+sop, span+sbo, …; unless given "
        "what the family was published with, or --from was pretrained on.",
    )
    mask: str = key("tokens", "What mlm hides: tokens, whole words, ngrams of them, or spans.")
    mask_share: float = key(0.15, "Share of the tokens that is hidden; measures always hide 0.15.")
    segments: str = key(
        "full", "Segments without pairs, within a document: full to the length, whole sentences, or one sentence."
    )
    teacher: str = key("", "For distill: the model to learn from; without --model its half is made of it.")
    temperature: float = key(2.0, "For distill: what logits are divided by.")
    generator: float = key(0.25, "For rtd: the generator's width as a share of the model's, in whole heads.")
    steps: int = key(10_000, "Optimiser steps.")
    batch_size: int = key(32, "Sequences of one step.")
    length: int = key(128, "Most tokens of a sequence.")
    positions: int = key(
        0,
        "Positions of the model: a new one has so many, those of --from are stretched; 0 for as many as there are.",
    )
    stretch: str = key("tile", "How the positions of --from are stretched: tile, interpolate, or sinusoids.")
    short_length: int = key(0, "Length of the first steps; 0 for none.")
    short_share: float = key(0.9, "Share of the steps at the short length.")
    learning_rate: float = key(0.0, "Peak rate; 0 takes one that suits the model's width.")
    schedule: str = key("linear", "After the warm-up: linear, cosine or constant.")
    warmup: float = key(0.05, "Share of the steps in which the rate rises.")
    weight_decay: float = key(0.01, "Decay of matrices and embeddings.")
    clip: float = key(1.0, "Largest norm of the gradient; 0 for no limit.")
    dropout: float = key(-1.0, "Dropout of hidden states and attention; -1 for the model's own, as published.")
    initializer_range: float = key(0.02, "Deviation of new matrices.")
    seed: int = key(0, "Seed of weights, order, masks and dropout.")
    micro_tokens: int = key(4096, "Tokens of a micro-batch, which bounds memory.")
    precision: str = key("auto", "auto, fp32 or bf16; auto is bf16 on a GPU that has it, else fp32.")
    save_every: int = key(500, "Steps between checkpoints.", shapes=False)
    keep: int = key(2, "Checkpoints kept.", shapes=False)
    evaluate_every: int = key(0, "Steps between measures on held-out examples; 0 for checkpoints only.", shapes=False)
    evaluate_examples: int = key(256, "Held-out examples of a measure.", shapes=False)
    workers: int = key(0, "Processes that make batches; the batches are the same for any number.", shapes=False)
    tensorboard: bool = key(False, "Write TensorBoard events too.", shapes=False)

    def __post_init__(self) -> None:
        least = {
            "steps": 1, "batch_size": 1, "length": 8, "micro_tokens": 1, "save_every": 1, "keep": 1, "workers": 0,
            "evaluate_every": 0, "evaluate_examples": 1, "learning_rate": 0, "weight_decay": 0, "clip": 0,
            "initializer_range": 0, "seed": 0, "temperature": 0.01, "positions": 0, "exponent": 0,
        }  # fmt: skip
        known = {"precision": PRECISIONS, "schedule": SCHEDULES}
        self.check(least, ("warmup", "short_share"), known)
        if self.seed > LARGEST_SEED:
            raise InputError(f"seed: {self.seed} given, under 2**63 allowed")
        if self.start and self.model:
            raise InputError(f"model: {self.model!r} given beside from, which has a size of its own; one allowed")
        if self.family and self.start:
            raise InputError(f"family: {self.family!r} given beside from, which has one of its own; one allowed")
        if self.weights and self.exponent != EXPONENT:
            raise InputError(f"exponent: {self.exponent} given beside weights, one of both allowed")
        if self.temperature > MOST_TEMPERATURE:
            raise InputError(f"temperature: {self.temperature} given, at most {MOST_TEMPERATURE} allowed")
        if not 0 < self.generator <= 1:
            raise InputError(f"generator: {self.generator} given, above 0 and at most 1 allowed")
        if self.teacher and self.start:
            raise InputError(f"teacher: {self.teacher!r} given beside from, a student of its own allowed")
        for name in ("positions", "family"):
            if self.teacher and not self.model and (value := getattr(self, name)):
                raise InputError(f"{name}: {value!r} given beside teacher, whose half has its own; model needed")
        if not 0 < self.mask_share < 1:
            raise InputError(f"mask_share: {self.mask_share} given, above 0 and under 1 allowed")
        if self.dropout != -1 and not 0 <= self.dropout <= MOST_DROPPED:
            raise InputError(f"dropout: {self.dropout} given, from 0 to {MOST_DROPPED} allowed, or -1")
        if self.short_length and not 8 <= self.short_length <= self.length:
            raise InputError(f"short_length: {self.short_length} given, from 8 to length ({self.length}) allowed")

    def choices(self) -> dict[str, Any]:
        """What objectives are told."""
        return {name: getattr(self, name) for name in ("segments", "mask", "mask_share", "generator", "temperature")}

    @property
    def text_corpus(self) -> str:
        """The folder that a text is prepared in."""
        return f"{self.output.rstrip('/')}-corpus"

    @property
    def short_steps(self) -> int:
        """How many of the first steps are at the short length."""
        return round(self.steps * self.short_share) if self.short_length else 0

    def length_at(self, step: int) -> int:
        """Most tokens of a sequence in the step of that number, from 0."""
        return self.short_length if step < self.short_steps else self.length


def trained_rate(hidden_size: int) -> float:
    """A peak rate for a model that is trained already: 5e-5 at BERT-base (Devlin et al. 2019, §A.3), by the width."""
    return 5e-5 * 768 / hidden_size


NAMES = {name_of(one): one.name for one in fields(Recipe)}


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys a TOML recipe gives; an unknown one raises and names the nearest, with file and line."""
    return {NAMES[name]: value for name, value in read_keys(path, list(NAMES)).items()}


def resolved(file: Path | None, flags: Mapping[str, Any]) -> Recipe:
    """A recipe from a TOML file and flags over it."""
    given = read_recipe(file) if file else {}
    try:
        return Recipe(**{**given, **flags})
    except InputError as error:
        # A flag stands over the file, and is blamed before it.
        name = NAMES.get(str(error).partition(":")[0], "")
        raise (error if name in flags or not file else blamed(error, file)) from None
