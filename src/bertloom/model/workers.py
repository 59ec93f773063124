"""Batches that need nothing of each other, each computed by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def alone() -> None:
    """Have the thread that calls compute by itself, where others do beside it."""
    torch.set_num_threads(1)


def side_by_side(work: Callable[[Given], Made], given: Iterable[Given], device: torch.device) -> Iterator[Made]:
    """What is made of each, without gradients, in their order.

    On a CPU several are computed at once, each by one thread: no thread waits for others at the end of every product,
    which all of them on one batch do. One alone has all threads.
    """
    threads = torch.get_num_threads()
    stream = iter(given)
    first, work = list(islice(stream, 2)), torch.no_grad()(work)
    if len(first) < 2 or threads < 2 or device.type != "cpu":
        yield from map(work, chain(first, stream))
        return
    try:
        with ThreadPoolExecutor(threads, initializer=alone) as pool:
            yield from pool.map(work, chain(first, stream))
    finally:
        torch.set_num_threads(threads)
