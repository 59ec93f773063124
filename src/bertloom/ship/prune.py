"""Heads, inner neurons and whole layers that matter least, taken away: smaller matrices, not zeros.

I inputs and O outputs of a linear layer, N heads of size H, F inner neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom import embedding
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.inspect.probe.importance import Asked, of_task, of_texts
from bertloom.model.encoder import Attention, Encoder, FeedForward, Layer
from bertloom.model.forms import reshape
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.ship.measure import changed, size
from bertloom.text.sources import ReadCounts

# Tokens of texts that share a slope: of one long or a few short ones. Tokens on which losses are compared, and by which
# what stays takes over from what goes.
TOGETHER, COMPARED = 128, 8192
# Texts that are asked at most, and the least of them.
TEXTS, LEAST = 1000, 10
# Inner neurons come in as many as a matrix product takes at once.
STEP = 16
# What is added to the spread of inputs, as a share of it, so that few texts do not decide all.
RIDGE = 0.01
# What a model is asked so that its loss tells what matters.
Ask = Callable[[Model], Asked]


@dataclass
class Report:
    """What pruning did: sizes in bytes, losses a label, heads left in each layer, inner neurons, and layers that went,
    numbered from 1."""

    size: tuple[int, int]
    loss: tuple[float, float] = (0.0, 0.0)
    heads: list[int] = field(default_factory=list)
    inner: tuple[int, int] = (0, 0)
    gone: list[int] = field(default_factory=list)


def asking(model: Model, data: str, texts: Iterable[str], counts: ReadCounts) -> Ask:
    """What a model can be asked: a fine-tuned one its task's records, others texts, of words they hid or of vectors."""
    if model.task:
        return partial(of_task, source=data, counts=counts)
    some = [text for _, text in zip(range(TEXTS), texts)]
    return partial(of_texts, texts=some, counts=counts) if {"mlm", "rtd"} & set(model.trained) else of_vectors(some)


def of_vectors(texts: Sequence[str]) -> Ask:
    """Of a model that makes vectors: how far they move, one less their cosine with those of before.

    That has no slope where the model stands, which is why slopes are those of the vectors along directions drawn.
    """

    def ask(model: Model) -> Asked:
        how = model.how
        examples = embedding.examples(
            model.tokenizer, [how.prompt + text for text in texts], how.cut(model.config.longest)
        )
        before = torch.from_numpy(model.encode(texts))
        drawn = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
        numbers = {id(one): number for number, one in enumerate(examples)}

        def vectors(part: Sequence[Example]) -> tuple[Tensor, list[int]]:
            return embedding.of_batch(model.encoder, how, pack(part)), [numbers[id(one)] for one in part]

        def losses(part: Sequence[Example], gates: Tensor | None) -> Tensor:
            found, where = vectors(part)
            return 1 - F.cosine_similarity(found, before[where])

        def slopes(part: Sequence[Example], gates: Tensor | None) -> Tensor:
            found, where = vectors(part)
            return (F.normalize(found) * drawn[where]).sum(1)

        return Asked(examples, losses, len(examples), slopes)

    return ask


def prune(model: Model, ask: Ask, *, heads: float = 0.0, inner: float = 0.0, layers: int = 0) -> tuple[Model, Report]:
    """A model without a share of its heads and of its inner neurons and without some layers, and what that did.

    Layers go whose absence costs least, one after the other; then heads and neurons by the slope of the loss along
    what they bring (Michel et al. 2019, §4.1; Molchanov et al. 2017), after which those that stay take over what they
    can, by least squares. Every layer keeps as many neurons and at least one head.
    """
    model.require_learning()
    for name, share in (("heads", heads), ("inner", inner)):
        if not 0 <= share < 1:
            raise InputError(f"{name}: {share} given, a share from 0 to under 1 allowed")
    if not (heads or inner or layers):
        raise InputError("heads, inner, layers: none given, one needed")
    made = changed(model, "heads, inner neurons or layers taken away")
    asked = ask(made)
    if len(asked.examples) < LEAST:
        raise InputError(f"{len(asked.examples)} texts to prune by, at least {LEAST} needed")
    some = _within(asked.examples, COMPARED)
    report = Report((size(model), 0), (_loss(asked, some), 0.0))
    report.gone = _without_layers(made, layers, partial(_loss, asked, some))
    kinds = [one for one in made.encoder.modules() if isinstance(one, Layer)]
    if heads or inner:
        chosen = list(_chosen(kinds, asked, heads, inner))
        for one, (kept_heads, kept_inner) in zip(kinds, chosen):
            for part, keep in ((one.attention, kept_heads), (one.feed_forward, kept_inner)):
                if keep is not None:
                    _take(part, keep, partial(_run, asked, some))
    report.heads, had = [one.attention.heads for one in kinds], model.config.intermediate_size
    has = made.config.sides * kinds[0].feed_forward.output.in_features if kinds else had
    made.encoder.config = replace(made.config, intermediate_size=has)
    report.inner, report.size = (had, has), (report.size[0], size(made))
    report.loss = (report.loss[0], _loss(asked, some))
    return made, report


