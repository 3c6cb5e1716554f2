"""Peak memory of a worker on 12-megapixel photographs at effort 3, and of listing a million files.

`python -m benchmarks.memory`. Each figure is a process of its own; a bare process that does the same with Pillow and
with `Path.rglob` stands beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore import codec
from keepmore.compress import Compressor
from keepmore.datasets import Skipped, absolute_uri, list_images
from keepmore.index import POOL, Listed
from keepmore.isolation import IsolatedDecoder
from keepmore.request import Limits
from keepmore.sample.scene import picture
from keepmore.store import FolderStore

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


def worker(folder: Path) -> None:
    """What a worker does with a chunk."""
    rows = [Listed(POOL, entry) for entry in list_images(absolute_uri(str(folder)), Skipped())]
    with tempfile.TemporaryDirectory() as store, IsolatedDecoder() as decoder:
        compressor = Compressor(FolderStore(Path(store)), DISTANCES, EFFORT, Limits(), decoder)
        part = compressor.chunk(rows, lambda progress: None)
    assert len(part) == part["width"].to_pylist().count(LARGE[0]) == LARGE_IMAGES


def bare_worker(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        with Image.open(file) as image:
            image.load()
            for distance in DISTANCES:
                quality = codec.quality_for(codec.encoder_distance(distance))
                with tempfile.TemporaryFile() as out:
                    image.save(out, "JXL", quality=quality, effort=EFFORT, num_threads=0, lossless_jpeg=False)


def listing(folder: Path) -> None:
    count = sum(1 for _ in list_images(absolute_uri(str(folder)), Skipped()))
    assert count == FOLDERS * FILES


def bare_listing(folder: Path) -> None:
    assert len(sorted(path for path in folder.rglob("*") if path.is_file())) == FOLDERS * FILES


def make_tree(folder: Path) -> None:
    for name in range(FOLDERS):
        (folder / f"{name:04}").mkdir()
        for file in range(FILES):
            (folder / f"{name:04}" / f"a photograph {file:06}.jpg").touch()


WORK = {work.__name__: work for work in (worker, bare_worker, listing, bare_listing)}


def measure(name: str, folder: Path) -> None:
    before, begun = peak_megabytes(), time.perf_counter()
    WORK[name](folder)
    print(json.dumps({"before": before, "peak": peak_megabytes(), "seconds": time.perf_counter() - begun}))


def compare(title: str, folder: Path, ours: str, bare: str) -> None:
    found = {name: json.loads(in_new_process("benchmarks.memory", name, str(folder))) for name in (ours, bare)}
    least = found[bare]["peak"]
    rows = [
        [name, f"{f['peak']:.0f}", f"{f['before']:.0f}", f"{f['peak'] / least:.2f}", f"{f['seconds']:.1f}"]
        for name, f in found.items()
    ]
    show(title, ["process", "peak MB", "of these, imports", "against the bare process", "seconds"], rows)


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
