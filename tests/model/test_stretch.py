"""Positions stretched to a longer length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import bertloom
from bertloom.corpus import Corpus
from bertloom.errors import InputError
from bertloom.model.init import sinusoids
from bertloom.model.stretch import STRETCHES, stretched
from bertloom.pretraining import pretrain
from bertloom.train.recipe import Recipe

POSITIONS = "embeddings.position.weight"


def test_tiles_and_steps_by_hand() -> None:
    table = torch.tensor([[9.0, 9.0], [0.0, 1.0], [2.0, 3.0], [4.0, 7.0], [100.0, 100.0]])
    tiled = stretched(table, 1, 3, 7, "tile")
    assert torch.equal(tiled, table[[0, 1, 2, 3, 1, 2, 3, 1]]), "the last row was never learned"
    even = stretched(table, 1, 3, 5, "interpolate")
    assert torch.allclose(even, torch.tensor([[9.0, 9.0], [0, 1], [1, 2], [2, 3], [3, 5], [4, 7]]))
    for how in STRETCHES:
        assert torch.equal(stretched(table, 0, 5, 5, how), table)
    waves = sinusoids(40, 8) * 3
    assert torch.allclose(stretched(waves[:10], 0, 10, 40, "sinusoids"), waves, atol=1e-5), "as they would have begun"


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_training_goes_on_at_a_longer_length(family: str, corpus: Corpus, tmp_path: Path) -> None:
    shared = {"corpus": str(corpus.path), "objective": "mlm", "batch_size": 8, "evaluate_examples": 16, "dropout": 0.0}
    short = Recipe(
        output=str(tmp_path / "short"), model="tiny", family=family, positions=24, length=24, steps=2, **shared
    )
    assert pretrain(short)
    before = bertloom.load(tmp_path / "short")
    assert before.config.longest == 24
    given = Recipe(
        output=str(tmp_path / "long"),
        start=short.output,
        positions=80,
        length=80,
        steps=2,
        learning_rate=1e-9,
        **shared,
    )
    assert pretrain(given)
    after = bertloom.load(tmp_path / "long")
    assert after.config.longest == 80
    assert after.others["pretraining_length"] == 80
    if family != "modernbert":
        first = after.config.first_position
        table = after.encoder.state_dict()[POSITIONS]
        learned = before.encoder.state_dict()[POSITIONS]
        assert torch.allclose(table, stretched(learned, first, 24, 80, "tile"), atol=1e-5)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "long" / "model")
    assert theirs.config.max_position_embeddings == after.config.max_position_embeddings
    assert pretrain(given), "the same again: nothing is stretched twice"


def test_positions_that_cannot_be(corpus: Corpus, tmp_path: Path, tiny_model: Path) -> None:
    for changes, said in (
        ({"start": str(tiny_model), "positions": 32}, "positions: 32 given, at least 64 allowed, which the model has"),
        ({"start": str(tiny_model), "length": 65}, "length: 65 given, at most 64 positions allowed; --positions gives"),
        ({"stretch": "tiles"}, "stretch: unknown 'tiles', did you mean 'tile'"),
        ({"stretch": "interpolate"}, "stretch: 'interpolate' given, allowed with positions of a model given by from"),
        ({"teacher": str(tiny_model), "objective": "distill", "positions": 99}, "positions: 99 given beside teacher"),
    ):
        with pytest.raises(InputError, match=said):
            pretrain(
                Recipe(**{"corpus": str(corpus.path), "output": str(tmp_path / "run"), "objective": "mlm", **changes})
            )
