"""A job of millions of images without one being encoded: time, memory, Redis keys and objects of every stage.

`python -m benchmarks.scale [millions...]`, by default 1; `1 10` also compares. Entries are drawn, and a null codec
makes up their sizes and checksums; listing, parts, foreman, board, merge, selection and manifests are the real ones,
over a folder and a real server that speaks Redis. Every stage is a process of its own. From 50 million on only what
holds no row an image is driven: the first and the last steps of all chunks, Redis lost between them, and the choice
from arrays of sizes. Needs what the tests need.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore import budget as budgets
from keepmore import index, installed, keys, listing, report
from keepmore.budget import DistanceBudget
from keepmore.datasets import Entry
from keepmore.foreman import Foreman
from keepmore.index import POOL, Listed
from keepmore.isolation import IsolatedDecoder
from keepmore.jobs import JobBook
from keepmore.progress import METADATA, Progress
from keepmore.request import Evaluation, Request, Selection
from keepmore.site import Site
from keepmore.status import status
from keepmore.steps import Kind, Step
from keepmore.store import FolderStore
from keepmore.subset import Pool, choose
from keepmore.workshop import Workshop, run_step
from services.board import RedisBoard
from tests.servers import valkey

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
STAGES = {
    "list": (Kind.LIST,),
    "compress": (Kind.CHECK, Kind.COMPRESS),
    "index": (Kind.INDEX,),
    "select": (Kind.SELECT,),
    "report": (Kind.REPORT,),
}
PATTERNS = {
    "chunks": "chunks/*/*",
    "parts": "parts/*",
    "index": "index.parquet",
    "evaluation": "evaluation.parquet",
    "manifests": "subsets/*/*.parquet",
}
CONTROL = "compress: foreman and board"
TOLD_EVERY_S = 5.0
DRIVEN_STEPS = 50_000
LINKS_OF_A_FILE = 50_000  # a file system allows so many and some more
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


def null_part(rows: list[Listed]) -> pa.Table:
    """The part of a chunk, shape (len(rows),): sizes from the listing, checksums from the path. One image of a thousand
    has failed, two of 5,000 have the same bytes as all such.
    """
    paths = [row.entry.path for row in rows]
    hashes = np.array([budgets.path_hash(path) for path in paths], np.uint64)
    size = np.array([row.entry.size for row in rows])
    failed = hashes % FAILED_EVERY == 0
    pool = np.array([row.split == POOL for row in rows])
    drawn = [
        hashlib.shake_128(b"a copy" if h % COPIED_EVERY < 2 else p.encode()).hexdigest(32 * len(DISTANCES))
        for h, p in zip(hashes.tolist(), paths, strict=True)
    ]
    found: dict[str, Any] = {
        "split": [row.split for row in rows],
        "path": paths,
        "path_hash": hashes,
        "source_uri": [row.entry.uri for row in rows],
        "label": [row.entry.label for row in rows],
        "source_bytes": size,
        "source_sha256": pa.array([text[:64] for text in drawn], mask=failed),
        "width": pa.array(np.full(len(rows), 512, np.int32), mask=failed),
        "height": pa.array(np.full(len(rows), 384, np.int32), mask=failed),
        "error_code": pa.array(["unreadable_image"] * len(rows), mask=~failed),
        "error": pa.array(["it was drawn to fail"] * len(rows), mask=~failed),
    }
    for place, d in enumerate(DISTANCES):
        missing = failed | ~pool if d else failed
        own = {
            "bytes": (size / (1 + 0.5 * d)).astype(np.int64),
            "encoding": ["lossy" if d else "original"] * len(rows),
            "sha256": [text[64 * place : 64 * (place + 1)] for text in drawn],
        }
        found |= {index.column(name, d): pa.array(values, mask=missing) for name, values in own.items()}
        encoder_distance = pa.array(np.full(len(rows), d, np.float32), mask=missing if d else np.full(len(rows), True))
        found[index.column("encoder_distance", d)] = encoder_distance
    schema = index.schema(DISTANCES)
    return pa.Table.from_arrays([pa.array(found[f.name], f.type) for f in schema], schema=schema)


# Steps, as a worker does them, one after another.


@dataclass(slots=True)
class Waiting:
    """A queue that is emptied by whoever drives the benchmark, and written down between two stages."""

    file: Path
    steps: dict[Step, None] = field(default_factory=dict)

    def read(self) -> Waiting:
        if self.file.exists():
            self.steps = {Step.parse(JOB, written): None for written in json.loads(self.file.read_text())}
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
    """Offers, takes, begins and finishes steps as `services.crew` does; knows how long the steps themselves took."""

    images: int
    folder: Path
    url: str
    work_s: float = 0.0
    steps: int = 0

    store: FolderStore = field(init=False)
    board: RedisBoard = field(init=False)
    queue: Waiting = field(init=False)
    foreman: Foreman = field(init=False)
    _told_at: float = field(init=False, default_factory=time.monotonic)
    _redis: Figures = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.store = FolderStore(self.folder / "store")
        self.board = RedisBoard(self.url)
        self.queue = Waiting(self.folder / "waiting.json").read()
        self.foreman = Foreman(self.store, self.board, self.queue)

    def run(self, kinds: tuple[Kind, ...], until: float = math.inf) -> None:
        """Do what waits while it is of `kinds`, and `until` so many steps are done."""
        while self.steps < until and self.queue.steps and (step := next(iter(self.queue.steps))).kind in kinds:
            del self.queue.steps[step]
            self._do(step)
            self.tell(step)
        self.queue.save()

    def _do(self, step: Step) -> None:
        self.board.busy(step)
        self.foreman.began(step)
        begun = time.perf_counter()
        progress = self._work(step) if not self.store.exists(step.output) else Progress()
        self.work_s += time.perf_counter() - begun
        if progress.images:
            self.foreman.progressed(step, progress)
        self.foreman.finished(step)
        self.steps += 1

    def _work(self, step: Step) -> Progress:
        match step.kind:
            case Kind.LIST:
                rows = listing.split(entries(self.images), entries(self.images), HOLDOUT, SEED)
                made = listing.write_chunks(self.store, JOB, rows, len(DISTANCES))
                self._put(step, made | {"skipped": {}, "codec": installed.codec()})
            case Kind.CHECK:
                self._put(step, {"warnings": []})
            case Kind.COMPRESS if self.images >= METADATA_FROM:
                return self.link_part(int(step.part))
            case Kind.COMPRESS:
                return self._write_part(step)
            case Kind.REPORT:
                self._put(step, report.figures(JobBook(self.store).get(JOB), self.store))
            case _:
                with IsolatedDecoder() as decoder:
                    run_step(step, self.store, Workshop.at(Site(str(self.store.root)), decoder, lambda progress: None))
        return Progress()

    def _write_part(self, step: Step) -> Progress:
        """As the compress step of `keepmore.workshop` does, but for the encoding."""
        listed = json.loads(self.store.get(keys.listing(JOB)))
        rows = index.read_chunk(self.store.get(keys.chunk(JOB, listed["listing"], int(step.part))))
        table = null_part(rows)
        size = sum(row.entry.size for row in rows)
        failed = len(table) - table["error"].null_count
        progress = Progress(len(rows), failed, size, size, 0.02 * len(rows))
        metadata = {METADATA: json.dumps(asdict(progress)).encode()}
        self.store.put(step.output, index.to_parquet(table.replace_schema_metadata(metadata)))
        return progress

    def link_part(self, number: int) -> Progress:
        """A part of one image, the same file under many names, without a sync."""
        progress = Progress(1, 0, 100_000, 100_000, 0.02)
        first = self.store.root / keys.part(JOB, number - number % LINKS_OF_A_FILE)
        if not first.exists():
            table = null_part([Listed(POOL, entry) for entry in entries(1)])
            metadata = {METADATA: json.dumps(asdict(progress)).encode()}
            first.parent.mkdir(parents=True, exist_ok=True)
            first.write_bytes(index.to_parquet(table.replace_schema_metadata(metadata)))
        path = self.store.root / keys.part(JOB, number)
        if path != first:
            os.link(first, path)
        return progress

    def _put(self, step: Step, value: Any) -> None:
        self.store.put(step.output, json.dumps(value).encode())

    def tell(self, step: Step) -> None:
        """Show progress, and look at Redis."""
        if time.monotonic() - self._told_at > TOLD_EVERY_S:
            self._told_at = time.monotonic()
            self.redis()
            print(f"{step}, {peak_megabytes():,.0f} MB", file=sys.stderr, flush=True)

    def redis(self) -> Figures:
        """The most keys and MB that Redis was seen to hold."""
        with redis.Redis.from_url(self.url) as server:
            known = server.info("memory")
            held = (known["used_memory"] - known["used_memory_startup"]) / 1e6
            now = {"redis_keys": server.dbsize(), "redis_megabytes": held}
        self._redis = {name: max(found, self._redis.get(name, 0)) for name, found in now.items()}
        return self._redis


# The stages, each a process of its own.


def staged(name: str, images: int, folder: Path, url: str) -> Figures:
    """The figures of one stage of a job that `folder` and the server hold so far."""
    driver = Driver(images, folder, url)
    begun = time.perf_counter()
    if name == "list":
        JobBook(driver.store).create(REQUEST, JOB)
        driver.foreman.start(JOB)
    driver.run(STAGES[name])
    found = {"seconds": time.perf_counter() - begun, "work_s": driver.work_s, "steps": driver.steps}
    found |= driver.redis() | {"megabytes": peak_megabytes()}
    if name == "compress":
        found |= after_compressing(driver)
    return found | {"files": count_files(driver.store.root / keys.work(JOB))}


def after_compressing(driver: Driver) -> Figures:
    """What a poll, a look of the reconciler, and a lost Redis cost when every part is there and the index is not."""
    job = JobBook(driver.store).get(JOB)
    found = {"poll_s": seconds(lambda: status(job, driver.store, driver.board))}
    found["reconcile_s"] = seconds(driver.foreman.reconcile)
    with redis.Redis.from_url(driver.url) as server:
        server.flushall()
    found["restore_s"] = seconds(driver.foreman.reconcile)
    driver.queue.save()
    return found | {"restore_megabytes": peak_megabytes()}


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def control(images: int, folder: Path, url: str) -> Figures:
    """The first and the last steps of so many images' chunks; between them all others become done, and Redis is lost.

    Parts are small and not synced: what writing them costs is left out.
    """
    driver = Driver(images, folder, url)
    JobBook(driver.store).create(REQUEST, JOB)
    chunks = chunk_count(images)
    driver.store.put(keys.listing(JOB), json.dumps({"chunks": chunks, "codec": installed.codec()}).encode())
    found: Figures = {"chunks": chunks, "start_s": seconds(lambda: driver.foreman.start(JOB))}
    found["first_s"] = seconds(lambda: driver.run(STAGES["compress"], DRIVEN_STEPS)) / DRIVEN_STEPS
    for number in range(DRIVEN_STEPS - 1, chunks - DRIVEN_STEPS):
        if not driver.store.exists(keys.part(JOB, number)):
            driver.link_part(number)
    driver.redis()
    driver.queue.steps.clear()
    with redis.Redis.from_url(url) as server:
        server.flushall()
    found["restore_s"] = seconds(driver.foreman.reconcile)
    found["last_s"] = seconds(lambda: driver.run(STAGES["compress"])) / DRIVEN_STEPS
    found["poll_s"] = seconds(lambda: driver.board.pace(JOB, Kind.COMPRESS))
    return found | driver.redis() | {"megabytes": peak_megabytes()}


def chunk_count(images: int) -> int:
    """How many chunks a listing of small files makes."""
    made = 0
    while images > 0:
        images -= math.ceil(listing.most_images(made, len(DISTANCES)))
        made += 1
    return made


def choice(images: int, order: str) -> Figures:
    """Choosing from arrays of sizes, as `keepmore.subset.read_pool` gives them."""
    rng = np.random.default_rng(0)
    original = rng.integers(20_000, 180_000, images, np.uint32)
    pool = Pool(
        rows=np.arange(images, dtype=np.uint32),
        path_hashes=rng.integers(0, 2**64, images, np.uint64),
        classes=rng.integers(0, CLASSES, images, np.int32),
        class_names=[str(number) for number in range(CLASSES)],
        bytes={d: (original / np.float32(1 + 0.5 * d)).astype(np.uint32) for d in DISTANCES},
    )
    budget = int(pool.bytes[10.0].sum())
    before = peak_megabytes()
    begun = time.perf_counter()
    for _ in choose(pool, DISTANCES, Selection(order), budget):
        pass
    return {"seconds": time.perf_counter() - begun, "megabytes": peak_megabytes(), "arrays_megabytes": before}


def sizes(store: FolderStore) -> Figures:
    """Bytes of what the steps wrote, by kind, and the layout of the index."""
    folder = store.root / keys.work(JOB)
    found: Figures = {}
    for kind, pattern in PATTERNS.items():
        found[kind] = sum(path.stat().st_size for path in folder.glob(pattern))
    metadata = pq.read_metadata(store.root / keys.index(JOB))
    return found | {"row_groups": metadata.num_row_groups, "footer": metadata.serialized_size}


# The tables.


def run(images: int, folder: Path) -> dict[str, Figures]:
    """The figures of every stage of a job of so many images, by stage."""
    found: dict[str, Figures] = {}
    with valkey(folder / "redis") as server:
        names = ["control"] if images >= METADATA_FROM else [*STAGES, "sizes"]
        for name in names:
            print(f"{images / MILLION:g} million images: {name}", file=sys.stderr, flush=True)
            found[name] = json.loads(in_new_process("benchmarks.scale", name, str(images), str(folder), server.url))
    return found


def rows(images: int, found: dict[str, Figures], first: dict[str, tuple[int, float]]) -> Iterator[list[str]]:
    """Rows of the first table. `first`: images and seconds of the smallest scale by row, filled on the way."""
    for name, stage in found.items():
        parts = {name: stage["seconds"]}
        if name == "compress":
            spent = stage["work_s"]
            parts = {f"{CONTROL} of {stage['steps']:,.0f} steps": stage["seconds"] - spent}
            parts["compress: parts, nothing encoded"] = spent
        for label, took in parts.items():
            before, then = first.setdefault(label.partition(" of ")[0], (images, took))
            yield [
                f"{images / MILLION:g} million",
                label,
                f"{took:,.1f}",
                f"{took / images * 1e6:.2f}",
                f"{took / images / (then / before):.2f}",
                f"{stage['megabytes']:,.0f}",
                f"{stage['redis_keys']:,.0f}",
                f"{stage['redis_megabytes']:,.1f}",
                f"{stage['files'] / images * MILLION:,.0f}",
            ]


def show_stages(found: dict[int, dict[str, Figures]]) -> None:
    columns = "images|stage|seconds|µs an image|ratio|peak MB|Redis keys|Redis MB|objects a million images"
    first: dict[str, tuple[int, float]] = {}
    stages = {images: {n: s for n, s in by_name.items() if n != "sizes"} for images, by_name in found.items()}
    asked = f"{len(DISTANCES)} distances, {CLASSES:,} classes, {HOLDOUT:.0%} held out"
    title = f"{asked}; ratio: time an image against the first scale"
    shown = [row for images, by_name in stages.items() for row in rows(images, by_name, first)]
    show(title, columns.split("|"), shown)


def show_questions(found: dict[int, dict[str, Figures]]) -> None:
    shown = []
    for images, by_name in found.items():
        stage = by_name["compress"]
        times = [f"{stage[name]:.4f}" for name in ("poll_s", "reconcile_s", "restore_s")]
        shown.append([f"{images / MILLION:g} million", *times, f"{stage['restore_megabytes']:,.0f}"])
    columns = "images|a poll, s|a look of the reconciler, s|the same after Redis was lost, s|peak MB then"
    show("Questions while every part is there and the index is not", columns.split("|"), shown)


def show_control(found: dict[int, dict[str, Figures]]) -> None:
    shown = []
    for images, by_name in found.items():
        made = by_name["control"]
        times = [f"{made['start_s']:,.1f}", f"{made['first_s'] * 1e3:.2f}", f"{made['last_s'] * 1e3:.2f}"]
        times += [f"{made['restore_s']:,.1f}", f"{made['poll_s'] * 1e3:.1f}"]
        held = [f"{made[name]:,.0f}" for name in ("megabytes", "redis_keys", "redis_megabytes")]
        shown.append([f"{images / MILLION:g} million", f"{made['chunks']:,.0f}", *times, *held])
    columns = (
        "images|chunks|start, s|ms a step, first|ms a step, last|Redis lost, s|a poll, ms|peak MB|Redis keys|Redis MB"
    )
    show(f"Foreman and board alone: the first {DRIVEN_STEPS:,} steps and the last", columns.split("|"), shown)


def show_sizes(found: dict[int, dict[str, Figures]]) -> None:
    shown = []
    for images, by_name in found.items():
        made = by_name["sizes"]
        an_image = [f"{made[kind] / images:.1f}" for kind in PATTERNS]
        groups = [f"{made['row_groups']:,.0f}", f"{made['footer']:,.0f}"]
        shown.append([f"{images / MILLION:g} million", *an_image, *groups])
    head = ["images", *(f"{kind}, bytes an image" for kind in PATTERNS), "row groups", "bytes of the footer"]
    show("What is written", head, shown)


def show_choice(counts: Iterable[int]) -> None:
    shown = []
    for images in counts:
        for order in ("random", "smallest"):
            made = json.loads(in_new_process("benchmarks.scale", "choice", str(images), order))
            figures = [made["seconds"], made["arrays_megabytes"] * 1e6 / images, made["megabytes"] * 1e6 / images]
            shown.append([f"{images / MILLION:g} million", order, *(f"{figure:,.1f}" for figure in figures)])
    head = ["images", "order", "seconds", "bytes an image before", "peak bytes an image"]
    show(f"Choosing at {len(DISTANCES)} distances, balanced over {CLASSES:,} classes, from arrays", head, shown)


def main(counts: list[int]) -> None:
    found = {}
    for images in counts:
        with tempfile.TemporaryDirectory() as folder:
            found[images] = run(images, Path(folder))
    if whole := {images: stages for images, stages in found.items() if images < METADATA_FROM}:
        show_stages(whole)
        show_questions(whole)
        show_sizes(whole)
    if largest := {images: stages for images, stages in found.items() if images >= METADATA_FROM}:
        show_control(largest)
        show_choice(largest)


def child(name: str, words: list[str]) -> Figures:
    """What a process of its own measures."""
    if name == "choice":
        return choice(int(words[0]), words[1])
    images, folder, url = int(words[0]), Path(words[1]), words[2]
    if name == "sizes":
        return sizes(FolderStore(folder / "store"))
    return control(images, folder, url) if name == "control" else staged(name, images, folder, url)


if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].replace(".", "").isdigit():
        print(json.dumps(child(sys.argv[1], sys.argv[2:])))
    else:
        main([int(float(word) * MILLION) for word in sys.argv[1:]] or [MILLION])
