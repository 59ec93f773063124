"""AdamW with decay on matrices only, and schedules of its rate (Loshchilov & Hutter 2019; Devlin et al. 2019, §A.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bertloom.train.recipe import Recipe, trained_rate

Named = list[tuple[str, nn.Parameter]]


def decayed(parameters: Iterable[tuple[str, nn.Parameter]]) -> tuple[Named, Named]:
    """Parameters that decay, and norms and biases, which do not: one-dimensional ones."""
    named = list(parameters)
    return [pair for pair in named if pair[1].ndim > 1], [pair for pair in named if pair[1].ndim <= 1]


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    scale: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """BERT's optimiser over named parameters; its rate is set before every step, times a name's `scale`."""
    named = list(parameters)
    groups = []
    for share in sorted({scale(name) for name, _ in named}, reverse=True):
        matrices, others = decayed(pair for pair in named if scale(pair[0]) == share)
        groups.append({"params": matrices, "weight_decay": weight_decay, "scale": share})
        groups.append({"params": others, "weight_decay": 0.0, "scale": share})
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-6, fused=True)


def rate_at(step: int, peak: float, steps: int, warmup: float, schedule: str) -> float:
    """The rate of a step from 0: rising over the warm-up, then falling to 0 by `linear` or `cosine`, or `constant`."""
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "constant":
        return peak
    left = (steps - step) / max(1, steps - rising)
    return peak * (left if schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def default_rate(hidden_size: int) -> float:
    """A peak rate for a width: 1e-4 at BERT-base as published, more where the model is narrower."""
    return 1e-4 * (768 / hidden_size) ** 2 if hidden_size > 256 else 1e-3


def peak_rate(recipe: Recipe, hidden_size: int, fastest: float) -> float:
    """The recipe's peak rate, or the width's, at most `fastest`."""
    return recipe.learning_rate or min(fastest, (trained_rate if recipe.start else default_rate)(hidden_size))


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients down to the norm `most` (0: leave them) and return their norm before."""
    owners = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([one.grad for one in owners if one.grad is not None])
    if most:
        torch.nn.utils.clip_grads_with_norm_(owners, most, norm)
    return norm
