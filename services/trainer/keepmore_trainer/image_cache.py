"""Images decoded once, at the size that training needs, on local disk, for every seed, epoch and process."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from keepmore.progress import Progress, Report
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import Images
from keepmore_trainer.transforms import Transform

PIXELS, ENCODED, TABLE = "pixels.u8", "encoded.bin", "table.npy"
AHEAD = 64
# The ratio of an image's sides; before images are decoded, it serves to estimate whether they will fit.
USUAL_ASPECT = 1.4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images in a folder. `table` (images, 4): the offset of each, and its bytes; then its height and width, or 0 and 0
    for one that is there as a file and decoded again at each access."""

    transform: Transform
    pixels: NDArray[np.uint8]
    encoded: NDArray[np.uint8]
    table: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Pixels:
        """An image, (height, width, 3)."""
        start, size, height, width = self.table[row].tolist()
        if height:
            return self.pixels[start : start + size].reshape(height, width, 3)
        return self.transform.decoded(self.encoded[start : start + size].tobytes())

    @property
    def undecoded(self) -> int:
        return int((self.table[:, 2] == 0).sum())


def batches(count: int, get: Callable[[int], Pixels], size: int, threads: ThreadPoolExecutor) -> Iterator[list[Pixels]]:
    """`get(0)`, `get(1)` ... in lists of `size`, computed ahead in threads."""
    waiting: deque[Future[Pixels]] = deque()
    for start in range(0, count, size):
        for row in range(start + len(waiting), min(count, start + 2 * size)):
            waiting.append(threads.submit(get, row))
        yield [waiting.popleft().result() for _ in range(min(size, count - start))]


def folder_of(images: Images, transform: Transform) -> str:
    """The scratch entry of `images` as decoded for `transform`."""
    settings = json.dumps([transform.resize, transform.interpolation])
    return f"decoded-{hashlib.sha256(images.names().tobytes() + settings.encode()).hexdigest()[:24]}"


def find(images: Images, transform: Transform, scratch: Scratch) -> Decoded | None:
    """The images, if they are decoded already."""
    with scratch.existing(folder_of(images, transform)) as folder:
        return open_folder(folder, transform) if folder else None


def open_folder(folder: Path, transform: Transform) -> Decoded:
    """The images in a folder, which may be removed as soon as they are open."""
    table = np.load(folder / TABLE)
    return Decoded(transform, _mapped(folder / PIXELS), _mapped(folder / ENCODED), table)


def _mapped(file: Path) -> NDArray[np.uint8]:
    return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)


@contextmanager
def decode_all(
    images: Images, transform: Transform, scratch: Scratch, report: Report
) -> Iterator[tuple[Path, Decoded]]:
    """The images' folder, which is created if needed and kept within the block, and the images.

    Images that do not fit the scratch disk decoded are copied there as files, until there is more room:
    they are copied even where that goes beyond its limit, because every process of a fine-tuning reads them from there.
    """
    name = folder_of(images, transform)
    cached = find(images, transform, scratch)
    if cached and cached.undecoded and scratch.has_room(_bytes(images, len(images), transform)):
        scratch.remove(name)
    with scratch.entry(name, lambda folder: _write(folder, images, transform, scratch, report)) as folder:
        yield folder, open_folder(folder, transform)


def _bytes(images: Images, count: int, transform: Transform) -> int:
    """About how many bytes `images` take, with `count` of them decoded."""
    files: int = sum(images.table["bytes"].to_pylist())
    return count * int(transform.resize**2 * USUAL_ASPECT * 3) + files


def _write(folder: Path, images: Images, transform: Transform, scratch: Scratch, report: Report) -> None:
    count = len(images)
    while not scratch.make_room(_bytes(images, count, transform), folder) and count:
        count //= 2
    with (folder / PIXELS).open("wb") as pixels, (folder / ENCODED).open("wb") as encoded:
        rows = [*_decode(images, count, transform, pixels, report), *_copy(images, count, encoded, report)]
    np.save(folder / TABLE, np.array(rows, np.int64).reshape(len(images), 4))


def _decode(
    images: Images, count: int, transform: Transform, file: BinaryIO, report: Report
) -> Iterator[Sequence[int]]:
    """The first `count` images into `file`."""
    for data, decoded in decode_rows(images, range(count), transform):
        yield (file.tell(), decoded.nbytes, *decoded.shape[:2])
        file.write(np.ascontiguousarray(decoded).data)
        report(Progress(bytes_in=len(data)))


def _copy(images: Images, start: int, file: BinaryIO, report: Report) -> Iterator[Sequence[int]]:
    """The images from `start` on into `file`, undecoded."""
    for row in range(start, len(images)):
        data = images.changed(images.read(row))
        yield (file.tell(), len(data), 0, 0)
        file.write(data)
        report(Progress(bytes_in=len(data)))


def decode_rows(images: Images, rows: Sequence[int], transform: Transform) -> Iterator[tuple[bytes, Pixels]]:
    """The bytes of the images in `rows` and their pixels, read in this thread and decoded ahead in others."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        waiting: deque[tuple[bytes, Future[Pixels]]] = deque()
        for row in rows:
            data = images.read(row)
            waiting.append((data, threads.submit(lambda data: transform.decoded(images.changed(data)), data)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
