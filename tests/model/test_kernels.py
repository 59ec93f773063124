from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bertloom.model import kernels
from bertloom.model.attention import attention, attention_weights, parts
from bertloom.model.kernels import dropout, linear_cross_entropy, linear_dropout_add
from bertloom.model.noise import dropout_stream, keep_mask
from bertloom.model.packed import pack
from tests.conftest import random_examples, small


def test_masks_keep_the_right_share_and_belong_to_their_stream() -> None:
    cpu = torch.device("cpu")
    for rate in (0.1, 0.25, 0.5):
        with dropout_stream(1, 2):
            masks = [keep_mask((100, 999), rate, cpu) for _ in range(40)]
        share = torch.stack(masks).float().mean()
        assert abs(float(share) - (1 - rate)) < 2e-3
        with dropout_stream(1, 2):
            assert torch.equal(keep_mask((100, 999), rate, cpu), masks[0])
        with dropout_stream(1, 3):
            assert not torch.equal(keep_mask((100, 999), rate, cpu), masks[0])
    assert set(masks[0].unique().tolist()) == {0, 1}


def test_outside_a_stream_torchs_seed_decides() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(keep_mask((50,), 0.5, torch.device("cpu")))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_linear_dropout_add_without_dropout_is_plain() -> None:
    x, residual, linear = torch.randn(5, 4), torch.randn(5, 3), nn.Linear(4, 3)
    assert torch.equal(linear_dropout_add(x, linear, residual, 0.0), residual + linear(x))


def test_linear_dropout_add_value_and_gradient() -> None:
    x, residual = torch.randn(6, 4, dtype=torch.double), torch.randn(6, 3, dtype=torch.double)
    linear = nn.Linear(4, 3).double()
    inputs = [t.requires_grad_() for t in (x, residual, linear.weight, linear.bias)]

    def ours(*_: torch.Tensor) -> torch.Tensor:
        with dropout_stream(7):
            return linear_dropout_add(x, linear, residual, 0.4)

    with dropout_stream(7):
        keep = keep_mask((6, 3), 0.4, x.device)
    assert torch.allclose(ours(), residual + keep * linear(x) / 0.6)
    assert torch.autograd.gradcheck(ours, inputs)


def test_dropout_value_and_gradient() -> None:
    x = torch.randn(6, 4, dtype=torch.double, requires_grad=True)

    def ours(x: torch.Tensor) -> torch.Tensor:
        with dropout_stream(7):
            return dropout(x, 0.4)

    with dropout_stream(7):
        keep = keep_mask((6, 4), 0.4, x.device)
    assert torch.allclose(ours(x), x * keep / 0.6)
    assert torch.autograd.gradcheck(ours, [x])
    assert dropout(x, 0.0) is x


@pytest.mark.parametrize("at_once", [1 << 25, 40])
def test_linear_cross_entropy_value_and_gradient(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", at_once)
    x, weight, bias = (torch.randn(*shape, dtype=torch.double) * 3 for shape in ((9, 4), (11, 4), (11,)))
    labels = torch.randint(11, (9,))
    inputs = [t.requires_grad_() for t in (x, weight, bias)]

    def ours(*inputs: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(*inputs, labels) * 0.7

    want = 0.7 * F.cross_entropy(F.linear(x, weight, bias), labels, reduction="sum")
    grads = torch.autograd.grad(want, inputs)
    got = ours(*inputs)
    assert torch.allclose(got.double(), want, rtol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(got, inputs), grads):
        assert torch.allclose(mine, theirs, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(ours(*inputs).double(), want, rtol=1e-6)


def test_cross_entropy_of_very_large_logits_is_finite() -> None:
    x, weight = torch.full((2, 3), 60.0), torch.stack([torch.full((3,), 9.0), torch.full((3,), -9.0)])
    loss = linear_cross_entropy(x.requires_grad_(), weight, torch.zeros(2), torch.tensor([0, 1]))
    assert float(loss.detach()) == pytest.approx(60 * 27 * 2)


def test_no_labels_give_zero_and_no_nan() -> None:
    x = torch.randn(0, 4, requires_grad=True)
    loss = linear_cross_entropy(x, torch.randn(5, 4), torch.zeros(5), torch.empty(0, dtype=torch.long))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_attention_gradient(read: bool, rate: float) -> None:
    # Two blocks share a mask, one is long, and with `read` the last has no row that asks.
    batch = replace(pack(random_examples(small(), [5, 2, 4, 140, 1])), read=torch.tensor([0, 3, 6, 12, 150]))
    rows = batch.read if read else None
    qkv = torch.randn(152, 2 if read else 3, 2, 3, dtype=torch.double, requires_grad=True)
    asked = torch.randn(len(rows), 2, 3, dtype=torch.double, requires_grad=True) if rows is not None else None
    made = parts(batch, rows)

    def ours(*_: torch.Tensor) -> torch.Tensor:
        with dropout_stream(3):
            return attention(qkv, asked, made, rate)

    assert torch.autograd.gradcheck(ours, [one for one in (qkv, asked) if one is not None], fast_mode=True)


def test_attention_is_each_sequences_own() -> None:
    lengths = [9, 7, 130, 4]
    batch = pack(random_examples(small(), lengths))
    qkv = torch.randn(sum(lengths), 3, 2, 8)
    mixed = attention(qkv, None, parts(batch, None), 0.0)
    start = 0
    for length, weights in zip(lengths, attention_weights(qkv[:, 0], qkv[:, 1], batch)):
        q, k, v = (qkv[start : start + length, part].transpose(0, 1) for part in range(3))
        want = F.scaled_dot_product_attention(q, k, v)
        assert torch.allclose(mixed[start : start + length].transpose(0, 1), want, atol=1e-5)
        assert torch.allclose(weights @ v, want, atol=1e-5)
        start += length


def test_dropped_attention_has_the_right_mean() -> None:
    batch = pack(random_examples(small(), [6]))
    qkv = torch.randn(6, 3, 2, 4)
    want = attention(qkv, None, parts(batch, None), 0.0)
    mean = torch.stack([attention(qkv, None, parts(batch, None), 0.3) for _ in range(4000)]).mean(0)
    assert float((mean - want).abs().max()) < 0.1


def test_numpy_stream_is_not_global() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    with dropout_stream(1):
        keep_mask((10,), 0.5, torch.device("cpu"))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_between_the_rows_of_the_workspace_stand_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of bf16 read them: on CPUs with AMX one thread's gradient was NaN where they were not."""
    monkeypatch.setattr(kernels, "_kept", threading.local())
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda one, *size: torch.full(size, torch.nan, dtype=one.dtype))
    kernels._workspace(20, 97, torch.zeros(1, dtype=torch.bfloat16))
    assert not kernels._kept.logits.isnan().any()
    x, weight = torch.randn(40, 24).bfloat16().requires_grad_(), torch.randn(97, 24).bfloat16().requires_grad_()
    kernels.linear_cross_entropy(x, weight, torch.zeros(97).bfloat16(), torch.randint(97, (40,))).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
