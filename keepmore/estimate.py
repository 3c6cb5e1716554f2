"""What a dataset would take at each distance, judged by a sample: bytes and counts, each with an interval.

The very selection runs on every imputed dataset (see `imputation`); how its results scatter gives the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore import budget as budgets
from keepmore import index
from keepmore.budget import Budget
from keepmore.datasets import Entry
from keepmore.distance import text
from keepmore.imputation import Deck, Images, Sample, drawn, strata
from keepmore.index import POOL, Listed
from keepmore.memory import freed_memory_kept
from keepmore.request import Selection

SAMPLE_IMAGES = 128
FEWEST_IMAGES = 2
PIECE_IMAGES = 8
RATE = 0.95
IMPUTATIONS = 200

# Of more images, every so manieth is imputed. The order "smallest" is sorted anew for every imputation and distance.
ORDERED_IMAGES = 2**17
SORTED_IMAGES = 2**14

Compress = Callable[[Sequence[Listed]], pa.Table]
OnImages = Callable[[int, int], None]


def estimate(
    entries: Iterable[Entry],
    distances: Sequence[float],
    budget: Budget | None,
    selection: Selection,
    compress: Compress,
    sample_images: int = SAMPLE_IMAGES,
    seed: int = 0,
    rate: float = RATE,
    on_images: OnImages = lambda done, of: None,
) -> dict[str, Any]:
    """Compress a sample of the pool `entries`, 2 images or more, and judge all of it by that; plain data for JSON.

    `compress` makes the part of a few rows, as Compressor.chunk does; what it raises goes through. `on_images` is told
    how many of the sampled images are done. Raises InvalidRequest where the budget is a distance that is not asked for.
    """
    if budget:
        budget.bytes(dict.fromkeys(distances, 0))
    listed = list(entries)
    images = Images.of(listed)
    sampled = max(sample_images, FEWEST_IMAGES)
    strata_ = strata(images, sampled, _balanced(images, selection))
    places = drawn(strata_, budgets.ranks(images.path_hashes, seed), sampled)
    rows = [Listed(POOL, listed[place]) for place in places.tolist()]
    parts = [index.schema(distances).empty_table()]
    for start in range(0, len(rows), PIECE_IMAGES):
        parts.append(compress(rows[start : start + PIECE_IMAGES]))
        on_images(min(start + PIECE_IMAGES, len(rows)), len(rows))
    sample = Sample.of(places, pa.concat_tables(parts), distances)
    return judged(images, strata_, sample, distances, budget, selection, seed, rate)


def judged(
    images: Images,
    strata_: NDArray[np.int64],
    sample: Sample,
    distances: Sequence[float],
    budget: Budget | None,
    selection: Selection,
    seed: int = 0,
    rate: float = RATE,
) -> dict[str, Any]:
    """What `images` take, judged by `sample`. Of a sample that holds them all the figures are exact.

    Counts are 0 where the first image of the order does not fit, which the selection itself refuses.
    """
    deck = Deck.of(images, strata_, sample)
    with freed_memory_kept():
        runs = _run(deck, images, distances, budget, selection, seed)
    t = _student_t(rate, _freedom(deck))
    sizes = runs.figures(runs.expected_bytes, runs.bytes, t)
    limits = runs.figures(runs.expected_limit, runs.limits, t)
    counts = runs.figures(runs.images.mean(axis=0), runs.images, t, most=len(images.sizes))
    return {
        "images": len(images.sizes),
        "sampled": len(sample.places),
        "rate": rate,
        "failed": _failed(deck, rate),
        "source_bytes": _figure(*[images.sizes.sum()] * 3) if images.sized else sizes[-1],
        "budget_bytes": limits[0] if budget else None,
        "distances": {
            text(distance): {"bytes": sizes[place], "images": counts[place] if budget else None}
            for place, distance in enumerate(distances)
        },
    }


@dataclass(frozen=True, slots=True)
class _Runs:
    """What the selection found on each imputed dataset; shapes (imputations, figures), of `weights` (imputations, donors).

    `weights`: how often each donor was drawn.
    """

    weights: NDArray[np.float64]
    bytes: NDArray[np.float64]
    limits: NDArray[np.float64]
    images: NDArray[np.float64]
    expected_bytes: NDArray[np.float64]
    expected_limit: NDArray[np.float64]

    def figures(
        self, expected: NDArray[np.float64], found: NDArray[np.float64], t: float, most: float = math.inf
    ) -> list[dict[str, int]]:
        """Expected values with intervals of `t` standard deviations; where the scatter is skew, further to that side.

        The addition is that of the studentised bootstrap (Hall 1988), from the influence of every donor: the
        infinitesimal jackknife (Efron 2014).
        """
        spread = found - found.mean(axis=0)
        deviation = spread.std(axis=0)
        influence = (self.weights - self.weights.mean(axis=0)).T @ spread / len(spread)
        skewness = (influence**3).sum(axis=0) / np.maximum(deviation, 1e-9) ** 3
        further = np.clip(skewness / 6 * (1 + 2 * t * t), -t, t) * deviation
        low = expected - t * deviation + np.minimum(further, 0)
        high = expected + t * deviation + np.maximum(further, 0)
        rows = zip(expected.tolist(), low.clip(0).tolist(), high.clip(None, most).tolist(), strict=True)
        return [_figure(*row) for row in rows]


def _figure(expected: float, low: float, high: float) -> dict[str, int]:
    return {"expected": round(expected), "low": math.floor(low), "high": math.ceil(high)}


def _balanced(images: Images, selection: Selection) -> bool:
    return images.labelled if selection.balance is None else selection.balance


def _run(
    deck: Deck, images: Images, distances: Sequence[float], budget: Budget | None, selection: Selection, seed: int
) -> _Runs:
    classes = images.classes if _balanced(images, selection) else None
    places = _in_order(deck, images, classes, selection)
    all_known = len(deck.unknown(places)) == 0
    few = places if all_known else _every(places, ORDERED_IMAGES if selection.order == "random" else SORTED_IMAGES)
    expected = deck.expected(places)
    growth = expected / np.maximum(deck.expected(few), 1)
    if len(few) == len(places):
        growth[:] = 1
    rng = np.random.default_rng(seed)
    times = 1 if all_known else IMPUTATIONS
    slots, weights = deck.resampled(rng, times)
    bytes_, limits, kept = np.empty((times, len(expected))), np.zeros((times, 1)), np.zeros((times, len(distances)))
    resorted = selection.order == "smallest"
    for run, (values, good) in enumerate(deck.imputed(few, slots, rng)):
        bytes_[run] = values.sum(axis=1) * growth
        if budget:
            limits[run] = limit = _limit(budget, distances, bytes_[run])
            for place, grown in enumerate(growth[: len(distances)].tolist()):
                order = _smallest(values[place], classes, few) if resorted else slice(None)
                count = np.searchsorted(np.cumsum(values[place][order]), limit / grown, side="right")
                kept[run, place] = count if good is None else np.count_nonzero(good[order][:count])
    limit = _limit(budget, distances, expected) if budget else 0
    return _Runs(weights, bytes_, limits, kept * (len(places) / max(len(few), 1)), expected, np.array([limit]))
