"""Initial weights, by role, in one place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bertloom.model.encoder import Embeddings
from bertloom.model.heads import LanguageHead


def initialise(module: nn.Module, std: float, pad: int | None = None) -> None:
    """Matrices from a normal distribution of deviation `std` cut at two, biases 0, norms 1 (Devlin et al. 2019).

    Embeddings begin at about unit length, so that a step of the optimiser moves them by a small share, and the norm
    before the tied output layer at ½, so that first logits stay small. Positions begin as sinusoids: a step to the left
    is then the same rotation everywhere. All three make attention begin to work hundreds of steps earlier.
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
                part.position.weight.copy_(sinusoids(*part.position.weight.shape) * (unit * math.sqrt(2)))
                if pad is not None:
                    part.word.weight[pad] = 0


def default_range(hidden_size: int) -> float:
    """The deviation of matrices for a width: 0.02 at BERT-base as published, more where rows are shorter."""
    return float(0.02 * math.sqrt(768 / hidden_size))


def _draw(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of positions, wavelengths from 2π to 20,000π (Vaswani et al. 2017, §3.5)."""
    wave = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * wave  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
