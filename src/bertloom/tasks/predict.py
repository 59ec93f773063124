"""Records through a fine-tuned model: by length, packed, in the order given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from bertloom.model.encoder import Encoder
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.tasks.task import TARGET, Array, Feature, Prediction, Record, Task
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer

# Records of a stream that are read before the first is answered, so that lengths can be sorted.
AT_ONCE = 1024


@torch.no_grad()
def outputs(
    task: Task, encoder: Encoder, head: nn.Module, features: Sequence[Feature], tokens: int = TOKENS_AT_ONCE
) -> tuple[list[Array], float]:
    """Of each feature its logits (m, K), and the mean loss over all."""
    encoder.eval(), head.eval()
    device = encoder.embeddings.word.weight.device
    found: list[Array] = [np.zeros((0, 0), np.float32)] * len(features)
    order = sorted(range(len(features)), key=lambda number: -len(features[number]))
    total, count = 0.0, 0
    for part in by_tokens([len(features[number]) for number in order], tokens) if order else []:
        chosen = order[part]
        batch = pack([features[number] for number in chosen]).to(device)
        logits = head(encoder, batch)
        total, count = total + float(task.loss(logits, batch)), count + task.count(batch)
        sizes = [len(features[number].targets[TARGET][0]) for number in chosen]
        for number, one in zip(chosen, logits.float().cpu().split(sizes)):
            found[number] = one.numpy()
    return found, total / max(1, count)


def grouped(sizes: Iterable[int], logits: Sequence[Array]) -> Iterator[Sequence[Array]]:
    """The logits of each record, which has so many features."""
    start = 0
    for size in sizes:
        yield logits[start : start + size]
        start += size


def cut(made: Iterable[Sequence[Feature]]) -> int:
    """How many records have features with text cut off."""
    return sum(any(one.cut for one in features) for features in made)


def predicted(
    task: Task,
    encoder: Encoder,
    head: nn.Module,
    tokenizer: Tokenizer,
    records: Iterable[Record],
    tokens: int = TOKENS_AT_ONCE,
    counts: ReadCounts | None = None,
) -> Iterator[tuple[Record, Prediction]]:
    """Each record with the task's answer to it; a stream of any length is held a thousand records at a time.

    Texts that are cut are counted in `counts`.
    """
    stream, counts = iter(records), counts or ReadCounts()
    while chunk := list(islice(stream, AT_ONCE)):
        made = task.features(chunk, tokenizer, encoder.config)
        counts.mended[f"record with {task.limit(encoder.config)}"] += cut(made)
        logits, _ = outputs(task, encoder, head, [one for features in made for one in features], tokens)
        for record, features, own in zip(chunk, made, grouped(map(len, made), logits)):
            yield record, task.decode(record, features, own)
