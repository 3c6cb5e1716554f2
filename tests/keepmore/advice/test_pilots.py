"""Pilots: which images take part, in which order, and what the whole pool would take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore.advice import pilots
from keepmore.compression import index


def _table(images: int, classes: int, seed: int = 0, distances: tuple[float, ...] = (0.0, 4.0, 10.0)) -> pa.Table:
    """Pilots' images as the index has them, each class in turn; sizes are drawn, and fall with distance."""
    draws = np.random.default_rng(seed)
    source = draws.integers(20_000, 90_000, images)
    sizes = {index.column("bytes", d): (source / (1 + d)).astype(np.int64) for d in distances}
    labels = [f"class {number % classes}" for number in range(images)]
    paths = [f"{seed}/{number:05d}.jpg" for number in range(images)]
    return pa.table({"path": paths, "label": labels, "source_bytes": source, **sizes})


@given(st.integers(20, 200), st.integers(1, 7), st.integers(0, 10**6))
def test_an_order_takes_every_image_once_and_classes_in_turn(images: int, classes: int, seed: int) -> None:
    """Else a small pilot lacks a class, and its error says nothing about the number of images."""
    table = _table(images, classes)
    order = pilots.order(table, seed)
    assert sorted(order.tolist()) == list(range(images))
    labels = np.array(table["label"].to_pylist())
    for size in (classes, 2 * classes):
        assert np.unique(labels[order[:size]], return_counts=True)[1].tolist() == [size // classes] * classes


@given(st.integers(0, 1000))
def test_the_order_of_a_seed_is_the_same_whatever_the_images_weigh(seed: int) -> None:
    """Else two distances are compared on different images, which is more noise than distances make."""
    table = _table(60, 5)
    other = _table(60, 5, distances=(0.0, 2.0))
    assert np.array_equal(pilots.order(table, seed), pilots.order(other, seed))


def test_each_seed_has_images_of_its_own() -> None:
    """Else three seeds repeat what one draw of images happens to give, and intervals are too narrow."""
    table = _table(400, 4)
    first, second = (set(pilots.order(table, seed)[:40].tolist()) for seed in (0, 1))
    assert len(first & second) < 20


def _pool(table: pa.Table, distances: list[float]) -> dict[float, float]:
    return {d: float(np.mean(_sizes(table, d))) for d in distances}


def _sizes(table: pa.Table, distance: float) -> NDArray[np.int64]:
    sizes: NDArray[np.int64] = table[index.column("bytes", distance)].to_numpy()
    return sizes


def test_means_are_exact_where_the_pool_was_encoded() -> None:
    """Else advice promises other counts than `select` then finds."""
    table = _table(60, 5)
    pool_means = {0.0: 51_234.0, 4.0: 9_876.5}
    means = pilots.means(table, (0.0, 4.0), pool_means)
    assert means == pool_means


def test_other_means_are_estimated_by_the_ratio_to_the_nearest_known_distance() -> None:
    """Else a pool whose images are larger than the pilots' is predicted to take less than it does."""
    pool = _table(3000, 5, seed=1)
    part = pool.take(np.argsort(_sizes(pool, 0.0))[:900])  # the smallest: a mean of their own would be far off
    pool_means = _pool(pool, [0.0, 4.0])
    means = pilots.means(part, (0.0, 4.0, 10.0), pool_means)
    assert means[10.0] == pytest.approx(_pool(pool, [10.0])[10.0], rel=0.01)
    assert means[10.0] == pytest.approx(pool_means[4.0] / _pool(part, [4.0])[4.0] * _pool(part, [10.0])[10.0])
    alone = pilots.means(part, (0.0, 10.0), {0.0: pool_means[0.0]})
    assert alone[10.0] == pytest.approx(_pool(pool, [10.0])[10.0], rel=0.01)
