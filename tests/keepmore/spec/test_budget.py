"""Budgets to bytes, orders, and the longest prefix that fits."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore import sampling
from keepmore.errors import BudgetTooSmall, InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec.budget import BytesBudget, DistanceBudget, MoneyBudget

sizes = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)
classes = st.lists(st.integers(-1, 4), min_size=1, max_size=80)
paths = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1000", 1000),
        ("508MB", 508_000_000),
        ("508 MB", 508_000_000),
        ("485MiB", 485 * 2**20),
        ("1.5kB", 1500),
        ("0.1GB", 100_000_000),
        ("2TiB", 2 * 2**40),
        ("7B", 7),
    ],
)
def test_sizes(expression: str, expected: int) -> None:
    """Else a budget in MiB is read as MB, and 5 % of the images are lost."""
    assert budgets.parse(expression) == BytesBudget(expected)


SIZES = ["", "MB", "-5MB", "0", "5XB", "1e6", str(2**63)]
PARTS = ["as:", "as:x", "as:10*0", "as:10*2"]
COSTS = ["cost:5", "cost:1e400000@1", "cost:1@1e999999", "cost:1e17@0.0001"]


@pytest.mark.parametrize("expression", [*SIZES, *PARTS, *COSTS])
def test_impossible_budgets_name_themselves_and_the_forms(expression: str) -> None:
    """Else a typing error keeps a wrong set of images, and the rest is deleted."""
    with pytest.raises(InvalidRequest, match="budget"):
        budgets.parse(expression)


@pytest.mark.parametrize("wrong", ["as:4*0.5", {"distance": 4}, {"fraction": 0.5}, True])
def test_an_error_about_json_names_forms_of_json(wrong: Any) -> None:
    """Else whoever writes what the error suggests gets the same error again."""
    with pytest.raises(InvalidRequest) as excinfo:
        budgets.from_json(wrong)
    for form in (
        508,
        "508MB",
        {"as_distance": 10, "fraction": 0.5},
        {"monthly_cost": 11.68, "price_per_gb_month": 0.023},
    ):
        assert isinstance(form, int) or json.dumps(form) in excinfo.value.message
        assert budgets.from_json(form)


def test_a_budget_as_a_distance_is_exact() -> None:
    """Else float rounding keeps a subset that is over the budget, or leaves room unused."""
    pool = {0.0: 10**18 + 7, 10.0: 3}
    assert budgets.parse("as:0") == DistanceBudget(0.0)
    assert DistanceBudget(0.0).bytes(pool) == 10**18 + 7
    assert DistanceBudget(0.0, Decimal("0.1")).bytes(pool) == 10**17
    assert DistanceBudget(10.0, Decimal("0.5")).bytes(pool) == 1
    with pytest.raises(InvalidRequest, match="one of the job's distances: 0, 10"):
        DistanceBudget(4.0).bytes(pool)


def test_a_budget_in_money() -> None:
    """Else 11.68 a month buys another number of bytes than the storage bill says."""
    assert budgets.parse("cost:11.68@0.023") == MoneyBudget(Decimal("11.68"), Decimal("0.023"))
    assert MoneyBudget(Decimal("11.68"), Decimal("0.023")).bytes({}) == 507_826_086_956
    with pytest.raises(InvalidRequest, match="price_per_gb_month"):
        budgets.parse("cost:5@0")


@given(st.one_of(st.integers(1, 2**63 - 1).map(BytesBudget), st.just(DistanceBudget(10.0, Decimal("0.25")))))
def test_json_keeps_a_budget(budget: budgets.Budget) -> None:
    """Else a resumed job has another budget than the one that was asked for."""
    assert budgets.from_json(budgets.as_json(budget)) == budget


@given(sizes, st.integers(1, 10**13), st.randoms())
def test_a_subset_is_the_longest_prefix_that_fits(bytes_: list[int], budget: int, random: object) -> None:
    """Else a subset is over its budget, or images that would have fitted are deleted."""
    order = list(range(len(bytes_)))
    random.shuffle(order)  # type: ignore[attr-defined]
    array = np.array(bytes_, np.int64)
    if array[order[0]] > budget:
        with pytest.raises(BudgetTooSmall, match=f"{bytes_[order[0]]:,} bytes"):
            sampling.select(array, np.array(order), budget)
        return
    places = sampling.select(array, np.array(order), budget).tolist()
    assert places == order[: len(places)]
    assert sum(bytes_[place] for place in places) <= budget
    assert len(places) == len(order) or sum(bytes_[place] for place in order[: len(places) + 1]) > budget


@given(sizes, st.integers(1, 10**12), st.integers(0, 10**12))
def test_subsets_of_growing_budgets_nest(bytes_: list[int], budget: int, more: int) -> None:
    """Else raising a budget throws away images that were kept before."""
    array = np.array(bytes_, np.int64)
    order = np.argsort(array, kind="stable")
    if array.min() > budget:
        return
    small = sampling.select(array, order, budget)
    assert set(small.tolist()) <= set(sampling.select(array, order, budget + more).tolist())


def test_sizes_of_four_bytes_add_up_to_more() -> None:
    """Else a subset of more than 4 GB overruns its budget unseen."""
    sizes_ = np.full(5, 3 * 10**9, np.uint32)
    assert len(sampling.select(sizes_, np.arange(5), 9 * 10**9)) == 3
    assert len(sampling.select(sizes_, np.arange(5), 2**63 - 1)) == 5


@given(sizes, st.integers(1, 10**13))
def test_smallest_first_keeps_the_most_images(bytes_: list[int], budget: int) -> None:
    """Else "smallest" is not what its name promises: no other order may keep more."""
    array = np.array(bytes_, np.int64)
    if array.min() > budget:
        return
    places = sampling.select(array, sampling.in_order(array), budget)
    best, total = 0, 0
    for size in sorted(bytes_):
        total += size
        best += total <= budget
    assert len(places) == best


@given(paths, st.integers(0, 2**64), st.text(min_size=1, max_size=8))
def test_the_random_order_holds_as_the_dataset_grows(names: list[str], seed: int, extra: str) -> None:
    """Else adding a thousand images reshuffles which of the old ones are kept."""
    before = _in_order(names, seed)
    after = [name for name in _in_order(list(dict.fromkeys([*names, extra])), seed) if name in names]
    assert before == after


def _in_order(names: list[str], seed: int) -> list[str]:
    names = sorted(names)
    hashes = np.array([sampling.path_hash(name) for name in names], np.uint64)
    return [names[place] for place in sampling.in_order(sampling.ranks(hashes, seed))]


def test_seeds_give_different_orders_and_no_bias() -> None:
    """Else several seeds repeat one draw, or images by their place in the alphabet are preferred."""
    hashes = np.array([sampling.path_hash(f"{n:05d}.jpg") for n in range(4000)], np.uint64)
    first, second = (sampling.in_order(sampling.ranks(hashes, seed)) for seed in (0, 1))
    assert (first != second).mean() > 0.99
    assert abs(first[:1000].mean() - 1999.5) < 4 * 4000 / np.sqrt(12 * 1000)


@given(classes, st.integers(0, 9))
def test_balanced_orders_fill_the_classes_in_turn(numbers: list[int], seed: int) -> None:
    """Else a balanced subset starves a class, or drops images of a large one for nothing."""
    keys = sampling.ranks(np.arange(len(numbers), dtype=np.uint64), seed)
    order = sampling.in_order(keys, np.array(numbers, np.int32))
    assert sorted(order.tolist()) == list(range(len(numbers)))
    totals = Counter(numbers)
    counts: Counter[int] = Counter()
    for place in order.tolist():
        counts[numbers[place]] += 1
        most = max(counts.values())
        assert all(counts[number] >= min(most - 1, totals[number]) for number in totals)


@given(classes, st.floats(0.05, 0.9), st.integers(0, 9))
def test_the_hold_out_is_stratified(numbers: list[int], fraction: float, seed: int) -> None:
    """Else a class has no test images, or none left to train on."""
    class_numbers = np.array(numbers, np.int32)
    ranks = sampling.ranks(np.arange(len(numbers), dtype=np.uint64), seed)
    cutoffs = sampling.held_out(ranks, class_numbers, fraction)
    out = [n for n, rank in zip(numbers, ranks, strict=True) if n in cutoffs and rank <= cutoffs[n]]
    for number, size in Counter(numbers).items():
        expected = 0 if size == 1 else min(max(round(size * fraction), 1), size - 1)
        assert out.count(number) == expected


@given(st.lists(st.integers(-3, 2**40), max_size=50), st.sampled_from([1, 2**16, 2**20, 2**40]))
def test_orders_are_stable_sorts(values: list[int], modulus: int) -> None:
    """Else images of one size change places between runs, and the digest with them."""
    array = np.array(values, np.int64) % modulus
    assert sampling.in_order(array).tolist() == np.argsort(array, kind="stable").tolist()
    signed = np.array(values, np.int64)
    assert sampling.in_order(signed).tolist() == np.argsort(signed, kind="stable").tolist()


def test_a_pool_without_images_says_so() -> None:
    """Else a dataset of broken files ends in a traceback."""
    empty = np.array([], np.int64)
    order = sampling.in_order(empty, np.array([], np.int32))
    with pytest.raises(BudgetTooSmall, match="every image of the pool failed"):
        sampling.select(empty, order, 10)
