"""The preparation of an image for a model: a resize, a crop, and channels centred on zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from keepmore.codec import jpegxl
from keepmore.spec.job import LARGEST_PIXELS

# A crop of the middle uses no more of a longer picture, and one of 1 x 60,000 pixels would become 256 x 15 million.
MOST_ASPECT = 4
# Random crops as in most published trainings: the ratio of the sides, and the number of tries to fit one in.
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10


@dataclass(frozen=True, slots=True)
class Transform:
    """`resize`: pixels of the shorter side before the middle `crop` x `crop` is cut out; `mean` and `std` by channel,
    for values from 0 to 1."""

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def at(self, crop: int | None) -> Transform:
        """The same for images of another size; None: as it is."""
        return self if crop is None else replace(self, crop=crop, resize=round(crop * self.resize / self.crop))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def resample(self) -> Image.Resampling:
        return Image.Resampling[self.interpolation.upper()]

    def decoded(self, data: bytes) -> NDArray[np.uint8]:
        """An image's pixels, (height, width, 3), its shorter side `resize` pixels long."""
        image = jpegxl.decode_rgb(data, LARGEST_PIXELS)
        image = _middle(image, MOST_ASPECT)
        short = min(image.size)
        size = [max(1, math.floor(side * self.resize / short)) if side != short else self.resize for side in image.size]
        return np.asarray(image.resize((size[0], size[1]), self.resample))

    def center_crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The middle of `decoded` pixels, (crop, crop, 3)."""
        height, width, _ = pixels.shape
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        return pixels[top : top + self.crop, left : left + self.crop]

    def cut(self, pixels: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
        """The part of `decoded` pixels inside `crop`, (crop, crop, 3)."""
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        part = np.asarray(Image.fromarray(pixels).resize((self.crop, self.crop), self.resample, box))
        return part[:, ::-1] if crop.flipped else part

    def tensor(self, images: Sequence[NDArray[np.uint8]], place: torch.device) -> Tensor:
        """A batch for the model, (n, 3, crop, crop), from n images of (crop, crop, 3)."""
        batch = torch.from_numpy(np.stack(images)).to(place, non_blocking=True).permute(0, 3, 1, 2)
        mean = torch.tensor(self.mean, device=place).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=place).view(1, 3, 1, 1) * 255
        return batch.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def _middle(image: Image.Image, aspect: int) -> Image.Image:
    width, height = image.size
    most = aspect * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image, in its pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool


def random_crop(height: int, width: int, smallest: float, draws: np.random.Generator) -> Crop:
    """A part of `smallest` to 1 of an image's area (Szegedy et al. 2015), mirrored half of the time."""
    flipped = bool(draws.random() < 0.5)
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    for _ in range(CROP_TRIES):
        area, ratio = height * width * draws.uniform(smallest, 1), math.exp(draws.uniform(low, high))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return Crop(int(draws.integers(height - h + 1)), int(draws.integers(width - w + 1)), h, w, flipped)
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, side, flipped)
