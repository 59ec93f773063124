"""The encoder (Devlin et al. 2019, §3; Vaswani et al. 2017, §3): embeddings and post-norm layers on packed rows.

T tokens, R rows read, D hidden size, N heads, H head size, F intermediate size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.model import attention as attend
from bertloom.model.kernels import dropout, linear_dropout_add
from bertloom.model.packed import Batch


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


@dataclass(frozen=True)
class Insides:
    """One layer looked into: `hidden_states` (T, D) after it, and each sequence's `attentions` (N, n, n).

    The first entry of a trace is the embeddings, which attend to nothing.
    """

    hidden_states: Tensor
    attentions: list[Tensor]


class Embeddings(nn.Module):
    """Token, position and segment vectors, summed, normalised, dropped out: (T,) ids to (T, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.rate = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, batch: Batch) -> Tensor:
        """(T, D)."""
        total = self.word(batch.input_ids) + self.segment(batch.segment_ids) + self.position(batch.position_ids)
        return dropout(self.norm(total), self.rate * self.training)


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norm: (T, D) to (T, D), or (R, D) where rows are read."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.attention_rate, self.rate = config.attention_probs_dropout_prob, config.hidden_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, batch: Batch, read: Tensor | None, weights: list[Tensor] | None) -> Tensor:
        """`read` (R,) are the rows that ask; `weights`, where given, receives each sequence's (N, n, n)."""
        heads, asking, asked = (self.heads, self.head_size), x, None
        if read is None:
            qkv = self.qkv(x).view(-1, 3, *heads)  # (T, 3, N, H)
        else:
            asking, width = x[read], x.shape[1]
            asked = F.linear(asking, self.qkv.weight[:width], self.qkv.bias[:width]).view(-1, *heads)  # (R, N, H)
            qkv = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).view(-1, 2, *heads)  # (T, 2, N, H)
        if weights is not None:
            weights.extend(attend.attention_weights(qkv[:, 0], qkv[:, 1], batch))
        rate = self.attention_rate * self.training
        if x.is_cuda and not rate and read is None and qkv.dtype in (torch.float16, torch.bfloat16):
            mixed = attend.varlen_attention(qkv, batch)
        else:
            mixed = attend.attention(qkv, asked, attend.parts(batch, read), rate)
        total = linear_dropout_add(mixed.reshape(-1, x.shape[1]), self.output, asking, self.rate * self.training)
        return self.norm(total)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with their residual and norm: (T, D) to (T, F) to (T, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.rate = config.hidden_dropout_prob
        self.activation = ACTIVATIONS[config.hidden_act]
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D)."""
        inner = self.activation(self.inner(x))
        return self.norm(linear_dropout_add(inner, self.output, x, self.rate * self.training))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, batch: Batch, read: Tensor | None = None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """(T, D), or (R, D) where rows are read."""
        return self.feed_forward(self.attention(x, batch, read, weights))  # type: ignore[no-any-return]


class Pooler(nn.Module):
    """The first token's vector through a tanh layer: (B, D) to (B, D)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    @property
    def trained(self) -> bool:
        """Whether it ever learned, which moves its biases from zero; not so in models trained by their means alone."""
        return bool(self.dense.bias.any())

    def forward(self, first: Tensor) -> Tensor:
        """(B, D)."""
        return torch.tanh(self.dense(first))


class Encoder(nn.Module):
    """The whole encoder; made on the current device with PyTorch's own weights, see `initialise`."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler = Pooler(config)

    def forward(self, batch: Batch, trace: list[Insides] | None = None) -> Tensor:
        """Last hidden states (R, D) of the rows the batch reads, (T, D) where it reads all.

        The last layer is computed at those rows alone. A `trace` receives every layer's insides and reads all.
        """
        x = self.embeddings(batch)
        if trace is not None:
            trace.append(Insides(x, []))
        for number, layer in enumerate(self.layers, 1):
            weights: list[Tensor] | None = None if trace is None else []
            last = number == len(self.layers) and trace is None
            x = layer(x, batch, batch.read if last else None, weights)
            if trace is not None and weights is not None:
                trace.append(Insides(x, weights))
        if batch.read is not None and (trace is not None or not self.layers):
            x = x[batch.read]
        return x  # type: ignore[no-any-return]
