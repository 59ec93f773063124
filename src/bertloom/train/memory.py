"""What keeps a run's memory level: freed memory is used again, and nothing small is strewn over it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Names and numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = (1 << 31) - 1


def give_back_memory() -> None:
    """Return what is free to the system, between two steps: what a measure or a checkpoint took is not needed soon."""
    gc.collect()  # pictures are rings of objects, each with a copy of every curve
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def keep_freed_memory() -> bool:
    """Have large tensors reuse freed memory instead of fresh pages, which a step would fault in one by one.

    Worth about a tenth of a small model's step. True where the allocator is glibc's and listened.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, MOST) for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


@contextmanager
def one_dnn(enabled: bool) -> Iterator[None]:
    """Inside, oneDNN is used or not.

    In fp32 it brings one activation, no faster than PyTorch's own, and remembers a kernel for every number of tokens
    it meets; strewn over the heap, they keep freed memory from being used again.
    """
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
