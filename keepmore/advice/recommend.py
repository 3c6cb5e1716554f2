"""From pilot trainings and a pool's sizes to the distance to store at, for any budget. Pure: plain data out.

The storage scaling law (see `law`) is fitted to the pilots; how its predictions scatter over resampled pilots gives the
intervals. They hold what test images and draws of training images leave open, not how far the law itself is beside the
truth: that is what `left_out_points` is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepmore.advice import scaling_law as laws
from keepmore.advice.scaling_law import CONSTANTS, Fit, Floats, Law
from keepmore.errors import BudgetTooSmall, InvalidRequest
from keepmore.spec.budget import BYTES_PER_GB
from keepmore.spec.distance import ORIGINAL, SMALLEST, text
from keepmore.training import statistics as accuracies

FORMAT = 1
PLAIN = 8.0
REPLICATES = 200
# Predictions further out than this, in images of the largest pilot, are marked, and those below the smallest.
FURTHEST = 4
CURVE_POINTS = 40


@dataclass(frozen=True, slots=True)
class Pilots:
    """Small trainings on a grid of numbers of images and distances, all tested on the same images.

    `n` (pilots,): images trained on, which each seed draws for itself from the same `images`; `distance` (pilots,);
    `size` (pilots,): mean bytes of those trained on; `correct` (pilots, seeds, test images): which test images the
    model of each seed named right.
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
    """The pool that may be stored: mean bytes of its images at each distance, how many images it has, and which part of
    them has a label: the others take room and teach nothing."""

    bytes_per_image: Mapping[float, float]
    images: int
    labelled: float = 1.0

    @property
    def distances(self) -> list[float]:
        return sorted(self.bytes_per_image)

    @property
    def means(self) -> Floats:
        """Mean bytes by ascending distance."""
        return np.array([self.bytes_per_image[distance] for distance in self.distances], np.float64)

    def fitting(self, budget: int) -> NDArray[np.int64]:
        """How many images of mean size fit `budget` bytes at each distance, by ascending distance."""
        # A budget that was made for n images holds n, whatever the division rounds.
        return np.minimum(np.floor(budget / self.means * (1 + 1e-12)), self.images).astype(np.int64)

    def require_room(self, budget: int) -> None:
        """Raises BudgetTooSmall where `budget` bytes hold no image at any distance."""
        if self.fitting(budget).max() == 0:
            least = math.ceil(self.means.min())
            raise BudgetTooSmall(f"budget: {budget:,} bytes hold no image; one takes {least:,} or more")

    def distance_at(self, size: float) -> float:
        """The distance at which images take `size` mean bytes: straight lines between the distances' logarithms.

        Beyond the smallest distance above 0 the last line goes on; the originals' size and more is distance 0.
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
    """The fitted law first, then those of resampled pilots: shape (1 + replicates, 5), as of images stored, of which
    some have no label. `pilots`: how many images stored have as many labelled ones as the smallest and the largest."""

    laws: Floats
    pilots: tuple[float, float]
    price: float | None

    @property
    def law(self) -> Law:
        return Law(*self.laws[0].tolist())

    def accuracy(self, n: ArrayLike, size: ArrayLike) -> Floats:
        """Shape (1 + replicates, points); an accuracy is never below 0."""
        found: Floats = np.clip(1 - laws.errors(self.laws, n, size), 0, 1)
        return found

    def rows(self, n: ArrayLike, size: ArrayLike) -> list[dict[str, Any]]:
        """Predicted accuracy with its 95 % interval, and what is stored for it, of each (n, size)."""
        n, size = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(size, np.float64))
        found = self.accuracy(n, size)
        return [
            {"images": int(count), **self.costs(round(count * mean))}
            | figure(found[:, place])
            | {"extrapolated": not self.pilots[0] <= count <= FURTHEST * self.pilots[1]}
            for place, (count, mean) in enumerate(zip(n.tolist(), size.tolist(), strict=True))
        ]

    def costs(self, size: int) -> dict[str, Any]:
        cost = None if self.price is None else float(f"{size * self.price / BYTES_PER_GB:.12g}")
        return {"bytes": size, "monthly_cost": cost}


def figure(values: Floats, name: str = "accuracy") -> dict[str, Any]:
    """The first of `values`, with the interval that the others give; it holds the first."""
    value = float(values[0])
    low, high = laws.intervals(values[1:]).tolist()
    return {name: value, "interval": [min(low, value), max(high, value)]}


def advise(
    pilots: Pilots,
    sizes: Sizes,
    budgets: Sequence[int],
    accuracy: float | None = None,
    price_per_gb_month: Decimal | float | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Which distance to store at for each of `budgets` (bytes), and what it takes to reach `accuracy` (0..1).

    Plain data for JSON. Distances are written as `distance.text` does, accuracies are shares of 0..1, intervals are
    95 % and [low, high], `monthly_cost` is None without a price for 10^9 bytes a month. Raises PilotsInsufficient where
    the pilots are no ground for advice, BudgetTooSmall where a budget holds no image, and InvalidRequest for an
    accuracy that is not between 0 and 1.
    """
    if accuracy is not None and not 0 < accuracy < 1:
        raise InvalidRequest(f"accuracy: {accuracy} is not possible; give a share between 0 and 1, such as 0.8")
    wrong = 1 - pilots.correct.mean(axis=(1, 2))
    fitted = laws.fit(pilots.n, pilots.size, wrong, seed=seed)
    labelled = round(sizes.images * sizes.labelled)
    drawn = laws.draws(pilots.correct, pilots.n, pilots.distance, pilots.images, max(labelled, pilots.images))
    laws.check(fitted, pilots.n, pilots.distance, pilots.correct, drawn)
    resampled = laws.bootstrap(fitted.law, pilots.correct, pilots.n, pilots.size, drawn, replicates, seed)
    constants = np.vstack([fitted.law.constants, resampled])
    price = None if price_per_gb_month is None else float(price_per_gb_month)
    ends = float(pilots.n.min() / sizes.labelled), float(pilots.n.max() / sizes.labelled)
    forecast = _Forecast(_of_stored(constants, sizes.labelled), ends, price)
    return {
        "format": FORMAT,
        "pool": {"images": sizes.images, "labelled": labelled, "distances": _pool(sizes, forecast)},
        "price_per_gb_month": price,
        "test_images": pilots.correct.shape[2],
        "seeds": pilots.correct.shape[1],
        "pilots": _pilots(pilots, fitted.law),
        "fit": _fit(fitted, constants, replicates, seed),
        "budgets": [_budget(budget, sizes, forecast) for budget in budgets],
        "wished": None if accuracy is None else _wished(accuracy, sizes, forecast),
        "curves": _curves(round(ends[0]), sizes, forecast),
        "envelope": _envelope(round(ends[0]), sizes, forecast),
    }


