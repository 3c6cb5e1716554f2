"""How a process keeps freed memory: settings of glibc's allocator. Elsewhere, nothing happens (decision 2)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# <malloc.h>: parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 16 << 20
SCARCE_BLOCK_BYTES = 1 << 20
SLACK_BYTES = 8 << 20
KEEP_BYTES = 1 << 30
# Images of 1,920 x 1,080 and below leave 40 MB in the heap at most; above eight megapixels every block counts.
SMALL_PIXELS, LARGE_PIXELS = 2 << 20, 8 << 20


def return_large_blocks(at_least_bytes: int = LARGE_BLOCK_BYTES) -> bool:
    """Return freed blocks of at least `at_least_bytes` bytes to the kernel at once; returns whether that could be set.

    For encoding: by default such blocks soon come from the heap, where the gaps between them take a tenth of a gigabyte
    with 12-megapixel images.
    """
    return _set(M_MMAP_THRESHOLD, at_least_bytes) and _set(M_TRIM_THRESHOLD, SLACK_BYTES)


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation; returns whether that could be set.

    For a model's forward passes, and for encoding small images: every batch or image allocates and frees the same
    megabytes, and the kernel clears their pages each time they are allocated again.
    """
    return _set(M_MMAP_THRESHOLD, KEEP_BYTES) and _set(M_TRIM_THRESHOLD, KEEP_BYTES)


def suit_image(pixels: int) -> bool:
    """Choose the setting for encoding an image of `pixels` pixels; returns whether it could be set."""
    if pixels <= SMALL_PIXELS:
        return keep_freed_memory()
    return return_large_blocks(LARGE_BLOCK_BYTES if pixels <= LARGE_PIXELS else SCARCE_BLOCK_BYTES)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`keep_freed_memory` within the block: for work on arrays of ten million numbers, one after another."""
    keep_freed_memory()
    try:
        yield
    finally:
        return_large_blocks()


def _set(parameter: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(parameter, value))
