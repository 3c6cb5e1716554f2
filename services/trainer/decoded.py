"""Images decoded once, at the size that training needs, on local disk, for every seed, epoch and process."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from keepmore.errors import StoreFull
from keepmore.progress import Progress, Report
from keepmore.scratch import Scratch
from keepmore.trainers import Images
from services.trainer.prepare import Preparation

PIXELS, ENCODED, TABLE = "pixels.u8", "encoded.bin", "table.npy"
AHEAD = 64
# Of an image at its size; guesses whether decoded images fit before they are made.
USUAL_ASPECT = 1.4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images in a folder. `table` (images, 4): where each begins, and its bytes; then its height and width, or 0 and 0
    for one that is there as a file, to be decoded again by whoever looks at it."""

    preparation: Preparation
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
        return self.preparation.decoded(self.encoded[start : start + size].tobytes())

    @property
    def undecoded(self) -> int:
        return int((self.table[:, 2] == 0).sum())


def batches(count: int, get: Callable[[int], Pixels], size: int, threads: ThreadPoolExecutor) -> Iterator[list[Pixels]]:
    """`get(0)`, `get(1)` ... in lists of `size`, made ahead in threads."""
    waiting: deque[Future[Pixels]] = deque()
    for start in range(0, count, size):
        for row in range(start + len(waiting), min(count, start + 2 * size)):
            waiting.append(threads.submit(get, row))
        yield [waiting.popleft().result() for _ in range(min(size, count - start))]


def folder_of(images: Images, preparation: Preparation) -> str:
    """The scratch entry that holds `images` as `preparation` wants them."""
    said = json.dumps([preparation.resize, preparation.interpolation])
    return f"decoded-{hashlib.sha256(images.names().tobytes() + said.encode()).hexdigest()[:24]}"


def found(images: Images, preparation: Preparation, scratch: Scratch) -> Decoded | None:
    """The images, if somebody decoded them before."""
    folder = scratch.found(folder_of(images, preparation))
    return opened(folder, preparation) if folder else None


def opened(folder: Path, preparation: Preparation) -> Decoded:
    table = np.load(folder / TABLE)
    return Decoded(preparation, _mapped(folder / PIXELS), _mapped(folder / ENCODED), table)


def _mapped(file: Path) -> NDArray[np.uint8]:
    return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)


def decode_all(images: Images, preparation: Preparation, scratch: Scratch, report: Report) -> tuple[Path, Decoded]:
    """The images' folder, which is made if it is not there yet, and the images in it.

    What does not fit the scratch disk decoded is kept there as it is.
    """
    name = folder_of(images, preparation)
    folder = scratch.found(name)
    if folder is None:
        folder = scratch.root / name
        made = scratch.root / f"{name}.{os.getpid()}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            with _space(scratch):
                _write(made, images, preparation, scratch, report)
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder, opened(folder, preparation)


@contextmanager
def _space(scratch: Scratch) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StoreFull(
            f"the scratch disk {scratch.root} is full; set KEEPMORE_SCRATCH to a larger one, then resume the job"
        ) from error


def _write(folder: Path, images: Images, preparation: Preparation, scratch: Scratch, report: Report) -> None:
    each = int(preparation.resize**2 * USUAL_ASPECT * 3)
    files = sum(images.table["bytes"].to_pylist())
    count = len(images)
    with scratch.holding(folder):
        while count and not scratch.make_room(count * each + files):
            count //= 2
    with (folder / PIXELS).open("wb") as pixels, (folder / ENCODED).open("wb") as encoded:
        rows = [*_decode(images, count, preparation, pixels, report), *_copy(images, count, encoded, report)]
    np.save(folder / TABLE, np.array(rows, np.int64).reshape(len(images), 4))


def _decode(
    images: Images, count: int, preparation: Preparation, file: BinaryIO, report: Report
) -> Iterator[Sequence[int]]:
    """The first `count` images into `file`."""
    for data, decoded in decoding(images, range(count), preparation):
        yield (file.tell(), decoded.nbytes, *decoded.shape[:2])
        file.write(np.ascontiguousarray(decoded).data)
        report(Progress(bytes_in=len(data)))


def _copy(images: Images, start: int, file: BinaryIO, report: Report) -> Iterator[Sequence[int]]:
    """The images from `start` on into `file`, as they are."""
    for row in range(start, len(images)):
        data = images.changed(images.read(row))
        yield (file.tell(), len(data), 0, 0)
        file.write(data)
        report(Progress(bytes_in=len(data)))


def decoding(images: Images, rows: Sequence[int], preparation: Preparation) -> Iterator[tuple[bytes, Pixels]]:
    """The bytes of the images in `rows` and their pixels, read in this thread and decoded ahead in others."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        waiting: deque[tuple[bytes, Future[Pixels]]] = deque()
        for row in rows:
            data = images.read(row)
            waiting.append((data, threads.submit(lambda data: preparation.decoded(images.changed(data)), data)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
