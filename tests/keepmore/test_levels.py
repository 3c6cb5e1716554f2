"""Levels: a distance for each image, a distance for so many images. The pure part."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore import levels
from keepmore.budget import BytesBudget, DistanceBudget, in_order, ranks
from keepmore.errors import (
    BudgetTooSmall,
    DistanceOutOfRange,
    DuplicateDistance,
    InvalidRequest,
    UnknownField,
    WrongType,
)
from keepmore.levels import Curve, Fit, Spread, Trial
from keepmore.request import Request

SPREAD = Spread(0.5, 15)
FIXED = (0.0, 2.0)


def _sizes(images: int, seed: int, spread: Spread = SPREAD) -> NDArray[np.int64]:
    """Bytes (levels, images) as of photographs: skew, falling with distance, each in its own way; above distance 10
    larger again; and for one in eight no smaller than a transcode, whatever the distance below 4."""
    draw = np.random.default_rng(seed)
    ladder = np.array(spread.ladder)[:, np.newaxis]
    source = draw.lognormal(10.5, 0.5, images)
    sizes = source * 0.8 * ladder ** -draw.uniform(0.45, 0.75, images) * draw.normal(1, 0.02, (len(ladder), images))
    sizes[ladder[:, 0] > 10] *= 1.15
    packed = draw.random(images) < 0.125
    sizes = np.where(packed & (ladder < 4), 0.85 * source, sizes)
    return np.maximum(1, np.minimum(sizes, source)).astype(np.int64)


def _hashes(images: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed + 1).integers(0, 2**64, images, np.uint64)


def _chosen(
    sizes: NDArray[np.int64], hashes: NDArray[np.uint64], budget: int | None, seed: int = 0, spread: Spread = SPREAD
) -> levels.Choice:
    return levels.choose(spread, sizes.copy(), hashes, seed, in_order(hashes), budget)


@given(images=st.integers(300, 900), seed=st.integers(0, 10**6), share=st.floats(0.05, 0.95))
def test_a_spread_keeps_the_whole_pool_and_fills_the_budget(images: int, seed: int, share: float) -> None:
    """Else storage that was paid for stays empty, or is not enough."""
    sizes, hashes = _sizes(images, seed), _hashes(images, seed)
    least, most = int(sizes.min(axis=0).sum()), int(sizes[0].sum())
    budget = round(least + share * (most - least))
    found = _chosen(sizes, hashes, budget)
    total = int(sizes[found.levels, found.places].sum())
    assert sorted(found.places.tolist()) == list(range(images))
    assert budget * 0.999 < total <= budget


TABLES = st.integers(1, 40).flatmap(
    lambda images: st.lists(st.lists(st.integers(1, 1000), min_size=images, max_size=images), min_size=16, max_size=16)
)


@given(table=TABLES, budget=st.integers(1, 40_000), seed=st.integers(0, 5))
def test_a_spread_is_never_over_the_budget_whatever_the_sizes(table: list[list[int]], budget: int, seed: int) -> None:
    """Else one image whose size grows with the distance breaks the promise of every subset."""
    sizes = np.array(table, np.int64)
    hashes = _hashes(sizes.shape[1], 0)
    try:
        found = _chosen(sizes, hashes, budget, seed)
    except BudgetTooSmall:
        assert sizes.min(axis=0)[in_order(hashes)[0]] > budget
        return
    assert len(found.places) == len(set(found.places.tolist())) == len(found.levels)
    assert int(sizes[found.levels, found.places].sum()) <= budget
    for level, place in zip(found.levels.tolist(), found.places.tolist(), strict=True):
        assert sizes[level, place] < sizes[:level, place].min(initial=2**40), "a truer level takes as few bytes"


def test_a_spread_depends_on_the_seed_and_on_nothing_else() -> None:
    """Else a manifest cannot be made again, or one seed is all there is."""
    sizes, hashes = _sizes(400, 1), _hashes(400, 1)
    budget = int(sizes[8].sum())
    first, again, other = (_chosen(sizes, hashes, budget, seed) for seed in (0, 0, 1))
    assert first.levels.tolist() == again.levels.tolist()
    assert first.levels.tolist() != other.levels.tolist()
    assert first.scale == again.scale
    backwards = _chosen(sizes[:, ::-1], hashes[::-1], budget)
    assert backwards.levels[::-1].tolist() == first.levels.tolist(), "the order of the index shows"


def test_levels_have_nothing_to_do_with_the_order_of_selection() -> None:
    """Else a prefix of the order is all of the truest images, and no sample of the pool."""
    sizes, hashes = _sizes(2000, 2), _hashes(2000, 2)
    found = _chosen(sizes, hashes, int(sizes[8].sum()))
    order = in_order(ranks(hashes, 0))
    by_order = found.levels[np.argsort(found.places)][order].astype(float)
    assert abs(np.corrcoef(np.arange(2000), by_order)[0, 1]) < 0.1
    assert len(np.unique(found.levels)) > 8


def test_too_small_a_budget_keeps_the_first_of_the_order_at_the_far_end() -> None:
    """Else the arm has no images at all, or others than the fixed distances keep."""
    sizes, hashes = _sizes(300, 3), _hashes(300, 3)
    least = sizes.min(axis=0)
    found = _chosen(sizes, hashes, int(least.sum()) // 2)
    assert found.places.tolist() == in_order(hashes)[: len(found.places)].tolist()
    assert 0 < len(found.places) < 300
    assert sizes[found.levels, found.places].tolist() == least[found.places].tolist()


def test_too_large_a_budget_keeps_everything_at_the_near_end() -> None:
    """Else images lose quality though there is room."""
    sizes, hashes = _sizes(300, 4), _hashes(300, 4)
    found = _chosen(sizes, hashes, int(sizes[0].sum()))
    assert set(found.levels.tolist()) == {0}
    assert len(found.places) == 300


def test_without_a_budget_the_spread_is_as_it_was_asked_for() -> None:
    """Else a job without a budget has no such arm."""
    falling = np.arange(16, 0, -1)[:, np.newaxis] * np.ones(3000, np.int64)
    found = _chosen(falling, _hashes(3000, 5), None)
    assert found.scale == 1.0
    wished = np.array(SPREAD.ladder)[found.levels]
    assert wished.mean() == pytest.approx((0.5 + 15) / 2, rel=0.05)


@given(low=st.floats(0.11, 24.9), width=st.floats(0.001, 24.0))
def test_a_ladder_stays_within_its_ends(low: float, width: float) -> None:
    """Else an image is worse than the user allowed, or one cannot be encoded."""
    high = min(25.0, low + width)
    ladder = Spread(low, high).ladder
    assert (ladder[0], ladder[-1]) == (low, high)
    assert sorted(set(ladder)) == list(ladder)
    assert 2 <= len(ladder) <= levels.STEPS


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("8", "8"),
        ("8.0", "8"),
        ("spread:0.5-15", "spread-0.5-15"),
        ("spread-0.50-15", "spread-0.5-15"),
        ("fit-2000", "fit-2000"),
        ("manifest.parquet", None),
        ("spread-15-0.5", None),
        ("", None),
    ],
)
def test_an_arm_has_one_name(written: str, name: str | None) -> None:
    """Else a manifest is not found under the name that its user knows, or a file is taken for one."""
    assert levels.arm(written) == name


def test_levels_are_written_and_read_again() -> None:
    """Else the command in a report, or a job's record, asks for something else."""
    fixed, asked = levels.parse("8, 0,fit:2000,spread:0.5-15,fit:20")
    assert list(fixed) == [0, 8]
    assert list(asked) == [Spread(0.5, 15), Fit(20), Fit(2000)]
    assert levels.parse(levels.written(fixed, asked)) == (fixed, asked)
    assert levels.from_json(json.loads(json.dumps(levels.as_json(fixed, asked)))) == (fixed, asked)
    assert levels.from_json({"fit": 3}) == ((), (Fit(3),))


