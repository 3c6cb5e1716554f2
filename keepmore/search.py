"""The search for the distance at which so many images fit a budget and no more: which distance to try next. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from keepmore.distance import LARGEST, SMALLEST

MOST_TRIALS = 12
# A search that has not found both sides of the budget by then tries the end of the range.
OUTSIDE_TRIALS = 3
# And one that has, but whose secant does not come to the window, halves from then on.
HALVE_FROM = 6
SLIGHTEST_SLOPE = -0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """What the first n images of an order take at a distance, and what the next one takes, in bytes."""

    distance: float
    bytes: int
    following: float

    def fits(self, budget: int) -> bool:
        return self.bytes <= budget

    def hits(self, budget: int) -> bool:
        """Whether n images fit and no more."""
        return self.bytes <= budget < self.bytes + self.following

    @property
    def point(self) -> tuple[float, float]:
        """The distance, and what comes to the budget in the middle of the window that is looked for."""
        return self.distance, self.bytes + self.following / 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes of the images at ascending distances, as a sample of them tells: where a search begins."""

    points: Sequence[tuple[float, float]]

    def at(self, budget: int) -> float:
        """The smallest distance at which the curve comes down to `budget`; the last one if it never does."""
        if self.points[0][1] <= budget:
            return self.points[0][0]
        for near, far in pairwise(self.points):
            if far[1] <= budget:
                return _between(near, far, budget)
        return self.points[-1][0]

    def slope(self, distance: float) -> float:
        """Of log bytes over log distance, about `distance`; always falling."""
        place = bisect_left([point[0] for point in self.points], distance)
        behind = min(max(place, 1), len(self.points) - 1)
        near, far = self.points[behind - 1], self.points[behind]
        return min(math.log(far[1] / near[1]) / math.log(far[0] / near[0]), SLIGHTEST_SLOPE)


def next_trial(curve: Curve, tried: Sequence[Trial], budget: int, digits: int) -> float | None:
    """The distance to try next, of so many significant digits: a secant on log bytes over log distance, kept between
    the nearest trials on either side of the budget. None: there is nothing more to try.
    """
    if not tried:
        return _rounded(curve.at(budget), digits)
    if len(tried) == MOST_TRIALS or any(trial.hits(budget) for trial in tried):
        return None
    far = min((trial for trial in tried if trial.fits(budget)), key=lambda trial: trial.distance, default=None)
    before = [trial for trial in tried if not trial.fits(budget) and (far is None or trial.distance < far.distance)]
    near = max(before, key=lambda trial: trial.distance, default=None)
    if near and far:
        return _inside(near, far, budget, digits, halve=len(tried) > HALVE_FROM)
    return _outside(curve, near or far, budget, digits, LARGEST if near else SMALLEST, len(tried))


def digits(images: int) -> int:
    """Significant digits of trial distances: enough to tell one of so many images from none, four at least."""
    return min(7, max(4, math.ceil(math.log10(images)) + 2))


def _inside(near: Trial, far: Trial, budget: int, digits: int, halve: bool) -> float | None:
    middle = math.sqrt(near.distance * far.distance)
    for guess in (middle if halve else _between(near.point, far.point, budget), middle):
        rounded = _rounded(guess, digits)
        if near.distance < rounded < far.distance:
            return rounded
    return None


def _outside(curve: Curve, nearest: Trial | None, budget: int, digits: int, end: float, tried: int) -> float | None:
    """Behind the nearest trial towards `end`, as steep as the curve; the end itself once that has failed twice."""
    if nearest is None or nearest.distance == end:
        return None
    distance, size = nearest.point
    guess = distance * math.exp(math.log(budget / size) / curve.slope(distance))
    rounded = _rounded(min(max(guess, SMALLEST), LARGEST), digits)
    beyond = rounded > distance if end > distance else rounded < distance
    return rounded if beyond and tried < OUTSIDE_TRIALS else end


def _between(near: tuple[float, float], far: tuple[float, float], budget: int) -> float:
    """Where the straight line through two points (distance, bytes), both logarithmic, crosses `budget`."""
    rise = math.log(far[1] / near[1])
    share = math.log(budget / near[1]) / rise if rise else 0.5
    return near[0] * math.exp(math.log(far[0] / near[0]) * min(max(share, 0.0), 1.0))


def _rounded(distance: float, digits: int) -> float:
    return float(f"{distance:.{digits}g}")
