"""Levels: members of a job's distances that are no numbers, and what they choose. Pure: arrays in, arrays out.

`Spread` gives each image of the pool a distance of its own, `Fit` is the distance at which so many images fill the
budget. Together with the fixed distances they are the *arms* of a job: each has a name, a manifest and a training.

The spread follows the randomised levels of Mentzer and Montanari, "Scaling Training Data with Lossy Image Compression"
(KDD 2024).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepmore import budget as budgets
from keepmore import distance as distances
from keepmore.distance import LARGEST, ORIGINAL, SMALLEST, text
from keepmore.errors import DistanceOutOfRange, DuplicateDistance, InvalidRequest, UnknownField, WrongType

STEPS = 16
LEVEL_DIGITS = 3
MOST_IMAGES = 10**9
HALVINGS = 200  # of the logarithm of the scale: far beyond what a float can tell apart
MOST_TRIALS = 12
# A search that has not found both sides of the budget by then tries the end of the range.
OUTSIDE_TRIALS = 3
# And one that has, but whose secant does not come to the window, halves from then on.
HALVE_FROM = 6
SLIGHTEST_SLOPE = -0.1
FORMS = "a number, spread:LOW-HIGH such as spread:0.5-15, or fit:IMAGES such as fit:2000"
JSON_FORMS = 'a number, {"spread": [low, high]} or {"fit": images}'

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SPREAD = re.compile(rf"spread[:-]({_NUMBER})-({_NUMBER})")
_FIT = re.compile(r"fit[:-]([0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Spread:
    """Every image has a distance of its own between `low` and `high`, scaled so that the subset fills the budget."""

    low: float
    high: float

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if not (math.isfinite(end) and SMALLEST <= end <= LARGEST):
                raise DistanceOutOfRange(
                    f"distances: a spread from {text(self.low)} to {text(self.high)} is not possible; "
                    f"both ends are {SMALLEST} to {LARGEST:g}"
                )
        if self.low >= self.high:
            raise InvalidRequest(
                f"distances: a spread from {text(self.low)} to {text(self.high)} is empty; give the smaller one first"
            )

    @property
    def name(self) -> str:
        return f"spread-{text(self.low)}-{text(self.high)}"

    @property
    def written(self) -> str:
        """As on the command line."""
        return f"spread:{text(self.low)}-{text(self.high)}"

    def as_json(self) -> dict[str, Any]:
        return {"spread": [self.low, self.high]}

    @property
    def ladder(self) -> tuple[float, ...]:
        """The distances that an image may get, ascending: both ends, and between them equal ratios."""
        inner = np.geomspace(self.low, self.high, STEPS)[1:-1].tolist()
        rounded = (float(f"{value:.{LEVEL_DIGITS}g}") for value in inner)
        return tuple(sorted({self.low, *(value for value in rounded if self.low < value < self.high), self.high}))


@dataclass(frozen=True, slots=True)
class Fit:
    """The distance at which the budget holds exactly so many images."""

    images: int

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_IMAGES:
            raise InvalidRequest(f"distances: fit:{self.images} is not possible; use 1 to {MOST_IMAGES:,} images")

    @property
    def name(self) -> str:
        return f"fit-{self.images}"

    @property
    def written(self) -> str:
        return f"fit:{self.images}"

    def as_json(self) -> dict[str, Any]:
        return {"fit": self.images}


Level = Spread | Fit


def check(levels: Sequence[Level]) -> tuple[Level, ...]:
    """The levels in one order, however they were asked for; raises DuplicateDistance for a repeat."""
    for level in levels:
        if levels.count(level) > 1:
            raise DuplicateDistance(f"distances: {level.written} is named more than once; name it once")
    spreads = sorted((level for level in levels if isinstance(level, Spread)), key=lambda one: (one.low, one.high))
    return (*spreads, *sorted((level for level in levels if isinstance(level, Fit)), key=lambda one: one.images))


def from_json(value: Any) -> tuple[tuple[float, ...], tuple[Level, ...]]:
    """Fixed distances and levels of a job's `distances`: a list of them, or one level alone."""
    members = [value] if isinstance(value, dict) else value
    if not isinstance(members, list | tuple):
        raise WrongType(f"distances: {str(value)[:40]!r} is no list; give a list whose members are {JSON_FORMS}")
    fixed: list[float] = []
    levels: list[Level] = []
    for place, member in enumerate(members):
        if isinstance(member, dict):
            levels.append(_level(member))
        elif _is_number(member):
            fixed.append(_float(member))
        else:
            raise WrongType(f"distances[{place}]: {str(member)[:40]!r} is no distance; give {JSON_FORMS}")
    return checked(fixed, levels)