def _of_stored(constants: Floats, labelled: float) -> Floats:
    """The laws of images stored, of which the part `labelled` is trained on: A (labelled n)^-alpha has another A."""
    found = constants.copy()
    found[:, 0] *= labelled ** -found[:, 1]
    return found


def _pool(sizes: Sizes, forecast: _Forecast) -> list[dict[str, Any]]:
    """What the whole pool takes at each distance."""
    return [
        {"distance": text(distance), "bytes_per_image": mean, **forecast.costs(round(mean * sizes.images))}
        for distance, mean in zip(sizes.distances, sizes.means.tolist(), strict=True)
    ]


def _pilots(pilots: Pilots, law: Law) -> list[dict[str, Any]]:
    predicted = np.clip(1 - law.error(pilots.n, pilots.size), 0, 1).tolist()
    rows = []
    for place in np.lexsort((pilots.n, pilots.distance)).tolist():
        measured = accuracies.summary(pilots.correct[place])
        rows.append(
            {
                "distance": text(pilots.distance[place]),
                "images": int(pilots.n[place]),
                "bytes_per_image": float(pilots.size[place]),
                "top1": measured.top1,
                "interval": list(measured.interval),
                "predicted": predicted[place],
            }
        )
    return rows


def _fit(fitted: Fit, constants: Floats, replicates: int, seed: int) -> dict[str, Any]:
    named = {name: figure(constants[:, place], "value") for place, name in enumerate(CONSTANTS)}
    measured = {"r2": fitted.r2, "rmse": fitted.rmse, "left_out_points": fitted.left_out_points}
    return {"constants": named, **measured, "replicates": replicates, "seed": seed}


def _budget(budget: int, sizes: Sizes, forecast: _Forecast) -> dict[str, Any]:
    """What fits `budget` at each distance, the distance to choose, and how it compares with plain distance 8."""
    sizes.require_room(budget)
    counts, means = sizes.fitting(budget), sizes.means
    rows = [
        {"distance": text(distance), "whole_pool": row["images"] == sizes.images} | row
        for distance, row in zip(sizes.distances, forecast.rows(np.maximum(counts, 1), means), strict=True)
    ]
    found = forecast.accuracy(np.maximum(counts, 1), means)
    possible = np.flatnonzero(counts)
    best = int(possible[np.argmax(found[0, possible])])
    ahead = [_ahead(found, best, place) for place in range(len(rows))]
    plain = sizes.distances.index(PLAIN) if PLAIN in sizes.distances else best
    alike = [rows[place]["distance"] for place in possible.tolist() if ahead[place]["verdict"] == "cannot tell"]
    return {
        **forecast.costs(budget),
        "distances": [rows[place] for place in possible.tolist()],
        "recommended": rows[best] | {"alike": alike},
        "optimum": _optimum(budget, sizes, forecast),
        "plain": rows[plain] | {"ahead": ahead[plain]} if PLAIN in sizes.distances and counts[plain] else None,
    }


