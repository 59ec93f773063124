"""Small models of every direction, a fine-tuned one of each task, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bertloom
from bertloom.api import Model
from bertloom.corpus import Corpus
from bertloom.pretraining import pretrain
from bertloom.tasks.answer import Answer
from bertloom.tasks.classify import Classify
from bertloom.tasks.tag import Tag
from bertloom.tasks.task import Task
from bertloom.train.recipe import Recipe

DIRECTIONS = ("mlm+nsp", "causal", "bilm")
TASKS: dict[str, Task] = {
    "classify": Classify(problem="single", labels=("no", "yes", "maybe")),
    "tag": Tag(scheme="iob2", labels=("O", "B-X", "I-X")),
    "answer": Answer(),
}


@pytest.fixture(scope="session")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with every weight far from where it began."""
    made = {}
    for name in DIRECTIONS:
        made[name] = tmp_path_factory.mktemp("looked") / "run"
        recipe = Recipe(
            corpus=str(corpus.path), output=str(made[name]), model="tiny", objective=name, steps=2, batch_size=4,
            initializer_range=0.2,
        )  # fmt: skip
        pretrain(recipe)
    return made


def loaded(run: Path) -> Model:
    """A run's model, no two of whose words are equally likely."""
    model = bertloom.load(run)
    torch.manual_seed(2)
    with torch.no_grad():
        model.head("mlm").bias += torch.randn(model.config.vocab_size)
    return model


@pytest.fixture
def model(runs: dict[str, Path]) -> Model:
    return loaded(runs["mlm+nsp"])


def tuned(model: Model, name: str) -> Model:
    """A model with a random head of a task."""
    torch.manual_seed(1)
    task, encoder = TASKS[name], model.encoder
    encoder.give_pooler(True)
    return Model(
        encoder, nn.ModuleDict({task.part: task.head(model.config)}), model.tokenizer, {}, model.path, task=task
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here; apt-get install chromium brings it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
