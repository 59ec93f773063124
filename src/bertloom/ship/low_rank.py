"""Word embeddings as a narrow table and one matrix that widens it, by the words that texts have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.model.forms import LowRankEmbedding
from bertloom.ship.measure import changed, size


@dataclass
class Report:
    """What it did: sizes in bytes, the share of the embeddings' squares that is kept, and the mean cosine of texts'
    vectors with those of before."""

    size: tuple[int, int]
    kept: float
    agreement: float


@torch.no_grad()
def low_rank(model: Model, texts: Sequence[str], rank: int) -> tuple[Model, Report]:
    """A model whose word embeddings are of a rank, nearest to what they were where its texts' words are.

    The texts' words count together as much as the vocabulary's, each as often as it stands there. A model with a
    language head, which shares the table, raises.
    """
    model.require_learning()
    word = model.encoder.embeddings.word
    rows, width = word.weight.shape
    if isinstance(word, LowRankEmbedding):
        raise InputError(f"has word embeddings of rank {width} already, whole ones needed", model.path)
    if "mlm" in model.heads:
        raise InputError(
            "has a language head, which shares its word embeddings; a model without one needed", model.path
        )
    if not 1 <= rank < width:
        raise InputError(f"rank: {rank} given, from 1 to {width - 1} allowed")
    if not texts:
        raise InputError("no texts, at least one needed")
    counts = Counter(number for ids in model.tokenizer.ids(list(texts)) for number in ids)
    share = rows / max(1, counts.total())
    often = torch.tensor([1.0 + share * counts[number] for number in range(rows)], device=word.weight.device).double()
    table = word.weight.double()
    # The best rank under weights are the first directions of the weighted products of columns.
    values, directions = torch.linalg.eigh(table.t() @ (table * often[:, None]))
    up = directions[:, -rank:]
    made = changed(model, f"word embeddings of rank {rank}")
    small = LowRankEmbedding(rows, width, rank).to(word.weight.device)
    small.weight.copy_(table @ up)
    small.up.copy_(up)
    made.encoder.embeddings.word = small.eval()
    some = list(texts[:: max(1, len(texts) // 256)])
    near = F.cosine_similarity(torch.from_numpy(model.encode(some)), torch.from_numpy(made.encode(some)))
    return made, Report((size(model), size(made)), float(values[-rank:].sum() / values.sum()), float(near.mean()))
