"""Orders, the longest prefix that fits, and the hold-out."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore import sampling
from keepmore.errors import BudgetTooSmall
from keepmore.selection.pool import Pool, in_order
from keepmore.spec.fields import INFO
from keepmore.spec.job import Selection

sizes = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)
classes = st.lists(st.integers(-1, 4), min_size=1, max_size=80)
paths = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize("order", sampling.ORDERS)
@given(bytes_=sizes, seed=st.integers(0, 9))
def test_every_order_is_what_its_name_says(order: str, bytes_: list[int], seed: int) -> None:
    """Else an order that somebody adds selects as another one does, and its subset is stored under its own name."""
    names = [f"{number}.jpg" for number in range(len(bytes_))]
    hashes = np.array(list(map(sampling.path_hash, names)), np.uint64)
    first = {
        "random": sorted(range(len(names)), key=lambda place: int(sampling.ranks(hashes[[place]], seed)[0])),
        "smallest": sorted(range(len(names)), key=lambda place: bytes_[place]),
    }[order]
    pool = Pool(np.arange(len(names), dtype=np.uint32), hashes, np.zeros(len(names), np.int32), ["a"], {})
    assert in_order(pool, Selection(order, False, seed), np.array(bytes_, np.int64)).tolist() == first


def test_orders_are_named_in_one_place() -> None:
    """Else a request asks for an order that nothing knows, after an hour of compressing."""
    (order,) = (field for field in fields(Selection) if field.name == "order")
    assert order.metadata[INFO].choices == tuple(sampling.ORDERS)
    with pytest.raises(ValueError, match="there is no order 'largest'"):
        sampling.size_keys("largest")
    pool = Pool(np.arange(1, dtype=np.uint32), np.zeros(1, np.uint64), np.zeros(1, np.int32), ["a"], {})
    with pytest.raises(ValueError, match="needs the sizes"):
        in_order(pool, Selection("smallest"), None)


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
