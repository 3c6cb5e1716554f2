"""Encoding images of an index at other distances than those of its job, several at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import POOL, ChunkRow
from keepmore.datasets.entry import Entry
from keepmore.errors import DatasetChanged
from keepmore.net.access import Access
from keepmore.progress import Progress, Report
from keepmore.spec.job import Limits
from keepmore.storage.base import Store

# The encoder releases the interpreter while it works; more threads than that wait for their reads. The pixels being
# encoded are limited too, because a worker's memory is planned for one image of twelve megapixels at a time.
MOST_THREADS = 8
PIXELS_AT_ONCE = 24_000_000
BLOCK_IMAGES = 32
# What `encode_rows` reads of the index's rows.
COLUMNS = ("path", "source_uri", "label", "source_bytes", "source_sha256", "width", "height")


@dataclass(frozen=True, slots=True)
class BatchEncoder:
    """Encodes images at a distance, several at once. `isolate`: as for `Compressor`."""

    store: Store
    effort: int
    limits: Limits
    access: Access
    isolate: bool
    report: Report
    threads: int = min(MOST_THREADS, os.cpu_count() or 1)

    def encode(self, rows: Sequence[ChunkRow], distances: Sequence[float], pixels: int) -> pa.Table:
        """One row per image in their order, as `Compressor.chunk` returns them; `pixels`: of the largest image.

        Raises what `report` raises.
        """
        threads = max(1, min(self.threads, PIXELS_AT_ONCE // pixels))
        decoders: SimpleQueue[IsolatedDecoder] = SimpleQueue()
        report_lock = Lock()

        def report(progress: Progress) -> None:
            with report_lock:
                self.report(progress)

        def encode(block: Sequence[ChunkRow]) -> pa.Table:
            decoder = decoders.get()
            try:
                compressor = Compressor(
                    self.store, distances, self.effort, self.limits, decoder, self.access, self.isolate
                )
                return compressor.chunk(block, report)
            finally:
                decoders.put(decoder)

        with ExitStack() as stack:
            for _ in range(threads):
                decoders.put(stack.enter_context(IsolatedDecoder()))
            pool = stack.enter_context(ThreadPoolExecutor(threads))
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            starts = range(0, len(rows), BLOCK_IMAGES)
            tables = [pool.submit(encode, rows[start : start + BLOCK_IMAGES]) for start in starts]
            return pa.concat_tables([table.result() for table in tables])


def encode_rows(encoder: BatchEncoder, table: pa.Table, distances: Sequence[float]) -> pa.Table:
    """One row, with the schema of an index, for each row of `table`, which has COLUMNS.

    Raises DatasetChanged for an image that is not what the index says, or cannot be read any more.
    """
    rows = [
        ChunkRow(POOL, Entry(row["path"], row["source_uri"], row["label"], row["source_bytes"]))
        for row in table.select(["path", "source_uri", "label", "source_bytes"]).to_pylist()
    ]
    pixels = pc.max(pc.multiply(table["width"].cast(pa.int64()), table["height"].cast(pa.int64()))).as_py()
    encoded = encoder.encode(rows, distances, pixels)
    changed = pc.fill_null(pc.not_equal(encoded["source_sha256"], table["source_sha256"]), True)
    for row in encoded.filter(changed).slice(0, 1).to_pylist():
        reason = row["error"] or "its content has changed since the job began"
        raise DatasetChanged(f"{row['source_uri']}: {reason}; put it back as it was and resume the job")
    return encoded
