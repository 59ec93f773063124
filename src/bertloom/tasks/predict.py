"""Records through a fine-tuned model: by length, packed, in the order given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.model.encoder import Encoder
from bertloom.model.packed import TOKENS_AT_ONCE, Batch, longest_first
from bertloom.model.workers import side_by_side
from bertloom.tasks.task import TARGET, Array, Feature, Prediction, Record, Task
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer

# What of a stream is read before the first record is answered, so that lengths can be sorted: records, or tokens where
# these are long; and records that are tokenised together.
AT_ONCE, MOST_TOKENS, TOGETHER = 1024, 1 << 20, 32


def outputs(
    task: Task, encoder: Encoder, head: nn.Module, features: Sequence[Feature], tokens: int = TOKENS_AT_ONCE
) -> tuple[list[Array], float]:
    """Of each feature its logits (m, K), and the mean loss over all."""
    encoder.eval(), head.eval()
    device = encoder.embeddings.word.weight.device
    found: list[Array] = [np.zeros((0, 0), np.float32)] * len(features)

    def work(part: tuple[list[int], Batch]) -> tuple[list[int], Tensor, float, int]:
        chosen, batch = part[0], part[1].to(device)
        logits = head(encoder, batch)
        return chosen, logits.float().cpu(), float(task.loss(logits, batch)), task.count(batch)

    total, count = 0.0, 0
    for chosen, logits, loss, labels in side_by_side(work, longest_first(features, tokens), device):
        total, count = total + loss, count + labels
        sizes = [len(features[number].targets[TARGET][0]) for number in chosen]
        for number, one in zip(chosen, torch.split(logits, sizes)):
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
    """Each record with its id and the task's answer to it; of a stream of any length a part is held at a time.

    Texts that are cut are counted in `counts`.
    """
    counts = ReadCounts() if counts is None else counts
    for chunk, made in _chunks(task, tokenizer, encoder.config, iter(records)):
        counts.mended[f"record with {task.limit(encoder.config)}"] += cut(made)
        logits, _ = outputs(task, encoder, head, [one for features in made for one in features], tokens)
        for record, features, own in zip(chunk, made, grouped(map(len, made), logits)):
            known = {} if record.id == "" else {"id": record.id}
            yield record, {**known, **task.decode(record, features, own)}


def _chunks(
    task: Task, tokenizer: Tokenizer, config: EncoderConfig, stream: Iterator[Record]
) -> Iterator[tuple[list[Record], list[list[Feature]]]]:
    """Records with their features, as many as may be held."""
    chunk: list[Record] = []
    made: list[list[Feature]] = []
    held = 0
    while part := list(islice(stream, min(TOGETHER, AT_ONCE))):
        chunk += part
        made += task.features(part, tokenizer, config)
        held += sum(len(one) for features in made[-len(part) :] for one in features)
        if len(chunk) >= AT_ONCE or held >= MOST_TOKENS:
            yield chunk, made
            chunk, made, held = [], [], 0
    if chunk:
        yield chunk, made
