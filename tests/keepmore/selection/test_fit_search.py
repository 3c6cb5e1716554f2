"""The search for the distance at which so many images fit."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul

from hypothesis import example, given
from hypothesis import strategies as st

from keepmore.selection import fit_search
from keepmore.selection.fit import SAMPLE_DISTANCES
from keepmore.selection.fit_search import Curve, Trial
from keepmore.spec.distance import LARGEST, SMALLEST

OFF = st.floats(0.8, 1.25)


def _trials(images: int, size: Callable[[float], float], budget: int, off: float = 1.0) -> list[Trial]:
    """A search over images of equal size at each distance, by a curve that is `off` by a factor."""
    curve = Curve([(d, off * size(d) * (images + 0.5)) for d in SAMPLE_DISTANCES])
    trials: list[Trial] = []
    while (distance := fit_search.next_trial(curve, trials, budget, fit_search.digits(images))) is not None:
        trials.append(Trial(distance, math.ceil(size(distance) * images), size(distance)))
    return trials


def _summary(trials: Sequence[Trial], budget: int) -> list[tuple[float, float]]:
    return [(trial.distance, trial.bytes / budget) for trial in trials]


def _search(images: int, exponent: float, budget: int, off: float = 1.0) -> list[Trial]:
    """Over images of 80,000 bytes at distance 1, which fall by a power and are larger beyond 10."""
    return _trials(images, lambda d: 80_000 * math.pow(d, -exponent) * (1.25 if d > 10 else 1.0), budget, off)


@given(
    images=st.integers(1, 20_000),
    exponent=st.floats(0.4, 0.8),
    target=st.floats(0.13, 9.8) | st.floats(16, 24),
    off=OFF,
)
def test_a_search_finds_the_window(images: int, exponent: float, target: float, off: float) -> None:
    """Else so many images fit only by chance, or a pool is encoded dozens of times."""
    size = 80_000 * target**-exponent * (1.25 if target > 10 else 1)
    trials = _search(images, exponent, budget := int(size * (images + 0.5)), off)
    assert trials[-1].hits(budget), _summary(trials, budget)
    assert len(trials) <= 8


def test_a_search_without_an_end_tries_the_ends() -> None:
    """Else images that would fit at the largest distance are said to fit at none."""
    assert _search(10, 0.5, 10)[-1].distance == 25
    assert _search(10, 0.5, 10**9)[-1].distance == 0.11


@given(
    images=st.integers(1, 1_000),
    knee=st.floats(0.3, 2.4),
    beyond=st.floats(1.02, 2.0),
    exponent=st.floats(0.4, 0.8),
    off=st.floats(0.95, 1.05),
)
@example(images=120, knee=1.6, beyond=1.08, exponent=0.35, off=0.98)
def test_a_search_leaves_distances_of_equal_sizes(
    images: int, knee: float, beyond: float, exponent: float, off: float
) -> None:
    """Else no distance is found just beyond those where photographs stay transcodes, and the budget is not filled."""

    def size(distance: float) -> float:
        return 80_000 * math.pow(max(distance, knee) / knee, -exponent)

    trials = _trials(images, size, budget := int(size(knee * beyond) * (images + 0.5)), off)
    assert trials[-1].hits(budget), _summary(trials, budget)


@given(
    images=st.integers(2, 20_000),
    start=st.floats(math.log(SMALLEST), math.log(LARGEST / 1.06)),
    places=st.lists(st.floats(math.log(SMALLEST), math.log(LARGEST)), max_size=10),
    ratios=st.lists(st.floats(0.4, 0.999), min_size=12, max_size=12),
    off=OFF,
)
def test_a_search_finds_any_step_that_is_wide_enough(
    images: int, start: float, places: list[float], ratios: list[float], off: float
) -> None:
    """Else the budget is not filled though it is at all distances of a range, from one to another 6 % above it."""
    end = start + math.log(1.06)
    edges = sorted({start, end, *(place for place in places if not start < place < end)})
    sizes = [1e6 * ratio for ratio in accumulate(ratios[: len(edges)], mul, initial=1.0)]

    def size(distance: float) -> float:
        return sizes[bisect_right(edges, math.log(distance))]

    budget = int(sizes[bisect_right(edges, start)] * (images + 0.5))
    trials = _trials(images, size, budget, off)
    assert any(trial.hits(budget) for trial in trials), _summary(trials, budget)


@given(
    images=st.integers(1, 20_000),
    curve=st.lists(st.floats(1.0, 1e9), min_size=len(SAMPLE_DISTANCES), max_size=len(SAMPLE_DISTANCES)),
    sizes=st.lists(st.integers(1, 10**9), min_size=fit_search.MOST_TRIALS, max_size=fit_search.MOST_TRIALS),
    budget=st.integers(1, 10**9),
)
def test_a_search_never_tries_a_distance_again(images: int, curve: list[float], sizes: list[int], budget: int) -> None:
    """Else all images are encoded for nothing, or at a distance that the encoder does not know, or without end."""
    points = Curve(list(zip(SAMPLE_DISTANCES, curve, strict=True)))
    trials: list[Trial] = []
    while (distance := fit_search.next_trial(points, trials, budget, fit_search.digits(images))) is not None:
        assert SMALLEST <= distance <= LARGEST
        assert distance not in [trial.distance for trial in trials]
        trials.append(Trial(distance, sizes[len(trials)], sizes[len(trials)] / images))
    assert 1 <= len(trials) <= fit_search.MOST_TRIALS


def test_a_search_tries_what_the_release_before_tried() -> None:
    """Else a job that is resumed after an upgrade fits other distances, of another digest, than before."""
    curve = Curve([(d, 33_000_000 / (d + 0.3) ** 0.7) for d in (0.05, 0.5, 1, 2, 4, 8, 15, 25)])

    def distances(budget: int) -> list[float]:
        trials: list[Trial] = []
        while (distance := fit_search.next_trial(curve, trials, budget, 5)) is not None:
            size = 30_000_000 / (distance + 0.3) ** 0.8 / (3 if distance > 6 else 1)
            trials.append(Trial(distance, round(size), 20_000))
        return [trial.distance for trial in trials]

    assert distances(21_000_000) == [1.5931, 1.2209, 1.2618, 1.2627]
    assert distances(6_000_000)[:6] == [11.105, 1.1724, 3.6083, 6.3301, 4.7792, 5.5003]
    assert distances(1_200_000) == [25.0, 12.968, 14.004]
