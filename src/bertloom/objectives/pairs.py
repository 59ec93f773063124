"""Next-sentence prediction (Devlin et al. 2019, §3.1): does the second segment follow the first?"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.segments import Span, pair
from bertloom.errors import InputError
from bertloom.example import Ints
from bertloom.model.encoder import Encoder

IS_NEXT, IS_RANDOM = 0, 1


class NextSentence(nn.Linear):
    """Two logits on the pooled first token; label 0 means "is next", as in every published checkpoint."""

    name = "nsp"
    kind = "pair"

    def __init__(self, config: EncoderConfig):
        if config.type_vocab_size < 2:
            raise InputError(f"objective: nsp given, mlm alone allowed: type_vocab_size is {config.type_vocab_size}")
        super().__init__(config.hidden_size, 2)

    def segments(
        self, corpus: Corpus, draw: Draw, rng: np.random.Generator
    ) -> tuple[list[Span], dict[str, tuple[Ints, Ints]]]:
        """Two spans of the corpus, and the label at the first token."""
        drawn = pair(corpus, draw, rng)
        label = IS_NEXT if drawn.is_next else IS_RANDOM
        return [drawn.first, drawn.second], {self.name: (np.array([0]), np.array([label]))}

    def summed(self, encoder: Encoder, states: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy of labels (B,) at first tokens (B, D)."""
        return F.cross_entropy(self(encoder.pooler(states)), labels, reduction="sum")

    def right(self, encoder: Encoder, states: Tensor, labels: Tensor) -> Tensor:
        """(B,) whether the more probable answer is the label."""
        return self(encoder.pooler(states)).argmax(1) == labels  # type: ignore[no-any-return]
