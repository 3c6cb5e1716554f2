"""The results of `benchmarks.accuracy`, as `benchmarks.accuracy_page` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepmore.spec.variants import Spread
from keepmore.training import results, statistics

SPREAD = Spread(0.5, 15)
FRACTIONS = ("0.1", "0.2", "0.5", "1")
EFFORTS = (3, 5, 7)
SEEDS = 5

Correct = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant of one budget: images (mean of the draws), their bytes, and which tests were right, by draw."""

    images: float
    bytes: float
    correct: Correct

    @property
    def summary(self) -> results.Summary:
        return statistics.summary(self.correct)

    @property
    def top1(self) -> float:
        return float(self.correct.mean())


Variants = dict[str, Measured]


def paired(variants: Variants, one: str, other: str) -> results.Difference:
    """How much more accurate a variant is than another, on the same draws' test images."""
    return statistics.compare(variants[one].correct, variants[other].correct)


def fixed(variants: Variants) -> Iterator[tuple[str, Measured]]:
    """The variants that have one distance each."""
    return ((variant, measured) for variant, measured in variants.items() if "-" not in variant)
