"""Attention over a packed batch: each block of sequences in one call, on views of the projections.

T tokens, R rows read, N heads, H head size, n tokens and r queries of one block.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertloom.config import Window
from bertloom.model.noise import keep_mask
from bertloom.model.packed import CAUSAL, EVERYWHERE, Batch, Block, seen_in
from bertloom.model.padded import Padded

# Sequences of more tokens are mixed by PyTorch's flash attention, where nothing is masked or dropped: it keeps no
# probabilities, whose memory grows with the square. Of shorter ones they are cheaper kept than made again.
FLASH = 384

# A block, and its queries' rows `start` to `stop`; both index tensors that all blocks share.
Part = tuple[Block, int, int, Tensor | None]


def parts(batch: Batch, read: Tensor | None, window: Window = EVERYWHERE) -> list[Part]:
    """The attention calls of a batch; with `read` only those rows ask."""
    blocks = batch.blocks(window)
    if read is None:
        return [(block, block.start, block.stop, block.mask) for block in blocks]
    made: list[Part] = []
    bounds = batch.read_bounds(window)
    for block, start, stop in zip(blocks, bounds, bounds[1:]):
        if start < stop:
            mask = None if block.mask is None else block.mask[:, read[start:stop] - block.start]
            made.append((block, start, stop, mask))
    return made


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(N, r, n) attention of queries (N, r, H) on keys (N, n, H)."""
    if mask is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(mask.to(q.dtype), q, k.transpose(1, 2), alpha=scale)
    # In place, which saves the memory of the scores.
    return torch.softmax(scores, -1, out=scores)


def _scratch(q: Tensor, made: list[Part], rate: float) -> Tensor:
    """Room for the widest block's masks as numbers: a copy for each would leave holes among what the gradient keeps."""
    widest = max(((stop - start) * (block.last - block.first) for block, start, stop, _ in made), default=0)
    return q.new_empty(q.shape[1] * widest if rate else 0)


def _as_floats(keep: Tensor, scratch: Tensor) -> Tensor:
    return scratch[: keep.numel()].view(keep.shape).copy_(keep)


