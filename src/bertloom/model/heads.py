"""What stands on the encoder in pretraining: the masked-language head and the next-sentence head (§3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.model.encoder import ACTIVATIONS
from bertloom.model.kernels import linear_cross_entropy


class LanguageHead(nn.Module):
    """A dense layer, activation and norm, then the word embeddings turned round and a bias: (M, D) to (M, V)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def transformed(self, states: Tensor) -> Tensor:
        """(M, D) what is compared with the word embeddings."""
        return self.norm(self.activation(self.dense(states)))  # type: ignore[no-any-return]

    def forward(self, states: Tensor, word: Tensor) -> Tensor:
        """Logits (M, V) of states (M, D) given the word embeddings (V, D)."""
        return nn.functional.linear(self.transformed(states), word, self.bias)

    def loss(self, states: Tensor, word: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy of labels (M,), without keeping the logits."""
        return linear_cross_entropy(self.transformed(states), word, self.bias, labels)
