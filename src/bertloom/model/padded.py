"""A batch as other runtimes have it: sequences of one length, with padding behind the shorter ones.

B sequences of n places, T = B n rows, N heads of size H; c and D as in `pooling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bertloom.config import Window
from bertloom.model.packed import EVERYWHERE, Batch


@dataclass(frozen=True)
class Padded(Batch):
    """A batch whose rows are B times n places, in which the same encoder can be traced for any B and n.

    `mask` (B, n) is true at tokens. Rows of padding are computed, and mean nothing. Sizes are asked for by `shape`:
    `len` would be a constant of what is traced.
    """

    mask: Tensor = field(default_factory=lambda: torch.ones(0, 0, dtype=torch.bool))

    @classmethod
    def of(cls, input_ids: Tensor, mask: Tensor, segment_ids: Tensor) -> Padded:
        """Of ids, what is a token (1 or 0), and segments, each (B, n)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
        ids, segments, places = (one.reshape(-1) for one in (input_ids, segment_ids, places))
        return cls(ids, segments, places, (), mask=mask.bool())

    @cached_property
    def starts(self) -> Tensor:
        """(B,) the row of each sequence's first token."""
        return torch.arange(self.mask.shape[0], device=self.mask.device) * self.mask.shape[1]

    @cached_property
    def ends(self) -> Tensor:
        """(B,) the row of each sequence's last token."""
        return self.starts + self.mask.sum(1) - 1

    def mixed(self, qkv: Tensor, asked: Tensor | None, window: Window) -> Tensor:
        """(T, N, H) attention of projections (T, 3, N, H), or of the rows read with keys and values (T, 2, N, H)."""
        parts = qkv.view(*self.mask.shape, *qkv.shape[1:]).permute(2, 0, 3, 1, 4).unbind()  # each (B, N, n, H)
        k, v = parts[-2:]
        q = parts[0] if asked is None else asked.view(self.mask.shape[0], -1, *asked.shape[1:]).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(window, asked is not None))
        return mixed.transpose(1, 2).reshape(-1, *qkv.shape[2:])

    def _bias(self, window: Window, read: bool) -> Tensor:
        """(B, 1, r, n) what is added to scores: nothing, or so little that a place is not seen."""
        if (window, read) not in self._biases:
            seen = self.mask[:, None, None]
            if window != EVERYWHERE:
                rows = self.position_ids[self.read] if read else self.position_ids
                asking = rows.view(self.mask.shape[0], -1, 1)
                distance = torch.arange(self.mask.shape[1], device=rows.device) - asking
                for reach, away in zip(window, (-distance, distance)):
                    if reach is not None:
                        seen = seen & (away <= reach)[:, None]
            # Not infinity: a row of padding may see nothing at all, and others would see what it became.
            little = torch.finfo(torch.float32).min
            self._biases[window, read] = torch.zeros((), device=seen.device).masked_fill(~seen, little)
        return self._biases[window, read]

    @cached_property
    def _biases(self) -> dict[tuple[Window, bool], Tensor]:
        return {}

    def pooled(self, name: str, states: Tensor) -> Tensor:
        """(B, D) of states (T, D), as `POOLINGS` has it of sequences without padding."""
        return PADDED[name](states.view(*self.mask.shape, -1), self.mask)


def _weighted(x: Tensor, weights: Tensor, share: Tensor) -> Tensor:
    return torch.einsum("cnd,cn->cd", x, weights / share[:, None])


def _weighted_mean(x: Tensor, mask: Tensor) -> Tensor:
    weights = torch.arange(1, mask.shape[1] + 1, device=x.device) * mask.to(x.dtype)
    return _weighted(x, weights, weights.sum(1))


# The poolings of states (c, n, D) of which `mask` (c, n) says what is a token.
PADDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda x, mask: x[:, 0],
    "max": lambda x, mask: x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).amax(1),
    "mean": lambda x, mask: _weighted(x, mask.to(x.dtype), mask.sum(1)),
    "mean_sqrt_len_tokens": lambda x, mask: _weighted(x, mask.to(x.dtype), mask.sum(1) ** 0.5),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda x, mask: _weighted(
        x, torch.arange(mask.shape[1], device=x.device).eq(mask.sum(1)[:, None] - 1).to(x.dtype), x.new_ones(x.shape[0])
    ),
}
