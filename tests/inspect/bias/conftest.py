"""The same model in `transformers`, which the authors' scorers stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bertloom
from bertloom.api import Model
from tests.inspect.conftest import loaded


@pytest.fixture(scope="session")
def folder(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("biased") / "model"
    model = loaded(runs["mlm+nsp"])
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.heads.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape)
    model.save(made)
    return made


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return bertloom.load(folder)


@pytest.fixture(scope="session")
def theirs(folder: Path) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    peer = transformers.BertForPreTraining.from_pretrained(folder).eval()
    return peer, transformers.AutoTokenizer.from_pretrained(folder)
