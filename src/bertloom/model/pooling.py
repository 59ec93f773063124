"""One vector of each sequence: means, first and last tokens, and their like.

B sequences of a batch, T tokens, D hidden size; c sequences of n tokens each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bertloom.errors import InputError, nearest
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.model.padded import Padded


def _weighted_mean(x: Tensor) -> Tensor:
    # A token's weight is its place, from 1: the later it stands, the more of the text a left-to-right model knows.
    weights = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
    return torch.einsum("cnd,n->cd", x, weights / weights.sum())


# From states (c, n, D) to vectors (c, D), by the names that sentence-transformers has.
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[:, 0],
    "max": lambda x: x.amax(1),
    "mean": lambda x: x.mean(1),
    "mean_sqrt_len_tokens": lambda x: x.sum(1) / x.shape[1] ** 0.5,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda x: x[:, -1],
}
# The mean over tokens and the last layers, which of frozen features are the best (Devlin et al. 2019, §5.3).
LAST_FOUR = "last-four"


def pooling_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names, of which several joined by + are put side by side; raises on others."""
    names = tuple(given.split("+")) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in (*POOLINGS, LAST_FOUR):
            raise InputError(f"pooling: {nearest(name, [*POOLINGS, LAST_FOUR])}")
    if not names:
        raise InputError("pooling: none given, at least one needed")
    return names


def by_runs(name: str, states: Tensor, batch: Batch) -> Tensor:
    """(B, D) of states (T, D); neighbours of one length are pooled together."""
    if isinstance(batch, Padded):
        return batch.pooled(name, states)
    found, start = [], 0
    for length, count in batch.runs:
        found.append(POOLINGS[name](states[start : start + count * length].view(count, length, -1)))
        start += count * length
    return torch.cat(found)


def pooled(encoder: Encoder, batch: Batch, names: Sequence[str]) -> Tensor:
    """(B, D times the number of names) what each way of pooling makes of a batch's sequences, side by side."""
    if set(names) == {"cls"}:
        # The last layer is computed at these rows alone.
        return encoder(replace(batch, read=batch.starts)).repeat(1, len(names))  # type: ignore[no-any-return]
    layers = encoder.hidden_states(batch)[-4:] if LAST_FOUR in names else [encoder(batch)]
    if LAST_FOUR in names and encoder.config.num_hidden_layers < len(layers):
        raise InputError(f"pooling: {LAST_FOUR} given, a model of at least {len(layers)} layers needed")
    return torch.cat(
        [
            by_runs("mean", torch.stack(layers).mean(0), batch)
            if name == LAST_FOUR
            else by_runs(name, layers[-1], batch)
            for name in names
        ],
        1,
    )
