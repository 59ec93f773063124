"""What an encoder's weights say of its modules that no config does: int8, fewer heads, narrow word embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.model.encoder import Attention, Encoder
from bertloom.model.quantized import in_int8

# Where a scale is that of a weight in int8; there is one in a head on features too.
SCALED = ("embeddings.", "layers.")
WORD = "embeddings.word"


class LowRankEmbedding(nn.Embedding):
    """Ids to rows (…, E) of a table (V, r) whose columns are `up` (E, r)."""

    up: nn.Parameter

    def __init__(self, rows: int, width: int, rank: int):
        super().__init__(rows, rank)
        self.up = nn.Parameter(torch.zeros(width, rank))

    def forward(self, ids: Tensor) -> Tensor:
        """(…, E)."""
        return F.linear(super().forward(ids), self.up)


def quantized(names: Iterable[str]) -> set[str]:
    """The modules among a model's weights that are int8: those with a scale."""
    return {name.removesuffix(".scale") for name in names if name.endswith(".scale") and name.startswith(SCALED)}


def reshape(encoder: Encoder, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder, given modules without weights yet that a state's fit; what fits none is left to who loads them."""
    for name, module in encoder.named_modules():
        weight = state.get(f"{name}.qkv.weight")
        if isinstance(module, Attention) and weight is not None:
            heads, rest = divmod(len(weight), 3 * module.head_size)
            if 0 < heads < module.heads and not rest:
                module.resize(heads)
    if (up := state.get(f"{WORD}.up")) is not None and up.dim() == 2:
        rows, width = encoder.embeddings.word.weight.shape
        with encoder.embeddings.word.weight.device:
            encoder.embeddings.word = LowRankEmbedding(rows, width, up.shape[1])
    for name in quantized(state):
        encoder.set_submodule(name, in_int8(encoder.get_submodule(name)))
    return encoder


def is_whole(encoder: Encoder) -> bool:
    """Whether every layer has all its heads."""
    attentions = [one for one in encoder.modules() if isinstance(one, Attention)]
    return all(encoder.config.sides * one.heads == encoder.config.num_attention_heads for one in attentions)


def like(encoder: Encoder) -> Encoder:
    """A new encoder of the same shapes."""
    return reshape(Encoder(encoder.config), encoder.state_dict())
