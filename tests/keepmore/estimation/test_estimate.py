"""Estimates: what a user decides by before a large dataset is compressed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore import sampling
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import ChunkRow
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import UNKNOWN, Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import InvalidRequest
from keepmore.estimation.estimate import estimate
from keepmore.spec.budget import Budget, BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.job import Limits, Selection
from keepmore.storage.folder import FolderStore
from tests.keepmore.estimation.known_dataset import DISTANCES, KnownDataset


def _expected(answer: dict[str, Any]) -> dict[str, Any]:
    """The expected values alone; asserts that each lies in its interval."""
    values: dict[str, Any] = {}
    for name, figure in answer.items():
        if isinstance(figure, dict) and "low" in figure:
            assert 0 <= figure["low"] <= figure["expected"] <= figure["high"], name
            values[name] = figure["expected"]
        else:
            values[name] = _expected(figure) if isinstance(figure, dict) else figure
    return values


def _widths(answer: dict[str, Any]) -> list[int]:
    figures = [answer["failed"], answer["source_bytes"]]
    figures += [figure for row in answer["distances"].values() for figure in row.values()]
    return [figure["high"] - figure["low"] for figure in figures if figure]


@st.composite
def datasets(draw: st.DrawFn) -> KnownDataset:
    """Up to 60 images of skew sizes in a few classes, of which some fail, with sizes in the listing or without."""
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels: list[str | None] = draw(st.sampled_from([[None], ["a"], ["a", "b", "c"], [None, "a", "b"]]))
    failing, with_sizes = draw(st.sampled_from([0, 0.2, 1])), draw(st.booleans())
    entries: list[Entry] = []
    sizes_by_path: dict[str, tuple[int, ...] | None] = {}
    for number in range(count):
        size = int(rng.lognormal(3, 2))
        path = f"{number:03d}.jpg"
        label = labels[int(len(labels) * rng.random() ** 2)]
        entries.append(Entry(path, f"file:///{path}", label, size if with_sizes else UNKNOWN))
        sizes_by_path[path] = (
            None if rng.random() < failing else (size, int(size * rng.random()), int(size * rng.random()))
        )
    return KnownDataset(entries, sizes_by_path)


any_budget = st.one_of(
    st.none(),
    st.integers(1, 5000).map(BytesBudget),
    st.builds(DistanceBudget, st.sampled_from(DISTANCES), st.sampled_from([Decimal(1), Decimal("0.3")])),
    st.just(MoneyBudget(Decimal("0.00001"), Decimal("0.023"))),
)
selections = st.builds(
    Selection, st.sampled_from([*sampling.ORDERS]), st.sampled_from([None, True, False]), st.integers(0, 3)
)


@given(datasets(), any_budget, selections, st.integers(0, 3))
def test_a_sample_of_everything_is_exact(
    dataset: KnownDataset, budget: Budget | None, selection: Selection, seed: int
) -> None:
    """Else the estimate of a small dataset differs from what compressing it gives."""
    answer = dataset.estimate(budget, selection, max(len(dataset.entries), 2), seed)
    truth = dataset.truth(budget, selection)
    assert {name: value for name, value in _expected(answer).items() if name in truth} == truth
    assert not any(_widths(answer))
    assert answer["images"] == answer["sampled"] == len(dataset.entries)


@settings(max_examples=50)
@given(datasets(), any_budget, selections, st.integers(2, 40))
def test_estimates_keep_within_what_is_possible(
    dataset: KnownDataset, budget: Budget | None, selection: Selection, images: int
) -> None:
    """Else an answer holds more images than the dataset, bytes below 0, or an interval beside its own value."""
    answer = dataset.estimate(budget, selection, images)
    _expected(answer)
    assert answer["sampled"] == min(images, len(dataset.entries))
    assert answer["failed"]["high"] <= len(dataset.entries)
    for row in answer["distances"].values():
        assert (row["images"] is None) == (budget is None)
        assert budget is None or row["images"]["high"] <= len(dataset.entries)


@settings(max_examples=25)
@given(datasets(), any_budget, selections, st.integers(2, 40), st.integers(0, 3))
def test_an_estimate_is_the_same_every_time(
    dataset: KnownDataset, budget: Budget | None, selection: Selection, images: int, seed: int
) -> None:
    """Else asking again gives another answer, and a cached one cannot be distinguished from a wrong one."""
    assert dataset.estimate(budget, selection, images, seed) == dataset.estimate(budget, selection, images, seed)


@pytest.mark.slow
@pytest.mark.parametrize("order", sampling.ORDERS)
@pytest.mark.parametrize("balance", [True, False])
def test_large_datasets_are_imputed_in_part(order: str, balance: bool) -> None:
    """Else an estimate of ten million images takes an hour, or counts only the part that it looked at."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(10, 0.6, 150_000).astype(np.int64)
    labels = np.array(["a", "b", "c", "d", "e"])[(5 * rng.random(len(sizes)) ** 2).astype(int)]
    entries = [
        Entry(f"{number:06d}.jpg", "file:///", label, size)
        for number, (label, size) in enumerate(zip(labels.tolist(), sizes.tolist(), strict=True))
    ]
    sizes_by_path: dict[str, tuple[int, ...] | None] = {e.path: (e.size, e.size // 2, e.size // 5) for e in entries}
    dataset = KnownDataset(entries, sizes_by_path)
    budget, selection = DistanceBudget(10.0, Decimal("0.5")), Selection(order, balance)
    answer, truth = _expected(dataset.estimate(budget, selection, 128)), dataset.truth(budget, selection)
    for name, row in truth["distances"].items():
        assert answer["distances"][name]["bytes"] == pytest.approx(row["bytes"], rel=0.001)
        assert answer["distances"][name]["images"] == pytest.approx(row["images"], rel=0.005)


def test_entries_are_not_held_in_memory() -> None:
    """Else the kernel ends a worker that estimates ten million images, while a sample of 128 is all that is needed."""
    count = 50_000
    entries = (Entry(f"{n:06d}.jpg", f"s3://photos/{n:06d}.jpg", "a", 1000 + n % 7, f"etag:{n}") for n in range(count))

    def compress(rows: Sequence[ChunkRow]) -> pa.Table:
        assert all(row.entry.size == 1000 + int(row.entry.path[:6]) % 7 for row in rows)
        part = [{"path": row.entry.path, "source_bytes": row.entry.size, "bytes@4": 500} for row in rows]
        return pa.Table.from_pylist(part, index.schema((4.0,)))

    tracemalloc.start()
    answer = estimate(entries, (4.0,), None, Selection(), compress)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.images == count
    assert peak < 250 * count


def test_a_budget_at_a_distance_that_is_not_asked_for_is_refused_at_once() -> None:
    """Else the sample is compressed before the user hears of a typing error."""
    dataset = KnownDataset([Entry("a", "file:///a", None, 1)], {})
    with pytest.raises(InvalidRequest, match="distance 3 is not known"):
        dataset.estimate(DistanceBudget(3.0), Selection(), 2)


def test_a_real_dataset_with_a_broken_image(
    sample: Path, store: FolderStore, decoder: IsolatedDecoder, tmp_path: Path
) -> None:
    """Else the estimate does not fit the compressor that it is made for, or ends with the first broken image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for file in sorted(sample.rglob("*.jpg"))[:9]:
        (folder / f"{len(list(folder.iterdir()))}.jpg").write_bytes(file.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    compressor = Compressor(store, DISTANCES, 3, Limits(), decoder)
    entries = list(list_images(absolute_uri(str(folder)), Skipped()))
    reports: list[tuple[int, int]] = []
    answer = estimate(
        entries,
        DISTANCES,
        DistanceBudget(10.0),
        Selection(),
        lambda rows: compressor.chunk(rows, lambda progress: None),
        on_images=lambda done, of: reports.append((done, of)),
    ).as_json()
    part = compressor.chunk([ChunkRow(index.POOL, entry) for entry in entries], lambda progress: None)
    for name, row in answer["distances"].items():
        total = sum(size or 0 for size in part[f"bytes@{name}"].to_pylist())
        assert row["bytes"] == {"expected": total, "low": total, "high": total}
    assert answer["failed"] == {"expected": 1, "low": 1, "high": 1}
    assert answer["distances"]["10"]["images"]["expected"] == 9
    assert answer["source_bytes"]["expected"] == sum(entry.size for entry in entries)
    assert reports == [(8, 10), (10, 10)]


def test_an_estimate_is_that_of_the_release_before() -> None:
    """Else a job that is resumed after an upgrade has other estimates, of another digest, than before."""
    entries = [Entry(f"{n:03d}.jpg", "file:///", "ab"[n % 3 == 0], 1000 + n * n) for n in range(300)]
    sizes = {e.path: (e.size, e.size // (2 + n % 3), e.size // (4 + n % 5)) for n, e in enumerate(entries)}
    dataset = KnownDataset(entries, dict(sizes))
    answer = dataset.estimate(DistanceBudget(10.0, Decimal("0.5")), Selection("smallest"), 64, seed=7)
    assert answer["budget_bytes"] == {"expected": 819175, "low": 769536, "high": 871665}
    assert answer["distances"]["10"] == {
        "bytes": {"expected": 1638350, "low": 1539073, "high": 1743329},
        "images": {"expected": 225, "low": 219, "high": 231},
    }
