"""From pilot trainings and a pool's sizes to the distance to store at, for any budget. Pure: arrays in, records out.

The storage scaling law (see `scaling_law`) is fitted to the pilots; the scatter of its predictions over resampled
pilots gives the intervals. They cover the uncertainty from test images and draws of training images, not the error of
the law itself: that is what `left_out_points` is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepmore.advice import scaling_law as laws
from keepmore.advice.answer import (
    FORMAT,
    Advice,
    BudgetAdvice,
    BudgetDistance,
    Constant,
    Curve,
    EnvelopePoint,
    Interval,
    LawFit,
    Lead,
    Limit,
    Most,
    Optimum,
    Pilot,
    Plain,
    PoolDistance,
    PoolSizes,
    Prediction,
    Recommended,
    TargetAdvice,
)
from keepmore.advice.scaling_law import CONSTANTS, Fit, Floats, Law
from keepmore.errors import BudgetTooSmall, InvalidRequest
from keepmore.spec.budget import BYTES_PER_GB
from keepmore.spec.distance import ORIGINAL, SMALLEST, text
from keepmore.training import statistics as accuracies

PLAIN = 8.0
REPLICATES = 200
# Predictions for more images than this, in multiples of the largest pilot, are marked, and those for fewer than the
# smallest pilot.
FURTHEST = 4
CURVE_POINTS = 40


@dataclass(frozen=True, slots=True)
class Pilots:
    """Small trainings on a grid of numbers of images and distances, all tested on the same images.

    `n` (pilots,): images trained on, which each seed draws for itself from the same `images`; `distance` (pilots,);
    `size` (pilots,): mean bytes of those trained on; `correct` (pilots, seeds, test images): which test images the
    model of each seed classified correctly.
    """

    n: NDArray[np.int64]
    distance: Floats
    size: Floats
    correct: NDArray[np.bool_]
    images: int

    def __post_init__(self) -> None:
        """Raises ValueError where the shapes do not match."""
        shapes = {values.shape for values in (self.n, self.distance, self.size)}
        if shapes != {self.correct.shape[:1]} or self.correct.ndim != 3 or self.correct.size == 0:
            raise ValueError(f"pilots: shapes {shapes} and {self.correct.shape} do not match")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The pool that may be stored: mean bytes of its images at each distance, how many images it has, and the share of
    them that has a label: the others take bytes and do not train the model."""

    bytes_per_image: Mapping[float, float]
    images: int
    labelled: float = 1.0

    @property
    def distances(self) -> list[float]:
        return sorted(self.bytes_per_image)

    @property
    def labelled_images(self) -> int:
        return round(self.images * self.labelled)

    @property
    def means(self) -> Floats:
        """Mean bytes by ascending distance."""
        return np.array([self.bytes_per_image[distance] for distance in self.distances], np.float64)

    def fitting(self, budget: int) -> NDArray[np.int64]:
        """How many images of mean size fit `budget` bytes at each distance, by ascending distance."""
        # A budget computed for n images holds n, in spite of rounding in the division.
        return np.minimum(np.floor(budget / self.means * (1 + 1e-12)), self.images).astype(np.int64)

    def require_room(self, budget: int) -> None:
        """Raises BudgetTooSmall where `budget` bytes hold no image at any distance."""
        if self.fitting(budget).max() == 0:
            least = math.ceil(self.means.min())
            raise BudgetTooSmall(f"{budget:,} bytes hold no image; one takes {least:,} or more", field="budget")

    def distance_at(self, size: float) -> float:
        """The distance at which images take `size` mean bytes: straight lines between the distances' logarithms.

        Beyond the smallest distance above 0 the last line is extended; the originals' size and more is distance 0.
        """
        if size >= self.bytes_per_image.get(ORIGINAL, math.inf):
            return ORIGINAL
        lossy = [distance for distance in self.distances if distance > ORIGINAL]
        if not lossy:
            return ORIGINAL
        log_d = np.log(lossy)
        log_size = np.minimum.accumulate(np.log([self.bytes_per_image[distance] for distance in lossy]))
        if math.log(size) > log_size[0] > log_size[1 % len(lossy)]:
            slope = (log_d[1] - log_d[0]) / (log_size[1] - log_size[0])
            return max(SMALLEST, math.exp(log_d[0] + slope * (math.log(size) - log_size[0])))
        return math.exp(float(np.interp(math.log(size), log_size[::-1], log_d[::-1])))


