"""Initial weights by role."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertloom.config import PRESETS
from bertloom.model.encoder import Encoder, Insides
from bertloom.model.init import initialise, sinusoids
from bertloom.model.packed import pack
from bertloom.objectives import Combined
from tests.conftest import random_examples, small


def test_new_weights_by_role() -> None:
    config = small(num_hidden_layers=1, num_attention_heads=1)
    encoder, objective = Encoder(config), Combined(config)
    initialise(encoder, 0.05, config.pad_token_id)
    initialise(objective, 0.05)
    for name, value in [*encoder.named_parameters(), *objective.named_parameters()]:
        if name.endswith("norm.weight"):
            assert (value == (0.5 if name.startswith("mlm") else 1)).all(), name
        elif name.endswith("bias"):
            assert (value == 0).all(), name
        elif name.endswith("position.weight"):
            assert torch.allclose(value, sinusoids(*value.shape) * 2 / 24**0.5)
        elif "embeddings" in name:
            assert float(value.detach()[:3].norm(dim=1).mean()) == pytest.approx(0.88, abs=0.35), name
        else:
            assert abs(float(value.detach().std()) - 0.044) < 0.01, name
            assert float(value.detach().abs().max()) <= 0.1
    assert (encoder.embeddings.word.weight[config.pad_token_id] == 0).all()


def test_sinusoids_turn_by_the_same_step_everywhere() -> None:
    waves = sinusoids(50, 8)
    near = (waves[:-1] * waves[1:]).sum(1)
    assert torch.allclose(near, near[:1].expand_as(near), atol=1e-5)


@pytest.mark.parametrize("name", ["bert-tiny", "bert-mini"])
def test_first_losses_are_those_of_guessing(name: str) -> None:
    config = PRESETS[name]
    encoder, objective = Encoder(config), Combined(config)
    initialise(encoder, config.initializer_range), initialise(objective, config.initializer_range)
    batch = pack(random_examples(config, [100] * 8))
    losses, counts = objective(encoder, batch), objective.counts(batch)
    assert float(losses["mlm"].detach()) / counts["mlm"] == pytest.approx(np.log(config.vocab_size), rel=0.1)
    assert float(losses["nsp"].detach()) / counts["nsp"] == pytest.approx(np.log(2), rel=0.1)


@torch.no_grad()
def test_half_the_heads_of_a_layer_begin_by_looking_at_neighbours() -> None:
    config = PRESETS["bert-mini"]
    torch.manual_seed(0)
    encoder = Encoder(config).eval()
    initialise(encoder, 0.01, config.pad_token_id)
    trace: list[Insides] = []
    encoder(pack(random_examples(config, [80] * 4)), trace)

    def look(layer: int, head: int, distance: int) -> float:
        """The mean attention to the token `distance` after."""
        weights = torch.stack([one[head] for one in trace[layer].attentions])
        return float(weights.diagonal(distance, 1, 2).mean())

    for layer in (1, 2, 3, 4):
        for head, distance in enumerate(((-1, 1), (-2, 2))[(layer - 1) % 2]):
            assert look(layer, head, distance) > 5 * look(layer, head, -distance), (layer, head)
            assert look(layer, head, distance) > 4 / 80
        for head in (2, 3):
            assert look(layer, head, 1) == pytest.approx(1 / 80, rel=0.3)
