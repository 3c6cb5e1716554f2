"""What a trained head makes of the test images, as counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


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
