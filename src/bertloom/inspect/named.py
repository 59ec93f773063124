"""What a model would put at each place: at every layer, and with each token hidden in turn.

T tokens of a text, L layers, V vocabulary, M places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bertloom.api import Model
from bertloom.example import Example
from bertloom.model.encoder import Insides
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack

# Points of a curve of probabilities by rank, from which a page reads those of words that it does not list.
POINTS = 128


@dataclass(frozen=True)
class Candidates:
    """The best tokens (…, K) of places, their ids and probabilities, best first."""

    ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    @classmethod
    def best(cls, logs: torch.Tensor, top: int) -> Candidates:
        """Of log-probabilities (…, V)."""
        found = logs.exp().topk(min(top, logs.shape[-1]))
        return cls(found.indices.cpu().numpy(), found.values.float().cpu().numpy())


@torch.no_grad()
def by_layer(model: Model, insides: Sequence[Insides], places: Sequence[int], top: int) -> Candidates:
    """(1 + L, M, K) what the language head makes of the embeddings and of every layer's states (nostalgebraist 2020).

    Before a norm that stands behind all layers states are given that norm first, as the last ones are.
    """
    rows = torch.tensor(places, dtype=torch.int64)
    made = []
    for number, one in enumerate(insides, 1):
        states = one.hidden_states
        if model.config.norm_first and number < len(insides):
            states = model.encoder.norm(states)
        made.append(Candidates.best(model.named(states, rows), top))
    return Candidates(np.stack([one.ids for one in made]), np.stack([one.probabilities for one in made]))


@dataclass(frozen=True)
class Hidden:
    """Places hidden in turn: candidates (M, K), each place's own token's rank, from 1, and probability (M,).

    `ranks` (M, V) are those of every token, and `curve` (M, P) the probabilities at `ranks_of(V)`.
    """

    candidates: Candidates
    own_rank: npt.NDArray[np.int64]
    own_probability: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.int32]
    curve: npt.NDArray[np.float32]

    def share_of(self, rank: int) -> npt.NDArray[np.float64]:
        """(M,) the probability at a rank; between those of the curve logarithms lie on a line."""
        points = np.log(ranks_of(self.ranks.shape[1]))
        logs = np.log(np.maximum(self.curve, 1e-38))
        return np.exp([np.interp(np.log(rank), points, one) for one in logs])


def ranks_of(vocabulary: int) -> npt.NDArray[np.int64]:
    """(P,) the ranks, from 1, whose probabilities a curve holds."""
    return np.unique(np.geomspace(1, vocabulary, POINTS).round().astype(np.int64))


@torch.no_grad()
def hidden(model: Model, example: Example, places: Sequence[int], top: int) -> Hidden:
    """What a model puts where each of a text's tokens alone is [MASK]."""
    device = model.encoder.embeddings.word.weight.device
    # A token's rows are those that `named` looks at: its own, or its neighbours.
    reach = 0 if model.config.direction == "both" else 1
    found: list[tuple[torch.Tensor, ...]] = []
    points = torch.from_numpy(ranks_of(model.config.vocab_size) - 1)
    for part in by_tokens([len(example)] * len(places), TOKENS_AT_ONCE):
        masked = [_masked(example, place, model.tokenizer.special.mask, reach) for place in places[part]]
        batch = pack(masked).to(device)
        states = model.encoder(batch)
        rows = torch.arange(len(masked)) * (2 * reach + 1) + reach
        logs = model.named(states, rows).cpu()
        own = torch.from_numpy(example.input_ids[places[part]])[:, None]
        order = logs.argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty(order.shape, dtype=torch.int32)
        ranks.scatter_(1, order, torch.arange(1, logs.shape[1] + 1, dtype=torch.int32).expand_as(order))
        best = order[:, :top]
        found.append(
            (
                best,
                logs.gather(1, best).exp(),
                ranks.gather(1, own)[:, 0],
                logs.gather(1, own)[:, 0].exp(),
                ranks,
                logs.gather(1, order[:, points]).exp(),
            )
        )
    ids, shares, own_rank, own_share, all_ranks, curve = (torch.cat(one).numpy() for one in zip(*found))
    return Hidden(Candidates(ids, shares), own_rank, own_share, all_ranks, curve)


def _masked(example: Example, place: int, mask: int, reach: int) -> Example:
    """A text with one token hidden, of which only the rows that tell of it are read."""
    ids = example.input_ids.copy()
    ids[place] = mask
    rows = np.arange(place - reach, place + reach + 1)
    return Example(ids, example.segment_ids, {"named": (rows, np.zeros(len(rows), np.int64))})
