"""What a spread chooses: a level of its ladder for each image, so that the whole pool fills a budget. Pure.

After the randomised levels of Mentzer and Montanari, "Scaling Training Data with Lossy Image Compression" (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.spec.variants import Spread

HALVINGS = 200  # of the logarithm of the scale: far beyond the precision of a float


@dataclass(frozen=True, slots=True)
class Ladder:
    """The ladder of each image: no distance is used if a lower one takes as few bytes.

    `sizes` (levels, images) are measured bytes; `rungs` (levels, images) is the level whose encoding an image has on
    each step, so that its bytes never grow along the ladder.
    """

    sizes: NDArray[np.integer[Any]]
    rungs: NDArray[np.uint8]

    @staticmethod
    def of(sizes: NDArray[np.integer[Any]]) -> Ladder:
        rungs = np.zeros(sizes.shape, np.uint8)
        least = sizes[0].copy()
        for rung in range(1, len(sizes)):
            rungs[rung] = np.where(sizes[rung] < least, np.uint8(rung), rungs[rung - 1])
            np.minimum(least, sizes[rung], out=least)
        return Ladder(sizes, rungs)

    def bytes_at(self, steps: NDArray[np.intp]) -> NDArray[np.int64]:
        """Bytes of every image on its step, shape (images,)."""
        rungs = self.rungs_at(steps)[np.newaxis].astype(np.intp)
        sizes: NDArray[np.integer[Any]] = np.take_along_axis(self.sizes, rungs, 0)[0]
        return sizes.astype(np.int64)

    def least(self) -> NDArray[np.int64]:
        """Bytes of every image at the end of the ladder: its fewest."""
        return self.bytes_at(np.full(self.sizes.shape[1], len(self.sizes) - 1))

    def rungs_at(self, steps: NDArray[np.intp]) -> NDArray[np.uint8]:
        rungs: NDArray[np.uint8] = np.take_along_axis(self.rungs, steps[np.newaxis], 0)[0]
        return rungs


@dataclass(frozen=True, slots=True)
class Choice:
    """Places in the pool, shape (k,), and the ladder's level of each."""

    places: NDArray[np.int64]
    rungs: NDArray[np.uint8]
    scale: float


def choose(
    spread: Spread,
    sizes: NDArray[np.integer[Any]],
    path_hashes: NDArray[np.uint64],
    seed: int,
    order: NDArray[np.int64],
    budget: int | None,
) -> Choice:
    """Every image's level, so that the whole pool fills `budget` and never exceeds it.

    `sizes` (levels, images) are bytes at the levels of the spread's ladder. If the pool does not fit even at the
    largest distance, the longest prefix of `order` that fits is kept at it. Raises BudgetTooSmall.
    """
    ladder = Ladder.of(sizes)
    images = np.arange(sizes.shape[1])
    # Ranks of their own: an image's level is independent of its place in the order.
    ranks_seed = int.from_bytes(blake2b(f"spread {seed}".encode(), digest_size=8).digest(), "little")
    ranks = sampling.ranks(path_hashes, ranks_seed)
    targets = _Targets(spread, ranks / 2.0**64)
    if budget is None:
        return Choice(images, ladder.rungs_at(targets.steps(1.0)), 1.0)
    least = ladder.least()
    if int(least.sum()) > budget or len(images) == 0:
        prefix = sampling.select(least, order, budget)
        return Choice(prefix, ladder.rungs[-1][prefix], spread.high / spread.low)
    scale = _scale(spread, ladder, targets, budget)
    steps = targets.steps(scale)
    _fill(ladder, steps, sampling.in_order(ranks), budget)
    return Choice(images, ladder.rungs_at(steps), scale)


@dataclass(frozen=True, slots=True)
class _Targets:
    """The distance that each image should have at a scale; `shares` (images,), 0 to 1, is its place in the spread."""

    spread: Spread
    shares: NDArray[np.float64]

    def steps(self, scale: float) -> NDArray[np.intp]:
        """The step of the ladder that is nearest, by ratio, to each image's target."""
        low, high = self.spread.low, self.spread.high
        distances = np.clip(scale * (low + self.shares * (high - low)), low, high)
        ladder = np.array(self.spread.ladder)
        return np.searchsorted(np.sqrt(ladder[1:] * ladder[:-1]), distances, side="right")


def _scale(spread: Spread, ladder: Ladder, targets: _Targets, budget: int) -> float:
    """The smallest scale at which all images fit; they do at the largest. Bisection, on the scale's logarithm."""
    ratio = spread.high / spread.low
    over, fits = math.log(1 / ratio), math.log(ratio)

    def total(scale: float) -> int:
        return int(ladder.bytes_at(targets.steps(scale)).sum())

    if total(math.exp(over)) <= budget:
        return math.exp(over)
    for _ in range(HALVINGS):
        middle = (over + fits) / 2
        if middle in (over, fits):
            break
        if total(math.exp(middle)) <= budget:
            fits = middle
        else:
            over = middle
    return math.exp(fits)


def _fill(ladder: Ladder, steps: NDArray[np.intp], order: NDArray[np.int64], budget: int) -> None:
    """Move images, in `order`, to their next lower distance for as long as that fits: changes `steps`."""
    slack = budget - int(ladder.bytes_at(steps).sum())
    # Each image's nearest lower step that takes more bytes; its own where there is none.
    lower = np.maximum(ladder.rungs_at(steps).astype(np.intp) - 1, 0)
    costs = ladder.bytes_at(lower) - ladder.bytes_at(steps)
    rest = order[costs[order] > 0]
    while len(rest := rest[costs[rest] <= slack]):
        running = np.cumsum(costs[rest])
        moved = int(np.searchsorted(running, slack, side="right"))
        steps[rest[:moved]] = lower[rest[:moved]]
        slack -= int(running[moved - 1])
        rest = rest[moved:]
