"""A job of which nothing is encoded: entries are drawn, and a null codec makes up their sizes and checksums. Its steps
are done one after another, as a worker does them, over a folder and a server that speaks Redis."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from benchmarks.table import peak_megabytes
from keepmore import sampling
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import chunking, index
from keepmore.compression.index import POOL, ChunkRow
from keepmore.compression.listing import Listing
from keepmore.config import RuntimeConfig
from keepmore.datasets.entry import Entry
from keepmore.jobs.job import JobRepository
from keepmore.jobs.step import Kind, Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import run_step
from keepmore.progress import Progress
from keepmore.reporting.figures import figures
from keepmore.scheduling.scheduler import Scheduler
from keepmore.spec.budget import DistanceBudget
from keepmore.spec.job import Evaluation, Request
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore_services.broker.redis_tracker import RedisStepTracker

Figures = dict[str, float]

MILLION = 10**6
METADATA_FROM = 50 * MILLION
DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
CLASSES = 1000
HOLDOUT = 0.1
SEED = 0
JOB = "scale"
REQUEST = Request(
    "s3://photographs/train",
    DISTANCES,
    budget=DistanceBudget(10.0),
    evaluation=Evaluation(holdout=HOLDOUT, seed=SEED),
)
REPORT_EVERY_S = 5.0
LINKS_OF_A_FILE = 50_000  # a file system allows this many, and some more
FAILED_EVERY = 1000
COPIED_EVERY = 5000


# The dataset and the null codec.


def entries(images: int) -> Iterator[Entry]:
    """Images by ascending path, the same number in every class."""
    a_class = math.ceil(images / CLASSES)
    for number in range(images):
        path = f"class-{number // a_class:04d}/photograph-{number % a_class:08d}.jpg"
        size = 20_000 + zlib.crc32(path.encode()) % 160_000
        yield Entry(path, f"{REQUEST.dataset}/{path}", path.partition("/")[0], size)


def null_part(rows: list[ChunkRow]) -> pa.Table:
    """The part of a chunk, shape (len(rows),): sizes from the listing, checksums from the path. One image of a thousand
    has failed, two of 5,000 have the same bytes as all such.
    """
    paths = [row.entry.path for row in rows]
    hashes = np.array([sampling.path_hash(path) for path in paths], np.uint64)
    size = np.array([row.entry.size for row in rows])
    on_failure = hashes % FAILED_EVERY == 0
    pool = np.array([row.split == POOL for row in rows])
    checksums = [
        hashlib.shake_128(b"a copy" if h % COPIED_EVERY < 2 else p.encode()).hexdigest(32 * len(DISTANCES))
        for h, p in zip(hashes.tolist(), paths, strict=True)
    ]
    columns: dict[str, Any] = {
        "split": [row.split for row in rows],
        "path": paths,
        "path_hash": hashes,
        "source_uri": [row.entry.uri for row in rows],
        "label": [row.entry.label for row in rows],
        "source_bytes": size,
        "source_sha256": pa.array([text[:64] for text in checksums], mask=on_failure),
        "width": pa.array(np.full(len(rows), 512, np.int32), mask=on_failure),
        "height": pa.array(np.full(len(rows), 384, np.int32), mask=on_failure),
        "error_code": pa.array(["unreadable_image"] * len(rows), mask=~on_failure),
        "error": pa.array(["it was drawn to fail"] * len(rows), mask=~on_failure),
    }
    for place, d in enumerate(DISTANCES):
        missing = on_failure | ~pool if d else on_failure
        own = {
            "bytes": (size / (1 + 0.5 * d)).astype(np.int64),
            "encoding": ["lossy" if d else "original"] * len(rows),
            "sha256": [text[64 * place : 64 * (place + 1)] for text in checksums],
        }
        columns |= {index.column(name, d): pa.array(values, mask=missing) for name, values in own.items()}
        encoder_distance = pa.array(np.full(len(rows), d, np.float32), mask=missing if d else np.full(len(rows), True))
        columns[index.column("encoder_distance", d)] = encoder_distance
    schema = index.schema(DISTANCES)
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _to_bytes(table: pa.Table, progress: Progress) -> bytes:
    """A part as its step writes it."""
    return index.to_parquet(table.replace_schema_metadata(progress.as_metadata()))


# Steps, as a worker does them, one after another.


@dataclass(slots=True)
class Waiting:
    """A queue that the benchmark empties, and saves between two stages."""

    file: Path
    steps: dict[Step, None] = field(default_factory=dict)

    def read(self) -> Waiting:
        if self.file.exists():
            self.steps = {Step.parse(JOB, text): None for text in json.loads(self.file.read_text())}
        return self

    def save(self) -> None:
        self.file.write_text(json.dumps(list(map(str, self.steps))))

    def submit(self, steps: Iterable[Step]) -> None:
        self.steps |= dict.fromkeys(steps)

    def cancel(self, job: str) -> None:
        return None

    def depths(self) -> dict[str, int]:
        return {step.kind.lane.value: len(self.steps) for step in self.steps}


@dataclass(slots=True)
class Driver:
    """Offers, takes, begins and finishes steps as a worker does; knows how long the steps themselves took."""

    images: int
    folder: Path
    url: str
    work_s: float = 0.0
    steps: int = 0

    store: FolderStore = field(init=False)
    tracker: RedisStepTracker = field(init=False)
    queue: Waiting = field(init=False)
    scheduler: Scheduler = field(init=False)
    _reported_at: float = field(init=False, default_factory=time.monotonic)
    _redis: Figures = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.store = FolderStore(self.folder / "store")
        self.tracker = RedisStepTracker(self.url)
        self.queue = Waiting(self.folder / "waiting.json").read()
        self.scheduler = Scheduler(self.store, self.tracker, self.queue)

    def run(self, kinds: tuple[Kind, ...], until: float = math.inf) -> None:
        """Run the waiting steps while they are of `kinds`, `until` this many are done."""
        while self.steps < until and self.queue.steps and (step := next(iter(self.queue.steps))).kind in kinds:
            del self.queue.steps[step]
            self._do(step)
            self.tell(step)
        self.queue.save()

    def _do(self, step: Step) -> None:
        self.tracker.leases.busy(step)
        self.scheduler.on_start(step)
        start = time.perf_counter()
        progress = self._work(step) if not self.store.exists(step.output) else Progress()
        self.work_s += time.perf_counter() - start
        if progress.images:
            self.scheduler.on_progress(step, progress)
        self.scheduler.on_finish(step)
        self.steps += 1

    def _work(self, step: Step) -> Progress:
        match step.kind:
            case Kind.LIST:
                rows = chunking.split(entries(self.images), entries(self.images), HOLDOUT, SEED)
                self._put(step, chunking.write_chunks(self.store, JOB, rows, len(DISTANCES)).as_json())
            case Kind.CHECK:
                self._put(step, {"warnings": []})
            case Kind.COMPRESS if self.images >= METADATA_FROM:
                return self.link_part(int(step.part))
            case Kind.COMPRESS:
                return self._write_part(step)
            case Kind.REPORT:
                self._put(step, figures(JobRepository(self.store).get(JOB), self.store).as_json())
            case _:
                with IsolatedDecoder() as decoder:
                    run_step(
                        step,
                        self.store,
                        StepContext.at(RuntimeConfig(str(self.store.root)), decoder, lambda progress: None),
                    )
        return Progress()

    def _write_part(self, step: Step) -> Progress:
        """The same as the compress step of `keepmore.pipeline.runner`, without the encoding."""
        listing = Listing.read(self.store, JOB)
        rows = index.read_chunk(self.store.get(layout.chunk(JOB, listing.name, int(step.part))))
        table = null_part(rows)
        size = sum(row.entry.size for row in rows)
        on_failure = len(table) - table["error"].null_count
        progress = Progress(len(rows), on_failure, size, size, 0.02 * len(rows))
        self.store.put(step.output, _to_bytes(table, progress))
        return progress

    def link_part(self, number: int) -> Progress:
        """A part of one image, the same file under many names, without a sync."""
        progress = Progress(1, 0, 100_000, 100_000, 0.02)
        first = self.store.root / layout.part(JOB, number - number % LINKS_OF_A_FILE)
        if not first.exists():
            table = null_part([ChunkRow(POOL, entry) for entry in entries(1)])
            first.parent.mkdir(parents=True, exist_ok=True)
            first.write_bytes(_to_bytes(table, progress))
        path = self.store.root / layout.part(JOB, number)
        if path != first:
            os.link(first, path)
        return progress

    def _put(self, step: Step, value: Any) -> None:
        self.store.put(step.output, json.dumps(value).encode())

    def tell(self, step: Step) -> None:
        """Show progress, and measure Redis."""
        if time.monotonic() - self._reported_at > REPORT_EVERY_S:
            self._reported_at = time.monotonic()
            self.redis()
            print(f"{step}, {peak_megabytes():,.0f} MB", file=sys.stderr, flush=True)

    def redis(self) -> Figures:
        """The most keys and MB in Redis so far."""
        with redis.Redis.from_url(self.url) as server:
            memory = server.info("memory")
            megabytes = (memory["used_memory"] - memory["used_memory_startup"]) / 1e6
            now = {"redis_keys": server.dbsize(), "redis_megabytes": megabytes}
        self._redis = {name: max(value, self._redis.get(name, 0)) for name, value in now.items()}
        return self._redis