class _Attention(torch.autograd.Function):
    """Attention with dropout; keeps the probabilities and the byte masks for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, asked: Tensor | None, made: list[Part], rate: float) -> Tensor:
        q, kv = (qkv[:, 0], qkv[:, 1:]) if asked is None else (asked, qkv)  # (R, N, H), (T, 2, N, H)
        scale = q.shape[-1] ** -0.5
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)  # (R, N, H)
        saved: list[Tensor | None] = []
        scratch, flash = _scratch(q, made, rate), _flash(qkv, made, rate)
        for (block, start, stop, mask), by_flash in zip(made, flash):
            k, v = kv[block.first : block.last].transpose(0, 2).unbind(1)  # each (N, n, H)
            if by_flash:
                query = q[start:stop].transpose(0, 1)
                mixed, sums = _flash_forward(query[None], k[None], v[None])
                out[start:stop] = mixed[0].transpose(0, 1)
                saved += [sums, None]
                continue
            weights = mixing = _probabilities(q[start:stop].transpose(0, 1), k, mask, scale)
            keep = keep_mask(tuple(weights.shape), rate, q.device) if rate else None
            if keep is not None:
                mixing = _as_floats(keep, scratch).mul_(weights)
            saved += [weights, keep]
            out[start:stop] = torch.bmm(mixing, v).transpose(0, 1)
        ctx.save_for_backward(qkv, asked, out if any(flash) else None, *saved)
        ctx.made, ctx.rate, ctx.scale, ctx.flash = made, rate, scale, flash
        return out.mul_(1 / (1 - rate)) if rate else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, asked, out, *saved = ctx.saved_tensors
        # Blocks in which no row asks pass no gradient on, and rows that several blocks see add theirs up.
        shared = any((block.first, block.last) != (block.start, block.stop) for block, *_ in ctx.made)
        grad_qkv = torch.empty_like(qkv) if asked is None and not shared else torch.zeros_like(qkv)
        grad_asked = None if asked is None else torch.empty_like(asked)
        q, kv = (qkv[:, 0], qkv[:, 1:]) if asked is None else (asked, qkv)
        grad_q, grad_kv = (grad_qkv[:, 0], grad_qkv[:, 1:]) if grad_asked is None else (grad_asked, grad_qkv)
        grad, scratch = grads[0] / (1 - ctx.rate), _scratch(q, ctx.made, ctx.rate)  # (R, N, H)
        for (block, start, stop, _), by_flash, weights, keep in zip(ctx.made, ctx.flash, saved[::2], saved[1::2]):
            inside = slice(block.first, block.last)
            k, v = kv[inside].transpose(0, 2).unbind(1)  # each (N, n, H)
            query, above = q[start:stop].transpose(0, 1), grad[start:stop].transpose(0, 1)  # each (N, r, H)
            if by_flash:
                mixed = out[start:stop].transpose(0, 1)
                found = _flash_backward(above[None], query[None], k[None], v[None], mixed[None], weights)
                grad_q[start:stop] = found[0][0].transpose(0, 1)
                for number in (0, 1):
                    _put(grad_kv[inside, number], found[1 + number][0].transpose(0, 1), shared)
                continue
            dropped = weights if keep is None else _as_floats(keep, scratch).mul_(weights)
            _put(grad_kv[inside, 1], torch.bmm(dropped.transpose(1, 2), above).transpose(0, 1), shared)
            inner = torch.bmm(above, v.transpose(1, 2))  # (N, r, n)
            if keep is not None:
                inner.mul_(_as_floats(keep, scratch))
            inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(ctx.scale)
            grad_q[start:stop] = torch.bmm(inner, k).transpose(0, 1)
            _put(grad_kv[inside, 0], torch.bmm(inner.transpose(1, 2), query).transpose(0, 1), shared)
        return grad_qkv, grad_asked, None, None


def _flash(qkv: Tensor, made: list[Part], rate: float) -> list[bool]:
    """Of each call whether flash attention takes it."""
    if rate or qkv.is_cuda:
        return [False] * len(made)
    return [mask is None and block.last - block.first > FLASH for block, _, _, mask in made]


def _flash_forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed values (1, N, r, H), and the logarithms of what each query's weights were divided by."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)  # type: ignore[no-any-return]


def _flash_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return backward(grad, q, k, v, out, sums, 0.0, False)  # type: ignore[no-any-return]


def _put(where: Tensor, values: Tensor, adds: bool) -> None:
    where.add_(values) if adds else where.copy_(values)


class _Turned(torch.autograd.Function):
    """Pairs of columns half a head apart, turned by their position's angles, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
        ctx.angles, ctx.heads = (cos, sin), heads
        ctx.mark_dirty(x)
        return _turn_(x, cos, sin, heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.angles
        return _turn_(grads[0].clone(), cos, -sin, ctx.heads), None, None, None


def _turn_(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """The first `heads` heads of rows (T, …), turned."""
    size = 2 * cos.shape[1]
    one, other = x[:, : heads * size].view(x.shape[0], heads, 2, size // 2).unbind(2)  # each (T, heads, H / 2)
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    turned = one * cos - other * sin
    other.mul_(cos).add_(one * sin)
    one.copy_(turned)
    return x


def turned(x: Tensor, angles: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Projections (T, …) whose first `heads` heads are turned by their positions, in place (Su et al. 2021)."""
    return _Turned.apply(x, *angles, heads)  # type: ignore[no-any-return, no-untyped-call]


def attention(qkv: Tensor, asked: Tensor | None, made: list[Part], rate: float) -> Tensor:
    """Mixed values (R, N, H), `rate` of the weights dropped, given the projections (T, 3, N, H).

    Where only some rows ask, `asked` (R, N, H) are their queries and `qkv` (T, 2, N, H) the keys and values.
    """
    with torch.autocast(qkv.device.type, enabled=False):
        return _Attention.apply(qkv, asked, made, rate)  # type: ignore[no-any-return, no-untyped-call]


def mix(qkv: Tensor, asked: Tensor | None, batch: Batch, read: Tensor | None, window: Window, rate: float) -> Tensor:
    """Attention of a batch by the fastest way that does what is asked."""
    if isinstance(batch, Padded):
        return batch.mixed(qkv, asked, window)
    if not rate and read is None:
        if qkv.is_cuda and qkv.dtype in (torch.float16, torch.bfloat16):
            return varlen_attention(qkv, batch, window)
        if not qkv.is_cuda and not torch.is_grad_enabled() and window in (EVERYWHERE, CAUSAL):
            return _attention_by_length(qkv, batch, causal=window == CAUSAL)
    return attention(qkv, asked, parts(batch, read, window), rate)


def _attention_by_length(qkv: Tensor, batch: Batch, causal: bool) -> Tensor:
    """The same without gradients: neighbours of one length share a call of flash attention, and nothing is masked."""
    mixed, start = [], 0
    for length, count in batch.runs:
        rows = qkv[start : start + count * length]
        q, k, v = rows.view(count, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4).unbind()  # each (count, N, length, H)
        out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)[0]
        mixed.append(out.transpose(1, 2).flatten(0, 1))
        start += count * length
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def varlen_attention(qkv: Tensor, batch: Batch, window: Window = EVERYWHERE) -> Tensor:
    """The same on CUDA by `torch.nn.attention.varlen`, which knows no dropout and asks for all rows."""
    from torch.nn.attention.varlen import varlen_attn

    edges = F.pad(torch.tensor(batch.lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0)).to(qkv.device)
    longest = max(batch.lengths)
    q, k, v = qkv.unbind(1)
    before, after = (-1 if reach is None else reach for reach in window)
    mixed: Tensor = varlen_attn(q, k, v, edges, edges, longest, longest, window_size=(before, after))  # type: ignore[assignment]
    return mixed


@torch.no_grad()
def attention_weights(q: Tensor, k: Tensor, batch: Batch, window: Window = EVERYWHERE) -> list[Tensor]:
    """Of each sequence the probabilities (N, n, n), for those who look inside."""
    weights, start = [], 0
    for length in batch.lengths:
        rows = slice(start, start + length)
        mask = None if window == EVERYWHERE else seen_in(window, length).to(q.device)
        weights.append(_probabilities(q[rows].transpose(0, 1), k[rows].transpose(0, 1), mask, q.shape[-1] ** -0.5))
        start += length
    return weights
