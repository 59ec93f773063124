"""int8 layers against the arithmetic they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bertloom.model import quantized
from bertloom.model.quantized import QuantizedEmbedding, QuantizedLinear, instruction_set

# Without VNNI pairs of products are summed in 16 bits, which large ones do not fit.
NEAR = 0.5 if "without VNNI" in instruction_set() else 1e-4


def layer(inputs: int, outputs: int, rows: int, seed: int, biased: bool = True) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=biased), torch.randn(rows, inputs)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_the_kernel_is_what_its_numbers_say(inputs: int, outputs: int, rows: int, seed: int, biased: bool) -> None:
    linear, x = layer(inputs, outputs, rows, seed, biased)
    smooth = torch.rand(inputs) + 0.5
    low, high = float((x * smooth).min()), float((x * smooth).max())
    one = QuantizedLinear.of(linear, smooth, low, high)
    step = (max(high, 1e-12) - min(low, 0)) / 255
    zero = round(-min(low, 0) / step)
    whole = (x * smooth / step + zero).add(0.5).floor().clamp(0, 255)
    wanted = (whole - zero) * step @ (one.weight.float() * one.scale[:, None]).t()
    if one.bias is not None:
        wanted = wanted + one.bias
    assert (one(x) - wanted).abs().max() < NEAR
    # A step of weights and one of inputs away from the layer itself, at most.
    bound = inputs * (step * float(linear.weight.detach().abs().max()) + float(one.scale.max() * x.abs().max())) + 1e-5
    assert (one(x) - linear(x)).abs().max() < bound + NEAR


def test_large_inputs_do_not_take_the_range_of_all() -> None:
    linear, x = layer(64, 64, 200, 0)
    x[:, 3] *= 100
    most = x.abs().amax(0)
    errors = []
    for smooth in (torch.ones(64), 1 / most):
        one = QuantizedLinear.of(linear, smooth, float((x * smooth).min()), float((x * smooth).max()))
        errors.append(float((one(x) - linear(x)).detach().square().mean()))
    assert errors[1] < 0.2 * errors[0]


def test_without_the_kernel_weights_are_fp32_as_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x = layer(32, 16, 8, 1)
    one = QuantizedLinear.of(linear, torch.ones(32), float(x.min()), float(x.max()))
    near = one(x)
    monkeypatch.setattr(quantized, "_has_kernel", lambda: False)
    assert (one(x) - near).abs().max() < 0.1 + NEAR
    assert (one(x) - linear(x)).abs().max() < 0.05


def test_copies_and_state_dicts() -> None:
    linear, x = layer(32, 16, 8, 1)
    one = QuantizedLinear.of(linear, torch.ones(32), float(x.min()), float(x.max()))
    found = one(x)
    other = copy.deepcopy(one)
    assert torch.equal(other(x), found)
    empty = QuantizedLinear(32, 16, biased=True)
    empty(x)
    empty.load_state_dict(one.state_dict())
    assert torch.equal(empty(x), found)


def test_embeddings_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(50, 24)
    with torch.no_grad():
        table.weight[7] = 0
    one = QuantizedEmbedding.of(table)
    ids = torch.arange(50)
    steps = table.weight.abs().amax(1) / 127
    assert ((one(ids) - table(ids)).abs() <= 0.501 * steps[:, None] + 1e-9).all()
    assert one(ids[None]).shape == (1, 50, 24)


def test_the_instruction_set_is_named() -> None:
    assert any(name in instruction_set() for name in ("AMX", "VNNI", "DEFAULT"))