def _within(examples: Sequence[Example], tokens: int) -> list[Example]:
    """As many examples, from all over, as so many tokens are."""
    total = sum(map(len, examples))
    return list(examples[:: max(1, round(total / tokens))])


def _run(asked: Asked, examples: Sequence[Example]) -> float:
    """The summed loss of some examples."""
    with torch.no_grad():
        parts = by_tokens([len(one) for one in examples], TOKENS_AT_ONCE)
        return sum(float(asked.losses(examples[part], None).sum()) for part in parts)


def _loss(asked: Asked, examples: Sequence[Example]) -> float:
    """The loss of a label, as near as some of the examples tell."""
    return _run(asked, examples) / max(1.0, asked.labels * len(examples) / len(asked.examples))


def _without_layers(made: Model, number: int, loss: Callable[[], float]) -> list[int]:
    """Take so many layers from a model, that are missed least; their numbers, from 1."""
    config = made.config
    # Layers that look near stand between those that look far, and go with them.
    unit = config.global_attn_every_n_layers if config.local_attention else 1
    # What comes from the embeddings has no norm before the first of such layers.
    first = int(config.norm_first)
    most = config.num_hidden_layers - max(1, first)
    if number % unit or not 0 <= number <= most:
        every = f" in steps of {unit}" if unit > 1 else ""
        raise InputError(f"layers: {number} given, from 0 to {most // unit * unit}{every} allowed")
    if number and config.num_hidden_groups not in (None, 1, config.num_hidden_layers):
        raise InputError(f"layers: {number} given, none allowed of a model in {config.num_hidden_groups} groups")
    whole, kept = made.encoder, list(range(config.num_hidden_layers))
    while len(kept) > config.num_hidden_layers - number:
        found = []
        for place in range(first, len(kept) - unit + 1):
            fewer = kept[:place] + kept[place + unit :]
            made.encoder = with_layers(whole, fewer)
            found.append((loss(), place, fewer))
        kept = min(found)[2]
    made.encoder = with_layers(whole, kept) if number else whole
    return [one + 1 for one in range(config.num_hidden_layers) if one not in kept]


def with_layers(encoder: Encoder, kept: Sequence[int]) -> Encoder:
    """An encoder of some of another's layers, with the same weights."""
    config = encoder.config
    groups = len(kept) if config.num_hidden_groups == config.num_hidden_layers else config.num_hidden_groups
    state = {name: one for name, one in encoder.state_dict().items() if not name.startswith("layers.")}
    for new, old in enumerate(kept):
        prefix = f"layers.{encoder.order[old]}."
        own = {name: one for name, one in encoder.state_dict().items() if name.startswith(prefix)}
        number = new if groups in (None, len(kept)) else 0
        state |= {f"layers.{number}.{name.removeprefix(prefix)}": one for name, one in own.items()}
    with torch.device("meta"):
        made = Encoder(replace(config, num_hidden_layers=len(kept), num_hidden_groups=groups))
        made.give_pooler(hasattr(encoder, "pooler"))
        reshape(made, state)
    made.load_state_dict(state, assign=True)
    return made.eval()


