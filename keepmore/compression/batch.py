"""Encodes images of an index at distances that its job did not ask for, several at once."""

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
from keepmore.compression.index import POOL, Listed
from keepmore.datasets.entry import Entry
from keepmore.errors import DatasetChanged
from keepmore.net.access import Access
from keepmore.progress import Progress, Report
from keepmore.spec.job import Limits
from keepmore.storage.base import Store

# The encoder leaves the interpreter to others while it works; more threads than that wait for what they read. And so
# many pixels are in work at most, because a worker's memory is planned for one image of twelve megapixels at a time.
MOST_THREADS = 8
PIXELS_AT_ONCE = 24_000_000
BLOCK_IMAGES = 32
# What `encoded` wants of the index's rows.
COLUMNS = ("path", "source_uri", "label", "source_bytes", "source_sha256", "width", "height")


@dataclass(frozen=True, slots=True)
class BatchEncoder:
    """What encodes images at a distance, several at once. `isolate`: as for `Compressor`."""

    store: Store
    effort: int
    limits: Limits
    access: Access
    isolate: bool
    report: Report
    threads: int = min(MOST_THREADS, os.cpu_count() or 1)

    def encode(self, rows: Sequence[Listed], distances: Sequence[float], pixels: int) -> pa.Table:
        """One row an image in their order, as `Compressor.chunk` gives them; `pixels` has the largest of them.

        Raises what `report` raises.
        """
        at_once = max(1, min(self.threads, PIXELS_AT_ONCE // pixels))
        telling = Lock()

        def report(progress: Progress) -> None:
            with telling:
                self.report(progress)

        blocks = [rows[start : start + BLOCK_IMAGES] for start in range(0, len(rows), BLOCK_IMAGES)]
        with ExitStack() as stack:
            decoders: SimpleQueue[IsolatedDecoder] = SimpleQueue()
            for _ in range(at_once):
                decoders.put(stack.enter_context(IsolatedDecoder()))

            def encode(block: Sequence[Listed]) -> pa.Table:
                decoder = decoders.get()
                try:
                    compressor = Compressor(
                        self.store, distances, self.effort, self.limits, decoder, self.access, self.isolate
                    )
                    return compressor.chunk(block, report)
                finally:
                    decoders.put(decoder)

            threads = stack.enter_context(ThreadPoolExecutor(at_once))
            stack.callback(threads.shutdown, wait=True, cancel_futures=True)
            futures = [threads.submit(encode, block) for block in blocks]
            return pa.concat_tables([future.result() for future in futures])


def encoded(encoder: BatchEncoder, table: pa.Table, distances: Sequence[float]) -> pa.Table:
    """One row, with the schema of an index, for each of `table`'s, which has COLUMNS.

    Raises DatasetChanged for an image that is not what the index says, or cannot be read any more.
    """
    listed = [
        Listed(POOL, Entry(row["path"], row["source_uri"], row["label"], row["source_bytes"]))
        for row in table.select(["path", "source_uri", "label", "source_bytes"]).to_pylist()
    ]
    pixels = pc.max(pc.multiply(table["width"].cast(pa.int64()), table["height"].cast(pa.int64()))).as_py()
    made = encoder.encode(listed, distances, pixels)
    wrong = pc.fill_null(pc.not_equal(made["source_sha256"], table["source_sha256"]), True)
    for row in made.filter(wrong).slice(0, 1).to_pylist():
        why = row["error"] or "has another content now than when the job began"
        raise DatasetChanged(f"{row['source_uri']}: {why}; put it back as it was and resume the job")
    return made
