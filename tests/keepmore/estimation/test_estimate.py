"""Estimates: what a user decides by before a large dataset is compressed."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.codec import jpegxl
from keepmore.codec.jpegxl import Pixels
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.compressor import Compressor, encodings
from keepmore.compression.index import ChunkRow
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import UNKNOWN, Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import BudgetTooSmall, InvalidRequest
from keepmore.estimation.estimate import estimate
from keepmore.estimation.imputation import Donors, Images, Sample, draw, strata
from keepmore.spec.budget import Budget, BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.distance import text
from keepmore.spec.job import Limits, Selection
from keepmore.storage.folder import FolderStore

DISTANCES = (0.0, 4.0, 10.0)
PHOTOGRAPHS = 500

# Of so many intervals that each hold the truth with 95 %, fewer than this hold it less than once in a thousand times.
FEWEST_HITS = {100: 87, 300: 272}


@dataclass(frozen=True)
class KnownDataset:
    """A dataset of which everything is known: bytes by distance of every image, None for one that fails."""

    entries: list[Entry]
    bytes: dict[str, tuple[int, ...] | None]
    distances: tuple[float, ...] = DISTANCES

    def compress(self, rows: Sequence[ChunkRow]) -> pa.Table:
        """As Compressor.chunk."""
        part: list[dict[str, Any]] = []
        for row in rows:
            sizes = self.bytes[row.entry.path]
            if sizes is None:
                part.append({"path": row.entry.path, "error_code": "unreadable_image"})
            else:
                columns = {index.column("bytes", d): size for d, size in zip(self.distances, sizes, strict=True)}
                part.append({"path": row.entry.path, "source_bytes": sizes[0], **columns})
        return pa.Table.from_pylist(part, index.schema(self.distances))

    def estimate(self, budget: Budget | None, selection: Selection, images: int, seed: int = 0) -> dict[str, Any]:
        return estimate(self.entries, self.distances, budget, selection, self.compress, images, seed).as_json()

    def truth(self, budget: Budget | None, selection: Selection) -> dict[str, Any]:
        """Exactly what compressing all of it gives, in the form of an estimate's expected values."""
        good = [entry for entry in self.entries if self.bytes[entry.path]]
        sizes = np.array([self.bytes[entry.path] for entry in good], np.int64).reshape(len(good), len(self.distances))
        totals = dict(zip(self.distances, sizes.sum(axis=0).tolist(), strict=True))
        limit = budget.bytes(totals) if budget else None
        counts = {
            d: _image_count(good, sizes[:, place], limit, selection) if limit is not None else None
            for place, d in enumerate(self.distances)
        }
        return {
            "failed": len(self.entries) - len(good),
            "budget_bytes": limit,
            "distances": {text(d): {"bytes": totals[d], "images": counts[d]} for d in self.distances},
        }


def _image_count(entries: list[Entry], sizes: NDArray[np.int64], limit: int, selection: Selection) -> int:
    labels = [entry.label or "" for entry in entries]
    balance = any(labels) if selection.balance is None else selection.balance
    classes = np.unique(labels, return_inverse=True)[1].astype(np.int32) if balance and labels else None
    hashes = np.array([sampling.path_hash(entry.path) for entry in entries], np.uint64)
    size_keys = sampling.size_keys(selection.order)
    keys = size_keys(sizes) if size_keys else sampling.ranks(hashes, selection.seed)
    try:
        return len(sampling.select(sizes, sampling.in_order(keys, classes), limit))
    except BudgetTooSmall:
        return 0


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


def test_the_seed_decides_which_images_are_sampled() -> None:
    """Else a second estimate with another seed cannot confirm the first."""
    entries = [Entry(f"{number:04d}.jpg", "file:///", None, 1000 + number) for number in range(1000)]
    images = Images.of(entries)
    drawings = [
        draw(strata(images, 128, balanced=False), sampling.ranks(images.path_hashes, seed), 128) for seed in (0, 1)
    ]
    assert [len(places) for places in drawings] == [128, 128]
    assert len(set(drawings[0].tolist()) & set(drawings[1].tolist())) < 40


def test_strata_hold_about_equal_bytes() -> None:
    """Else the few large images that make up most of a dataset are hardly sampled."""
    sizes = np.random.default_rng(0).lognormal(10, 1.5, 5000).astype(np.int64)
    images = Images(sizes, np.arange(5000, dtype=np.uint64), np.full(5000, -1, np.int32))
    stratum = strata(images, 128, balanced=False)
    shares = np.bincount(stratum, sizes) / sizes.sum()
    assert len(shares) == 8
    assert np.all(np.abs(shares - 1 / 8) < 0.02)
    assert np.all(np.bincount(stratum[draw(stratum, images.path_hashes, 128)]) == 16)


