"""The list step: datasets become chunks, with every image in the pool or held out for evaluation."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keepmore import budget as budgets
from keepmore import index, keys
from keepmore.access import Access
from keepmore.datasets import Entry, Skipped, list_images
from keepmore.datasets.entry import UNKNOWN
from keepmore.errors import DatasetNotFound
from keepmore.index import EVALUATION, POOL, Listed
from keepmore.request import Evaluation, Request
from keepmore.store import Store

# Small chunks first, so that a small job spreads evenly over workers and a large one does not drown in parts. Counted
# in encodings, of which a core does 50 (of one megapixel) to 190 (of 512 pixels) a second: a large chunk takes 5 to 20
# seconds, and jobs that share workers take turns that often.
FIRST_CHUNK_IMAGES, LARGEST_CHUNK_IMAGES = 16, 512
FIRST_CHUNK_ENCODINGS, LARGEST_CHUNK_ENCODINGS = 80, 1024
MOST_DOUBLINGS = 10
CHUNKS_OF_ONE_SIZE = 64
CHUNK_BYTES = 64_000_000
ASSUMED_BYTES = 100_000


def write_listing(
    store: Store, job_id: str, request: Request, access: Access, on_chunk: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Write the job's chunks; gives the listing: its name, how many chunks and images, and what was skipped and why.

    Chunks lie below a name drawn for this listing: another process that lists the job at the same time may find another
    dataset, and a job must not mix the two. `on_chunk` is called after every chunk, and may raise.
    """
    name = secrets.token_hex(4)
    skipped = Skipped()
    counts = {POOL: 0, EVALUATION: 0}
    chunks = 0
    for rows in chunked(_listed(request, access, skipped), len(request.distances)):
        store.put(keys.chunk(job_id, name, chunks), index.write_chunk(rows))
        on_chunk()
        chunks += 1
        for row in rows:
            counts[row.split] += 1
    if counts[POOL] == 0:
        raise DatasetNotFound(
            f"dataset {request.dataset}: holds no image (skipped: {dict(skipped) or 'nothing'}); check the path"
        )
    return {
        "listing": name,
        "chunks": chunks,
        "images": sum(counts.values()),
        "splits": counts,
        "skipped": dict(sorted(skipped.items())),
    }


def chunked(rows: Iterator[Listed], distances: int) -> Iterator[list[Listed]]:
    """Rows in chunks by encodings and bytes; the former double with every CHUNKS_OF_ONE_SIZE chunks."""
    chunk: list[Listed] = []
    size = made = 0
    for row in rows:
        chunk.append(row)
        size += ASSUMED_BYTES if row.entry.size == UNKNOWN else row.entry.size
        if len(chunk) >= _most_images(made, distances) or size >= CHUNK_BYTES:
            yield chunk
            made += 1
            chunk, size = [], 0
    if chunk:
        yield chunk


def _most_images(chunks: int, distances: int) -> float:
    """How many images the next chunk may hold, behind so many others."""
    doublings = min(chunks // CHUNKS_OF_ONE_SIZE, MOST_DOUBLINGS)
    encodings = min(FIRST_CHUNK_ENCODINGS << doublings, LARGEST_CHUNK_ENCODINGS)
    return min(encodings / distances, FIRST_CHUNK_IMAGES << doublings, LARGEST_CHUNK_IMAGES)


def _listed(request: Request, access: Access, skipped: Skipped) -> Iterator[Listed]:
    evaluation = request.evaluation
    pool = list_images(request.dataset, skipped, access)
    if evaluation is None or evaluation.holdout is None:
        yield from (Listed(POOL, entry) for entry in pool)
    else:
        # The dataset is listed twice: what is held out of a class depends on all of the class.
        cutoffs = _cutoffs(list_images(request.dataset, Skipped(), access), evaluation.holdout, evaluation.seed)
        yield from (Listed(_split(entry, cutoffs, evaluation), entry) for entry in pool)
    if evaluation and evaluation.dataset:
        yield from (Listed(EVALUATION, entry) for entry in list_images(evaluation.dataset, skipped, access))


def _cutoffs(entries: Iterator[Entry], fraction: float, seed: int) -> dict[str | None, np.uint64]:
    numbers: dict[str | None, int] = {}
    pairs = ((budgets.path_hash(e.path), numbers.setdefault(e.label, len(numbers))) for e in entries)
    table = np.fromiter(pairs, dtype=[("hash", np.uint64), ("class", np.int32)])
    found = budgets.held_out(budgets.ranks(table["hash"], seed), table["class"], fraction)
    return {label: found[number] for label, number in numbers.items() if number in found}


def _split(entry: Entry, cutoffs: dict[str | None, np.uint64], evaluation: Evaluation) -> str:
    if entry.label not in cutoffs:
        return POOL
    rank = budgets.ranks(np.array([budgets.path_hash(entry.path)], np.uint64), evaluation.seed)[0]
    return EVALUATION if rank <= cutoffs[entry.label] else POOL
