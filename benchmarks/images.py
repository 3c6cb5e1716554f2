"""Images for the benchmarks."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from keepmore.synthetic.dataset import write_sample


def draw_images(root: Path, side: int, images: int, processes: int) -> Path:
    """A folder of `images` drawn JPEGs of `side` pixels along the longer side."""
    write_sample(root / "drawn", train_per_class=images // 8, test_per_class=0, processes=processes)
    for file in (root / "drawn" / "train").rglob("*.jpg"):
        with Image.open(file) as image:
            factor = side / max(image.size)
            size = (round(image.width * factor), round(image.height * factor))
            image.resize(size, Image.Resampling.LANCZOS).save(file, quality=90)
    return root / "drawn" / "train"
