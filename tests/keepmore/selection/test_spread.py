"""What a spread chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore.errors import BudgetTooSmall
from keepmore.sampling import in_order, ranks
from keepmore.selection import spread as ladders
from keepmore.spec.variants import STEPS, Spread

SPREAD = Spread(0.5, 15)


def _sizes(images: int, seed: int, spread: Spread = SPREAD) -> NDArray[np.int64]:
    """Bytes (levels, images) as of photographs: skew, falling with distance, each in its own way; above distance 10
    larger again; and for one in eight no smaller than a transcode, whatever the distance below 4."""
    draw = np.random.default_rng(seed)
    ladder = np.array(spread.ladder)[:, np.newaxis]
    source = draw.lognormal(10.5, 0.5, images)
    sizes = source * 0.8 * ladder ** -draw.uniform(0.45, 0.75, images) * draw.normal(1, 0.02, (len(ladder), images))
    sizes[ladder[:, 0] > 10] *= 1.15
    transcodes = draw.random(images) < 0.125
    sizes = np.where(transcodes & (ladder < 4), 0.85 * source, sizes)
    return np.maximum(1, np.minimum(sizes, source)).astype(np.int64)


def _hashes(images: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed + 1).integers(0, 2**64, images, np.uint64)


def _choose(
    sizes: NDArray[np.int64], hashes: NDArray[np.uint64], budget: int | None, seed: int = 0, spread: Spread = SPREAD
) -> ladders.Choice:
    return ladders.choose(spread, sizes.copy(), hashes, seed, in_order(hashes), budget)


@given(images=st.integers(300, 900), seed=st.integers(0, 10**6), share=st.floats(0.05, 0.95))
def test_a_spread_keeps_the_whole_pool_and_fills_the_budget(images: int, seed: int, share: float) -> None:
    """Else storage that was paid for stays empty, or is not enough."""
    sizes, hashes = _sizes(images, seed), _hashes(images, seed)
    least, most = int(sizes.min(axis=0).sum()), int(sizes[0].sum())
    budget = round(least + share * (most - least))
    choice = _choose(sizes, hashes, budget)
    total = int(sizes[choice.rungs, choice.places].sum())
    assert sorted(choice.places.tolist()) == list(range(images))
    assert budget * 0.999 < total <= budget


TABLES = st.integers(1, 40).flatmap(
    lambda images: st.lists(
        st.lists(st.integers(1, 1000), min_size=images, max_size=images), min_size=STEPS, max_size=STEPS
    )
)


@given(table=TABLES, budget=st.integers(1, 40_000), seed=st.integers(0, 5))
def test_a_spread_is_never_over_the_budget_whatever_the_sizes(table: list[list[int]], budget: int, seed: int) -> None:
    """Else one image whose size grows with the distance breaks the promise of every subset."""
    sizes = np.array(table, np.int64)
    hashes = _hashes(sizes.shape[1], 0)
    try:
        choice = _choose(sizes, hashes, budget, seed)
    except BudgetTooSmall:
        assert sizes.min(axis=0)[in_order(hashes)[0]] > budget
        return
    assert len(choice.places) == len(set(choice.places.tolist())) == len(choice.rungs)
    assert int(sizes[choice.rungs, choice.places].sum()) <= budget
    for rung, place in zip(choice.rungs.tolist(), choice.places.tolist(), strict=True):
        assert sizes[rung, place] < sizes[:rung, place].min(initial=2**40), "a lower distance takes as few bytes"


def test_a_spread_depends_on_the_seed_and_on_nothing_else() -> None:
    """Else a manifest cannot be made again, or one seed is all there is."""
    sizes, hashes = _sizes(400, 1), _hashes(400, 1)
    budget = int(sizes[8].sum())
    first, again, other = (_choose(sizes, hashes, budget, seed) for seed in (0, 0, 1))
    assert first.rungs.tolist() == again.rungs.tolist()
    assert first.rungs.tolist() != other.rungs.tolist()
    assert first.scale == again.scale
    backwards = _choose(sizes[:, ::-1], hashes[::-1], budget)
    assert backwards.rungs[::-1].tolist() == first.rungs.tolist(), "the order of the index shows"


def test_distances_have_nothing_to_do_with_the_order_of_selection() -> None:
    """Else a prefix of the order is all of the truest images, and no sample of the pool."""
    sizes, hashes = _sizes(2000, 2), _hashes(2000, 2)
    choice = _choose(sizes, hashes, int(sizes[8].sum()))
    order = in_order(ranks(hashes, 0))
    by_order = choice.rungs[np.argsort(choice.places)][order].astype(float)
    assert abs(np.corrcoef(np.arange(2000), by_order)[0, 1]) < 0.1
    assert len(np.unique(choice.rungs)) > 8


def test_too_small_a_budget_keeps_the_first_of_the_order_at_the_far_end() -> None:
    """Else the variant has no images at all, or others than the fixed distances keep."""
    sizes, hashes = _sizes(300, 3), _hashes(300, 3)
    least = sizes.min(axis=0)
    choice = _choose(sizes, hashes, int(least.sum()) // 2)
    assert choice.places.tolist() == in_order(hashes)[: len(choice.places)].tolist()
    assert 0 < len(choice.places) < 300
    assert sizes[choice.rungs, choice.places].tolist() == least[choice.places].tolist()


def test_too_large_a_budget_keeps_everything_at_the_near_end() -> None:
    """Else images lose quality though there is room."""
    sizes, hashes = _sizes(300, 4), _hashes(300, 4)
    choice = _choose(sizes, hashes, int(sizes[0].sum()))
    assert set(choice.rungs.tolist()) == {0}
    assert len(choice.places) == 300


def test_without_a_budget_the_spread_is_as_it_was_asked_for() -> None:
    """Else a job without a budget has no such variant."""
    falling = np.arange(16, 0, -1)[:, np.newaxis] * np.ones(3000, np.int64)
    choice = _choose(falling, _hashes(3000, 5), None)
    assert choice.scale == 1.0
    distances = np.array(SPREAD.ladder)[choice.rungs]
    assert distances.mean() == pytest.approx((0.5 + 15) / 2, rel=0.05)
