"""The C library's allocator, told that this process will want the memory it frees again."""

from __future__ import annotations

import ctypes
import sys

# Names and numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = (1 << 31) - 1


def give_back_memory() -> None:
    """Return what is free to the system, between two steps: what a measure or a checkpoint took is not needed soon."""
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
