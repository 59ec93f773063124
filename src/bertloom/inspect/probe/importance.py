"""Which heads a model needs: the gradient of its loss by a mask over them (Michel et al. 2019, §4.1).

L layers, N heads, B texts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import asked_of, hidden, log_probabilities
from bertloom.example import Example
from bertloom.inspect.bootstrap import Array
from bertloom.inspect.probe.heads import draw_maps
from bertloom.inspect.probe.reading import Question, Table
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.text.conll import is_universal
from bertloom.text.readers import passages
from bertloom.text.sentences import sentences
from bertloom.text.sequence import room
from bertloom.text.sources import ReadCounts

# Losses (B,) of examples, or their sum (1,), under gates (B, L, N) or none.
Losses = Callable[[Sequence[Example], torch.Tensor | None], torch.Tensor]
# Of a text's tokens so many are hidden, and shares of the heads that are taken away in turn.
MASKED, TAKEN = 0.15, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Texts that are asked at most.
TEXTS = 1000


class Asked(NamedTuple):
    """What a model is asked: examples, their losses, over how many labels these go, and what to take slopes of where
    losses have none."""

    examples: Sequence[Example]
    losses: Losses
    labels: int
    slopes: Losses | None = None


@dataclass(frozen=True)
class Importance:
    """(L, N) by how much the loss of a text moves with what a head brings, in nats; by `by_layer` each layer's have
    length 1. `curve`: shares of heads taken away, the least important first, and the loss a label without them."""

    scores: Array
    curve: list[tuple[float, float]]
    texts: int

    @property
    def by_layer(self) -> Array:
        """Scores whose squares sum to 1 in each layer, as Molchanov et al. (2017) have it."""
        made: Array = self.scores / np.maximum(np.linalg.norm(self.scores, axis=1, keepdims=True), 1e-20)
        return made

    @property
    def order(self) -> list[tuple[int, int]]:
        """Layers and heads, from 0, the least important first."""
        flat = np.argsort(self.by_layer, axis=None, kind="stable")
        return [(int(one) // self.scores.shape[1], int(one) % self.scores.shape[1]) for one in flat]


def importance(model: Model, asked: Asked) -> Importance:
    """Of every head the mean over texts of |dL/dg|, g a gate on what it brings, and what taking heads away costs."""
    examples, losses, labels, _ = asked
    if not examples:
        raise InputError("no text is left that the model can read, at least one needed")
    model.require_learning().require_all_heads()
    model.encoder.eval(), model.heads.eval()
    shape = (model.config.num_hidden_layers, model.config.num_attention_heads)
    totals = torch.zeros(shape, dtype=torch.float64)
    for part in _parts(examples):
        gates = torch.ones(len(part), *shape, requires_grad=True)
        (slopes,) = torch.autograd.grad(losses(part, gates).sum(), gates)
        totals += slopes.double().abs().sum(0)
    found = Importance((totals / len(examples)).numpy(), [], len(examples))
    with torch.no_grad():
        for share in TAKEN:
            mask = torch.ones(shape)
            for layer, head in found.order[: round(share * mask.numel())]:
                mask[layer, head] = 0
            total = sum(float(losses(part, mask.expand(len(part), *shape)).sum()) for part in _parts(examples))
            found.curve.append((share, total / labels))
    return found


def _parts(examples: Sequence[Example]) -> Iterable[Sequence[Example]]:
    for part in by_tokens([len(one) for one in examples], TOKENS_AT_ONCE // 2):
        yield examples[part]


def of_texts(model: Model, texts: Iterable[str], counts: ReadCounts, seed: int = 0) -> Asked:
    """Of texts what a pretrained model is asked: hidden tokens, or whatever it learned to say of them."""
    special, most = model.tokenizer.special, room(model.tokenizer.special, model.config.longest)
    kind, masked = asked_of(model), model.config.direction == "both" and "mlm" in model.trained
    if not {"mlm", "rtd"} & set(model.trained):
        model.head("mlm")
    rng, examples = np.random.default_rng(seed), list[Example]()
    for text in texts:
        ids = model.tokenizer.ids([text], special=False)[0]
        if not 0 < len(ids) <= most:
            counts.mended[f"text of none or more than {most} tokens, left out"] += 1
            continue
        whole = np.array([special.cls, *ids, special.sep])
        if masked:
            places = 1 + np.sort(rng.permutation(len(ids))[: max(1, round(MASKED * len(ids)))])
            examples.append(hidden(whole, places.tolist(), model))
        else:
            examples += kind(whole, model)
        if len(examples) == TEXTS:
            break
    labels = sum(len(rows) for one in examples for rows, _ in one.targets.values())
    return Asked(examples, lambda part, gates: -log_probabilities(model, part, gates), labels)


def of_task(model: Model, source: str, counts: ReadCounts) -> Asked:
    """Of a file's records what a fine-tuned model is asked."""
    task = model.require_task()
    if task.frozen:
        raise InputError("stands on a frozen encoder's features, a model that is fine-tuned whole needed", model.path)
    records = task.usable(list(task.read(source, counts)), counts)[:TEXTS]
    groups = task.features(records, model.tokenizer, model.config)
    examples = [feature for features in groups for feature in features]
    head = model.heads[task.part]

    def losses(part: Sequence[Example], gates: torch.Tensor | None) -> torch.Tensor:
        batch = pack(part)
        if gates is not None and batch.groups:
            gates = gates.repeat_interleave(torch.tensor(batch.groups), 0)
        batch = replace(batch, gates=gates).to(model.encoder.embeddings.word.weight.device)
        return task.loss(head(model.encoder, batch), batch)[None]

    return Asked(examples, losses, task.count(pack(examples)) if examples else 1)


def draw(found: Importance, path: Path, without: None = None) -> None:
    """A map of heads."""
    maps = [("importance, nats", found.scores, float(found.scores.max())), ("by layer", found.by_layer, 1.0)]
    draw_maps(maps, path)


def told(found: Importance) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "texts": found.texts, "importance": found.scores.tolist(), "by_layer": found.by_layer.tolist(),
        "least_first": [[layer + 1, head + 1] for layer, head in found.order],
        "taken_away": [{"share": share, "loss": loss} for share, loss in found.curve],
    }  # fmt: skip


def of_file(model: Model, asked: Question) -> Importance:
    """Of a fine-tuned model's records, or of the texts of a file: trees, or sentences of any text."""
    if model.task:
        return importance(model, of_task(model, asked.file, asked.counts))
    if is_universal(asked.file):
        return importance(model, of_texts(model, (tree.text for tree in asked.trees()), asked.counts, asked.seed))
    found = passages([asked.file], asked.options, asked.counts)
    texts = (text for passage in found for text in sentences(passage.paragraphs, "auto"))
    return importance(model, of_texts(model, texts, asked.counts, asked.seed))


def tables(found: Importance, without: None = None) -> list[Table]:
    """The most and the least important heads, and what taking heads away costs."""
    names = [(f"{layer + 1}-{head + 1}", f"{found.scores[layer, head]:.4f}") for layer, head in found.order]
    ends = [*names[-1:-6:-1], *names[4::-1]] if len(names) > 10 else names[::-1]
    curve = [(f"{100 * gone:.0f} %", f"{loss:.3f}") for gone, loss in found.curve]
    return [
        Table(f"Most and least important heads, {found.texts:,} texts", ["head", "nats a text"], ends),
        Table("With the least important taken away", ["heads gone", "loss"], curve),
    ]
