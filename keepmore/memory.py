"""How a process holds memory: settings of the C library's allocator, where it is glibc (elsewhere nothing happens)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# <malloc.h>: parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 16 << 20
KEEP_BYTES = 1 << 30


def return_large_blocks() -> bool:
    """Have blocks of 16 MiB and more return to the kernel at once; says whether that is set.

    For encoding: by default such blocks are soon cut from the heap, where the gaps between them take a tenth of a
    gigabyte on 12-megapixel images.
    """
    return _set(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) and _set(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES // 2)


def keep_freed_memory() -> bool:
    """Have freed memory kept for the next allocation; says whether that is set.

    For a model's forward passes: every batch allocates and frees the same tens of megabytes, and the kernel clears
    their pages each time that they come back.
    """
    return _set(M_MMAP_THRESHOLD, KEEP_BYTES) and _set(M_TRIM_THRESHOLD, KEEP_BYTES)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`keep_freed_memory` for a while: for work on arrays of ten million numbers, one after another."""
    keep_freed_memory()
    try:
        yield
    finally:
        _set(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
        return_large_blocks()


def _set(parameter: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(parameter, value))