def slopes(kinds: Sequence[Layer], asked: Asked) -> list[tuple[Tensor, Tensor]]:
    """Of each layer how much the loss moves with what every head (N,) and every inner neuron (F,) brings.

    What an input of a matrix brings is its column's part of the output, so that the slope along it is that of a gate.
    """
    weights = [one for kind in kinds for one in (kind.attention.output.weight, kind.feed_forward.output.weight)]
    widths = [one for kind in kinds for one in (kind.attention.head_size, 1)]
    totals = [one.new_zeros(one.shape[1] // width) for one, width in zip(weights, widths)]
    for part in by_tokens([len(one) for one in asked.examples], TOGETHER):
        grads = torch.autograd.grad((asked.slopes or asked.losses)(asked.examples[part], None).sum(), weights)
        for total, weight, width, grad in zip(totals, weights, widths, grads):
            total += (weight.detach() * grad).sum(0).view(-1, width).sum(1).abs()
    return list(zip(totals[::2], totals[1::2]))


def _chosen(
    kinds: Sequence[Layer], asked: Asked, heads: float, inner: float
) -> Iterable[tuple[Tensor | None, Tensor | None]]:
    """Of each layer the inputs of both its output matrices that stay, None where all do."""
    found = slopes(kinds, asked)
    stay = _best_heads([F.normalize(by_head, dim=0) for by_head, _ in found], heads)
    for kind, kept, (_, by_neuron) in zip(kinds, stay, found):
        width = kind.attention.head_size
        columns = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
        number = max(STEP, math.ceil((1 - inner) * len(by_neuron) / STEP) * STEP)
        neurons = by_neuron.topk(min(number, len(by_neuron))).indices.sort().values
        yield columns if heads else None, neurons if inner else None


def _best_heads(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """Of each layer the heads that stay when a share of all goes, the least first; the best of each always stays."""
    order = sorted((float(score), layer, head) for layer, one in enumerate(scores) for head, score in enumerate(one))
    best = {(layer, int(one.argmax())) for layer, one in enumerate(scores)}
    free = [(layer, head) for _, layer, head in order if (layer, head) not in best]
    gone = set(free[: round(share * len(order))])
    return [
        torch.tensor([head for head in range(len(one)) if (layer, head) not in gone], device=one.device)
        for layer, one in enumerate(scores)
    ]


class _Spread(nn.Module):
    """A linear layer that sums the products of its inputs, with a last one that is always 1."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear
        self.total = linear.weight.new_zeros(linear.in_features + 1, linear.in_features + 1)

    def forward(self, x: Tensor) -> Tensor:
        full = F.pad(x, (0, 1), value=1.0)
        self.total.addmm_(full.t(), full)
        return self.linear(x)  # type: ignore[no-any-return]


@torch.no_grad()
def _take(part: Attention | FeedForward, keep: Tensor, run: Callable[[], float]) -> None:
    """Leave a half layer the inputs `keep` of its output matrix, and what makes them."""
    output = part.output
    spread = _Spread(output)
    part.set_submodule("output", spread)
    run()
    weight, bias = _taken_over(output, keep, spread.total)
    if isinstance(part, Attention):
        made = part.qkv
        rows = torch.cat([number * output.in_features + keep for number in range(3)])
        part.resize(len(keep) // part.head_size)
        _fill(part.qkv, made.weight[rows], None if made.bias is None else made.bias[rows])
    else:
        made = part.inner
        rows = torch.cat([keep, keep + output.in_features]) if part.gated else keep
        part.inner = nn.Linear(made.in_features, len(rows), bias=made.bias is not None, device=keep.device)
        part.output = nn.Linear(len(keep), output.out_features, bias=output.bias is not None, device=keep.device)
        _fill(part.inner, made.weight[rows], None if made.bias is None else made.bias[rows])
    _fill(part.output, weight, bias)


def _fill(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    linear.weight.copy_(weight)
    if bias is not None:
        linear.bias.copy_(bias)


def _taken_over(output: nn.Linear, keep: Tensor, spread: Tensor) -> tuple[Tensor, Tensor | None]:
    """(O, K) and (O,) of a matrix of the inputs kept, that takes over what the others brought, by least squares."""
    inputs = output.in_features
    gone = torch.ones(inputs, dtype=torch.bool, device=keep.device).index_fill(0, keep, False).nonzero()[:, 0]
    stays = keep if output.bias is None else torch.cat([keep, keep.new_tensor([inputs])])
    among = spread[stays][:, stays].double()
    among.diagonal().add_(RIDGE * among.diagonal().mean())
    more = torch.linalg.solve(among, spread[stays][:, gone].double()).to(output.weight.dtype)  # (K + 1, gone)
    more = output.weight[:, gone] @ more.t()  # (O, K + 1)
    weight = output.weight[:, keep] + more[:, : len(keep)]
    return weight, None if output.bias is None else output.bias + more[:, -1]