@pytest.mark.parametrize(
    ("value", "error", "why"),
    [
        ([], InvalidRequest, "the list is empty"),
        ("0,8", WrongType, "is no list"),
        (["8"], WrongType, r"distances\[0\]"),
        ([True], WrongType, r"distances\[0\]"),
        ([10**400], DistanceOutOfRange, "not possible"),
        ([{"spread": [0, 15]}], DistanceOutOfRange, "0.11"),
        ([{"spread": [0.5, 26]}], DistanceOutOfRange, "26"),
        ([{"spread": [float("nan"), 2]}], DistanceOutOfRange, "nan"),
        ([{"spread": [15, 0.5]}], InvalidRequest, "smaller one first"),
        ([{"spread": [5]}], WrongType, "pair of numbers"),
        ([{"spread": "0.5-15"}], WrongType, "pair of numbers"),
        ([{"fit": 0}], InvalidRequest, "use 1 to"),
        ([{"fit": 2.5}], WrongType, "whole number"),
        ([{"fit": True}], WrongType, "whole number"),
        ([{"fit": 2, "spread": [1, 2]}], InvalidRequest, "no level"),
        ([{}], InvalidRequest, "no level"),
        ([{"spred": [1, 2]}], UnknownField, "distances.spred"),
        ([{"fit": 2}, {"fit": 2}], DuplicateDistance, "fit:2 is named more than once"),
    ],
)
def test_wrong_levels_say_what_is_wrong(value: Any, error: type[InvalidRequest], why: str) -> None:
    """Else a typing error costs a job, or is told as something else."""
    with pytest.raises(error, match=why):
        levels.from_json(value)


