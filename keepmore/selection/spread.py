"""What a spread chooses: a level of its ladder for each image, so that all of the pool fills a budget. Pure.

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

HALVINGS = 200  # of the logarithm of the scale: far beyond what a float can tell apart


@dataclass(frozen=True, slots=True)
class Ladder:
    """A ladder as images see it: none goes to a level at which a truer one takes as few bytes.

    `sizes` (levels, images) are bytes as they were measured; `levels` (levels, images) says whose encoding an image
    has on each step, so that its bytes never grow along the ladder.
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
        rungs = self.rungs_at(steps)
        found: NDArray[np.integer[Any]] = np.take_along_axis(self.sizes, rungs[np.newaxis].astype(np.intp), 0)[0]
        return found.astype(np.int64)

    def least(self) -> NDArray[np.int64]:
        """Bytes of every image at the end of the ladder: its fewest."""
        return self.bytes_at(np.full(self.sizes.shape[1], len(self.sizes) - 1))

    def rungs_at(self, steps: NDArray[np.intp]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = np.take_along_axis(self.rungs, steps[np.newaxis], 0)[0]
        return found


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
    """Every image's level, so that all of the pool fills `budget` and never passes it.

    `sizes` (levels, images) are bytes at the levels of the spread's ladder. If not even the largest distance makes room
    for all, the longest prefix of `order` that fits is kept at it. Raises BudgetTooSmall.
    """
    steps = Ladder.of(sizes)
    images = np.arange(sizes.shape[1])
    ranks = sampling.ranks(path_hashes, _seed(seed))
    wish = _Wish(spread, ranks / 2.0**64)
    if budget is None:
        return Choice(images, steps.rungs_at(wish.steps(1.0)), 1.0)
    least = steps.least()
    if int(least.sum()) > budget or len(images) == 0:
        kept = sampling.select(least, order, budget)
        return Choice(kept, steps.rungs[-1][kept], spread.high / spread.low)
    scale = _scale(spread, steps, wish, budget)
    found = wish.steps(scale)
    _fill(steps, found, sampling.in_order(ranks), budget)
    return Choice(images, steps.rungs_at(found), scale)


def _seed(seed: int) -> int:
    """Ranks for levels that have nothing to do with those of the order."""
    return int.from_bytes(blake2b(f"spread {seed}".encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class _Wish:
    """The distance that each image wishes for at a scale; `shares` (images,), 0 to 1, says where in the spread."""

    spread: Spread
    shares: NDArray[np.float64]

    def steps(self, scale: float) -> NDArray[np.intp]:
        """The nearest place on the ladder, by ratio, of each image's wish."""
        low, high = self.spread.low, self.spread.high
        wished = np.clip(scale * (low + self.shares * (high - low)), low, high)
        ladder = np.array(self.spread.ladder)
        return np.searchsorted(np.sqrt(ladder[1:] * ladder[:-1]), wished, side="right")


def _scale(spread: Spread, steps: Ladder, wish: _Wish, budget: int) -> float:
    """The smallest scale at which all images fit; they do at the largest. Bisection, on the scale's logarithm."""
    ratio = spread.high / spread.low
    over, fits = math.log(1 / ratio), math.log(ratio)

    def total(scale: float) -> int:
        return int(steps.bytes_at(wish.steps(scale)).sum())

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


def _fill(steps: Ladder, found: NDArray[np.intp], order: NDArray[np.int64], budget: int) -> None:
    """Move images, in `order`, to their next truer level as long as that fits: changes `found`."""
    slack = budget - int(steps.bytes_at(found).sum())
    truer = _truer(steps, found)
    costs = steps.bytes_at(truer) - steps.bytes_at(found)
    rest = order[costs[order] > 0]
    while len(rest := rest[costs[rest] <= slack]):
        running = np.cumsum(costs[rest])
        moved = int(np.searchsorted(running, slack, side="right"))
        found[rest[:moved]] = truer[rest[:moved]]
        slack -= int(running[moved - 1])
        rest = rest[moved:]


def _truer(steps: Ladder, found: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each image the nearest lower step that takes more bytes; its own where there is none."""
    now = steps.rungs_at(found).astype(np.intp)  # the truest step of these bytes
    return np.maximum(now - 1, 0)
