"""Fused steps with hand-written gradients: what autograd would do with more passes over memory.

T tokens, I and O widths, M labelled rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertloom.model.noise import keep_mask

# Logits held at one time; bounds the memory of the language head whatever the batch.
LOGITS_AT_ONCE = 1 << 25

_kept = threading.local()


def _workspace(rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows, columns) of scratch memory that is kept from step to step, since fresh pages cost as much as a product.

    Rows begin an odd multiple of 64 values apart: products into memory that is not aligned take half as long again.
    Between them stand numbers: oneDNN's products of bf16 read on beyond a row, and 0 times NaN is none.
    """
    stride = 64 * (-(-columns // 64) | 1)
    held: Tensor | None = getattr(_kept, "logits", None)
    if held is None or held.numel() < rows * stride or held.dtype != like.dtype or held.device != like.device:
        held = _kept.logits = like.new_zeros(rows * stride)
    return held[: rows * stride].view(rows, stride)[:, :columns]


def _in_compute_dtype(*tensors: Any) -> tuple[Any, ...]:
    """The tensors in autocast's type where it is on; autograd casts their gradients back."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(None if tensor is None else tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


class _LinearDropoutAdd(torch.autograd.Function):
    """residual + keep * (x @ weight.T + bias) / (1 - rate)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, rate: float) -> Tensor:
        scale = 1 / (1 - rate)
        keep = keep_mask((len(x), len(weight)), rate, x.device)
        ctx.save_for_backward(x, weight, keep)
        ctx.scale, ctx.biased = scale, bias is not None
        if bias is None:
            out = torch.mm(x, weight.t()).mul_(scale).mul_(keep)
        else:
            out = torch.addmm(bias, x, weight.t(), beta=scale, alpha=scale).mul_(keep)
        return out.add_(residual) if out.dtype == residual.dtype else residual + out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, keep = ctx.saved_tensors
        grad = (grads[0] * keep).mul_(ctx.scale).to(weight.dtype)  # (T, O)
        return grad @ weight, grad.t() @ x, grad.sum(0) if ctx.biased else None, grads[0], None


def linear_dropout_add(x: Tensor, linear: torch.nn.Module, residual: Tensor, rate: float) -> Tensor:
    """A linear layer's output, dropped out at `rate`, on top of the residual stream, (T, I) to (T, O)."""
    if not isinstance(linear, torch.nn.Linear):
        # What is computed another way is never trained.
        return linear(x).add_(residual)  # type: ignore[no-any-return]
    if not rate and not torch.is_grad_enabled() and linear.bias is not None and x.dtype == residual.dtype:
        # The product is added where the residual and the bias stand already, a pass less.
        return (residual + linear.bias).addmm_(x, linear.weight.t())
    if not rate or x.device.type != "cpu":
        return residual + F.dropout(linear(x), rate, training=bool(rate))
    x, weight, bias = _in_compute_dtype(x, linear.weight, linear.bias)
    with torch.autocast("cpu", enabled=False):
        return _LinearDropoutAdd.apply(x, weight, bias, residual, rate)  # type: ignore[no-any-return, no-untyped-call]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        keep = keep_mask(tuple(x.shape), rate, x.device)
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - rate)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None


def dropout(x: Tensor, rate: float) -> Tensor:
    """`x` with a share `rate` of its values at zero and the others scaled up."""
    if not rate or x.device.type != "cpu":
        return F.dropout(x, rate, training=bool(rate))
    return _Dropout.apply(x, rate)  # type: ignore[no-any-return, no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of x @ weight.T + bias; the gradients are made on the way, so logits are never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        rows = max(1, LOGITS_AT_ONCE // len(weight))
        exact = torch.promote_types(x.dtype, torch.float32)
        total = torch.zeros((), device=x.device, dtype=exact)
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.zeros_like(bias)
        for start in range(0, len(x), rows):
            part, wanted = x[start : start + rows], labels[start : start + rows, None]  # (m, D), (m, 1)
            logits = _workspace(len(part), len(weight), x)  # (m, V)
            torch.addmm(bias, part, weight.t(), out=logits)
            # exp(l - max) in place is both the normaliser and, divided by it, the gradient.
            logits.sub_(logits.amax(1, keepdim=True))
            total -= logits.gather(1, wanted).to(exact).sum()
            norm = logits.exp_().sum(1, keepdim=True, dtype=exact)
            total += norm.log().sum()
            logits.div_(norm)
            logits.scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0))
            torch.mm(logits, weight, out=grad_x[start : start + rows])
            torch.addmm(grad_weight, logits.t(), part, beta=min(1, start), out=grad_weight)
            grad_bias += logits.sum(0)
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since a copy of the weight's would cost its memory twice; autograd refuses a second pass.
        return *(grad.mul_(grads[0]) for grad in ctx.saved_tensors), None


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Summed cross entropy, a scalar, of labels (M,) under logits `x @ weight.T + bias` (M, V); 0 where M is 0."""
    if not len(labels):
        return x.sum() * 0.0
    x, weight, bias = _in_compute_dtype(x, weight, bias)
    if not torch.is_grad_enabled():
        rows = max(1, LOGITS_AT_ONCE // len(weight))
        total = torch.zeros((), device=x.device)
        for part, wanted in zip(torch.split(x, rows), torch.split(labels, rows)):
            total += F.cross_entropy(F.linear(part, weight, bias).float(), wanted, reduction="sum")
        return total
    with torch.autocast(x.device.type, enabled=False):
        return _LinearCrossEntropy.apply(x, weight, bias, labels)  # type: ignore[no-any-return, no-untyped-call]
