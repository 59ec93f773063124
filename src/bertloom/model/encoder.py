"""The encoder (Devlin et al. 2019, §3; Vaswani et al. 2017, §3): embeddings and layers on packed rows.

T tokens, R rows read, E width of the embeddings, D hidden size, N heads, H head size, F intermediate size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.config import EncoderConfig, Window
from bertloom.model import attention as attend
from bertloom.model.kernels import dropout, linear_dropout_add
from bertloom.model.packed import EVERYWHERE, Batch


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


# What a trace has of each layer: its states, its queries, keys and values too, or how every token attends as well.
Depth = Literal["states", "projections", "attentions"]


@dataclass
class Insides:
    """One layer looked into: `hidden_states` (T, D) after it, and each sequence's `attentions` (N, n, n), made of
    `queries` and `keys` (T, N, H), which are turned where a model has rotary positions; `values` are of their shape.

    The first entry of a trace is the embeddings, which attend to nothing; the last is behind a model's last norm.
    """

    hidden_states: Tensor
    attentions: list[Tensor] = field(default_factory=list)
    queries: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    # Whether attentions are made, which take memory and pass no gradient on.
    weighs: bool = True


class Embeddings(nn.Module):
    """Token, position and segment vectors, as many as there are, summed, normalised, dropped out: (T,) to (T, E)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.word_size
        self.rate, self.first = config.hidden_dropout_prob, config.first_position
        self.word = nn.Embedding(config.vocab_size, width)
        absolute = config.position_embedding_type == "absolute"
        self.position = nn.Embedding(config.max_position_embeddings, width) if absolute else None
        self.segment = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = norm(config, width)

    def forward(self, batch: Batch) -> Tensor:
        """(T, E)."""
        total = self.word(batch.input_ids)
        if self.segment is not None:
            # A model of one segment tells texts apart by what stands between them.
            one = len(self.segment.weight) == 1
            total = total + (self.segment.weight if one else self.segment(batch.segment_ids))
        if self.position is not None:
            total = total + self.position(batch.position_ids + self.first if self.first else batch.position_ids)
        return dropout(self.norm(total), self.rate * self.training)


def norm(config: EncoderConfig, width: int) -> nn.LayerNorm:
    """A layer norm over a width."""
    return nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)