@dataclass(frozen=True, slots=True)
class _Forecast:
    """The fitted law first, then those of resampled pilots: shape (1 + replicates, 5), for numbers of stored images, of
    which some have no label. `pilots`: the stored images among which the smallest and the largest pilot's are labelled.
    """

    laws: Floats
    pilots: tuple[float, float]
    price: float | None

    @property
    def law(self) -> Law:
        return Law(*self.laws[0].tolist())

    def accuracy(self, n: ArrayLike, size: ArrayLike) -> Floats:
        """Shape (1 + replicates, points); an accuracy is never below 0."""
        accuracies: Floats = np.clip(1 - laws.errors(self.laws, n, size), 0, 1)
        return accuracies

    def predictions(self, n: ArrayLike, size: ArrayLike) -> list[Prediction]:
        """One for each (n, size)."""
        n, size = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(size, np.float64))
        accuracies = self.accuracy(n, size)
        predictions = []
        for place, (count, mean) in enumerate(zip(n.tolist(), size.tolist(), strict=True)):
            bytes_, extrapolated = round(count * mean), not self.pilots[0] <= count <= FURTHEST * self.pilots[1]
            accuracy, interval = figure(accuracies[:, place])
            predictions.append(
                Prediction(int(count), bytes_, self.monthly_cost(bytes_), accuracy, interval, extrapolated)
            )
        return predictions

    def at_budget(self, prediction: Prediction, budget: int) -> Prediction:
        """The same prediction with the bytes of its budget, which its images do not quite fill."""
        return replace(prediction, bytes=budget, monthly_cost=self.monthly_cost(budget))

    def monthly_cost(self, size: int) -> float | None:
        return None if self.price is None else float(f"{size * self.price / BYTES_PER_GB:.12g}")


def figure(values: Floats) -> tuple[float, Interval]:
    """The first of `values`, and the interval that the others give, extended to hold the first."""
    value = float(values[0])
    low, high = laws.intervals(values[1:]).tolist()
    return value, (min(low, value), max(high, value))


