"""The fit step: the distance at which exactly so many images fill the budget, found by encoding them.

Sizes at any distance are not in the index, so a few images are encoded at distances all over the range, and then all of
them at a handful of distances that come ever closer. What is encoded stays in the store: a step that is repeated, or
another job, finds it there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from keepmore import fitted, index, search
from keepmore.access import Access
from keepmore.compress import Compressor
from keepmore.datasets import Entry
from keepmore.distance import LARGEST, ORIGINAL, SMALLEST
from keepmore.errors import BudgetTooSmall, DatasetChanged, InvalidRequest
from keepmore.fitted import Found
from keepmore.index import POOL, Listed
from keepmore.isolation import IsolatedDecoder
from keepmore.levels import Fit
from keepmore.progress import Progress, Report
from keepmore.request import Limits, Selection
from keepmore.search import Curve, Trial
from keepmore.store import Store
from keepmore.subset import Pool, in_order, read_originals

SAMPLE_IMAGES = 24
# Where the sample is encoded: from distance 10 on the encoder works in another way, whose sizes are a curve of its own.
SAMPLE_DISTANCES = (SMALLEST, 0.35, 1.0, 2.5, 5.0, 10.0, 10.5, 16.0, LARGEST)
# The encoder leaves the interpreter to others while it works; more threads than that wait for what they read. And so
# many pixels are in work at most, because a worker's memory is planned for one image of twelve megapixels at a time.
MOST_THREADS = 8
PIXELS_AT_ONCE = 24_000_000
BLOCK_IMAGES = 32
COLUMNS = ("path", "source_uri", "source_bytes", "source_sha256", "width", "height")


def find(bench: Bench, index_key: str, fit: Fit, budget: int, selection: Selection) -> bytes:
    """What `fitted.read` reads. `budget` in bytes; the images are the first of the order that `selection` says.

    Raises InvalidRequest where the pool has too few images, BudgetTooSmall where they fit at no distance, and
    DatasetChanged.
    """
    images = _Images.first(bench.store, index_key, fit, selection)
    if (originals := images.originals()).fits(budget):
        return fitted.to_parquet(Found(ORIGINAL, originals.hits(budget), 0), images.as_they_are())
    digits = search.digits(fit.images)
    curve = _curve(bench, images)
    tried: list[Trial] = []
    best: tuple[Trial, pa.Table] | None = None
    while (distance := search.next_trial(curve, tried, budget, digits)) is not None:
        trial, rows = images.tried(bench, distance)
        tried.append(trial)
        if trial.fits(budget) and (best is None or trial.hits(budget) or trial.bytes > best[0].bytes):
            best = trial, rows  # a hit is the last one
    if best is None:
        least = min(trial.bytes for trial in tried)
        raise BudgetTooSmall(
            f"{fit.name}: budget: {budget:,} bytes do not hold {fit.images:,} images at any distance; they take "
            f"{least:,} bytes at least: raise the budget, or fit fewer"
        )
    trial, rows = best
    return fitted.to_parquet(Found(trial.distance, trial.hits(budget), len(tried)), rows)


@dataclass(frozen=True, slots=True)
class Bench:
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


@dataclass(frozen=True, slots=True)
class _Images:
    """The first images of an order, and the one behind them if there is one, in the index's order.

    `table` holds columns of the index and `row`, an image's place there; `kept` (images,) is False for the one behind.
    """

    table: pa.Table
    kept: NDArray[np.bool_]

    @staticmethod
    def first(store: Store, index_key: str, fit: Fit, selection: Selection) -> _Images:
        pool = read_originals(store, index_key)
        if fit.images > len(pool.rows):
            raise InvalidRequest(
                f"distances: {fit.written} is not possible: the pool has {len(pool.rows):,} images; fit fewer"
            )
        places = in_order(pool, selection, pool.bytes[ORIGINAL])[: fit.images + 1]
        by_row = np.argsort(places)
        return _Images(_rows(store, index_key, pool, places[by_row]), by_row < fit.images)

    def originals(self) -> Trial:
        return self._trial(ORIGINAL, self.table["source_bytes"].to_numpy())

    def as_they_are(self) -> pa.Table:
        """The kept images as their sources, with the schema of `fitted`."""
        kept = self.table.filter(pa.array(self.kept))
        columns = [kept["row"], kept["path"], kept["source_bytes"], pa.repeat(pa.scalar("original"), len(kept))]
        columns += [kept["source_sha256"], pa.nulls(len(kept), pa.float32())]
        return pa.table(columns, schema=fitted.SCHEMA)

    def tried(self, bench: Bench, distance: float) -> tuple[Trial, pa.Table]:
        """What the images take at `distance`, and the kept ones with the schema of `fitted`."""
        made = self._encoded(bench, self.table, (distance,))
        names = [index.column(name, distance) for name in fitted.SCHEMA.names[2:]]
        columns = [self.table["row"], self.table["path"], *(made[name] for name in names)]
        rows = pa.table(columns, schema=fitted.SCHEMA)
        trial = self._trial(distance, rows["bytes"].to_numpy())
        return trial, rows.filter(pa.array(self.kept)).combine_chunks()

    def sample(self, bench: Bench, distances: Sequence[float]) -> tuple[float, pa.Table]:
        """Some images at `distances`, and how many times the bytes of their sources all images have."""
        few = np.unique(np.linspace(0, len(self.kept) - 1, min(SAMPLE_IMAGES, len(self.kept))).astype(np.int64))
        table = self.table.take(pa.array(few))
        share = self.originals().point[1] / max(1, pc.sum(table["source_bytes"]).as_py())
        return share, self._encoded(bench, table, distances)

    def _trial(self, distance: float, sizes: NDArray[np.int64]) -> Trial:
        """Where no image is behind, one of mean size stands for it: a budget for two more is not filled."""
        total = int(sizes[self.kept].sum())
        behind = sizes[~self.kept]
        return Trial(distance, total, float(behind[0]) if len(behind) else total / len(self.kept))

    def _encoded(self, bench: Bench, table: pa.Table, distances: Sequence[float]) -> pa.Table:
        """Raises DatasetChanged for an image that is not what the index says, or cannot be read any more."""
        listed = [
            Listed(POOL, Entry(row["path"], row["source_uri"], None, row["source_bytes"]))
            for row in table.select(["path", "source_uri", "source_bytes"]).to_pylist()
        ]
        pixels = pc.max(pc.multiply(table["width"].cast(pa.int64()), table["height"].cast(pa.int64()))).as_py()
        made = bench.encode(listed, distances, pixels)
        wrong = pc.fill_null(pc.not_equal(made["source_sha256"], table["source_sha256"]), True)
        for row in made.filter(wrong).slice(0, 1).to_pylist():
            why = row["error"] or "has another content now than when the job began"
            raise DatasetChanged(f"{row['source_uri']}: {why}; put it back as it was and resume the job")
        return made


def _rows(store: Store, index_key: str, pool: Pool, places: NDArray[np.int64]) -> pa.Table:
    """The index's rows of ascending `places` in the pool, each with its `row`."""
    wanted = pool.rows[places].astype(np.int64)
    found, start = [], 0
    for batch in index.rows(store, index_key, COLUMNS):
        first, behind = np.searchsorted(wanted, [start, start + len(batch)])
        found.append(batch.take(pa.array(wanted[first:behind] - start)))
        start += len(batch)
    return pa.Table.from_batches(found).append_column("row", pa.array(wanted)).combine_chunks()


def _curve(bench: Bench, images: _Images) -> Curve:
    share, made = images.sample(bench, SAMPLE_DISTANCES)
    return Curve([(d, share * pc.sum(made[index.column("bytes", d)]).as_py()) for d in SAMPLE_DISTANCES])
