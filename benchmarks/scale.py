"""A job of millions of images without one being encoded: time, memory, Redis keys and objects of every stage.

`python -m benchmarks.scale [millions...]`, by default 1; `1 10` also compares. Entries are drawn, and a null codec
makes up their sizes and checksums; listing, parts, scheduler, tracker, merge, selection and manifests are the real
ones, over a folder and a real server that speaks Redis. Every stage is a process of its own. From 50 million on only
what holds no row an image is driven: the first and the last steps of all chunks, Redis lost between them, and the
choice from arrays of sizes. Needs what the tests need.
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
CONTROL = "compress: foreman and board"
DRIVEN_STEPS = 50_000


# The stages, each a process of its own.


def staged(name: str, images: int, folder: Path, url: str) -> Figures:
    """The figures of one stage of a job that `folder` and the server hold so far."""
    driver = Driver(images, folder, url)
    begun = time.perf_counter()
    if name == "list":
        JobRepository(driver.store).create(REQUEST, JOB)
        driver.scheduler.start(JOB)
    driver.run(STAGES[name])
    found = {"seconds": time.perf_counter() - begun, "work_s": driver.work_s, "steps": driver.steps}
    found |= driver.redis() | {"megabytes": peak_megabytes()}
    if name == "compress":
        found |= after_compressing(driver)
    return found | {"files": count_files(driver.store.root / layout.work(JOB))}


def after_compressing(driver: Driver) -> Figures:
    """What a poll, a look of the reconciler, and a lost Redis cost when every part is there and the index is not."""
    job = JobRepository(driver.store).get(JOB)
    found = {"poll_s": seconds(lambda: status(job, driver.store, driver.tracker.progress))}
    found["reconcile_s"] = seconds(driver.scheduler.reconcile)
    with redis.Redis.from_url(driver.url) as server:
        server.flushall()
    found["restore_s"] = seconds(driver.scheduler.reconcile)
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
    JobRepository(driver.store).create(REQUEST, JOB)
    chunks = chunk_count(images)
    listing = Listing("a", chunks, images, {POOL: images, EVALUATION: 0}, {}, codec_version.codec())
    driver.store.put(layout.listing(JOB), json.dumps(listing.as_json()).encode())
    found: Figures = {"chunks": chunks, "start_s": seconds(lambda: driver.scheduler.start(JOB))}
    found["first_s"] = seconds(lambda: driver.run(STAGES["compress"], DRIVEN_STEPS)) / DRIVEN_STEPS
    for number in range(DRIVEN_STEPS - 1, chunks - DRIVEN_STEPS):
        if not driver.store.exists(layout.part(JOB, number)):
            driver.link_part(number)
    driver.redis()
    driver.queue.steps.clear()
    with redis.Redis.from_url(url) as server:
        server.flushall()
    found["restore_s"] = seconds(driver.scheduler.reconcile)
    found["last_s"] = seconds(lambda: driver.run(STAGES["compress"])) / DRIVEN_STEPS
    found["poll_s"] = seconds(lambda: driver.tracker.progress.pace(JOB, Kind.COMPRESS))
    return found | driver.redis() | {"megabytes": peak_megabytes()}


def chunk_count(images: int) -> int:
    """How many chunks a listing of small files makes."""
    made = 0
    while images > 0:
        images -= math.ceil(chunking.most_images(made, len(DISTANCES)))
        made += 1
    return made


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
    begun = time.perf_counter()
    for _ in choose(pool, DISTANCES, Selection(order), budget):
        pass
    return {"seconds": time.perf_counter() - begun, "megabytes": peak_megabytes(), "arrays_megabytes": before}


def sizes(store: FolderStore) -> Figures:
    """Bytes of what the steps wrote, by kind, and the layout of the index."""
    folder = store.root / layout.work(JOB)
    found: Figures = {}
    for kind, pattern in PATTERNS.items():
        found[kind] = sum(path.stat().st_size for path in folder.glob(pattern))
    metadata = pq.read_metadata(store.root / layout.index(JOB))
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
