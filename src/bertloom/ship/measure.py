"""What a model weighs, how fast it is and how well it does, beside what it was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from bertloom.api import Model
from bertloom.card import model_card
from bertloom.tasks.task import Record
from bertloom.text.records import texts
from bertloom.text.sources import ReadCounts, ReadOptions

# Texts of a file that are read at most: those that are looked at come from all over them.
MOST = 10_240


def some_texts(data: str, column: str, options: ReadOptions, counts: ReadCounts) -> list[str]:
    """Texts from a file's beginning: more would not be looked at."""
    return list(islice(texts(data, column, options, counts), MOST))


def size(model: Model) -> int:
    """Bytes of a model's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state().values())


def speeds(models: Sequence[Model], given: Sequence[str], rounds: int = 3) -> list[float]:
    """Texts per second of each model's vectors, in turn: the median of several rounds."""
    return [len(given) / one for one in seconds([partial(one.encode, given) for one in models], rounds)]


def seconds(calls: Sequence[Callable[[], object]], rounds: int = 3) -> list[float]:
    """The median time of each call, in turn, after one that is not counted."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, own in zip(calls, times):
            began = time.perf_counter()
            call()
            if number:
                own.append(time.perf_counter() - began)
    return [sorted(own)[rounds // 2] for own in times]


def dev_records(model: Model, dev: str) -> list[Record]:
    """Records by which a fine-tuned model is scored."""
    task, counts = model.require_task(), ReadCounts()
    return task.usable(list(task.told_by(dev).read(dev, counts)), counts)


def scores(model: Model, records: Sequence[Record]) -> dict[str, float]:
    """A fine-tuned model's metrics on records with answers."""
    predictions = [prediction for _, prediction in model.predictions(records)]
    return model.require_task().score(predictions, records)


def changed(model: Model, how: str) -> Model:
    """A copy of a model whose encoder may be changed and its heads not; its card says how."""
    card = model.card or model_card(model.config, "mlm" in model.heads)
    return model.with_encoder(model.encoder, f"{card.rstrip()}\n\nMade smaller by bertloom: {how}.\n")
