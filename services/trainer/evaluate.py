"""Accuracy from counts, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each class, how many test images there are and how many a model named right; both of shape (classes,)."""

    images: NDArray[np.int64]
    correct: NDArray[np.int64]

    @property
    def top1(self) -> float:
        return float(self.correct.sum() / self.images.sum())


def count(head: nn.Linear, vectors: Tensor, classes: Tensor) -> Counts:
    """What `head` makes of test images with features `vectors` (n, width) and true `classes` (n,)."""
    with torch.inference_mode():
        right = head(vectors).argmax(dim=1) == classes
    size = head.out_features
    images = torch.bincount(classes, minlength=size)
    correct = torch.bincount(classes[right], minlength=size)
    return Counts(images.numpy(), correct.numpy())


def wilson(share: float, images: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval for a share of `images` (Wilson 1927), within 0..1; 95 % unless `z` says otherwise."""
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return max(0.0, middle - half), min(1.0, middle + half)
