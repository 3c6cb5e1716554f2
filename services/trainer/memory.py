"""How the trainer's process holds memory."""

from __future__ import annotations

import ctypes

# <malloc.h>: parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next allocation; says whether it can (glibc can).

    Every batch allocates and frees the same tens of megabytes. By default each returns to the kernel, which has to
    clear its pages again: on two cores that halves the images a second.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, KEEP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))
