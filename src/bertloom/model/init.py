"""Initial weights, by role, in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from bertloom.model.encoder import Attention, Embeddings, Encoder
from bertloom.model.heads import LanguageHead


def initialise(module: nn.Module, std: float, pad: int | None = None) -> None:
    """Matrices from a normal distribution of deviation `std` cut at two, biases 0, norms 1 (Devlin et al. 2019).

    Embeddings begin at about unit length, so that a step of the optimiser moves them by a small share, and the norm
    before the tied output layer at ½, so that first logits stay small. Positions begin as sinusoids, and half the
    heads look at neighbours: a model that has to find attention's use first stands still meanwhile.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            _draw(part.weight, std)
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, LanguageHead):
            nn.init.constant_(part.norm.weight, 0.5)
        if isinstance(part, Embeddings):
            unit = part.word.embedding_dim**-0.5
            for table in (part.word, part.segment):
                _draw(table.weight, unit)
            with torch.no_grad():
                part.position.weight.copy_(sinusoids(*part.position.weight.shape) * (unit * 2))
                if pad is not None:
                    part.word.weight[pad] = 0
        if isinstance(part, Encoder):
            distances = cycle((-1, 1, -2, 2))
            for attention in [one for one in part.modules() if isinstance(one, Attention)]:
                # The other half stays free: pairs of sentences are compared by heads that look far.
                _look_at_neighbours(attention, islice(distances, attention.heads // 2))


def _draw(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


@torch.no_grad()
def _look_at_neighbours(attention: Attention, distances: Iterable[int]) -> None:
    """The first heads ask for the token that many places after, one head for each distance.

    Each compares the shortest waves of the positions, the asking side's turned by the distance. Trained models
    come to have such heads (Clark et al. 2019, §3.1); attention that begins like a trained one learns sooner (Trockman
    and Kolter 2023).
    """
    size, width = attention.head_size, attention.output.in_features
    columns = size // 2 * 2  # sines and cosines come in pairs
    query, key, _ = attention.qkv.weight.view(3, attention.heads, size, width)
    for head, distance in enumerate(distances):
        angle = distance * _waves(width)[: columns // 2]
        sin = angle.sin().diag()
        turn = angle.cos().repeat_interleave(2).diag()
        turn[::2, 1::2], turn[1::2, ::2] = sin, -sin
        query[head, :columns, :columns] += turn
        key[head, :columns, :columns] += torch.eye(columns)


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of positions, wavelengths from 2π to 20,000π (Vaswani et al. 2017, §3.5)."""
    angle = torch.arange(length)[:, None] * _waves(width)  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def _waves(width: int) -> Tensor:
    """Angle from one position to the next, by pair of columns."""
    return torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
