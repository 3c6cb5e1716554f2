"""The storage scaling law: fitted, optimised, resampled, and refused."""

from __future__ import annotations

import time
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore.advice import scaling_law as laws
from keepmore.advice.recommend import Pilots
from keepmore.advice.scaling_law import Law
from keepmore.errors import PilotsInsufficient
from tests.pilots import DISTANCES, IMAGES, TRUE, drawn_pilots

# Food-101 with a ResNet-50, as published by Mentzer and Montanari (2024).
FOOD = Law(6.71, 0.333, 1355, 1.061, 0)
COUNTS = [1000, 2000, 4000, 8000, 16000, 32000]
BYTES = [50000, 25000, 14000, 9000, 7000, 6000, 5200, 4700, 4300, 4000]
N, SIZE = (grid.ravel() for grid in np.meshgrid(COUNTS, BYTES, indexing="ij"))

constants = st.tuples(
    st.floats(0.05, 20), st.floats(0.05, 1.5), st.floats(0.01, 1e5), st.floats(0.05, 2), st.floats(0, 0.5)
)


def test_published_constants_are_found_again() -> None:
    """Else the law that is fitted is not the law that is written down."""
    fit = laws.fit(N, SIZE, FOOD.error(N, SIZE))
    assert astuple(fit.law) == pytest.approx(astuple(FOOD), rel=1e-3, abs=1e-4)
    assert fit.r2 > 0.999999
    assert fit.left_out_points < 0.01


@pytest.mark.parametrize("true", [FOOD, TRUE, Law(2, 0.5, 20, 0.5, 0.2)])
def test_noise_moves_predictions_little(true: Law) -> None:
    """Else half a point of noise in the pilots makes predictions points wrong."""
    rng = np.random.default_rng(0)
    fit = laws.fit(N, SIZE, true.error(N, SIZE) + rng.normal(0, 0.005, len(N)))
    assert fit.r2 > 0.98
    assert 0.3 < 100 * fit.rmse < 0.7
    assert fit.left_out_points < 1.2
    for n, size in [(64000, 5000), (100000, 50000), (3000, 10000)]:
        assert fit.law.error(n, size) == pytest.approx(true.error(n, size), abs=0.02)


@pytest.mark.alone
def test_sixty_pilots_take_a_tenth_of_a_second() -> None:
    """Else advice keeps the training worker from its work."""
    rng = np.random.default_rng(0)
    error = FOOD.error(N, SIZE) + rng.normal(0, 0.01, len(N))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        laws.fit(N, SIZE, error)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_weights_say_which_pilots_to_trust() -> None:
    """Else one pilot of few test images counts as much as the others."""
    error = FOOD.error(N, SIZE)
    error[7] += 0.3
    weights = np.ones(len(N))
    weights[7] = 1e-6
    assert astuple(laws.fit(N, SIZE, error, weights).law) == pytest.approx(astuple(FOOD), rel=0.02, abs=0.01)
    assert laws.fit(N, SIZE, error).law.error(1000, 4700) != pytest.approx(FOOD.error(1000, 4700), abs=0.001)


