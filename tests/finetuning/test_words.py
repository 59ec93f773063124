from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bertloom
from bertloom.finetuning.data import read
from bertloom.finetuning.run import Finetuning
from bertloom.finetuning.tune import finetune
from bertloom.finetuning.words import OccurringWords
from tests.finetuning.test_tune import files, quiet, recipe

__all__ = ["files"]


def test_words_are_looked_up_and_learn_as_in_the_whole_table() -> None:
    table, ids = torch.randn(9, 4), torch.tensor([7, 2, 2, 5])
    whole = torch.nn.Embedding.from_pretrained(table.clone(), freeze=False)
    words = OccurringWords(table, torch.tensor([0, 2, 5, 7]))
    scale = torch.randn(4, 4)
    for one in (whole, words):
        (one(ids) * scale).sum().backward()
    assert torch.equal(words(ids), whole(ids))
    assert words.weight.grad is not None
    assert whole.weight.grad is not None
    assert torch.equal(words.weight.grad, whole.weight.grad[[0, 2, 5, 7]])
    with pytest.raises(IndexError):
        words(torch.tensor([1]))


def test_state_dicts_hold_the_whole_table() -> None:
    table = torch.randn(9, 4)
    words = OccurringWords(table, torch.tensor([1, 3]))
    with torch.no_grad():
        words.weight.fill_(2.0)
    state = words.state_dict()
    assert list(state) == ["weight"]
    wanted = table.clone()
    wanted[[1, 3]] = 2.0
    assert torch.equal(state["weight"], wanted)
    other = OccurringWords(table, torch.tensor([1, 3]))
    other.load_state_dict(state)
    assert torch.equal(other.weight, words.weight)


def test_words_that_do_not_occur_stay_as_they_were(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    given = recipe(files, tiny_model, tmp_path / "run", epochs=2.0, restarts=0)
    start = bertloom.load(tiny_model)
    before = start.encoder.embeddings.word.weight.clone()
    data = read(given, start, quiet)
    assert 0 < len(data.words) < len(before)
    assert finetune(given, say=quiet)
    after = bertloom.load(tmp_path / "run").encoder.embeddings.word.weight
    same = (after == before).all(1)
    assert torch.equal(start.encoder.embeddings.word.weight, before), "the start model is not written into"
    assert not same[data.words[1:]].any()
    same[data.words] = True
    assert same.all()


def test_embeddings_that_do_not_learn_are_left_alone(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    for change in ({"freeze": 1}, {"features_from": "last", "dropout": -1.0}):
        given = recipe(files, tiny_model, tmp_path / "x", **change)
        start = bertloom.load(tiny_model)
        run = Finetuning(given, 0, tmp_path / "y", read(given, start, quiet), quiet)
        assert isinstance(run.encoder.embeddings.word, torch.nn.Embedding)
