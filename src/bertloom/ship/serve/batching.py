"""Texts of many requests computed together: whatever waits when the last batch is done makes the next one."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bertloom.example import Example

# What is computed of some examples: a result of each, in their order.
Compute = Callable[[Sequence[Example]], Sequence[Any]]


class FullError(Exception):
    """More waits already than is allowed; `seconds` until there is room."""

    def __init__(self, seconds: int):
        super().__init__(f"{seconds} s until there is room")
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Item:
    """An example that waits, what is to be computed of it, and who waits for that."""

    example: Example
    compute: Compute
    future: asyncio.Future[Any]


class Batcher:
    """A queue and the threads that compute what waits in it, so many tokens at a time each.

    A batch is the item that waits longest and those most like it in length: packed sequences of one length share a
    call. A queue of more than `most` tokens takes nothing more.
    """

    def __init__(
        self,
        tokens: int,
        most: int,
        batched: Callable[[int, int, float], None] = lambda *sizes: None,
        workers: int = 1,
        begin: Callable[[], None] = lambda: None,
    ):
        self.tokens, self.most, self.batched, self.workers, self.begin = tokens, most, batched, workers, begin
        self.waiting: deque[Item] = deque()
        self.size, self.rate = 0, 10_000.0
        self._changed, self._stopping = threading.Condition(), False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to compute, at first or anew."""
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"bertloom batches {number}", daemon=True)
            for number in range(self.workers)
        ]
        for one in self._threads:
            one.start()

    def stop(self) -> None:
        """Compute what waits, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for one in self._threads:
            one.join()

    async def ask(self, compute: Compute, examples: Sequence[Example]) -> list[Any]:
        """The results of some examples; raises `FullError`. Cancelled, they leave the queue."""
        if not examples:
            return []
        loop = asyncio.get_running_loop()
        size = sum(map(len, examples))
        items = [Item(one, compute, loop.create_future()) for one in examples]
        with self._changed:
            # Whatever is allowed in one request fits into an empty queue.
            if self.size and self.size + size > self.most:
                raise FullError(max(1, math.ceil(self.size / self.rate)))
            self.waiting.extend(items)
            self.size += size
            self._changed.notify_all()
        try:
            return list(await asyncio.gather(*(one.future for one in items)))
        finally:
            for one in items:
                one.future.cancel()

    def _work(self) -> None:
        self.begin()
        while batch := self._next():
            began = time.perf_counter()
            found: Sequence[Any] | Exception
            try:
                found = batch[0].compute([one.example for one in batch])
            except Exception as error:
                found = error
            taken = time.perf_counter() - began
            size = sum(len(one.example) for one in batch)
            self.rate += 0.1 * (self.workers * size / max(taken, 1e-6) - self.rate)
            self.batched(len(batch), size, taken)
            # One call a loop and batch: each wakes the thread that answers requests.
            loop = batch[0].future.get_loop()
            loop.call_soon_threadsafe(_resolve, batch, found)

    def _next(self) -> list[Item]:
        """The items of the next batch, the longest first; none when all is done and no more is to come."""
        with self._changed:
            while True:
                while not self.waiting and not self._stopping:
                    self._changed.wait()
                gone = [one for one in self.waiting if one.future.done()]
                if gone:
                    self._leave(gone)
                if self.waiting or self._stopping:
                    break
            if not self.waiting:
                return []
            first = self.waiting[0]
            loop, length = first.future.get_loop(), len(first.example)
            like = [one for one in self.waiting if one.compute == first.compute and one.future.get_loop() is loop]
            like.sort(key=lambda one: abs(len(one.example) - length))
            batch, size = [first], length
            for one in like:
                if one is not first:
                    if size + len(one.example) > self.tokens:
                        break
                    batch.append(one)
                    size += len(one.example)
            self._leave(batch)
        return sorted(batch, key=lambda one: -len(one.example))

    def _leave(self, items: list[Item]) -> None:
        left = set(map(id, items))
        self.waiting = deque(one for one in self.waiting if id(one) not in left)
        self.size -= sum(len(one.example) for one in items)


def _resolve(batch: list[Item], found: Sequence[Any] | Exception) -> None:
    if isinstance(found, Exception):
        for one in batch:
            if not one.future.done():
                one.future.set_exception(found)
        return
    for one, result in zip(batch, found):
        if not one.future.done():
            one.future.set_result(result)
