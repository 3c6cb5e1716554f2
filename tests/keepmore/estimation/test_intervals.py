"""Intervals of estimates, over what real photographs take: whether they hold the truth, and how wide they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from keepmore import sampling
from keepmore.codec import jpegxl
from keepmore.codec.jpegxl import Pixels
from keepmore.compression.compressor import encodings
from keepmore.datasets.entry import UNKNOWN, Entry
from keepmore.spec.budget import DistanceBudget
from keepmore.spec.distance import text
from keepmore.spec.job import Selection
from tests.keepmore.estimation.known_dataset import DISTANCES, KnownDataset

PHOTOGRAPHS = 500

# Of so many intervals that each hold the truth with 95 %, fewer than this hold it less than once in a thousand times.
FEWEST_HITS = {100: 87, 300: 272}


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
