"""Initial weights, by role, in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from bertloom.model.encoder import Attention, Embeddings, Encoder
from bertloom.model.heads import BoundaryHead, LanguageHead


def initialise(module: nn.Module, std: float, pad: int | None = None) -> None:
    """Matrices from a normal distribution of deviation `std` cut at two, biases 0, norms 1 (Devlin et al. 2019).

    Embeddings begin at about unit length, so that a step of the optimiser moves them by a small share, and the norm
    before the tied output layer at ½, so that first logits stay small. Positions begin as sinusoids, and half the
    heads look at neighbours: a model that has to find attention's use first stands still meanwhile.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            _draw(part.weight, std)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, LanguageHead):
            nn.init.constant_(part.norm.weight, 0.5)
        if isinstance(part, BoundaryHead):
            nn.init.constant_(part.second_norm.weight, 0.5)
            _draw(part.position.weight, part.position.embedding_dim**-0.5)
        if isinstance(part, Embeddings):
            _embed(part, pad)
        if isinstance(part, Encoder):
            _begin(part)


@torch.no_grad()
def randomise(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Every matrix and embedding alike from a normal distribution, biases 0: weights that know not even places."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(std=std, generator=generator)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()


@torch.no_grad()
def _embed(part: Embeddings, pad: int | None) -> None:
    unit = part.word.embedding_dim**-0.5
    for table in (part.word, part.segment):
        if table is not None:
            _draw(table.weight, unit)
    if part.position is not None:
        part.position.weight.copy_(sinusoids(*part.position.weight.shape) * (unit * 2))
    if pad is not None:
        part.word.weight[pad] = 0


@torch.no_grad()
def _begin(encoder: Encoder) -> None:
    """Half the heads at neighbours, where the embeddings tell positions."""
    if encoder.config.position_embedding_type != "absolute":
        return
    if hasattr(encoder, "projection"):
        # What is projected begins as what it was, so that heads find the positions in it.
        encoder.projection.weight += torch.eye(*encoder.projection.weight.shape)
    for look, sides in (((-1, 1, -2, 2), "both"), ((-1, -2), "left"), ((1, 2), "right")):
        distances = cycle(look)
        for name, attention in encoder.named_modules():
            if isinstance(attention, Attention) and _seen(encoder.config.direction, name) == sides:
                # The other half stays free: pairs of sentences are compared by heads that look far.
                _look_at_neighbours(attention, islice(distances, attention.heads // 2))


def _seen(direction: str, name: str) -> str:
    """What the attention of a name sees."""
    if direction == "both":
        return "both"
    return "right" if ".right." in name else "left"


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
