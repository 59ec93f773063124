"""Initial weights, by role, in one place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def initialise(module: nn.Module, std: float, pad: int | None = None) -> None:
    """Matrices from a normal distribution of deviation `std` cut at two, biases 0, norms 1 (Devlin et al. 2019).

    Positions begin as sinusoids of the same size: a step to the left is then the same rotation everywhere, and
    attention finds its neighbours early. The padding token's embedding, which no batch holds, is 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    embeddings = getattr(module, "embeddings", None)
    if embeddings is not None:
        with torch.no_grad():
            embeddings.position.weight.copy_(sinusoids(*embeddings.position.weight.shape) * (std * math.sqrt(2)))
            if pad is not None:
                embeddings.word.weight[pad] = 0


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of positions, wavelengths from 2π to 20,000π (Vaswani et al. 2017, §3.5)."""
    wave = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * wave  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
