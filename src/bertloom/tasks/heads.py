"""What stands on the encoder in fine-tuning: a linear layer on the pooled token or on rows, and feature-based heads.

T tokens, M labelled rows, D hidden size, K outputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.errors import InputError, nearest
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.model.kernels import dropout
from bertloom.model.packed import Batch
from bertloom.model.pooling import by_runs
from bertloom.tasks.task import BODIES, FEATURES, TARGET


class PooledHead(nn.Linear):
    """Logits (M, K) of whole sequences (Devlin et al. 2019, §4.1); they begin as those of rows do."""

    def __init__(self, config: EncoderConfig, outputs: int):
        super().__init__(config.hidden_size, outputs)
        initialise(self, self.in_features**-0.5)
        self.rate = config.hidden_dropout_prob

    def forward(self, encoder: Encoder, batch: Batch) -> Tensor:  # type: ignore[override]
        """(M, K)."""
        states = encoder.pooler(summaries(encoder, batch))
        return super().forward(dropout(states, self.rate * self.training))


def reads_first(config: EncoderConfig) -> bool:
    """Whether a text's first token stands for all of it."""
    return config.classifier_pooling == "cls" and config.direction == "both"


def summaries(encoder: Encoder, batch: Batch) -> Tensor:
    """(M, D) of each labelled sequence what the pooler takes: its first token, the mean of all, or, where tokens see
    one side, the last token, which has seen the rest."""
    config = encoder.config
    if reads_first(config):
        return encoder(batch)[batch.targets[TARGET][0]]  # type: ignore[no-any-return]
    if config.classifier_pooling == "mean":
        return by_runs("mean", encoder(replace(batch, read=None)), batch)
    if config.direction == "left-to-right":
        return encoder(replace(batch, read=batch.ends))  # type: ignore[no-any-return]
    edges = torch.stack([batch.starts, batch.ends], 1).flatten()
    # A text has two tokens and more, so that every edge is another row.
    states = encoder(replace(batch, read=edges)).view(batch.starts.shape[0], 2, 2, -1)  # (M, edge, side, D / 2)
    return torch.cat([states[:, 1, 0], states[:, 0, 1]], 1)


class RowHead(nn.Linear):
    """Logits (M, K) of single rows (§4.2, §5.3); dropout before the layer where `drops`.

    Logits begin at about unit variance whatever the width: from the paper's 0.02 narrow models take off an epoch later.
    """

    def __init__(self, config: EncoderConfig, outputs: int, drops: bool = True):
        super().__init__(config.hidden_size, outputs)
        initialise(self, self.in_features**-0.5)
        self.rate = config.hidden_dropout_prob if drops else 0.0

    def forward(self, encoder: Encoder, batch: Batch) -> Tensor:  # type: ignore[override]
        """(M, K)."""
        states = encoder(batch)[batch.targets[TARGET][0]]
        if encoder.config.pooler == "rows":
            states = encoder.pooler(states)
        return super().forward(dropout(states, self.rate * self.training))


LSTM_LAYERS, LSTM_DROPOUT = 2, 0.5


class FeatureHead(nn.Module):
    """A frozen encoder's hidden states into a linear layer or a two-layer BiLSTM of its width (§5.3): logits (M, K).

    Of whole texts (`pooled`) the mean over all rows is classified, else each labelled row.
    """

    def __init__(self, config: EncoderConfig, outputs: int, features: str, body: str, pooled: bool):
        super().__init__()
        for name, value, known in (("features-from", features, FEATURES), ("body", body, BODIES)):
            if value not in known:
                raise InputError(f"{name}: {nearest(value, known)}")
        layers = config.num_hidden_layers
        # The embeddings, with which states begin, are no layer.
        chosen = range(layers + 1)[FEATURES[features]]
        if layers < -FEATURES[features].start:
            raise InputError(f"features-from: {features} given, a model of more than {layers} layers needed")
        self.features, self.pooled = features, pooled
        width = config.hidden_size * (len(chosen) if features == "concat" else 1)
        # Softmax of these mixes the layers, and one number scales the mix (Peters et al. 2018, §3.2).
        mixed = features.startswith("weighted-sum")
        self.mix = nn.Parameter(torch.zeros(len(chosen))) if mixed else None
        self.scale = nn.Parameter(torch.ones(1)) if mixed else None
        self.lstm = None
        if body == "bilstm":
            size = config.hidden_size
            self.lstm = nn.LSTM(width, size, LSTM_LAYERS, bidirectional=True, batch_first=True, dropout=LSTM_DROPOUT)
            width = 2 * size
        self.output = nn.Linear(width, outputs)
        initialise(self.output, width**-0.5)

    def forward(self, encoder: Encoder, batch: Batch) -> Tensor:
        """(M, K)."""
        encoder.eval()
        found = encoder.hidden_states(batch)[FEATURES[self.features]]
        if self.mix is not None and self.scale is not None:
            x = self.scale * sum(share * one for share, one in zip(self.mix.softmax(0), found))
        else:
            x = torch.cat(found, 1)
        rows = batch.targets[TARGET][0]
        places = rows if batch.read is None else batch.read[rows]  # of the whole batch
        if not self.pooled:
            x = x[places]
        if self.lstm is not None:
            owners = torch.searchsorted(batch.starts, places, right=True) - 1
            sizes = batch.lengths if self.pooled else tuple(torch.bincount(owners).tolist())
            present = [size for size in sizes if size]
            packed = nn.utils.rnn.pack_sequence(x.split(present), enforce_sorted=False)
            padded, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            x = torch.cat([one[:size] for one, size in zip(padded, present)])
        if self.pooled:
            x = by_runs("mean", x, batch)
        return self.output(x)  # type: ignore[no-any-return]
