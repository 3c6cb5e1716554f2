"""Peak memory of a worker on 12-megapixel photographs at effort 3, and of listing a million files.

`python -m benchmarks.memory`. Each figure is a process of its own; a bare process that does the same with Pillow and
with `Path.rglob` stands beside it.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore.codec import jpegxl
from keepmore.config import RuntimeConfig
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import Skipped
from keepmore.datasets.listing import list_images
from keepmore.jobs.job import JobRepository
from keepmore.jobs.step import Kind, Step
from keepmore.scheduling.local_run import run_job
from keepmore.spec.job import Request
from keepmore.storage.folder import FolderStore
from keepmore.synthetic.scene import picture

DISTANCES = (2.0, 4.0, 6.0, 8.0, 10.0)
EFFORT = 3
LARGE = (4000, 3000)
LARGE_IMAGES = 4
FOLDERS, FILES = 1000, 1000


def draw_large(folder: Path) -> None:
    """Photograph-like JPEGs of 12 megapixels, with noise in every pixel."""
    rng = np.random.default_rng(0)
    for number in range(LARGE_IMAGES):
        image = picture(0, 0, number, number).resize(LARGE, Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (*LARGE[::-1], 3)).astype(np.float32)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


def worker(folder: Path) -> float:
    """The peak of the worker process of a job."""
    peaks = []
    with tempfile.TemporaryDirectory() as root:
        store = FolderStore(Path(root))
        job = JobRepository(store).create(Request(folder.as_uri(), DISTANCES, EFFORT))

        def note(step: Step) -> None:
            if step.kind is Kind.COMPRESS:
                peaks.append(max(peak_megabytes(child.pid) for child in mp.active_children()))

        run_job(job, RuntimeConfig(str(store.root)), store, 1, lambda step, progress: None, note)
    return peaks[-1]


def bare_worker(folder: Path) -> float:
    for file in sorted(folder.iterdir()):
        with Image.open(file) as image:
            image.load()
            for distance in DISTANCES:
                quality = jpegxl.quality_for(jpegxl.encoder_distance(distance))
                with tempfile.TemporaryFile() as out:
                    image.save(out, "JXL", quality=quality, effort=EFFORT, num_threads=0, lossless_jpeg=False)
    return peak_megabytes()


def listing(folder: Path) -> float:
    count = sum(1 for _ in list_images(absolute_uri(str(folder)), Skipped()))
    assert count == FOLDERS * FILES
    return peak_megabytes()


def bare_listing(folder: Path) -> float:
    assert len(sorted(path for path in folder.rglob("*") if path.is_file())) == FOLDERS * FILES
    return peak_megabytes()


def make_tree(folder: Path) -> None:
    for name in range(FOLDERS):
        (folder / f"{name:04}").mkdir()
        for file in range(FILES):
            (folder / f"{name:04}" / f"a photograph {file:06}.jpg").touch()


WORK = {work.__name__: work for work in (worker, bare_worker, listing, bare_listing)}


def measure(name: str, folder: Path) -> None:
    start_s = time.perf_counter()
    peak = WORK[name](folder)
    print(json.dumps({"peak": peak, "seconds": time.perf_counter() - start_s}))


def compare(title: str, folder: Path, ours: str, bare: str) -> None:
    figures = {name: json.loads(in_new_process("benchmarks.memory", name, str(folder))) for name in (ours, bare)}
    least = figures[bare]["peak"]
    rows = [
        [name, f"{f['peak']:.0f}", f"{f['peak'] / least:.2f}", f"{f['seconds']:.1f}"] for name, f in figures.items()
    ]
    show(title, ["process", "peak MB", "against the bare process", "seconds"], rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw_large(Path(folder))
        compare(
            f"{LARGE_IMAGES} JPEGs of 12 MP, effort {EFFORT}, five distances", Path(folder), "worker", "bare_worker"
        )
    with tempfile.TemporaryDirectory() as folder:
        make_tree(Path(folder))
        compare("Listing 10^6 files in 1,000 folders", Path(folder), "listing", "bare_listing")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
