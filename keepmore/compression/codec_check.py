"""The check step: a few of a job's own images at every distance, to warn of distances that make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from keepmore import sampling
from keepmore.codec import version as codec_version
from keepmore.compression import index
from keepmore.compression.index import POOL, ChunkRow
from keepmore.spec.distance import text
from keepmore.storage.base import Store

if TYPE_CHECKING:
    from keepmore.compression.compressor import Compressor

CHUNKS = 3
IMAGES_PER_CHUNK = 3


@dataclass(frozen=True, slots=True)
class CodecCheck:
    """The codec and the versions of its packages; bytes of `images` images by distance, and warnings about them."""

    codec: str
    versions: dict[str, str]
    images: int
    bytes: dict[str, int]
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(store: Store, chunk_keys: Sequence[str], compressor: Compressor, distances: Sequence[float]) -> CodecCheck:
    """Compress a few images of each chunk."""
    rows: list[ChunkRow] = []
    for key in chunk_keys:
        pool = [row for row in index.read_chunk(store.get(key)) if row.split == POOL]
        rows += sorted(pool, key=lambda row: sampling.path_hash(row.entry.path))[:IMAGES_PER_CHUNK]
    part = compressor.chunk(rows, lambda progress: None)
    good = part.filter(pc.is_null(part["error_code"]))
    sizes = {d: pc.sum(good[index.column("bytes", d)]).as_py() or 0 for d in distances}
    return CodecCheck(
        codec_version.codec(),
        codec_version.versions(),
        len(good),
        {text(d): size for d, size in sizes.items()},
        list(warnings(sizes)),
    )


def warnings(sizes: Mapping[float, int]) -> Iterator[str]:
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
    """The numbers of the first, the middle and the last of `chunks` chunks."""
    return sorted({round(i * (chunks - 1) / (CHUNKS - 1)) for i in range(CHUNKS)})
