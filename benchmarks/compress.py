"""Images per second of the compress stage, against a bare loop over Pillow and against `xargs -P2 cjxl`.

All three encode the same JPEGs with two processes at effort 3 and distances 2, 4, 6, 8 and 10 (just below 10, see
`keepmore.codec.jpegxl.CLIFF`) and write the files to disk, in turn, several times; the table gives medians and the
ratios of each round. `python -m benchmarks.compress [DATASET]`; without a dataset it draws one.
"""

from __future__ import annotations

import multiprocessing as mp
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.table import ratios, show
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
from keepmore.synthetic.dataset import write_sample

DISTANCES = (2.0, 4.0, 6.0, 8.0, 10.0)
EFFORT = 3
IMAGES = 480
ROUNDS = 3
PROCESSES = 2
WAYS = ("keepmore run, compress stage", "bare loop: decode + Image.save", "xargs -P2 cjxl")


def ours(dataset: Path, work: Path) -> float:
    """Seconds from the end of the listing to the end of the last compress step."""
    store = FolderStore(work / "store")
    job = JobRepository(store).create(Request(dataset.as_uri(), DISTANCES, EFFORT))
    ends: dict[Kind, float] = {}

    def note(step: Step) -> None:
        ends[step.kind] = time.perf_counter()

    run_job(job, RuntimeConfig(str(store.root)), store, PROCESSES, lambda step, progress: None, note)
    return ends[Kind.COMPRESS] - ends[Kind.LIST]


def bare(files: list[Path], work: Path) -> float:
    """Seconds of two processes that decode and call `Image.save`, without starting them."""
    with mp.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(_warm, range(PROCESSES * 4))
        start_s = time.perf_counter()
        for _ in pool.imap_unordered(_save, [(file, work) for file in files], chunksize=4):
            pass
        return time.perf_counter() - start_s


def _warm(number: int) -> None:
    time.sleep(0.05)


def _save(file_and_folder: tuple[Path, Path]) -> None:
    file, work = file_and_folder
    with Image.open(file) as image:
        image.load()
        for distance in DISTANCES:
            quality = jpegxl.quality_for(jpegxl.encoder_distance(distance))
            out = work / f"{file.parent.name}-{file.stem}-{distance}.jxl"
            image.save(out, "JXL", quality=quality, effort=EFFORT, num_threads=0, lossless_jpeg=False, exif=b"")


def cjxl(files: list[Path], work: Path) -> float:
    """Seconds of `xargs -P2 cjxl`, one call per image and distance."""
    lines = [
        f"{file}\n{work}/{file.parent.name}-{file.stem}-{d}.jxl\n-d\n{jpegxl.encoder_distance(d):.6f}"
        for file in files
        for d in DISTANCES
    ]
    options = ["-e", str(EFFORT), "--lossless_jpeg=0", "--num_threads=0", "--quiet"]
    command = ["xargs", "-d", "\n", "-P", str(PROCESSES), "-n", "4", "cjxl", *options]
    start_s = time.perf_counter()
    subprocess.run(command, input="\n".join(lines), text=True, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def main(dataset: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if dataset is None:
            write_sample(root / "drawn", train_per_class=IMAGES // 8, test_per_class=0, processes=PROCESSES)
            dataset = root / "drawn" / "train"
        images = _first(dataset, root / "images")
        files = sorted(images.rglob("*.jp*g"))
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(ROUNDS):
            for name, own in seconds.items():
                work = root / f"{number}-{name.split()[0]}"
                work.mkdir()
                own.append(_timed(name, images, files, work))
                shutil.rmtree(work)
                print(f"round {number + 1}: {name}: {len(files) / own[-1]:.1f} images/s", file=sys.stderr)
        _show(seconds, len(files))


def _timed(name: str, dataset: Path, files: list[Path], work: Path) -> float:
    if name.startswith("keepmore"):
        return ours(dataset, work)
    if name.startswith("bare"):
        return bare(files, work)
    return cjxl(files, work) if shutil.which("cjxl") else float("nan")


def _first(dataset: Path, copy: Path) -> Path:
    """A copy of the dataset's first images, so that all three read the same files."""
    entries = list(list_images(absolute_uri(str(dataset)), Skipped()))
    for entry in entries[:: max(1, len(entries) // IMAGES)][:IMAGES]:
        (copy / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset / entry.path, copy / entry.path)
    return copy


def _show(seconds: dict[str, list[float]], images: int) -> None:
    names = list(seconds)
    rows = []
    for name, own in seconds.items():
        rows.append([name, f"{images / statistics.median(own):.1f}", ratios(own, seconds[names[0]])])
    show(
        f"{images} JPEGs, effort {EFFORT}, distances 2, 4, 6, 8, 10, {PROCESSES} processes, {ROUNDS} rounds",
        ["way", "images/s", "keepmore's speed, as a multiple"],
        rows,
    )
    if any(value != value for value in seconds[names[2]]):
        print("cjxl is not installed: apt-get install libjxl-tools")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