def _ahead(found: Floats, best: int, place: int) -> dict[str, Any]:
    """How much more accurate the best distance is than another one, and whether the pilots can tell."""
    difference = figure(found[:, best] - found[:, place], "difference")
    verdict = "same" if best == place else "better" if difference["interval"][0] > 0 else "cannot tell"
    return difference | {"verdict": verdict}


def _optimum(budget: int, sizes: Sizes, forecast: _Forecast) -> dict[str, Any]:
    """The law's own optimum, at any distance between those that were asked for."""
    size = float(np.clip(forecast.law.optimum(budget, sizes.images)[1], sizes.means.min(), sizes.means.max()))
    count = max(1, min(sizes.images, math.floor(budget / size)))
    distance = text(round(sizes.distance_at(size), 2))
    return {"distance": distance, "bytes_per_image": size} | forecast.rows([count], [size])[0]


def _wished(accuracy: float, sizes: Sizes, forecast: _Forecast) -> dict[str, Any]:
    """The smallest budget that reaches `accuracy`, or the most that this pool can reach."""
    counts = np.stack([_images_for(accuracy, forecast.laws, mean, sizes.images) for mean in sizes.means], axis=1)
    needed = counts * sizes.means
    best = int(needed[0].argmin())
    smallest = np.ceil(needed.min(axis=1))
    low, high = np.quantile(smallest[1:], [0.025, 0.975], method="closest_observation").tolist()
    low, high = min(low, smallest[0]), max(high, smallest[0])
    answer = {
        "accuracy_wished": accuracy,
        "reached": bool(np.isfinite(smallest[0])),
        "reached_share": float(np.isfinite(smallest[1:]).mean()),
        "bytes_interval": [int(end) if math.isfinite(end) else None for end in (low, high)],
        "most": _most(sizes, forecast),
    }
    if not answer["reached"]:
        return answer | {"distance": None}
    row = forecast.rows([counts[0, best]], [sizes.means[best]])[0] | forecast.costs(int(smallest[0]))
    return answer | {"distance": text(sizes.distances[best])} | row


def _images_for(accuracy: float, laws_: Floats, size: float, most: int) -> Floats:
    """How many images of `size` bytes reach `accuracy` by each law, infinite where `most` do not; shape (laws,)."""
    a, alpha, b, beta, c = laws_.T
    room = 1 - accuracy - c - b * size**-beta
    with np.errstate(divide="ignore", invalid="ignore"):
        # (A / room)^(1 / alpha), which overflows where alpha is small.
        log_n = np.where(room > 0, np.log(a / np.where(room > 0, room, 1)) / alpha, np.inf)
    count = np.ceil(np.exp(np.clip(log_n, 0, 700)) * (1 - 1e-12))
    return np.where(count <= most, np.maximum(count, 1), np.inf)


def _most(sizes: Sizes, forecast: _Forecast) -> dict[str, Any]:
    """The whole pool at its best distance; `limit` is what endless images like it would reach."""
    rows = forecast.rows(np.full(len(sizes.means), sizes.images), sizes.means)
    best = max(range(len(rows)), key=lambda place: float(rows[place]["accuracy"]))
    limit = figure(forecast.accuracy([np.inf], [sizes.means.max()])[:, 0])
    return {"distance": text(sizes.distances[best])} | rows[best] | {"limit": limit}


def _curves(fewest: int, sizes: Sizes, forecast: _Forecast) -> list[dict[str, Any]]:
    """Predictions for growing numbers of images at each distance, up to the whole pool."""
    counts = np.unique(np.geomspace(min(fewest, sizes.images), sizes.images, CURVE_POINTS).round())
    return [
        {"distance": text(distance), "bytes_per_image": mean, "points": forecast.rows(counts, mean)}
        for distance, mean in zip(sizes.distances, sizes.means.tolist(), strict=True)
    ]


def _envelope(fewest: int, sizes: Sizes, forecast: _Forecast) -> list[dict[str, Any]]:
    """The best of the distances at growing budgets, up to the whole pool at its largest."""
    smallest, largest = min(fewest, sizes.images) * sizes.means.min(), sizes.images * sizes.means.max()
    points = []
    for budget in np.geomspace(smallest, largest, CURVE_POINTS).round().astype(np.int64).tolist():
        counts = np.maximum(sizes.fitting(budget), 1)
        best = int(np.where(sizes.fitting(budget) > 0, forecast.accuracy(counts, sizes.means)[0], -1).argmax())
        row = forecast.rows(counts[[best]], sizes.means[[best]])[0]
        points.append({"distance": text(sizes.distances[best])} | row | forecast.costs(budget))
    return points
