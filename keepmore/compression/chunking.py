"""The list step: datasets become chunks, with every image in the pool or held out for evaluation."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from keepmore import sampling
from keepmore.codec import version as codec_version
from keepmore.compression import index
from keepmore.compression.index import EVALUATION, POOL, ChunkRow
from keepmore.compression.listing import Listing
from keepmore.datasets.entry import UNKNOWN, Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import DatasetNotFound
from keepmore.net.access import Access
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.base import Store

# Small chunks first, so that a small job spreads evenly over workers and a large one does not have too many parts.
# Counted in encodings, of which a core does 50 (of a megapixel) to 190 (of 512 pixels) per second: a large chunk takes
# 5 to 20 seconds, and jobs that share workers take turns that often.
FIRST_CHUNK_IMAGES, LARGEST_CHUNK_IMAGES = 16, 512
FIRST_CHUNK_ENCODINGS, LARGEST_CHUNK_ENCODINGS = 80, 1024
MOST_DOUBLINGS = 10
CHUNKS_OF_ONE_SIZE = 64
CHUNK_BYTES = 64_000_000
ASSUMED_BYTES = 100_000
# Ranked at once: numpy takes as long for one image as for hundreds.
BLOCK_IMAGES = 512


def write_listing(
    store: Store, job_id: str, request: Request, access: Access, on_chunk: Callable[[], None] = lambda: None
) -> Listing:
    """Write the job's chunks. `on_chunk` is called after every chunk, and may raise.

    Raises DatasetNotFound if there is no image for the pool, and what `list_images` raises.
    """
    skipped = Skipped()
    listing = write_chunks(store, job_id, _chunk_rows(request, access, skipped), len(request.compressed), on_chunk)
    if listing.splits[POOL] == 0:
        raise DatasetNotFound(f"dataset {request.dataset}: holds no image (skipped: {skipped}); check the path")
    return replace(listing, skipped=dict(sorted(skipped.items())))


def write_chunks(
    store: Store, job_id: str, rows: Iterator[ChunkRow], distances: int, on_chunk: Callable[[], None] = lambda: None
) -> Listing:
    """Write `rows` in chunks below a name of their own."""
    name = secrets.token_hex(4)
    counts = {POOL: 0, EVALUATION: 0}
    chunks = 0
    for chunk in chunked(rows, distances):
        store.put(layout.chunk(job_id, name, chunks), index.write_chunk(chunk))
        on_chunk()
        chunks += 1
        for row in chunk:
            counts[row.split] += 1
    return Listing(name, chunks, sum(counts.values()), counts, {}, codec_version.codec())


def chunked(rows: Iterator[ChunkRow], distances: int) -> Iterator[list[ChunkRow]]:
    """Rows in chunks by encodings and bytes; the number of encodings doubles every CHUNKS_OF_ONE_SIZE chunks."""
    chunk: list[ChunkRow] = []
    chunk_bytes = chunks = 0
    for row in rows:
        chunk.append(row)
        chunk_bytes += ASSUMED_BYTES if row.entry.size == UNKNOWN else row.entry.size
        if len(chunk) >= most_images(chunks, distances) or chunk_bytes >= CHUNK_BYTES:
            yield chunk
            chunks += 1
            chunk, chunk_bytes = [], 0
    if chunk:
        yield chunk


def most_images(chunks: int, distances: int) -> float:
    """How many images the next chunk may hold, after `chunks` others."""
    doublings = min(chunks // CHUNKS_OF_ONE_SIZE, MOST_DOUBLINGS)
    encodings = min(FIRST_CHUNK_ENCODINGS << doublings, LARGEST_CHUNK_ENCODINGS)
    return min(encodings / distances, FIRST_CHUNK_IMAGES << doublings, LARGEST_CHUNK_IMAGES)


def _chunk_rows(request: Request, access: Access, skipped: Skipped) -> Iterator[ChunkRow]:
    evaluation = request.evaluation

    def pool(skipped: Skipped) -> Iterator[Entry]:
        return list_images(request.dataset, skipped, access)

    if evaluation is None or evaluation.holdout is None:
        yield from (ChunkRow(POOL, entry) for entry in pool(skipped))
    else:
        # The dataset is listed twice: which images of a class are held out depends on the whole class.
        yield from split(pool(Skipped()), pool(skipped), evaluation.holdout, evaluation.seed)
    if evaluation and evaluation.dataset:
        yield from (ChunkRow(EVALUATION, entry) for entry in list_images(evaluation.dataset, skipped, access))


def split(first: Iterator[Entry], again: Iterator[Entry], fraction: float, seed: int) -> Iterator[ChunkRow]:
    """The entries of `again`, with `fraction` of every class held out for evaluation; `first` has the same entries."""
    cutoffs = _cutoffs(first, fraction, seed)
    while block := list(islice(again, BLOCK_IMAGES)):
        ranks = sampling.ranks(np.array([sampling.path_hash(entry.path) for entry in block], np.uint64), seed)
        for entry, rank in zip(block, ranks.tolist(), strict=True):
            held_out = rank <= cutoffs.get(entry.label, -1)
            yield ChunkRow(EVALUATION if held_out else POOL, entry)


def _cutoffs(entries: Iterator[Entry], fraction: float, seed: int) -> dict[str | None, int]:
    """The largest rank that is held out, by label. Holds 50 bytes per entry."""
    numbers: dict[str | None, int] = {}
    pairs = ((sampling.path_hash(e.path), numbers.setdefault(e.label, len(numbers))) for e in entries)
    table = np.fromiter(pairs, dtype=[("hash", np.uint64), ("class", np.int32)])
    cutoffs = sampling.held_out(sampling.ranks(table["hash"], seed), table["class"], fraction)
    return {label: int(cutoffs[number]) for label, number in numbers.items() if number in cutoffs}
