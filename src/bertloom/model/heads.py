"""What stands on the encoder in pretraining: heads by name, as folders hold them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.model.encoder import ACTIVATIONS, norm
from bertloom.model.kernels import linear_cross_entropy


class LanguageHead(nn.Module):
    """A dense layer, activation and norm, then the word embeddings turned round and a bias: (M, D) to (M, V).

    (Devlin et al. 2019, §3.1.) Of a two-way model both halves share it.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.side.hidden_size if config.direction == "two-way" else config.hidden_size
        self.dense = nn.Linear(width, config.word_size, bias=config.head_bias)
        self.activation = ACTIVATIONS[config.head_act or config.hidden_act]
        self.norm = norm(config, config.word_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None

    def transformed(self, states: Tensor) -> Tensor:
        """(M, E) what is compared with the word embeddings."""
        return self.norm(self.activation(self.dense(states)))  # type: ignore[no-any-return]

    def forward(self, states: Tensor, word: Tensor) -> Tensor:
        """Logits (M, V) of states (M, D) given the word embeddings (V, E)."""
        return nn.functional.linear(self.transformed(states), word, self.bias)

    def loss(self, states: Tensor, word: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy of labels (M,), without keeping the logits."""
        bias = word.new_zeros(len(word)) if self.bias is None else self.bias
        return linear_cross_entropy(self.transformed(states), word, bias, labels)


class DetectionHead(nn.Module):
    """Whether a token stands where another one stood: (M, D) to logits (M,) (Clark et al. 2020, §3)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = nn.Linear(config.hidden_size, 1)

    def forward(self, states: Tensor) -> Tensor:
        """(M,)."""
        return self.output(self.activation(self.dense(states)))[:, 0]  # type: ignore[no-any-return]


# Places in a run of hidden tokens, the last for all beyond, and the width of their vectors (Joshi et al. 2020, §4.2).
SPAN_POSITIONS, SPAN_WIDTH = 200, 200


class BoundaryHead(nn.Module):
    """A hidden token named from what stands at either side of its span, and its place in it (Joshi et al. 2020, §3.2).

    Left and right vectors (M, D) each and places (M,) from 0 to vectors (M, E) for the word embeddings.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.word_size
        self.position = nn.Embedding(SPAN_POSITIONS, SPAN_WIDTH)
        self.first = nn.Linear(2 * config.hidden_size + SPAN_WIDTH, config.hidden_size)
        self.first_norm = norm(config, config.hidden_size)
        self.second = nn.Linear(config.hidden_size, width)
        self.second_norm = norm(config, width)
        self.activation = ACTIVATIONS["gelu"]
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def transformed(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """(M, E) what is compared with the word embeddings."""
        inner = self.first(torch.cat([left, right, self.position(places)], 1))
        inner = self.first_norm(self.activation(inner))
        return self.second_norm(self.activation(self.second(inner)))  # type: ignore[no-any-return]


def _choice(config: EncoderConfig) -> nn.Module:
    return nn.Linear(config.hidden_size, 2)


# Heads of pretraining, by the name they have among the weights.
HEADS: dict[str, Callable[[EncoderConfig], nn.Module]] = {
    "mlm": LanguageHead,
    "nsp": _choice,
    "sop": _choice,
    "rtd": DetectionHead,
    "sbo": BoundaryHead,
}
# Those that stand on the pooled first token.
POOLED = {"nsp", "sop"}
