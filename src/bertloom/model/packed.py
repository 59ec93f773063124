"""Packed batches: sequences laid end to end, no padding anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bertloom.example import Example

# Consecutive short sequences share one attention call up to this many tokens, told apart by a mask.
BLOCK = 128
# Tokens of a batch where nothing is kept for a gradient.
TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class Block:
    """Tokens `start` to `stop`, whole sequences that share one attention call; `mask` (1, n, n) if more than one."""

    start: int
    stop: int
    mask: Tensor | None


@dataclass(frozen=True)
class Batch:
    """T tokens of B sequences end to end: three (T,) tensors and the B lengths.

    `read` (R,) are the rows that heads look at, in order; None means all. `targets` holds, by name, rows of the
    encoder's output and labels, both (M,) or the labels (M, …). `groups` is how many of the sequences, in order, each
    example is made of.
    """

    input_ids: Tensor
    segment_ids: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    read: Tensor | None = None
    targets: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    groups: tuple[int, ...] = ()

    @cached_property
    def starts(self) -> Tensor:
        """(B,) the row of each sequence's first token."""
        ends = torch.tensor(self.lengths).cumsum(0)
        return (ends - torch.tensor(self.lengths)).to(self.input_ids.device)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The attention calls: runs of whole sequences of at most `BLOCK` tokens, or one longer sequence."""
        runs: list[list[int]] = []
        for length in self.lengths:
            if runs and sum(runs[-1]) + length <= BLOCK:
                runs[-1].append(length)
            else:
                runs.append([length])
        made, start = [], 0
        for run in runs:
            stop = start + sum(run)
            made.append(Block(start, stop, _apart(run).to(self.input_ids.device) if len(run) > 1 else None))
            start = stop
        return tuple(made)

    @cached_property
    def read_bounds(self) -> list[int]:
        """Of each block the first of its rows in `read`, and their number at the end."""
        assert self.read is not None
        edges = torch.tensor([block.start for block in self.blocks] + [len(self.input_ids)])
        return [int(bound) for bound in torch.searchsorted(self.read.cpu(), edges)]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if self.input_ids.device == device:
            return self
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            segment_ids=self.segment_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            read=None if self.read is None else self.read.to(device, non_blocking=True),
            targets={name: (rows.to(device), labels.to(device)) for name, (rows, labels) in self.targets.items()},
        )


def _apart(run: list[int]) -> Tensor:
    """(1, n, n) zero where two tokens share a sequence, minus infinity where they do not."""
    owner = torch.repeat_interleave(torch.tensor(run))
    return torch.zeros(1, len(owner), len(owner)).masked_fill_(owner[:, None] != owner[None, :], -torch.inf)


def computing_device() -> torch.device:
    """Where models compute: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pack(examples: Sequence[Example]) -> Batch:
    """Examples end to end; where they carry targets, only the rows those name are read."""
    assert examples, "a batch has at least one example"
    parts = [example.lengths or (len(example),) for example in examples]
    lengths = tuple(length for part in parts for length in part)
    offsets = np.concatenate([[0], np.cumsum([len(example) for example in examples])])
    rows = {
        name: np.concatenate([offset + example.targets[name][0] for offset, example in zip(offsets, examples)])
        for name in examples[0].targets
    }
    read = np.unique(np.concatenate(list(rows.values()))) if rows else None
    targets = {
        name: (
            torch.from_numpy(np.searchsorted(read, where)),
            torch.from_numpy(np.concatenate([example.targets[name][1] for example in examples])),
        )
        for name, where in rows.items()
        if read is not None
    }
    every = read is None or len(read) == offsets[-1]
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([example.input_ids for example in examples])),
        segment_ids=torch.from_numpy(np.concatenate([example.segment_ids for example in examples])),
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        lengths=lengths,
        read=None if read is None or every else torch.from_numpy(read.astype(np.int64)),
        targets=targets,
        groups=tuple(map(len, parts)),
    )


def by_tokens(lengths: Sequence[int], budget: int) -> list[slice]:
    """Consecutive slices of at most `budget` tokens each; a sequence longer than that stands alone."""
    slices, start, total = [], 0, 0
    for index, length in enumerate(lengths):
        if index > start and total + length > budget:
            slices.append(slice(start, index))
            start, total = index, 0
        total += length
    return [*slices, slice(start, len(lengths))]


def grouped_log_softmax(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """(M, K) log-probabilities over the rows of each group; groups of `sizes` rows stand end to end."""
    owner = torch.repeat_interleave(torch.tensor(sizes, device=logits.device))  # (M,)
    index = owner[:, None].expand_as(logits)
    most = (
        logits.detach()
        .new_full((len(sizes), logits.shape[1]), -torch.inf)
        .scatter_reduce(0, index, logits.detach(), "amax")
    )
    shifted = logits - most[owner]
    totals = torch.zeros_like(most).index_add(0, owner, shifted.exp())
    return shifted - totals.log()[owner]
