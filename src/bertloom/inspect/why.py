"""Why a model says what it says: what each token adds to an answer, and how attention flows to it.

T tokens of a text, E width of the embeddings, N heads, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from bertloom.api import Model
from bertloom.example import Example
from bertloom.model.encoder import Insides
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.tasks.task import TARGET

# Of the way from a hidden text to the given one; sums come within a few hundredths of the difference.
STEPS = 32
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """One thing a model says: its name, the places (T,) it is said of, and its score for each of a batch's B copies."""

    name: str
    places: tuple[int, ...]
    score: Callable[[Sequence[Example]], torch.Tensor]


@dataclass(frozen=True)
class Reasons:
    """What each token adds (T,) to a target's score, from `before`, every word hidden, to `after`; and the rollout."""

    name: str
    places: tuple[int, ...]
    before: float
    after: float
    added: Floats
    rollout: Floats


def reasons(model: Model, example: Example, target: Target, insides: Sequence[Insides], steps: int = STEPS) -> Reasons:
    """Integrated gradients (Sundararajan et al. 2017) and attention rollout (Abnar & Zuidema 2020) of a target."""
    plain = hidden_text(model, example)
    given, blank = (_embedded(model, one) for one in (example, plain))
    with torch.no_grad():
        before, after = (float(target.score([one])) for one in (plain, example))
    # The middle of each step, by which a straight line's sum is exact.
    shares = (torch.arange(steps) + 0.5) / steps
    total = torch.zeros_like(given)
    for part in by_tokens([len(example)] * steps, TOKENS_AT_ONCE // 2):
        points = blank + shares[part, None, None].to(given.device) * (given - blank)  # (S, T, E)
        points = points.flatten(0, 1).requires_grad_()
        handle = model.encoder.embeddings.register_forward_hook(lambda module, args, out, x=points: x)
        try:
            score = target.score([example] * len(shares[part])).sum()
        finally:
            handle.remove()
        (slope,) = torch.autograd.grad(score, points)
        total += slope.view(-1, *given.shape).sum(0)
    added = ((given - blank) * total).sum(1) / steps
    return Reasons(
        target.name, target.places, before, after, added.cpu().numpy(), rollout(insides)[list(target.places)].mean(0)
    )


def hidden_reasons(model: Model, example: Example, place: int) -> Reasons:
    """The reasons of what the model puts for one token of a text that is hidden."""
    ids = example.input_ids.copy()
    ids[place] = model.tokenizer.special.mask
    copy, insides = Example(ids, example.segment_ids), list[Insides]()
    with torch.no_grad():
        model.encoder(pack([copy]).to(model.encoder.embeddings.word.weight.device), trace=insides)
        best = int(_named(model, [copy], [place])[0, 0].argmax())
    return reasons(model, copy, filled(model, place, best, model.tokenizer.shown([best])[0]), insides)


def hidden_text(model: Model, example: Example) -> Example:
    """A text with [MASK] in every place but those of special tokens."""
    ids, kept = example.input_ids, special_places(model, example)
    return Example(np.where(kept, ids, model.tokenizer.special.mask), example.segment_ids)


@torch.no_grad()
def _embedded(model: Model, example: Example) -> torch.Tensor:
    """(T, E)."""
    batch = pack([example]).to(model.encoder.embeddings.word.weight.device)
    return model.encoder.embeddings(batch)  # type: ignore[no-any-return]


def rollout(insides: Sequence[Insides]) -> Floats:
    """(T, T) how much of each place's state comes from every token: the product of all layers' attentions.

    Of each layer the mean of its heads, and half of it the token's own state.
    """
    flow: torch.Tensor | None = None
    for one in insides[1:]:
        mean = one.attentions[0].mean(0)
        step = (mean + torch.eye(len(mean), device=mean.device)) / 2
        flow = step if flow is None else step @ flow
    assert flow is not None
    return flow.float().cpu().numpy()


def targets(model: Model, example: Example) -> list[Target]:
    """What can be asked of a text: each [MASK]'s best token, or what a fine-tuned model says."""
    if model.task is not None:
        return _said(model, example)
    if "mlm" not in model.trained:
        return []
    places = np.flatnonzero(example.input_ids == model.tokenizer.special.mask).tolist()
    if not places:
        return []
    with torch.no_grad():
        best = _named(model, [example], places)[0].argmax(-1).tolist()
    shown = model.tokenizer.shown(best)
    return [filled(model, place, number, token) for place, number, token in zip(places, best, shown)]


def filled(model: Model, place: int, number: int, token: str) -> Target:
    """That a token stands at a place: its log-probability there."""
    return Target(token, (place,), lambda examples: _named(model, examples, [place])[:, 0, number])


def _named(model: Model, examples: Sequence[Example], places: Sequence[int]) -> torch.Tensor:
    """(B, M, V) of copies of a text the log-probabilities at places."""
    batch = pack(examples).to(model.encoder.embeddings.word.weight.device)
    rows = batch.starts[:, None] + torch.tensor(places, device=batch.starts.device)
    return model.named(model.encoder(batch), rows.flatten()).view(len(examples), len(places), -1)


def _said(model: Model, example: Example) -> list[Target]:
    """What a fine-tuned model says: sums of its logits."""
    task = model.require_task()
    places = [0] if task.pooled else list(range(len(example)))
    segments = np.where(special_places(model, example), -1, example.segment_ids)
    with torch.no_grad():
        logits = _logits(model, [example], places)[0].cpu().numpy()

    def score(examples: Sequence[Example], where: Sequence[tuple[int, int]]) -> torch.Tensor:
        # A pooled text's one row is its first place.
        asked = sorted({place for place, _ in where})
        found, rows = _logits(model, examples, asked), {place: row for row, place in enumerate(asked)}
        return sum((found[:, rows[place], column] for place, column in where), found.new_zeros(len(examples)))

    return [
        Target(one.name, tuple(place for place, _ in one.where), partial(score, where=one.where))
        for one in task.said(logits, segments)
    ]


def special_places(model: Model, example: Example) -> npt.NDArray[np.bool_]:
    """(T,) where [CLS] and [SEP] stand."""
    return np.isin(example.input_ids, [model.tokenizer.special.cls, model.tokenizer.special.sep])


def _logits(model: Model, examples: Sequence[Example], places: Sequence[int]) -> torch.Tensor:
    """(B, M, K) of copies of a text what its task's head says of places."""
    task, count = model.require_task(), len(places)
    rows, none = np.array(places), np.zeros(count, np.int64)
    copies = [Example(one.input_ids, one.segment_ids, {TARGET: (rows, none)}) for one in examples]
    batch = pack(copies).to(model.encoder.embeddings.word.weight.device)
    return model.heads[task.part](model.encoder, batch).float().view(len(examples), count, -1)  # type: ignore[no-any-return]
