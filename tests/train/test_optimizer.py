from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bertloom.model.encoder import Encoder
from bertloom.objectives import Combined, model_of
from bertloom.train.optimizer import adamw, clip_gradients, decayed, default_rate, peak_rate, rate_at
from bertloom.train.recipe import Recipe
from tests.conftest import small


def test_an_objective_may_ask_for_a_lower_rate_where_none_is_given() -> None:
    where = {"corpus": "corpus", "output": "run"}
    assert peak_rate(Recipe(**where), 256, 3e-4) == 3e-4
    assert peak_rate(Recipe(**where), 768, 3e-4) == default_rate(768)
    assert peak_rate(Recipe(**where, learning_rate=1e-3), 256, 3e-4) == 1e-3
    assert peak_rate(Recipe(**where, model="", start="model"), 768, math.inf) == 5e-5
    assert Combined(model_of("rtd", small()), "rtd").fastest < Combined(small(), "mlm").fastest


def test_groups_partition_the_parameters_and_no_norm_or_bias_decays() -> None:
    encoder, objective = Encoder(small()), Combined(small())
    named = [*encoder.named_parameters(), *objective.named_parameters()]
    matrices, others = decayed(named)
    assert sorted(name for name, _ in matrices + others) == sorted(name for name, _ in named)
    assert all("norm" not in name and not name.endswith("bias") for name, _ in matrices)
    assert all("norm" in name or name.endswith("bias") for name, _ in others)
    optimizer = adamw(named, 0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(named)
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999)
        assert group["eps"] == 1e-6


def test_googles_optimiser_case() -> None:
    weight = nn.Parameter(torch.tensor([0.1, -0.2, -0.1]))
    optimizer = adamw([("weight", weight)], 0.0)
    for _ in range(100):
        optimizer.zero_grad()
        (weight - torch.tensor([0.4, 0.2, -0.5])).square().mean().backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = 0.2
        optimizer.step()
    assert torch.allclose(weight.detach(), torch.tensor([0.4, 0.2, -0.5]), atol=1e-2)


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ("linear", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 99: 1 / 90}),
        ("cosine", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 99: 0.000305}),
        ("constant", {0: 0.1, 9: 1.0, 55: 1.0, 99: 1.0}),
    ],
)
def test_schedules(schedule: str, want: dict[int, float]) -> None:
    for step, rate in want.items():
        assert rate_at(step, 1.0, 100, 0.1, schedule) == pytest.approx(rate, rel=1e-2)
    assert rate_at(0, 1.0, 10, 0.0, "linear") == 1.0


def test_narrow_models_get_higher_rates() -> None:
    assert default_rate(768) == pytest.approx(1e-4)
    assert default_rate(128) == default_rate(256) > default_rate(512) > default_rate(1024)


def test_clipping() -> None:
    weight = nn.Parameter(torch.zeros(2))
    idle = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert float(clip_gradients([weight, idle], 1.0)) == 5.0
    assert torch.allclose(weight.grad, torch.tensor([0.6, 0.8]), atol=1e-5)
    assert float(clip_gradients([weight], 0.0)) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(weight.grad, torch.tensor([0.6, 0.8]), atol=1e-5)
