"""The search for the distance at which so many images fit a budget and no more: which distance to try next. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from keepmore.spec.distance import LARGEST, SMALLEST

MOST_TRIALS = 14

Point = tuple[float, float]


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
    def point(self) -> Point:
        """The distance, and a size that equals the budget in the middle of the window that is searched for."""
        return self.distance, self.bytes + self.following / 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes of the images at ascending distances; straight lines between the logarithms of both."""

    points: Sequence[Point]

    def at(self, budget: int) -> float:
        """The smallest distance at which the curve comes down to `budget`; the last one if it never does."""
        if self.points[0][1] <= budget:
            return self.points[0][0]
        for near, far in pairwise(self.points):
            if far[1] <= budget:
                share = math.log(budget / near[1]) / math.log(far[1] / near[1])
                return near[0] * math.pow(far[0] / near[0], share)
        return self.points[-1][0]

    def bytes(self, distance: float) -> float:
        index = bisect_left([point[0] for point in self.points], distance, 1, len(self.points) - 1)
        near, far = self.points[index - 1], self.points[index]
        share = math.log(distance / near[0]) / math.log(far[0] / near[0])
        return near[1] * math.pow(far[1] / near[1], share)

    def through(self, trials: Sequence[Trial], low: float, high: float) -> Curve:
        """The curve from `low` to `high`, corrected so that it leads through one or two trials, by ascending distance.

        Between two trials the logarithm of the correction is a straight line; beyond a trial the correction is its own.
        """
        first, last = trials[0], trials[-1]
        corrections = [math.log(trial.point[1] / self.bytes(trial.distance)) for trial in (first, last)]
        span = math.log(last.distance / first.distance)

        def corrected(distance: float) -> Point:
            share = math.log(distance / first.distance) / span if span else 0.0
            share = min(max(share, 0.0), 1.0)
            return distance, self.bytes(distance) * math.exp(corrections[0] * (1 - share) + corrections[1] * share)

        inner = [distance for distance, _ in self.points if low < distance < high]
        return Curve([corrected(distance) for distance in (low, *inner, high)])


@dataclass(frozen=True, slots=True)
class _Bracket:
    """The nearest trials on either side of the budget, where there are any, and the distances that they leave."""

    nearest: list[Trial]
    low: float
    high: float

    @staticmethod
    def of(trials: Sequence[Trial], budget: int) -> _Bracket:
        """The smallest distance that fits, and before it the largest that does not: sizes need not fall everywhere."""
        far = min((trial for trial in trials if trial.fits(budget)), key=lambda trial: trial.distance, default=None)
        before = [
            trial for trial in trials if not trial.fits(budget) and (far is None or trial.distance < far.distance)
        ]
        near = max(before, key=lambda trial: trial.distance, default=None)
        low, high = near.distance if near else SMALLEST, far.distance if far else LARGEST
        return _Bracket([trial for trial in (near, far) if trial], low, high)

    @property
    def width(self) -> float:
        return math.log(self.high / self.low)


def next_trial(curve: Curve, trials: Sequence[Trial], budget: int, digits: int) -> float | None:
    """The distance to try next, of so many significant digits; None: there is nothing more to try.

    It is where the curve, corrected by the nearest trials, crosses the budget; or the middle of the distances that they
    leave, each time that the last trial has not halved these. So two trials halve them at least.
    """
    if not trials:
        return _rounded(curve.at(budget), digits)
    if len(trials) == MOST_TRIALS or any(trial.hits(budget) for trial in trials):
        return None
    bracket = _Bracket.of(trials, budget)
    crossing = curve.through(bracket.nearest, bracket.low, bracket.high).at(budget)
    middle = math.sqrt(bracket.low * bracket.high)
    halved = len(trials) == 1 or bracket.width <= _Bracket.of(trials[:-1], budget).width / 2
    known = {trial.distance for trial in trials}
    for guess in (*([crossing] if halved else []), middle, SMALLEST, LARGEST):
        distance = _rounded(guess, digits)
        if bracket.low <= distance <= bracket.high and distance not in known:
            return distance
    return None


def digits(images: int) -> int:
    """Significant digits of trial distances: enough to tell one of so many images from none, four at least."""
    return min(7, max(4, math.ceil(math.log10(images)) + 2))


def _rounded(distance: float, digits: int) -> float:
    return float(f"{distance:.{digits}g}")