def test_donors_are_drawn_by_the_size_of_their_sources() -> None:
    """Else imputed totals are beside the expected ones wherever small images take more of their source's size."""
    sizes = np.array([100, 300, 600, 5000, 5000, 5000])
    images = Images(sizes, np.arange(6, dtype=np.uint64), np.full(6, -1, np.int32))
    sample = Sample(np.arange(3), np.full(3, True), sizes[:3], np.array([[100, 0, 0]]))
    donors = Donors.of(images, np.zeros(6, np.int64), sample)
    assert donors.expected(np.arange(6)) == pytest.approx([100 + 15000 * 100 / 1000])
    imputed = [each.bytes[0].copy() for each in donors.impute(np.arange(6), 8000, np.random.default_rng(0))]
    assert np.unique(imputed, axis=0)[:, :3].tolist() == [[100, 0, 0]] * len(np.unique(imputed, axis=0))
    # Two of the three are drawn again, with replacement: all of both, 1/4 or 1/7 of the two have the first one's size.
    share = 1 / 9 + 2 / 9 / 4 + 2 / 9 / 7
    assert np.mean(np.array(imputed)[:, 3:] == 5000) == pytest.approx(share, abs=0.01)


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


def _sizes(file: Path) -> tuple[int, ...]:
    source = file.read_bytes()
    pixels = Pixels.of(jpegxl.decode(source, 10**8))
    return (len(source), *(len(stored.data) for _, stored in encodings(pixels, source, DISTANCES[1:], 1)))


@pytest.fixture(scope="module")
def photographs(clothing: Path) -> KnownDataset:
    """What 500 photographs of clothes in ten classes take."""
    files = sorted(clothing.rglob("*.jpg"), key=lambda file: sampling.path_hash(file.name))[:PHOTOGRAPHS]
    files.sort(key=lambda file: file.name)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        sizes = list(processes.map(_sizes, files, chunksize=8))
    entries = [
        Entry(file.name, file.as_uri(), file.parent.name, size) for file, (size, *_) in zip(files, sizes, strict=True)
    ]
    return KnownDataset(entries, {file.name: file_sizes for file, file_sizes in zip(files, sizes, strict=True)})


def _without_sizes(dataset: KnownDataset) -> KnownDataset:
    return replace(dataset, entries=[replace(entry, size=UNKNOWN) for entry in dataset.entries])


def _with_failures(dataset: KnownDataset) -> KnownDataset:
    """Every twentieth image fails."""
    failing_paths = {entry.path for entry in dataset.entries if sampling.path_hash(entry.path) % 20 == 0}
    return replace(
        dataset, bytes={path: None if path in failing_paths else sizes for path, sizes in dataset.bytes.items()}
    )


@pytest.mark.slow
@pytest.mark.parametrize("estimates", [100, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("change", "order", "balance"),
    [
        (None, "random", False),
        (None, "random", True),
        (None, "smallest", True),
        (_without_sizes, "random", False),
        (_with_failures, "random", True),
    ],
    ids=["random", "balanced", "smallest", "sizes unknown", "failing"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    photographs: KnownDataset,
    change: Callable[[KnownDataset], KnownDataset] | None,
    order: str,
    balance: bool,
    estimates: int,
) -> None:
    """Else a user who plans storage by the upper end of an interval runs out of it, or by far too wide ones buys it."""
    dataset = change(photographs) if change else photographs
    budget = DistanceBudget(10.0, Decimal("0.5"))
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    misses: dict[str, list[float]] = {}
    for seed in range(estimates):
        selection = Selection(order, balance, seed + 10_000)
        answer, truth = dataset.estimate(budget, selection, 128, seed), dataset.truth(budget, selection)
        pairs = {
            "budget": (answer["budget_bytes"], truth["budget_bytes"]),
            "failed": (answer["failed"], truth["failed"]),
        }
        for name, row in truth["distances"].items():
            pairs |= {f"{what}@{name}": (answer["distances"][name][what], value) for what, value in row.items()}
        for name, (figure, value) in pairs.items():
            hits.setdefault(name, []).append(figure["low"] <= value <= figure["high"])
            widths.setdefault(name, []).append((figure["high"] - figure["low"]) / 2)
            misses.setdefault(name, []).append(figure["expected"] - value)
    assert {name: sum(values) for name, values in hits.items() if sum(values) < FEWEST_HITS[estimates]} == {}
    for name in hits.keys() - {"failed", "bytes@0"}:
        # Half an interval of 95 % is 1.96 standard deviations of what it is for.
        assert np.mean(widths[name]) < 1.5 * 1.96 * np.sqrt(np.mean(np.square(misses[name]))) + 1, name


@pytest.mark.slow
def test_intervals_are_narrower_than_those_of_a_plain_sample(photographs: KnownDataset) -> None:
    """Else stratifying by size and taking ratios gains nothing, and users compress more images than they need to."""
    rows = photographs.estimate(None, Selection(balance=False), 128)["distances"]
    for place, d in enumerate(DISTANCES[1:], start=1):
        values = np.array([sizes[place] for sizes in photographs.bytes.values() if sizes])
        plain = 1.96 * values.std() * PHOTOGRAPHS * np.sqrt((1 - 128 / PHOTOGRAPHS) / 128)
        figure = rows[text(d)]["bytes"]
        assert (figure["high"] - figure["low"]) / 2 < plain / 2


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
