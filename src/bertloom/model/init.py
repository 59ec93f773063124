"""Initial weights, by role, in one place."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module, std: float, pad: int | None = None) -> None:
    """Matrices from a normal distribution of deviation `std` cut at two, biases 0, norms 1 (Devlin et al. 2019).

    The embedding of the padding token, which no batch holds, is 0. Randomness is PyTorch's.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    word = getattr(getattr(module, "embeddings", None), "word", None)
    if isinstance(word, nn.Embedding) and pad is not None:
        nn.init.zeros_(word.weight[pad].detach())
