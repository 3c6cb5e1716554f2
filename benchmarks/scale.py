"""A job of millions of images without one being encoded: time, memory, Redis keys and objects of every stage.

`python -m benchmarks.scale [millions...]`, by default 1; `1 10` also compares. Entries are drawn, and a null codec
makes up their sizes and checksums; listing, parts, scheduler, tracker, merge, selection and manifests are the real
ones, over a folder and a real server that speaks Redis. Every stage is a process of its own. From 50 million on only
stages without a row per image run: the first and the last steps of all chunks, Redis lost between them, and the choice
from arrays of sizes. Needs what the tests need.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import redis

from benchmarks.null_job import CLASSES, DISTANCES, HOLDOUT, JOB, METADATA_FROM, MILLION, REQUEST, Driver, Figures
from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore.codec import version as codec_version
from keepmore.compression import chunking
from keepmore.compression.index import EVALUATION, POOL
from keepmore.compression.listing import Listing
from keepmore.jobs.job import JobRepository
from keepmore.jobs.step import Kind
from keepmore.scheduling.status import status
from keepmore.selection.pool import Pool
from keepmore.selection.select import choose
from keepmore.spec.job import Selection
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from tests.servers import valkey

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
CONTROL = "compress: scheduler and tracker"
DRIVEN_STEPS = 50_000


# The stages, each a process of its own.


def staged(name: str, images: int, folder: Path, url: str) -> Figures:
    """The figures of one stage of a job that `folder` and the server hold so far."""
    driver = Driver(images, folder, url)
    start = time.perf_counter()
    if name == "list":
        JobRepository(driver.store).create(REQUEST, JOB)
        driver.scheduler.start(JOB)
    driver.run(STAGES[name])
    figures = {"seconds": time.perf_counter() - start, "work_s": driver.work_s, "steps": driver.steps}
    figures |= driver.redis() | {"megabytes": peak_megabytes()}
    if name == "compress":
        figures |= after_compressing(driver)
    return figures | {"files": count_files(driver.store.root / layout.work(JOB))}


def after_compressing(driver: Driver) -> Figures:
    """The cost of a poll, of a run of the reconciler, and of a lost Redis when every part is there and the index is
    not."""
    job = JobRepository(driver.store).get(JOB)
    figures = {"poll_s": seconds(lambda: status(job, driver.store, driver.tracker.progress))}
    figures["reconcile_s"] = seconds(driver.scheduler.reconcile)
    with redis.Redis.from_url(driver.url) as server:
        server.flushall()
    figures["restore_s"] = seconds(driver.scheduler.reconcile)
    driver.queue.save()
    return figures | {"restore_megabytes": peak_megabytes()}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def control(images: int, folder: Path, url: str) -> Figures:
    """The first and the last steps of the chunks of `images` images; between them all others become done, and Redis is
    lost.

    Parts are small and not synced: what writing them costs is left out.
    """
    driver = Driver(images, folder, url)
    JobRepository(driver.store).create(REQUEST, JOB)
    chunks = chunk_count(images)
    listing = Listing("a", chunks, images, {POOL: images, EVALUATION: 0}, {}, codec_version.codec())
    driver.store.put(layout.listing(JOB), json.dumps(listing.as_json()).encode())
    figures: Figures = {"chunks": chunks, "start_s": seconds(lambda: driver.scheduler.start(JOB))}
    figures["first_s"] = seconds(lambda: driver.run(STAGES["compress"], DRIVEN_STEPS)) / DRIVEN_STEPS
    for number in range(DRIVEN_STEPS - 1, chunks - DRIVEN_STEPS):
        if not driver.store.exists(layout.part(JOB, number)):
            driver.link_part(number)
    driver.redis()
    driver.queue.steps.clear()
    with redis.Redis.from_url(url) as server:
        server.flushall()
    figures["restore_s"] = seconds(driver.scheduler.reconcile)
    figures["last_s"] = seconds(lambda: driver.run(STAGES["compress"])) / DRIVEN_STEPS
    figures["poll_s"] = seconds(lambda: driver.tracker.progress.pace(JOB, Kind.COMPRESS))
    return figures | driver.redis() | {"megabytes": peak_megabytes()}


def chunk_count(images: int) -> int:
    """How many chunks a listing of small files makes."""
    chunks = 0
    while images > 0:
        images -= math.ceil(chunking.most_images(chunks, len(DISTANCES)))
        chunks += 1
    return chunks


def choice(images: int, order: str) -> Figures:
    """Choosing from arrays of sizes, as `keepmore.selection.select.read_pool` gives them."""
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
    start = time.perf_counter()
    for _ in choose(pool, DISTANCES, Selection(order), budget):
        pass
    return {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes(), "arrays_megabytes": before}


def sizes(store: FolderStore) -> Figures:
    """Bytes of what the steps wrote, by kind, and the layout of the index."""
    folder = store.root / layout.work(JOB)
    figures: Figures = {}
    for kind, pattern in PATTERNS.items():
        figures[kind] = sum(path.stat().st_size for path in folder.glob(pattern))
    metadata = pq.read_metadata(store.root / layout.index(JOB))
    return figures | {"row_groups": metadata.num_row_groups, "footer": metadata.serialized_size}


# The tables.


def run(images: int, folder: Path) -> dict[str, Figures]:
    """The figures of every stage of a job of `images` images, by stage."""
    figures: dict[str, Figures] = {}
    with valkey(folder / "redis") as server:
        names = ["control"] if images >= METADATA_FROM else [*STAGES, "sizes"]
        for name in names:
            print(f"{images / MILLION:g} million images: {name}", file=sys.stderr, flush=True)
            figures[name] = json.loads(in_new_process("benchmarks.scale", name, str(images), str(folder), server.url))
    return figures


def rows(images: int, figures: dict[str, Figures], first: dict[str, tuple[int, float]]) -> Iterator[list[str]]:
    """Rows of the first table. `first`: images and seconds of the smallest scale by row, filled on the way."""
    for name, stage in figures.items():
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


def show_stages(figures: dict[int, dict[str, Figures]]) -> None:
    columns = "images|stage|seconds|µs an image|ratio|peak MB|Redis keys|Redis MB|objects a million images"
    first: dict[str, tuple[int, float]] = {}
    stages = {images: {n: s for n, s in by_name.items() if n != "sizes"} for images, by_name in figures.items()}
    request = f"{len(DISTANCES)} distances, {CLASSES:,} classes, {HOLDOUT:.0%} held out"
    title = f"{request}; ratio: time an image against the first scale"
    table = [row for images, by_name in stages.items() for row in rows(images, by_name, first)]
    show(title, columns.split("|"), table)


def show_questions(figures: dict[int, dict[str, Figures]]) -> None:
    table = []
    for images, by_name in figures.items():
        stage = by_name["compress"]
        times = [f"{stage[name]:.4f}" for name in ("poll_s", "reconcile_s", "restore_s")]
        table.append([f"{images / MILLION:g} million", *times, f"{stage['restore_megabytes']:,.0f}"])
    columns = "images|a poll, s|a look of the reconciler, s|the same after Redis was lost, s|peak MB then"
    show("Questions while every part is there and the index is not", columns.split("|"), table)


def show_control(figures: dict[int, dict[str, Figures]]) -> None:
    table = []
    for images, by_name in figures.items():
        stage = by_name["control"]
        times = [f"{stage['start_s']:,.1f}", f"{stage['first_s'] * 1e3:.2f}", f"{stage['last_s'] * 1e3:.2f}"]
        times += [f"{stage['restore_s']:,.1f}", f"{stage['poll_s'] * 1e3:.1f}"]
        sizes = [f"{stage[name]:,.0f}" for name in ("megabytes", "redis_keys", "redis_megabytes")]
        table.append([f"{images / MILLION:g} million", f"{stage['chunks']:,.0f}", *times, *sizes])
    columns = (
        "images|chunks|start, s|ms per step, first|ms per step, last|Redis lost, s|ms per poll|peak MB"
        "|Redis keys|Redis MB"
    )
    show(f"Scheduler and tracker alone: the first {DRIVEN_STEPS:,} steps and the last", columns.split("|"), table)


def show_sizes(figures: dict[int, dict[str, Figures]]) -> None:
    table = []
    for images, by_name in figures.items():
        stage = by_name["sizes"]
        an_image = [f"{stage[kind] / images:.1f}" for kind in PATTERNS]
        groups = [f"{stage['row_groups']:,.0f}", f"{stage['footer']:,.0f}"]
        table.append([f"{images / MILLION:g} million", *an_image, *groups])
    head = ["images", *(f"{kind}, bytes per image" for kind in PATTERNS), "row groups", "bytes of the footer"]
    show("What is written", head, table)


def show_choice(counts: Iterable[int]) -> None:
    table = []
    for images in counts:
        for order in ("random", "smallest"):
            stage = json.loads(in_new_process("benchmarks.scale", "choice", str(images), order))
            figures = [stage["seconds"], stage["arrays_megabytes"] * 1e6 / images, stage["megabytes"] * 1e6 / images]
            table.append([f"{images / MILLION:g} million", order, *(f"{figure:,.1f}" for figure in figures)])
    head = ["images", "order", "seconds", "bytes per image before", "peak bytes per image"]
    show(f"Choosing at {len(DISTANCES)} distances, balanced over {CLASSES:,} classes, from arrays", head, table)


def main(counts: list[int]) -> None:
    figures = {}
    for images in counts:
        with tempfile.TemporaryDirectory() as folder:
            figures[images] = run(images, Path(folder))
    if whole := {images: stages for images, stages in figures.items() if images < METADATA_FROM}:
        show_stages(whole)
        show_questions(whole)
        show_sizes(whole)
    if largest := {images: stages for images, stages in figures.items() if images >= METADATA_FROM}:
        show_control(largest)
        show_choice(largest)


def child(name: str, words: list[str]) -> Figures:
    """The measurements of a process of its own."""
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
