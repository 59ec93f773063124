"""Word embeddings of which only those learn that the data holds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OccurringWords(nn.Module):
    """Embeddings of the words of a data set, `weight` (U, D), out of a whole `table` (V, D).

    What does not occur has no gradient: it stays as it is, and needs neither moments nor a step. State dicts hold the
    whole table.
    """

    def __init__(self, table: Tensor, occurring: Tensor):
        super().__init__()
        self.table: Tensor
        self.occurring: Tensor
        self.places: Tensor
        self.register_buffer("table", table.detach(), persistent=False)
        self.register_buffer("occurring", occurring, persistent=False)
        # One beyond the last for words that do not occur, which raises.
        places = torch.full((len(table),), len(occurring))
        places[occurring] = torch.arange(len(occurring))
        self.register_buffer("places", places, persistent=False)
        self.weight = nn.Parameter(self.table[occurring])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(T, D) of ids (T,)."""
        return F.embedding(self.places[input_ids], self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.table.index_copy(0, self.occurring, self.weight.detach())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        with torch.no_grad():
            self.weight.copy_(state_dict[prefix + "weight"][self.occurring])
