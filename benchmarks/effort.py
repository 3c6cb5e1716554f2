"""Images per second that one core compresses, and bytes per image, by effort and distance: the basis of sizing.

`python -m benchmarks.effort [IMAGES]`. One process takes drawn JPEGs as a compress step does, without store and
network: it decodes an image once, then encodes it for each distance. The whole compress step, with a folder as its
store, is measured beside it. CPU time counts, so that other processes disturb little; the efforts take turns image by
image, so that a disturbance affects all alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.images import draw_images
from benchmarks.table import show
from keepmore.codec import jpegxl, malloc
from keepmore.codec.jpegxl import Pixels
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.compressor import Compressor, encodings
from keepmore.compression.index import POOL, ChunkRow
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import Skipped
from keepmore.datasets.listing import list_images
from keepmore.spec.job import LARGEST_PIXELS, Limits
from keepmore.storage.folder import FolderStore

SIDES = (512, 1024)
EFFORTS = (1, 3, 5, 7)
DISTANCES = (1.0, 4.0, 10.0)
USUAL = 3
IMAGES = 64


@dataclass(slots=True)
class Spent:
    """CPU seconds and bytes of all images at one effort, by distance."""

    images: int = 0
    decode_s: float = 0.0
    encode_s: dict[float, float] = field(default_factory=lambda: dict.fromkeys(DISTANCES, 0.0))
    size: dict[float, int] = field(default_factory=lambda: dict.fromkeys(DISTANCES, 0))

    def add(self, source: bytes, effort: int) -> None:
        start_s = time.process_time()
        pixels = Pixels.of(jpegxl.decode(source, LARGEST_PIXELS))
        malloc.suit_image(pixels.width * pixels.height)
        self.decode_s += time.process_time() - start_s
        for distance in DISTANCES:
            start_s = time.process_time()
            ((_, stored),) = encodings(pixels, source, (distance,), effort)
            self.encode_s[distance] += time.process_time() - start_s
            self.size[distance] += len(stored.data)
        self.images += 1

    def rate(self, *distances: float) -> float:
        """Images per second of a job with these distances."""
        return self.images / (self.decode_s + sum(self.encode_s[distance] for distance in distances))

    def mean_bytes(self, *distances: float) -> float:
        return sum(self.size[distance] for distance in distances) / self.images


def measure(files: list[Path]) -> dict[int, Spent]:
    """The cost of each effort for `files`, after one image that does not count."""
    by_effort = {effort: Spent() for effort in EFFORTS}
    for effort in EFFORTS:
        Spent().add(files[0].read_bytes(), effort)
    for file in files:
        source = file.read_bytes()
        for effort, spent in by_effort.items():
            spent.add(source, effort)
    return by_effort


def rows(side: int, by_effort: dict[int, Spent]) -> Iterator[list[str]]:
    usual = by_effort[USUAL]
    for distances in (*((distance,) for distance in DISTANCES), DISTANCES):
        for effort, spent in by_effort.items():
            rate, size = spent.rate(*distances), spent.mean_bytes(*distances)
            yield [
                f"{side:,}",
                _join(distances),
                str(effort),
                f"{1000 / rate:.1f}",
                f"{rate:.1f}",
                f"{rate / usual.rate(*distances):.2f}",
                f"{size:,.0f}",
                f"{size / usual.mean_bytes(*distances):.2f}",
            ]


def step_s(dataset: Path, distances: tuple[float, ...]) -> float:
    """CPU seconds of a compress step over all images of `dataset`, those of its threads included."""
    chunk = [ChunkRow(POOL, entry) for entry in list_images(absolute_uri(str(dataset)), Skipped())]
    with tempfile.TemporaryDirectory() as folder, IsolatedDecoder() as decoder:
        compressor = Compressor(FolderStore(Path(folder)), distances, USUAL, Limits(), decoder)
        start_s = time.process_time()
        compressor.chunk(chunk, lambda progress: None)
        return time.process_time() - start_s


def main(images: int) -> None:
    malloc.return_large_blocks()
    columns = "pixels|distance|effort|CPU ms per image|images/s per core|of effort 3|bytes per image|of effort 3"
    steps = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            dataset = draw_images(Path(folder), side, images, processes=1)
            files = sorted(dataset.rglob("*.jpg"))
            by_effort = measure(files)
            source = sum(file.stat().st_size for file in files) / len(files)
            for distances in ((DISTANCES[-1],), DISTANCES):
                rate = len(files) / step_s(dataset, distances)
                ratio = f"{rate / by_effort[USUAL].rate(*distances):.2f}"
                steps.append([f"{side:,}", _join(distances), f"{1000 / rate:.1f}", f"{rate:.1f}", ratio])
        decode_ms = 1000 * sum(spent.decode_s for spent in by_effort.values()) / (len(files) * len(EFFORTS))
        title = f"{len(files)} drawn JPEGs of {side:,} pixels, {source:,.0f} bytes each; decoding: {decode_ms:.1f} ms"
        show(title, columns.split("|"), list(rows(side, by_effort)))
    head = ["pixels", "distance", "CPU ms per image", "images/s per core", "of decoding and encoding alone"]
    show(f"The whole compress step at effort {USUAL}, its store a folder", head, steps)


def _join(distances: tuple[float, ...]) -> str:
    return ", ".join(f"{distance:g}" for distance in distances)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else IMAGES)
