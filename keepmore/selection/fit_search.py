"""The search for the distance at which exactly n images fit a budget: which distance to try next. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from keepmore.spec.distance import LARGEST, SMALLEST

MOST_TRIALS = 12
# The factors by which a step exceeds the prediction of the curve after one and two trials on the same side of the
# budget. Later steps go from point to point of the curve, and the one after the last of them to the end of the range.
STRIDES = (1, 3)
OUTSIDE_TRIALS = 4
# If the distances of the first trials on both sides have this ratio or more, they say too little about the range
# between.
FAR_APART = math.e


@dataclass(frozen=True, slots=True)
class Trial:
    """The size of the first n images of an order at a distance, and of the next one, in bytes."""

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
        """The distance, and a size that equals the budget in the middle of the window that is searched for."""
        return self.distance, self.bytes + self.following / 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes of the images at ascending distances, estimated from a sample: the start of a search."""

    points: Sequence[tuple[float, float]]

    def at(self, budget: int) -> float:
        """The smallest distance at which the curve comes down to `budget`; the last one if it never does."""
        if self.points[0][1] <= budget:
            return self.points[0][0]
        for near, far in pairwise(self.points):
            if far[1] <= budget:
                return _between(near, far, budget)
        return self.points[-1][0]

    def bytes(self, distance: float) -> float:
        behind = bisect_left([point[0] for point in self.points], distance, 1, len(self.points) - 1)
        near, far = self.points[behind - 1], self.points[behind]
        share = math.log(distance / near[0]) / math.log(far[0] / near[0])
        return near[1] * math.pow(far[1] / near[1], share)

    def onwards(self, trial: Trial, larger: bool) -> list[tuple[float, float]]:
        """The trial's point and the curve's beyond it, scaled so that the curve leads through the trial."""
        distance, size = trial.point
        scale = size / self.bytes(distance)
        points = self.points if larger else self.points[::-1]
        return [(distance, size), *((d, scale * y) for d, y in points if (d > distance if larger else d < distance))]


def next_trial(curve: Curve, trials: Sequence[Trial], budget: int, digits: int) -> float | None:
    """The distance to try next, with `digits` significant digits: along the curve until there are trials on both sides
    of the budget, then between the nearest two. None: there is nothing left to try.
    """
    if not trials:
        return _rounded(curve.at(budget), digits)
    if len(trials) == MOST_TRIALS or any(trial.hits(budget) for trial in trials):
        return None
    near, far = _around(trials, budget)
    if near and far:
        return _inside(trials, budget, digits)
    return _outside(curve, trials, budget, digits)


def digits(images: int) -> int:
    """Significant digits of trial distances: enough for a difference of one image among all of them to be visible, four
    at least."""
    return min(7, max(4, math.ceil(math.log10(images)) + 2))


def _around(trials: Sequence[Trial], budget: int) -> tuple[Trial | None, Trial | None]:
    """The nearest trials on either side: the last that is over the budget before the first that fits, and that one."""
    far = min((trial for trial in trials if trial.fits(budget)), key=lambda trial: trial.distance, default=None)
    before = [trial for trial in trials if not trial.fits(budget) and (far is None or trial.distance < far.distance)]
    return max(before, key=lambda trial: trial.distance, default=None), far


def _outside(curve: Curve, trials: Sequence[Trial], budget: int, digits: int) -> float | None:
    """From the nearest trial to where the curve through it crosses the budget; further each time that this fails:
    constant sizes do not show how far their range reaches.
    """
    near, far = _around(trials, budget)
    nearest, end = (near, LARGEST) if near else (far, SMALLEST)
    if nearest is None or nearest.distance == end:
        return None
    ahead = curve.onwards(nearest, larger=end == LARGEST)
    beyond = next((i for i, point in enumerate(ahead) if (point[1] <= budget) != nearest.fits(budget)), None)
    failed = sum(trial.fits(budget) == nearest.fits(budget) for trial in trials)
    if beyond is None or failed > OUTSIDE_TRIALS:
        return end
    if failed > len(STRIDES):
        return ahead[min(beyond + failed - len(STRIDES), len(ahead)) - 1][0]
    step = math.log(_between(ahead[beyond - 1], ahead[beyond], budget) / nearest.distance)
    guess = _rounded(nearest.distance * math.exp(step * STRIDES[failed - 1]), digits)
    low, high = sorted((nearest.distance, ahead[beyond][0]))
    return guess if low < guess < high else ahead[beyond][0]


def _inside(trials: Sequence[Trial], budget: int, digits: int) -> float | None:
    """Between the nearest trials on either side, by interpolation as long as that brings them together."""
    pairs = [_around(trials[:count], budget) for count in range(1, len(trials) + 1)]
    brackets = [(near, far) for near, far in pairs if near and far]
    near, far = brackets[-1]
    middle = math.sqrt(near.distance * far.distance)
    for guess in (_interpolated(brackets, trials[-1], budget) or middle, middle):
        rounded = _rounded(guess, digits)
        if near.distance < rounded < far.distance:
            return rounded
    return None


def _interpolated(brackets: Sequence[tuple[Trial, Trial]], last: Trial, budget: int) -> float | None:
    """Where log bytes over log distance cross the budget: a secant at first, then a quadratic through the last trial,
    the one on the other side and the one that the last has replaced.

    None, for the middle, if the first two are FAR_APART, if two trials have not brought the sides together by half, or
    if the quadratic is not to be trusted: Chandrupatla, "A new hybrid quadratic/bisection algorithm for finding the
    zero of a nonlinear function without using derivatives", Advances in Engineering Software 28 (1997).
    """
    near, far = brackets[-1]
    if len(brackets) == 1:
        return _between(near.point, far.point, budget) if far.distance < FAR_APART * near.distance else None
    if len(brackets) > 2 and _width(brackets[-1]) > _width(brackets[-3]) / 2:
        return None
    other = far if last is near else near
    replaced = brackets[-2][0] if last is near else brackets[-2][1]
    (x1, y1), (x2, y2), (x3, y3) = (
        (math.log(trial.distance), math.log(trial.point[1] / budget)) for trial in (last, other, replaced)
    )
    place, height = (x1 - x2) / (x3 - x2), (y1 - y2) / (y3 - y2)
    if height**2 >= place or (1 - height) ** 2 >= 1 - place:
        return None
    crossing = x1 * y2 * y3 / ((y1 - y2) * (y1 - y3))
    crossing += x2 * y1 * y3 / ((y2 - y1) * (y2 - y3))
    crossing += x3 * y1 * y2 / ((y3 - y1) * (y3 - y2))
    return math.exp(crossing)


def _width(bracket: tuple[Trial, Trial]) -> float:
    return math.log(bracket[1].distance / bracket[0].distance)


def _between(near: tuple[float, float], far: tuple[float, float], budget: int) -> float:
    """Where the straight line through two points (distance, bytes), both logarithmic, crosses `budget`."""
    rise = math.log(far[1] / near[1])
    share = math.log(budget / near[1]) / rise if rise else 0.5
    return near[0] * math.exp(math.log(far[0] / near[0]) * min(max(share, 0.0), 1.0))


def _rounded(distance: float, digits: int) -> float:
    return float(f"{distance:.{digits}g}")
