"""Draw a labelled set of photograph-like JPEGs, so that the demonstration needs no download.

Only the shape, parts and colours of the object that is drawn show its class, and all of them vary.
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

    `on_image` is called with (done, total) after each image. `root` appears when all images are drawn. Raises
    InvalidRequest if it is not empty, so that nothing is mixed with the images or overwritten.
    """
    if root.exists() and any(root.iterdir()):
        raise InvalidRequest(f"{root} is not empty; name a new folder, or empty this one first")
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
    pictures = [
        (split, kind, number)
        for split, count in enumerate(per_class)
        for kind in range(len(CLASSES))
        for number in range(count)
    ]
    for split in SPLITS:
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
    context = multiprocessing.get_context("spawn")  # a fork may copy locks while the caller holds them
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        write = partial(_write_picture, root, seed)
        writes = pool.map(write, pictures, chunksize=8) if processes > 1 else map(write, pictures)
        for done, _ in enumerate(writes, start=1):
            if on_image:
                on_image(done, len(pictures))


def _write_picture(root: Path, seed: int, which: tuple[int, int, int]) -> None:
    split, kind, number = which
    path = root / SPLITS[split] / list(CLASSES)[kind] / f"{number:04}.jpg"
    picture(seed, split, kind, number).save(path, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