def advise(
    pilots: Pilots,
    sizes: Sizes,
    budgets: Sequence[int],
    accuracy: float | None = None,
    price_per_gb_month: Decimal | float | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Advice:
    """The distance to store at for each of `budgets` (bytes), and what it takes to reach `accuracy` (0..1).

    Raises PilotsInsufficient where the pilots do not support advice, BudgetTooSmall where a budget holds no image, and
    InvalidRequest for an accuracy that is not between 0 and 1.
    """
    if accuracy is not None and not 0 < accuracy < 1:
        raise InvalidRequest(f"accuracy: {accuracy} is not possible; give a share between 0 and 1, such as 0.8")
    price = None if price_per_gb_month is None else float(price_per_gb_month)
    fitted, constants = _fit(pilots, sizes, replicates, seed)
    fewest = float(pilots.n.min() / sizes.labelled)
    # Of n images stored, the part `labelled` is trained on: A (labelled n)^-alpha has another A.
    stored = constants.copy()
    stored[:, 0] *= sizes.labelled ** -stored[:, 1]
    forecast = _Forecast(stored, (fewest, float(pilots.n.max() / sizes.labelled)), price)
    by_name = {name: Constant(*figure(constants[:, place])) for place, name in enumerate(CONSTANTS)}
    return Advice(
        format=FORMAT,
        pool=_pool(sizes, forecast),
        price_per_gb_month=price,
        test_images=pilots.correct.shape[2],
        seeds=pilots.correct.shape[1],
        pilots=_pilots(pilots, fitted.law),
        fit=LawFit(by_name, fitted.r2, fitted.rmse, fitted.left_out_points, replicates, seed),
        budgets=[_budget(budget, sizes, forecast) for budget in budgets],
        wished=None if accuracy is None else _target(accuracy, sizes, forecast),
        curves=_curves(round(fewest), sizes, forecast),
        envelope=_envelope(round(fewest), sizes, forecast),
    )


def _fit(pilots: Pilots, sizes: Sizes, replicates: int, seed: int) -> tuple[Fit, Floats]:
    """The law, and the constants of it and of resampled pilots, (1 + replicates, 5); raises PilotsInsufficient."""
    fitted = laws.fit(pilots.n, pilots.size, 1 - pilots.correct.mean(axis=(1, 2)), seed=seed)
    labelled = max(sizes.labelled_images, pilots.images)
    deviations = laws.draws(pilots.correct, pilots.n, pilots.distance, pilots.images, labelled)
    laws.check(fitted, pilots.n, pilots.distance, pilots.correct, deviations)
    resampled = laws.bootstrap(fitted.law, pilots.correct, pilots.n, pilots.size, deviations, replicates, seed)
    return fitted, np.vstack([fitted.law.constants, resampled])


def _pool(sizes: Sizes, forecast: _Forecast) -> PoolSizes:
    """The size of the whole pool at each distance."""
    rows = []
    for distance, mean in zip(sizes.distances, sizes.means.tolist(), strict=True):
        size = round(mean * sizes.images)
        rows.append(PoolDistance(text(distance), mean, size, forecast.monthly_cost(size)))
    return PoolSizes(sizes.images, sizes.labelled_images, rows)


def _pilots(pilots: Pilots, law: Law) -> list[Pilot]:
    predicted = np.clip(1 - law.error(pilots.n, pilots.size), 0, 1).tolist()
    rows = []
    for place in np.lexsort((pilots.n, pilots.distance)).tolist():
        measured = accuracies.summary(pilots.correct[place])
        distance, images, size = text(pilots.distance[place]), int(pilots.n[place]), float(pilots.size[place])
        rows.append(Pilot(distance, images, size, measured.top1, measured.interval, predicted[place]))
    return rows


def _budget(budget: int, sizes: Sizes, forecast: _Forecast) -> BudgetAdvice:
    """What fits `budget` at each distance, the distance to choose, and how it compares with plain distance 8."""
    sizes.require_room(budget)
    counts, means = sizes.fitting(budget), sizes.means
    rows = [
        BudgetDistance(text(distance), prediction.images == sizes.images, prediction)
        for distance, prediction in zip(
            sizes.distances, forecast.predictions(np.maximum(counts, 1), means), strict=True
        )
    ]
    predicted = forecast.accuracy(np.maximum(counts, 1), means)
    possible = np.flatnonzero(counts)
    best = int(possible[np.argmax(predicted[0, possible])])
    leads = [_lead(predicted, best, place) for place in range(len(rows))]
    alike = [rows[place].distance for place in possible.tolist() if leads[place].verdict == "cannot tell"]
    plain = None
    if PLAIN in sizes.distances and counts[place := sizes.distances.index(PLAIN)]:
        plain = Plain(rows[place].distance, rows[place].whole_pool, rows[place].prediction, leads[place])
    recommended = Recommended(rows[best].distance, rows[best].whole_pool, rows[best].prediction, alike)
    optimum, cost = _optimum(budget, sizes, forecast), forecast.monthly_cost(budget)
    return BudgetAdvice(budget, cost, [rows[place] for place in possible.tolist()], recommended, optimum, plain)


def _lead(predicted: Floats, best: int, place: int) -> Lead:
    """How much more accurate the best distance is than another one, and whether the pilots show it."""
    difference, interval = figure(predicted[:, best] - predicted[:, place])
    return Lead(difference, interval, "same" if best == place else "better" if interval[0] > 0 else "cannot tell")


def _optimum(budget: int, sizes: Sizes, forecast: _Forecast) -> Optimum:
    size = float(np.clip(forecast.law.optimum(budget, sizes.images)[1], sizes.means.min(), sizes.means.max()))
    count = max(1, min(sizes.images, math.floor(budget / size)))
    return Optimum(text(round(sizes.distance_at(size), 2)), size, forecast.predictions([count], [size])[0])


def _target(accuracy: float, sizes: Sizes, forecast: _Forecast) -> TargetAdvice:
    """The smallest budget that reaches `accuracy`, or the most that this pool can reach."""
    counts = np.stack([_images_for(accuracy, forecast.laws, mean, sizes.images) for mean in sizes.means], axis=1)
    storage = counts * sizes.means
    best = int(storage[0].argmin())
    smallest = np.ceil(storage.min(axis=1))
    low, high = np.quantile(smallest[1:], [0.025, 0.975], method="closest_observation").tolist()
    low, high = (int(end) if math.isfinite(end) else None for end in (min(low, smallest[0]), max(high, smallest[0])))
    reached, share = bool(np.isfinite(smallest[0])), float(np.isfinite(smallest[1:]).mean())
    target = TargetAdvice(accuracy, reached, share, (low, high), _most(sizes, forecast))
    if not reached:
        return target
    (prediction,) = forecast.predictions([counts[0, best]], [sizes.means[best]])
    return replace(
        target, distance=text(sizes.distances[best]), prediction=forecast.at_budget(prediction, int(smallest[0]))
    )


def _images_for(accuracy: float, laws_: Floats, size: float, most: int) -> Floats:
    """How many images of `size` bytes reach `accuracy` by each law, infinite where `most` do not; shape (laws,)."""
    a, alpha, b, beta, c = laws_.T
    room = 1 - accuracy - c - b * size**-beta
    with np.errstate(divide="ignore", invalid="ignore"):
        # (A / room)^(1 / alpha), which overflows where alpha is small.
        log_n = np.where(room > 0, np.log(a / np.where(room > 0, room, 1)) / alpha, np.inf)
    count = np.ceil(np.exp(np.clip(log_n, 0, 700)) * (1 - 1e-12))
    return np.where(count <= most, np.maximum(count, 1), np.inf)


def _most(sizes: Sizes, forecast: _Forecast) -> Most:
    rows = forecast.predictions(np.full(len(sizes.means), sizes.images), sizes.means)
    best = max(range(len(rows)), key=lambda place: rows[place].accuracy)
    limit = Limit(*figure(forecast.accuracy([np.inf], [sizes.means.max()])[:, 0]))
    return Most(text(sizes.distances[best]), rows[best], limit)


def _curves(fewest: int, sizes: Sizes, forecast: _Forecast) -> list[Curve]:
    """Predictions for growing numbers of images at each distance, up to the whole pool."""
    counts = np.unique(np.geomspace(min(fewest, sizes.images), sizes.images, CURVE_POINTS).round())
    return [
        Curve(text(distance), mean, forecast.predictions(counts, mean))
        for distance, mean in zip(sizes.distances, sizes.means.tolist(), strict=True)
    ]


def _envelope(fewest: int, sizes: Sizes, forecast: _Forecast) -> list[EnvelopePoint]:
    """The best of the distances at growing budgets, up to the whole pool at its largest."""
    smallest, largest = min(fewest, sizes.images) * sizes.means.min(), sizes.images * sizes.means.max()
    points = []
    for budget in np.geomspace(smallest, largest, CURVE_POINTS).round().astype(np.int64).tolist():
        counts = np.maximum(sizes.fitting(budget), 1)
        best = int(np.where(sizes.fitting(budget) > 0, forecast.accuracy(counts, sizes.means)[0], -1).argmax())
        (prediction,) = forecast.predictions(counts[[best]], sizes.means[[best]])
        points.append(EnvelopePoint(text(sizes.distances[best]), forecast.at_budget(prediction, budget)))
    return points
