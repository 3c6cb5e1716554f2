"""What a dataset would take at each distance, estimated from a sample: bytes and counts, each with an interval.

The same selection as a job's runs on many imputed datasets (see `imputation`); the scatter of its results gives the
intervals.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.codec.malloc import freed_memory_kept
from keepmore.compression import index
from keepmore.compression.index import POOL, ChunkRow
from keepmore.datasets.entry import Entry
from keepmore.estimation.answer import DistanceEstimate, Estimate, Figure
from keepmore.estimation.imputation import Donors, Images, Sample, draw, strata
from keepmore.spec.budget import Budget
from keepmore.spec.distance import text
from keepmore.spec.estimate import SAMPLE_IMAGES
from keepmore.spec.job import Selection

FEWEST_IMAGES = 2
PIECE_IMAGES = 8
RATE = 0.95
IMPUTATIONS = 200

# The most images that are imputed, evenly spread over all of them. The order "smallest" is sorted for every imputation
# and distance.
ORDERED_IMAGES = 2**17
SORTED_IMAGES = 2**14

# Bytes of a listing that stay in memory, and entries that are written, or read again, at once.
SPOOL_BYTES = 8 << 20
SPOOL_ENTRIES = 1024

Compress = Callable[[Sequence[ChunkRow]], pa.Table]
OnImages = Callable[[int, int], None]


def estimate(
    entries: Iterable[Entry],
    distances: Sequence[float],
    budget: Budget | None,
    selection: Selection,
    compress: Compress,
    sample_images: int = SAMPLE_IMAGES,
    seed: int = 0,
    rate: float = RATE,
    on_images: OnImages = lambda done, of: None,
) -> Estimate:
    """Compress a sample of the pool `entries`, 2 images or more, and estimate the whole pool from it.

    `compress` makes the part of a few rows, as Compressor.chunk does; its errors pass through. `on_images` is called
    with the number of sampled images that are done. Raises InvalidRequest where the budget is a distance that is not
    among `distances`.
    """
    if budget:
        budget.bytes(dict.fromkeys(distances, 0))
    sampled = max(sample_images, FEWEST_IMAGES)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        spooled = _Spooled(cast(BinaryIO, spool), entries)
        images = Images.of(spooled)
        strata_ = strata(images, sampled, _balanced(images, selection))
        places = draw(strata_, sampling.ranks(images.path_hashes, seed), sampled)
        rows = [ChunkRow(POOL, spooled[place]) for place in places.tolist()]
    parts = [index.schema(distances).empty_table()]
    for start in range(0, len(rows), PIECE_IMAGES):
        parts.append(compress(rows[start : start + PIECE_IMAGES]))
        on_images(min(start + PIECE_IMAGES, len(rows)), len(rows))
    sample = Sample.of(places, pa.concat_tables(parts), distances)
    return judge(images, strata_, sample, distances, budget, selection, seed, rate)


class _Spooled(Sequence[Entry]):
    """Entries in a file, where ten million of them take 0.4 GB; in memory they take 4.5 GB."""

    def __init__(self, file: BinaryIO, entries: Iterable[Entry]) -> None:
        self._file = file
        self._ends = [0]
        self._count = 0
        self._piece: tuple[int, list[Entry]] = (-1, [])
        rows = (ChunkRow(POOL, entry) for entry in entries)
        while piece := list(islice(rows, SPOOL_ENTRIES)):
            file.write(index.write_chunk(piece))
            self._ends.append(file.tell())
            self._count += len(piece)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return (entry for number in range(len(self._ends) - 1) for entry in self._read(number))

    def __getitem__(self, place: int) -> Entry:  # type: ignore[override]
        number, within = divmod(place, SPOOL_ENTRIES)
        if number != self._piece[0]:
            self._piece = (number, self._read(number))
        return self._piece[1][within]

    def _read(self, number: int) -> list[Entry]:
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return [row.entry for row in index.read_chunk(self._file.read(end - start))]


def judge(
    images: Images,
    strata_: NDArray[np.int64],
    sample: Sample,
    distances: Sequence[float],
    budget: Budget | None,
    selection: Selection,
    seed: int = 0,
    rate: float = RATE,
) -> Estimate:
    """The sizes of `images`, estimated from `sample`. If it has all of them, the figures are exact.

    Counts are 0 where the first image of the order does not fit, which the selection itself refuses.
    """
    donors = Donors.of(images, strata_, sample)
    with freed_memory_kept():
        results = _select_repeatedly(donors, _Pool.of(donors, images, selection), distances, budget, seed)
    t = _student_t(rate, donors.freedom)
    sizes = results.figures(results.expected_bytes, results.bytes, t)
    limits = results.figures(results.expected_limit, results.limits, t)
    counts = results.figures(results.images.mean(axis=0), results.images, t, most=len(images.sizes))
    return Estimate(
        images=len(images.sizes),
        sampled=len(sample.places),
        rate=rate,
        failed=_failed(donors, rate),
        source_bytes=Figure.of(*[images.sizes.sum()] * 3) if images.sized else sizes[-1],
        budget_bytes=limits[0] if budget else None,
        distances={
            text(distance): DistanceEstimate(sizes[place], counts[place] if budget else None)
            for place, distance in enumerate(distances)
        },
    )


@dataclass(frozen=True, slots=True)
class _Results:
    """The results of the selection on each imputed dataset, shapes (imputations, figures), and the expected sums.

    `draws`: how often each donor was drawn, shape (imputations, sampled).
    """

    draws: NDArray[np.float64]
    bytes: NDArray[np.float64]
    limits: NDArray[np.float64]
    images: NDArray[np.float64]
    expected_bytes: NDArray[np.float64]
    expected_limit: NDArray[np.float64]

    def figures(
        self, expected: NDArray[np.float64], imputed: NDArray[np.float64], t: float, most: float = math.inf
    ) -> list[Figure]:
        """Expected values with intervals of `t` standard deviations, longer on the side to which the scatter is skew.

        The addition is that of the studentised bootstrap (Hall 1988), from the influence of every donor: the
        infinitesimal jackknife (Efron 2014).
        """
        residuals = imputed - imputed.mean(axis=0)
        deviation = residuals.std(axis=0)
        influence = (self.draws - self.draws.mean(axis=0)).T @ residuals / len(residuals)
        skewness = (influence**3).sum(axis=0) / np.maximum(deviation, 1e-9) ** 3
        addition = np.clip(skewness / 6 * (1 + 2 * t * t), -t, t) * deviation
        low = (expected - t * deviation + np.minimum(addition, 0)).clip(0)
        high = (expected + t * deviation + np.maximum(addition, 0)).clip(None, most)
        return [Figure.of(*row) for row in zip(expected.tolist(), low.tolist(), high.tolist(), strict=True)]


def _balanced(images: Images, selection: Selection) -> bool:
    return images.labelled if selection.balance is None else selection.balance


@dataclass(frozen=True, slots=True)
class _Pool:
    """The images that may be kept: `places`, in the random order where that is requested.

    Imputed are `some` of them, with `classes` where the order is balanced; `order` is that of the selection.
    """

    places: NDArray[np.int64]
    some: NDArray[np.int64]
    classes: NDArray[np.int32] | None
    order: str

    @staticmethod
    def of(donors: Donors, images: Images, selection: Selection) -> _Pool:
        may_be_kept = np.ones(len(images.sizes), np.bool_)
        may_be_kept[donors.places[~donors.good]] = False
        places = np.flatnonzero(may_be_kept)
        resorted = sampling.size_keys(selection.order) is not None
        most = SORTED_IMAGES if resorted else ORDERED_IMAGES
        exact = len(donors.unknown(places)) == 0 or len(places) <= most
        classes = images.classes if _balanced(images, selection) else None
        if not resorted:
            keys = sampling.ranks(images.path_hashes[places], selection.seed)
            places = places[sampling.in_order(keys, None if classes is None else classes[places])]
        elif not exact:
            places = places[np.lexsort((donors.scale[places], images.classes[places]))]
        every = (np.arange(most) + 0.5) * len(places) / most
        some = places if exact else places[every.astype(np.int64)]
        return _Pool(places, some, None if classes is None else classes[some], selection.order)

    def count(self, sizes: NDArray[np.float64], good: NDArray[np.bool_] | None, limit: float) -> int:
        """How many of `some` images fit `limit` bytes, as sampling.select has it, without those that are not `good`."""
        if size_keys := sampling.size_keys(self.order):
            here = slice(None) if good is None else good
            sizes, classes, good = sizes[here], None if self.classes is None else self.classes[here], None
            sizes = sizes[sampling.in_order(size_keys(sizes.astype(np.int64)), classes)]
        count = int(np.searchsorted(np.cumsum(sizes), limit, side="right"))
        return count if good is None else int(np.count_nonzero(good[:count]))


def _select_repeatedly(
    donors: Donors, pool: _Pool, distances: Sequence[float], budget: Budget | None, seed: int
) -> _Results:
    expected = donors.expected(pool.places)
    # Bytes of all images for each byte of those that are imputed.
    growth = np.ones_like(expected)
    if len(pool.some) < len(pool.places):
        growth = expected / np.maximum(donors.expected(pool.some), 1)
    times = IMPUTATIONS if len(donors.unknown(pool.places)) else 1
    sizes, limits, counts = np.empty((times, len(expected))), np.zeros((times, 1)), np.zeros((times, len(distances)))
    draws = np.empty((times, len(donors.places)))
    for run, imputed in enumerate(donors.impute(pool.some, times, np.random.default_rng(seed))):
        sizes[run], draws[run] = imputed.bytes.sum(axis=1) * growth, imputed.draws
        if budget:
            limits[run] = limit = _limit(budget, distances, sizes[run])
            rows = zip(imputed.bytes, growth.tolist(), strict=True)
            counts[run] = [pool.count(row, imputed.good, limit / scale) for row, scale in islice(rows, len(distances))]
    counts *= len(pool.places) / max(len(pool.some), 1)
    limit = _limit(budget, distances, expected) if budget else 0
    return _Results(draws, sizes, limits, counts, expected, np.array([limit], np.float64))


def _limit(budget: Budget, distances: Sequence[float], sizes: NDArray[np.float64]) -> int:
    return budget.bytes({d: round(size) for d, size in zip(distances, sizes.tolist(), strict=False)})


def _student_t(rate: float, freedom: int) -> float:
    """How many standard deviations hold `rate` of Student's t: its expansion in 1/freedom (Abramowitz and Stegun
    1964, 26.7.5), good to a thousandth from 6 degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + rate) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def _failed(donors: Donors, rate: float) -> Figure:
    """How many images fail: those of the sample that did, and of the others a share with Wilson's interval (1927).

    The share weighs strata by their images; it is as sure as that of a plain sample of Kish's effective size (1965).
    """
    failed = int(np.count_nonzero(~donors.good))
    unknown = donors.unknown(np.arange(len(donors.strata)))
    if len(unknown) == 0:
        return Figure.of(failed, failed, failed)
    sampled = np.maximum(donors.strata_sampled, 1)
    others = np.bincount(donors.strata[unknown], minlength=len(sampled))
    failures = np.bincount(donors.strata[donors.places[~donors.good]], minlength=len(sampled))
    share = (others * failures / sampled).sum() / len(unknown)
    size = len(unknown) ** 2 / (others**2 / sampled).sum()
    z = NormalDist().inv_cdf((1 + rate) / 2)
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    low, high = max(middle - half, 0), min(middle + half, 1)
    return Figure.of(*(failed + len(unknown) * part for part in (share, low, high)))
