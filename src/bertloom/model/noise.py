"""Dropout's randomness: a stream of bytes that belongs to (seed, step), and masks drawn from it quickly.

`torch`'s Bernoulli draw costs as much as a matrix product on a CPU; comparing bytes of a fast generator does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

_stream: ContextVar[np.random.SFC64 | None] = ContextVar("dropout_stream", default=None)


@contextmanager
def dropout_stream(*words: int) -> Iterator[None]:
    """Inside, dropout masks are a function of `words` and of nothing else."""
    token = _stream.set(np.random.SFC64(np.random.SeedSequence([word & (1 << 64) - 1 for word in words])))
    try:
        # Whose dropout is torch's own, as an LSTM's, draws from here.
        torch.manual_seed(hash(words) & (1 << 63) - 1)
        yield
    finally:
        _stream.reset(token)


def uniform(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers from 0 to under 1, of the stream of the moment on a CPU."""
    if device.type != "cpu":
        return torch.rand(shape, device=device)
    stream = _stream.get() or np.random.SFC64(int(torch.randint(1 << 62, ())))
    return torch.from_numpy(np.random.Generator(stream).random(shape, np.float32))


def keep_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """A uint8 mask, 0 with probability `rate`, else 1.

    Bytes are compared with 256·rate, rounded up or down at random for each mask, so that the mean is exact.
    """
    if device.type != "cpu":
        return torch.empty(shape, device=device, dtype=torch.uint8).bernoulli_(1 - rate)
    stream = _stream.get() or np.random.SFC64(int(torch.randint(1 << 62, ())))
    size = int(np.prod(shape))
    words = stream.random_raw(size // 8 + 2)
    threshold = int(256 * rate + int(words[-1]) / 2**64)
    return torch.from_numpy((words.view(np.uint8)[:size] >= np.uint8(threshold)).view(np.uint8)).view(shape)
