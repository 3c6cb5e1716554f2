"""The check step: a few of a job's own images at every distance, to warn before a distance makes no sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from keepmore import sampling
from keepmore.codec import version as codec_version
from keepmore.compression import index
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import POOL, Listed
from keepmore.spec.distance import text
from keepmore.storage.base import Store

CHUNKS = 3
IMAGES_A_CHUNK = 3


def run(store: Store, chunks: Sequence[str], compressor: Compressor, distances: Sequence[float]) -> dict[str, Any]:
    """Bytes by distance over a few images of each of `chunks`, and what that warns of."""
    rows = [row for chunk in chunks for row in _few(store.get(chunk))]
    part = compressor.chunk(rows, lambda progress: None)
    good = part.filter(pc.is_null(part["error_code"]))
    sizes = {d: _total(good, d) for d in distances}
    return {
        "codec": codec_version.codec(),
        "versions": codec_version.versions(),
        "images": len(good),
        "bytes": {text(d): size for d, size in sizes.items()},
        "warnings": list(warnings(sizes)),
    }


def warnings(sizes: dict[float, int]) -> Iterator[str]:
    """A sentence for each distance that takes more bytes than a smaller one."""
    for distance, size in sizes.items():
        smaller = [d for d, other in sizes.items() if d < distance and other < size]
        if smaller:
            best = min(smaller, key=sizes.__getitem__)
            yield (
                f"distance {text(distance)} takes {size / sizes[best]:.2f} times the bytes of distance {text(best)} on "
                f"this job's own images, and looks worse: leave it out, or use {text(best)} instead"
            )


def spread(chunks: int) -> list[int]:
    """The first, the middle and the last of so many chunks, by number."""
    return sorted({round(i * (chunks - 1) / (CHUNKS - 1)) for i in range(CHUNKS)})


def _few(chunk: bytes) -> list[Listed]:
    pool = [row for row in index.read_chunk(chunk) if row.split == POOL]
    return sorted(pool, key=lambda row: sampling.path_hash(row.entry.path))[:IMAGES_A_CHUNK]


def _total(table: pa.Table, distance: float) -> int:
    return pc.sum(table[index.column("bytes", distance)]).as_py() or 0