def checked(fixed: Sequence[float], levels: Sequence[Level]) -> tuple[tuple[float, ...], tuple[Level, ...]]:
    """Both in order; raises InvalidRequest where there is neither, and for what is out of range or named twice."""
    return (distances.check(fixed) if fixed or not levels else ()), check(levels)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: float) -> float:
    """Integers of any length come in JSON."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _level(value: dict[str, Any]) -> Level:
    if set(value) == {"spread"}:
        ends = value["spread"]
        if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(map(_is_number, ends)):
            raise WrongType(f"distances: spread {str(ends)[:40]!r} is no pair of numbers; give [low, high]")
        return Spread(_float(ends[0]), _float(ends[1]))
    if set(value) == {"fit"}:
        images = value["fit"]
        if isinstance(images, bool) or not isinstance(images, int):
            raise WrongType(f"distances: fit {str(images)[:40]!r} is no number of images; give a whole number")
        return Fit(images)
    unknown = sorted(str(name)[:20] for name in set(value) - {"spread", "fit"})
    if unknown:
        raise UnknownField(f"distances.{unknown[0]}: there is no such field; give {JSON_FORMS}")
    raise InvalidRequest(f"distances: {str(value)[:40]} is no level; give {JSON_FORMS}")


def fixed_only(fixed: tuple[float, ...], levels: tuple[Level, ...]) -> tuple[float, ...]:
    """The fixed distances, where there is nothing else; raises InvalidRequest."""
    if levels:
        raise InvalidRequest(
            f"distances: {levels[0].written} cannot be estimated from a sample; estimates take numbers alone"
        )
    return fixed


def as_json(fixed: Sequence[float], levels: Sequence[Level]) -> list[Any]:
    return [*fixed, *(level.as_json() for level in levels)]


def parse(written: str) -> tuple[tuple[float, ...], tuple[Level, ...]]:
    """Fixed distances and levels from the command line's form, such as "0,8,spread:0.5-15,fit:2000"."""
    fixed: list[float] = []
    levels: list[Level] = []
    for part in filter(None, (part.strip() for part in written.split(","))):
        level = _parsed(part) if ":" in part else None
        if level:
            levels.append(level)
            continue
        try:
            fixed.append(float(part))
        except ValueError:
            raise InvalidRequest(f"distances: {part!r} is no distance; give {FORMS}") from None
    return checked(fixed, levels)


def _parsed(written: str) -> Level | None:
    if found := _SPREAD.fullmatch(written):
        return Spread(float(found[1]), float(found[2]))
    if found := _FIT.fullmatch(written):
        return Fit(int(found[1]))
    return None


def written(fixed: Sequence[float], levels: Sequence[Level]) -> str:
    """What `parse` reads."""
    return ",".join([*map(text, fixed), *(level.written for level in levels)])


def arm(written: str) -> str | None:
    """The name of the arm that somebody wrote as a number, a name or a command line's form; None for anything else."""
    try:
        level = _parsed(written)
        return level.name if level else text(float(written))
    except (ValueError, InvalidRequest):
        return None


def told(found: Mapping[str, Any]) -> str:
    """What a level came to, in words, from its record in the subset."""
    levels = found["levels"]
    if "scale" in levels:
        used = sorted(map(float, levels["distances"])) or [ORIGINAL]
        return f"distances {text(used[0])} to {text(used[-1])}, scaled by {levels['scale']:.4g}"
    at = f"distance {text(levels['distance'])}"
    if levels["exact"]:
        return at
    if levels["distance"] == ORIGINAL:
        return f"{at}: the budget holds more originals than that"
    return f"{at}, the nearest that was found: the budget holds another image"


@dataclass(frozen=True, slots=True)
class Steps:
    """A ladder as images see it: none goes to a level at which a truer one takes as few bytes.

    `sizes` (levels, images) are bytes as they were measured; `levels` (levels, images) says whose encoding an image
    has on each step, so that its bytes never grow along the ladder.
    """

    sizes: NDArray[np.integer[Any]]
    levels: NDArray[np.uint8]

    @staticmethod
    def of(sizes: NDArray[np.integer[Any]]) -> Steps:
        levels = np.zeros(sizes.shape, np.uint8)
        least = sizes[0].copy()
        for level in range(1, len(sizes)):
            levels[level] = np.where(sizes[level] < least, np.uint8(level), levels[level - 1])
            np.minimum(least, sizes[level], out=least)
        return Steps(sizes, levels)

    def bytes_at(self, steps: NDArray[np.intp]) -> NDArray[np.int64]:
        """Bytes of every image on its step, shape (images,)."""
        levels = self.levels_at(steps)
        found: NDArray[np.integer[Any]] = np.take_along_axis(self.sizes, levels[np.newaxis].astype(np.intp), 0)[0]
        return found.astype(np.int64)

    def least(self) -> NDArray[np.int64]:
        """Bytes of every image at the end of the ladder: its fewest."""
        return self.bytes_at(np.full(self.sizes.shape[1], len(self.sizes) - 1))

    def levels_at(self, steps: NDArray[np.intp]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = np.take_along_axis(self.levels, steps[np.newaxis], 0)[0]
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """Places in the pool, shape (k,), and the ladder's level of each."""

    places: NDArray[np.int64]
    levels: NDArray[np.uint8]
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
    steps = Steps.of(sizes)
    images = np.arange(sizes.shape[1])
    ranks = budgets.ranks(path_hashes, _seed(seed))
    wish = _Wish(spread, ranks / 2.0**64)
    if budget is None:
        return Choice(images, steps.levels_at(wish.steps(1.0)), 1.0)
    least = steps.least()
    if int(least.sum()) > budget or len(images) == 0:
        kept = budgets.select(least, order, budget)
        return Choice(kept, steps.levels[-1][kept], spread.high / spread.low)
    scale = _scale(spread, steps, wish, budget)
    found = wish.steps(scale)
    _fill(steps, found, budgets.in_order(ranks), budget)
    return Choice(images, steps.levels_at(found), scale)


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


def _scale(spread: Spread, steps: Steps, wish: _Wish, budget: int) -> float:
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


def _fill(steps: Steps, found: NDArray[np.intp], order: NDArray[np.int64], budget: int) -> None:
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


def _truer(steps: Steps, found: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each image the nearest lower step that takes more bytes; its own where there is none."""
    now = steps.levels_at(found).astype(np.intp)  # the truest step of these bytes
    return np.maximum(now - 1, 0)


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