@dataclass(frozen=True)
class Look:
    """How a layer looks at a sequence: the window of its tokens, the base of its rotary positions, and (B, N) how much
    of each head counts."""

    window: Window = EVERYWHERE
    theta: float | None = None
    gates: Tensor | None = None


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norm: (T, D) to (T, D), or (R, D) where rows are read."""

    def __init__(self, config: EncoderConfig, bare: bool = False):
        super().__init__()
        width, biased = config.hidden_size, config.attention_bias
        self.heads, self.head_size, self.first = config.num_attention_heads, config.head_size, config.norm_first
        self.attention_rate, self.rate = config.attention_probs_dropout_prob, config.hidden_dropout_prob
        self.qkv = nn.Linear(width, 3 * width, bias=biased)
        self.output = nn.Linear(width, width, bias=biased)
        # What comes from the embeddings has a norm behind it already.
        self.norm = nn.Identity() if bare else norm(config, width)

    def resize(self, heads: int) -> None:
        """Have so many heads, of new weights."""
        width, inner, biased = self.qkv.in_features, heads * self.head_size, self.qkv.bias is not None
        with self.qkv.weight.device:
            self.heads = heads
            self.qkv, self.output = nn.Linear(width, 3 * inner, biased), nn.Linear(inner, width, biased)

    def forward(self, x: Tensor, batch: Batch, look: Look, read: Tensor | None, into: Insides | None) -> Tensor:
        """`read` (R,) are the rows that ask; `into`, where given, receives how every row attends."""
        inner = self.norm(x) if self.first else x
        q, qkv = self._projected(inner, batch, look, read)
        if into is not None:
            into.queries, into.keys, into.values = qkv.unbind(1)
            if into.weighs:
                into.attentions = attend.attention_weights(qkv[:, 0], qkv[:, 1], batch, look.window)
        mixed = attend.mix(qkv, q, batch, read, look.window, self.attention_rate * self.training)
        if look.gates is not None:
            mixed = mixed * look.gates[batch.owners(read)][:, :, None]
        residual = x if read is None else x[read]
        total = linear_dropout_add(mixed.flatten(1), self.output, residual, self.rate * self.training)
        return total if self.first else self.norm(total)

    def _projected(self, x: Tensor, batch: Batch, look: Look, read: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """None and all projections (T, 3, N, H), or queries (R, N, H) of the rows read and the rest (T, 2, N, H)."""
        heads, width = (self.heads, self.head_size), self.heads * self.head_size
        angles = None if look.theta is None else batch.turns(look.theta, self.head_size)
        if read is None:
            qkv = self.qkv(x)
            if angles:
                qkv = attend.turned(qkv, angles, 2 * self.heads)
            return None, qkv.view(-1, 3, *heads)
        if not isinstance(self.qkv, nn.Linear):
            # What is computed another way has no part of its own for queries.
            _, qkv = self._projected(x, batch, look, None)
            return qkv[read, 0], qkv[:, 1:]
        weight, bias = self.qkv.weight, self.qkv.bias
        biases = (None, None) if bias is None else (bias[:width], bias[width:])
        asked, qkv = F.linear(x[read], weight[:width], biases[0]), F.linear(x, weight[width:], biases[1])
        if angles:
            asked = attend.turned(asked, (angles[0][read], angles[1][read]), self.heads)
            qkv = attend.turned(qkv, angles, self.heads)
        return asked.view(-1, *heads), qkv.view(-1, 2, *heads)


class FeedForward(nn.Module):
    """Two linear layers with their residual and norm: (T, D) to (T, F) to (T, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.rate, self.first, self.gated = config.hidden_dropout_prob, config.norm_first, config.gated
        self.activation = ACTIVATIONS[config.hidden_act]
        self.inner = nn.Linear(width, inner * (2 if config.gated else 1), bias=config.mlp_bias)
        self.output = nn.Linear(inner, width, bias=config.mlp_bias)
        self.norm = norm(config, width)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D)."""
        inner = self.inner(self.norm(x) if self.first else x)
        if self.gated:
            opened, gate = inner.chunk(2, 1)
            inner = self.activation(opened) * gate
        else:
            inner = self.activation(inner)
        total = linear_dropout_add(inner, self.output, x, self.rate * self.training)
        return total if self.first else self.norm(total)


class Layer(nn.Module):
    """Attention and feed-forward; `bare` where no norm stands before the attention."""

    def __init__(self, config: EncoderConfig, bare: bool = False):
        super().__init__()
        self.attention = Attention(config, bare)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        batch: Batch,
        look: Look = Look(),
        read: Tensor | None = None,
        into: Insides | None = None,
    ) -> Tensor:
        """(T, D), or (R, D) where rows are read."""
        return self.feed_forward(self.attention(x, batch, look, read, into))  # type: ignore[no-any-return]


class TwoSides(nn.Module):
    """Half the width sees what is before a token, the other half what is after it (Peters et al. 2018, §3.1)."""

    def __init__(self, config: EncoderConfig, bare: bool = False):
        super().__init__()
        self.left, self.right = (Layer(config.side, bare) for _ in range(2))

    def forward(
        self, x: Tensor, batch: Batch, look: Look, read: Tensor | None = None, into: Insides | None = None
    ) -> Tensor:
        """(T, D), or (R, D) where rows are read."""
        seen = [None if into is None else Insides(half, weighs=into.weighs) for half in x.chunk(2, 1)]
        gates = (None, None) if look.gates is None else look.gates.chunk(2, 1)
        windows = (look.window, look.window[::-1])
        looks = [Look(window, look.theta, one) for window, one in zip(windows, gates)]
        states = [
            side(half, batch, way, read, found)
            for side, half, way, found in zip((self.left, self.right), x.chunk(2, 1), looks, seen)
        ]
        if into is not None:
            left, right = (one for one in seen if one is not None)
            into.attentions = [torch.cat(both) for both in zip(left.attentions, right.attentions)]
            for name in ("queries", "keys", "values"):
                setattr(into, name, torch.cat([getattr(left, name), getattr(right, name)], 1))
        return torch.cat(states, 1)


class Pooler(nn.Module):
    """A row's vector through a dense layer, an activation and perhaps a norm: (B, D) to (B, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        rows, width = config.pooler == "rows", config.hidden_size
        self.dense = nn.Linear(width, width, bias=config.head_bias if rows else True)
        self.activation = ACTIVATIONS[config.pooler_act or config.head_act or config.hidden_act]
        self.norm = norm(config, width) if rows else nn.Identity()

    @property
    def trained(self) -> bool:
        """Whether it ever learned, which moves its biases from zero; not so in models trained by their means alone."""
        return self.dense.bias is None or bool(self.dense.bias.any())

    def forward(self, first: Tensor) -> Tensor:
        """(B, D)."""
        return self.norm(self.activation(self.dense(first)))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The whole encoder; made on the current device with PyTorch's own weights, see `initialise`."""

    pooler: Pooler

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        two_way = config.direction == "two-way"
        if config.embedding_size and not two_way:
            self.projection = nn.Linear(config.embedding_size, config.hidden_size)
        number = config.num_hidden_layers
        sets = config.num_hidden_groups or number
        kind = TwoSides if two_way else Layer
        self.layers = nn.ModuleList(kind(config, config.norm_first and not one) for one in range(sets))
        self.looks = [Look(config.window(one), config.rope_theta(one)) for one in range(number)]
        # Which set of weights each layer has.
        self.order = [one * sets // number for one in range(number)]
        if config.norm_first:
            self.norm = norm(config, config.hidden_size)
        if config.pooler == "pretrained":
            self.pooler = Pooler(config)

    def give_pooler(self, one: bool) -> None:
        """Have a pooler, a new one where there was none, or have none."""
        if one and not hasattr(self, "pooler"):
            self.pooler = Pooler(self.config)
        elif not one and hasattr(self, "pooler"):
            del self.pooler

    def sides(self, states: Tensor) -> tuple[Tensor, ...]:
        """The states (T, D) by what they have seen: of a two-way model the half before and the half after a token."""
        return states.chunk(2, 1) if self.config.direction == "two-way" else (states,)

    def last_use(self, number: int) -> int:
        """The last layer, from 0, that has a set of weights."""
        return max(layer for layer, one in enumerate(self.order) if one == number)

    def embedded(self, batch: Batch) -> Tensor:
        """(T, D) what goes into the first layer."""
        x = self.embeddings(batch)
        if self.config.direction == "two-way":
            return torch.cat([x, x], 1)
        return self.projection(x) if self.config.embedding_size else x  # type: ignore[no-any-return]

    def forward(self, batch: Batch, trace: list[Insides] | None = None) -> Tensor:
        """Last hidden states (R, D) of the rows the batch reads, (T, D) where it reads all.

        The last layer is computed at those rows alone. A `trace` receives every layer's insides and reads all.
        """
        return self.through(self.embedded(batch), batch, trace)

    def through(
        self, x: Tensor, batch: Batch, trace: list[Insides] | None = None, depth: Depth = "attentions"
    ) -> Tensor:
        """The same of what goes into the first layer; `depth` is what a trace has of each layer."""
        looked = trace is not None and depth != "states"
        if trace is not None:
            trace.append(Insides(x))
        for number, (weights_of, look) in enumerate(zip(self.order, self.looks), 1):
            into = Insides(x, weighs=depth == "attentions")
            if batch.gates is not None:
                look = replace(look, gates=batch.gates[:, number - 1])
            last = number == len(self.order) and trace is None
            x = self.layers[weights_of](x, batch, look, batch.read if last else None, into if looked else None)
            if trace is not None:
                trace.append(replace(into, hidden_states=x))
        if self.config.norm_first:
            x = self.norm(x)
            if trace is not None:
                trace[-1] = replace(trace[-1], hidden_states=x)
        return x[batch.read] if batch.read is not None and (trace is not None or not self.order) else x

    @torch.no_grad()
    def hidden_states(self, batch: Batch) -> list[Tensor]:
        """What goes into the first layer, and what comes out of each, every (T, D)."""
        trace: list[Insides] = []
        self.through(self.embedded(batch), batch, trace, "states")
        return [one.hidden_states for one in trace]