def test_constants_stay_within_their_bounds() -> None:
    """Else a law promises an error below 0, or one that rises with more images."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        error = rng.uniform(0.1, 0.9, len(N))
        fit = laws.fit(N, SIZE, error)
        assert min(astuple(fit.law)) >= 0
        assert fit.law.c <= error.min()
        assert all(laws.EXPONENTS[0] <= value <= laws.EXPONENTS[1] for value in (fit.law.alpha, fit.law.beta))


def test_what_is_no_pilot_is_refused() -> None:
    """Else a size of 0 bytes ends in a warning about logarithms."""
    for n, size, error in [([], [], []), ([1], [0], [0.5]), ([1, 2], [3], [0.5])]:
        with pytest.raises(ValueError, match="above 0"):
            laws.fit(n, size, error)


@pytest.mark.parametrize("storage", [10**7, 10**9, 10**11])
def test_the_optimum_is_that_of_brute_force(storage: int) -> None:
    """Else the advice wastes storage."""
    n, size = FOOD.optimum(storage, 10**12)
    assert n * size == pytest.approx(storage)
    sizes = np.geomspace(100, storage, 200_000)
    best = sizes[FOOD.error(storage / sizes, sizes).argmin()]
    assert size == pytest.approx(best, rel=1e-3)


def test_the_optimum_of_a_law_with_hardly_a_slope_is_a_number() -> None:
    """Else advice ends with an overflow where images, or bytes, hardly matter."""
    for law in (Law(1e-9, 0.02, 5, 0.02, 0), Law(1e-300, 0.02, 1e300, 0.02, 0), Law(5, 0.02, 1e-300, 3, 0)):
        n, size = law.optimum(10**15, 10**6)
        assert 0 < n <= 10**6
        assert n * size == pytest.approx(10**15) or n == 10**6


def test_the_optimum_of_a_small_pool_keeps_all_of_it() -> None:
    """Else images are compressed to make room for others that do not exist."""
    assert FOOD.optimum(10**10, 1000) == (1000, 10**7)
    assert Law(0, 0.3, 10, 1, 0).optimum(1000, 50) == (1, 1000), "more images do not help"
    assert Law(1, 0.3, 0, 1, 0).optimum(1000, 50) == (50, 20), "more bytes do not help"
    assert Law(0, 0.3, 0, 1, 0.1).optimum(1000, 50) == (50, 20)


@given(constants, st.floats(1e3, 1e12), st.floats(1, 1e7), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_no_other_size_beats_the_optimum(
    values: tuple[float, float, float, float, float], storage: float, most: float, places: list[float]
) -> None:
    """Else the law itself knows a better way to use the storage than its optimum."""
    law = Law(*values)
    n, size = law.optimum(storage, most)
    assert n <= most * (1 + 1e-9)
    assert n * size <= storage * (1 + 1e-9)
    others = np.exp(np.array(places) * np.log(storage))
    assert law.error(n, size) <= law.error(np.minimum(storage / others, most), others).min() * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("pools", [10, pytest.param(25, marks=pytest.mark.long)])
@pytest.mark.parametrize(("of_draws", "test_images", "most_wide"), [(1.0, 400, 0.15), (3.0, 4000, 0.25)])
def test_resampled_laws_hold_the_truth(of_draws: float, test_images: int, most_wide: float, pools: int) -> None:
    """Else the intervals are narrower, or far wider, than what test images and draws of training images leave open."""
    hits, widths = [], []
    for seed in range(pools):
        pilots = drawn_pilots(seed, test_images=test_images, of_draws=of_draws)
        fitted = laws.fit(pilots.n, pilots.size, 1 - pilots.correct.mean(axis=(1, 2))).law
        replicates = laws.bootstrap(fitted, pilots.correct, pilots.n, pilots.size, _draws(pilots), 100, seed)
        assert replicates.shape == (100, 5)
        n, size = np.array([2000, 8000, 8000]), np.array([9000, 5000, 30000])
        low, high = laws.intervals(laws.errors(replicates, n, size))
        hits += ((low <= TRUE.error(n, size)) & (TRUE.error(n, size) <= high)).tolist()
        widths += (high - low).tolist()
    assert np.mean(hits) >= 0.85
    assert np.mean(widths) < most_wide


def _draws(pilots: Pilots, pool: int = 40_000) -> NDArray[np.float64]:
    return laws.draws(pilots.correct, pilots.n, pilots.distance, pilots.images, pool)


def test_draws_vary_as_without_replacement() -> None:
    """Else pilots that all train on the same images are taken for ones that cannot be otherwise."""
    rng = np.random.default_rng(0)
    images, pool, seeds = 600, 1800, 200
    worth = rng.normal(size=pool)[:images]
    n, distance = np.array([50, 300, 600]), np.zeros(3)
    wrong = np.stack([[rng.permutation(worth)[:count].mean() for _ in range(seeds)] for count in n])
    correct = wrong[:, :, None] + rng.normal(size=(3, seeds, 4000)) < 0
    draws = laws.draws(correct, n, distance, images, pool)
    assert draws.shape == (3, 2 * seeds)
    slope = 1 / np.sqrt(2 * np.pi)  # of a share wrong over what images are worth
    for row, count in zip(draws, n.tolist(), strict=True):
        own, shared = (1 - count / images) / (count * seeds), (1 - images / pool) / images
        assert np.sqrt((row**2).sum()) == pytest.approx(slope * np.sqrt(own + shared), rel=0.25)
    whole = laws.draws(correct, n, distance, images, images)
    assert (whole[:, seeds:] == 0).all(), "they are the pool"
    assert (laws.draws(correct[:, :1], n, distance, images, pool) == 0).all(), "one draw says nothing of others"


def test_two_hundred_refits_are_quick_and_always_the_same() -> None:
    """Else advice takes minutes, or says something else each time."""
    pilots = drawn_pilots(0)
    start = time.perf_counter()
    fitted = laws.fit(pilots.n, pilots.size, 1 - pilots.correct.mean(axis=(1, 2))).law
    first, second = (
        laws.bootstrap(fitted, pilots.correct, pilots.n, pilots.size, _draws(pilots), seed=3) for _ in range(2)
    )
    assert time.perf_counter() - start < 30
    assert np.array_equal(first, second)


def _check(n: NDArray[np.int64], distance: NDArray[np.float64], correct: NDArray[np.bool_]) -> None:
    size = np.array([DISTANCES[value] for value in distance.tolist()])
    draws = laws.draws(correct, n, distance, IMAGES, 40_000)
    laws.check(laws.fit(n, size, 1 - correct.mean(axis=(1, 2))), n, distance, correct, draws)


def test_good_pilots_pass() -> None:
    """Else advice is refused to those who did everything right."""
    pilots = drawn_pilots(0)
    _check(pilots.n, pilots.distance, pilots.correct)
    _check(pilots.n, pilots.distance, pilots.correct[:, :1])


def test_too_few_pilots_say_what_is_missing() -> None:
    """Else five constants are fitted to what cannot hold them, and look as good as any."""
    pilots = drawn_pilots(0)
    two_sizes, two_distances = pilots.n < 600, pilots.distance < 4
    with pytest.raises(PilotsInsufficient, match="2 sizes; train on 3"):
        _check(pilots.n[two_sizes], pilots.distance[two_sizes], pilots.correct[two_sizes])
    with pytest.raises(PilotsInsufficient, match="2 distances; train at 3"):
        _check(pilots.n[two_distances], pilots.distance[two_distances], pilots.correct[two_distances])
    with pytest.raises(PilotsInsufficient, match="tested on 49 images; test on 50"):
        _check(pilots.n, pilots.distance, pilots.correct[:, :, :49])


def test_pilots_that_learn_nothing_from_more_images_are_refused() -> None:
    """Else labels that mean nothing, or pilots that differ by noise, still give a distance."""
    pilots = drawn_pilots(0)
    chance = np.random.default_rng(0).random(pilots.correct.shape) < 0.3
    with pytest.raises(PilotsInsufficient, match="does not fall with the number of images"):
        _check(pilots.n, pilots.distance, chance)
    ladder = np.array([0, 2, 4]), np.array([100, 250, 600])
    with pytest.raises(PilotsInsufficient, match="no distance was tried with two numbers"):
        _check(ladder[1], ladder[0].astype(np.float64), chance[:3])


@pytest.mark.slow
def test_labels_at_random_are_refused_nearly_always() -> None:
    """Else one in four pools whose labels mean nothing gets advice: seeds' draws go together over all distances."""
    refusals = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pilots = drawn_pilots(seed, test_images=300)
        luck = rng.normal(size=(5, pilots.correct.shape[1]))[np.unique(pilots.n, return_inverse=True)[1]]
        correct = rng.random(pilots.correct.shape) < 0.1 + 0.01 * luck[:, :, None]
        with pytest.raises(PilotsInsufficient) as excinfo:
            _check(pilots.n, pilots.distance, correct)
        refusals += "does not fall with the number of images" in excinfo.value.message
    assert refusals >= 52


def test_pilots_that_do_not_follow_the_law_are_refused() -> None:
    """Else the advice extends a curve that is not there."""
    pilots = drawn_pilots(0)
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.5, 1, (len(pilots.n), 1, 1))
    with pytest.raises(PilotsInsufficient, match="of the variance of their errors"):
        _check(pilots.n, pilots.distance, pilots.correct & (rng.random(pilots.correct.shape) < shares))
    # The largest pilots learn a lot more than the others let expect.
    jump = (pilots.n == 4000)[:, None, None] & (rng.random(pilots.correct.shape) < 0.5)
    with pytest.raises(PilotsInsufficient, match="points off that size, more than 3"):
        _check(pilots.n, pilots.distance, pilots.correct | jump)