@pytest.mark.parametrize("written", ["spread:0.5", "spread:a-b", "fit:", "fit:2.5", "fit:-3", "fill:3"])
def test_wrong_words_say_which_are_right(written: str) -> None:
    """Else the command's user has to guess."""
    with pytest.raises(InvalidRequest, match="fit:IMAGES"):
        levels.parse(f"0,{written}")


def test_a_request_without_levels_is_written_as_ever() -> None:
    """Else ids of subsets and trainings change, and what earlier jobs made is not found again."""
    plain = Request("file:///d", (10, 0, 2), budget=BytesBudget(1000))
    assert plain.as_json()["distances"] == [0, 2, 10]
    assert "levels" not in plain.as_json()
    assert (plain.arms, plain.compressed) == (("0", "2", "10"), (0, 2, 10))
    assert plain.subset_id == "2df9c67cdadc"


def test_a_request_with_levels_names_arms_and_what_to_compress() -> None:
    """Else a worker compresses at other distances than a select step looks for."""
    asked = Request("file:///d", (8,), budget=DistanceBudget(15), levels=(Fit(20), SPREAD))
    assert asked.arms == ("8", "spread-0.5-15", "fit-20")
    assert asked.compressed == tuple(sorted({8.0, *SPREAD.ladder}))
    assert Request.from_json(asked.as_json()) == asked
    assert Request("file:///d", (), budget=BytesBudget(9), levels=(Fit(20),)).compressed == (0,)


def test_a_fit_without_a_budget_is_refused() -> None:
    """Else it is found out after hours of compressing."""
    with pytest.raises(InvalidRequest, match="fit:20 needs a budget"):
        Request("file:///d", FIXED, levels=(Fit(20),))


def test_a_spread_alone_needs_no_fixed_distance() -> None:
    """Else a user compresses at distances that nobody asked for."""
    assert Request("file:///d", (), levels=(SPREAD,)).compressed == SPREAD.ladder


def _search(images: int, exponent: float, budget: int, off: float = 1.0) -> list[Trial]:
    """A search over images of equal size, source 100,000 bytes, by a curve that is `off` by a factor."""

    def size(distance: float) -> float:
        return 80_000 * math.pow(distance, -exponent) * (1.25 if distance > 10 else 1.0)

    curve = Curve([(d, off * size(d) * (images + 0.5)) for d in (0.11, 0.35, 1.0, 2.5, 5.0, 10.0, 10.5, 16.0, 25.0)])
    tried: list[Trial] = []
    while (distance := levels.next_trial(curve, tried, budget, levels.digits(images))) is not None:
        tried.append(Trial(distance, math.ceil(size(distance) * images), size(distance)))
    return tried


@given(
    images=st.integers(1, 20_000),
    exponent=st.floats(0.4, 0.8),
    wanted=st.floats(0.13, 9.8) | st.floats(16, 24),
    off=st.floats(0.8, 1.25),
)
def test_a_search_finds_the_window(images: int, exponent: float, wanted: float, off: float) -> None:
    """Else so many images fit only by chance, or a pool is encoded dozens of times."""
    size = 80_000 * wanted**-exponent * (1.25 if wanted > 10 else 1)
    tried = _search(images, exponent, budget := int(size * (images + 0.5)), off)
    assert tried[-1].hits(budget), [(trial.distance, trial.bytes / budget) for trial in tried]
    assert len(tried) <= 8


def test_a_search_without_an_end_tries_the_ends() -> None:
    """Else images that would fit at the largest distance are said to fit at none."""
    assert _search(10, 0.5, 10)[-1].distance == 25
    assert _search(10, 0.5, 10**9)[-1].distance == 0.11
