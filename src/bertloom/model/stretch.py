"""Positions learned at one length, made to be those of a longer one; training goes on from there."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bertloom.model.init import sinusoids


def _tiled(learned: Tensor, size: int) -> Tensor:
    """The learned positions over and over, so that neighbours stay as they were (Beltagy et al. 2020, §5)."""
    return learned.repeat(-(-size // len(learned)), 1)[:size]


def _interpolated(learned: Tensor, size: int) -> Tensor:
    """From the first learned position to the last in `size` even steps, which keeps their order."""
    return F.interpolate(learned.T[None], size=size, mode="linear", align_corners=True)[0].T


def _continued(learned: Tensor, size: int) -> Tensor:
    """The learned positions, and behind them the sinusoids that a new model's begin as, as long as they are.

    Of a model that began with sinusoids these still are its neighbours' distances.
    """
    waves = sinusoids(size, learned.shape[1])
    waves *= learned.norm(dim=1).mean() / waves.norm(dim=1).mean()
    waves[: len(learned)] = learned
    return waves


STRETCHES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "tile": _tiled,
    "interpolate": _interpolated,
    "sinusoids": _continued,
}


@torch.no_grad()
def stretched(table: Tensor, first: int, learned: int, size: int, how: str) -> Tensor:
    """(first + size, E) positions of `size` tokens, made of the `learned` ones of a table (first + n, E).

    Rows before `first`, which are the padding's, stay.
    """
    own = table[first : first + learned]
    return torch.cat([table[:first], STRETCHES[how](own.float(), size).to(table.dtype)])
