"""Packed batches: sequences laid end to end, no padding anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from bertloom.config import Window
from bertloom.example import Example

# Consecutive short sequences share one attention call up to this many tokens, told apart by a mask.
BLOCK = 128
EVERYWHERE: Window = (None, None)
CAUSAL: Window = (None, 0)
# Tokens of a batch where nothing is kept for a gradient. On a CPU of more the activations are so large that the C
# library hands their memory back to the system, and getting it anew costs an eighth of the time.
TOKENS_AT_ONCE = 32768 if torch.cuda.is_available() else 1024


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` that ask in one attention call for rows `first` to `last`.

    `mask` (1, stop - start, last - first) is minus infinity where one may not see the other, None where all may.
    """

    start: int
    stop: int
    first: int
    last: int
    mask: Tensor | None


@dataclass(frozen=True)
class Batch:
    """T tokens of B sequences end to end: three (T,) tensors and the B lengths.

    `read` (R,) are the rows that heads look at, in order; None means all. `targets` holds, by name, rows of the
    encoder's output and labels, both (M,) or the labels (M, …). `groups` is how many of the sequences, in order, each
    example is made of. `gates` (B, L, N) is how much of what each head brings counts, 1 for all of it, None for all.
    """

    input_ids: Tensor
    segment_ids: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    read: Tensor | None = None
    targets: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    gates: Tensor | None = None

    @cached_property
    def starts(self) -> Tensor:
        """(B,) the row of each sequence's first token."""
        ends = torch.tensor(self.lengths).cumsum(0)
        return (ends - torch.tensor(self.lengths)).to(self.input_ids.device)

    @cached_property
    def ends(self) -> Tensor:
        """(B,) the row of each sequence's last token."""
        return self.starts + torch.tensor(self.lengths, device=self.starts.device) - 1

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Lengths, and how many neighbours have each."""
        return [(length, len(list(run))) for length, run in groupby(self.lengths)]

    def blocks(self, window: Window = EVERYWHERE) -> tuple[Block, ...]:
        """The attention calls under a window: runs of whole sequences of at most `BLOCK` tokens, or one longer one.

        Of a longer one under a window each `BLOCK` rows ask for what they may see alone.
        """
        if window not in self._blocks:
            self._blocks[window] = tuple(self._cut(window))
        return self._blocks[window]

    @cached_property
    def _blocks(self) -> dict[Window, tuple[Block, ...]]:
        return {}

    def _cut(self, window: Window) -> Iterator[Block]:
        runs: list[list[int]] = []
        for length in self.lengths:
            if runs and sum(runs[-1]) + length <= BLOCK:
                runs[-1].append(length)
            else:
                runs.append([length])
        start, device = 0, self.input_ids.device
        for run in runs:
            size, masked = sum(run), len(run) > 1 or window != EVERYWHERE
            for begin, end, first, last in _pieces(size, window):
                mask = _mask(run, range(begin, end), range(first, last), window).to(device) if masked else None
                yield Block(start + begin, start + end, start + first, start + last, mask)
            start += size

    def read_bounds(self, window: Window = EVERYWHERE) -> list[int]:
        """Of each block the first of its rows in `read`, and their number at the end."""
        assert self.read is not None
        edges = torch.tensor([block.start for block in self.blocks(window)] + [len(self.input_ids)])
        return [int(bound) for bound in torch.searchsorted(self.read.cpu(), edges)]

    def owners(self, read: Tensor | None) -> Tensor:
        """(R,) the sequence of each of some rows, (T,) of all where none are named."""
        rows = torch.arange(len(self.input_ids), device=self.input_ids.device) if read is None else read
        return torch.searchsorted(self.starts, rows, right=True) - 1

    def turns(self, theta: float, size: int) -> tuple[Tensor, Tensor]:
        """(T, size / 2) cosines and sines of rotary positions of a base (Su et al. 2021, §3.2)."""
        if (theta, size) not in self._turns:
            steps = torch.arange(0, size, 2, device=self.position_ids.device).float() / size
            angles = self.position_ids[:, None].float() * (1.0 / theta**steps)
            self._turns[theta, size] = angles.cos(), angles.sin()
        return self._turns[theta, size]

    @cached_property
    def _turns(self) -> dict[tuple[float, int], tuple[Tensor, Tensor]]:
        return {}

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
            gates=None if self.gates is None else self.gates.to(device),
        )


def _pieces(size: int, window: Window) -> Iterator[tuple[int, int, int, int]]:
    """Of a run's `size` rows those that ask together, and those they may see."""
    before, after = window
    if size <= BLOCK or window == EVERYWHERE:
        yield 0, size, 0, size
        return
    for begin in range(0, size, BLOCK):
        end = min(size, begin + BLOCK)
        first = 0 if before is None else max(0, begin - before)
        yield begin, end, first, size if after is None else min(size, end + after)


def _mask(run: list[int], asking: range, seen: range, window: Window) -> Tensor:
    """(1, r, n) minus infinity where a row may not see another: of another sequence, or outside of its window."""
    owner = torch.repeat_interleave(torch.tensor(run))
    rows, columns = (torch.arange(one.start, one.stop) for one in (asking, seen))
    hidden = owner[rows, None] != owner[None, columns]
    distance = columns[None, :] - rows[:, None]
    for reach, away in zip(window, (-distance, distance)):
        if reach is not None:
            hidden |= away > reach
    return torch.zeros(1, len(asking), len(seen)).masked_fill_(hidden, -torch.inf)


def seen_in(window: Window, length: int) -> Tensor:
    """(1, n, n) the mask of one whole sequence under a window."""
    return _mask([length], range(length), range(length), window)


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


def longest_first(examples: Sequence[Example], budget: int) -> Iterator[tuple[list[int], Batch]]:
    """Batches of at most `budget` tokens in order of length, with the numbers of the examples in each."""
    order = sorted(range(len(examples)), key=lambda number: -len(examples[number]))
    for part in by_tokens([len(examples[number]) for number in order], budget) if order else []:
        yield order[part], pack([examples[number] for number in order[part]])


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
