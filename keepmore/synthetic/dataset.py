"""Draw a labelled set of photograph-like JPEGs, so that the demonstration needs no download.

The class is in the shape, parts and colours of the thing that is drawn, all of which vary; nothing else tells it.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from keepmore.errors import InvalidRequest
from keepmore.synthetic.scene import picture
from keepmore.synthetic.shapes import CLASSES

SPLITS = ("train", "test")
JPEG_QUALITY = 85


def write_sample(
    root: Path,
    *,
    train_per_class: int = 240,
    test_per_class: int = 60,
    seed: int = 0,
    processes: int = 1,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Write root/train/<class>/<nnnn>.jpg and root/test/<class>/<nnnn>.jpg, the same for the same seed.

    `on_image` is called with (done, total) after each image. `root` appears when all of it is drawn. Raises
    InvalidRequest if it holds something already, so that nothing is mixed with or written over.
    """
    if root.exists() and any(root.iterdir()):
        raise InvalidRequest(f"{root} is not empty: name a new folder, or empty this one first")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
    try:
        _draw(unfinished, (train_per_class, test_per_class), seed, processes, on_image)
        unfinished.chmod(0o755)
        unfinished.replace(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _draw(
    root: Path, per_class: tuple[int, int], seed: int, processes: int, on_image: Callable[[int, int], None] | None
) -> None:
    numbers = [
        (split, kind, number)
        for split, count in enumerate(per_class)
        for kind in range(len(CLASSES))
        for number in range(count)
    ]
    for split in SPLITS:
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
    context = multiprocessing.get_context("spawn")  # a fork may copy the caller's locks, held
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        write = partial(_write_picture, root, seed)
        written = pool.map(write, numbers, chunksize=8) if processes > 1 else map(write, numbers)
        for done, _ in enumerate(written, start=1):
            if on_image:
                on_image(done, len(numbers))


def _write_picture(root: Path, seed: int, which: tuple[int, int, int]) -> None:
    split, kind, number = which
    path = root / SPLITS[split] / list(CLASSES)[kind] / f"{number:04}.jpg"
    picture(seed, split, kind, number).save(path, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
