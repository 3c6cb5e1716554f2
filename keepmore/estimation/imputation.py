"""A sample of a dataset, and imputed sizes of the images that are not in it. Pure: arrays in, arrays out.

Images are stratified by the size of their sources, and a few of each stratum are sampled. The others are imputed many
times: an image takes the same share of its source's size as a random donor among the sampled images of its stratum, and
each time the donors are drawn again. That is the approximate Bayesian bootstrap of Rubin and Schenker (1986), with one
donor fewer than were sampled, because variances come out too small otherwise (Rao and Wu 1988).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.compression import index
from keepmore.datasets.entry import UNKNOWN, Entry

# Sampled images of a stratum: fewer make intervals too narrow. A balanced order needs strata by classes and by sizes:
# counts are biased where either are too coarse.
STRATUM_IMAGES = 16
BALANCED_STRATUM_IMAGES = 8
CLASS_GROUPS = 4
MOST_STRATA = 32

# Slots of a stratum. Each donor fills a share of them that is proportional to its scale.
SLOTS = 1024


@dataclass(frozen=True, slots=True)
class Images:
    """A pool as it is listed. `sizes` are bytes of the sources, `classes` are -1 without a label; shapes (images,).

    Where one size is UNKNOWN, none is used.
    """

    sizes: NDArray[np.int64]
    path_hashes: NDArray[np.uint64]
    classes: NDArray[np.int32]

    @staticmethod
    def of(entries: Sequence[Entry]) -> Images:
        numbers: dict[str | None, int] = {None: -1}
        rows = ((e.size, sampling.path_hash(e.path), numbers.setdefault(e.label, len(numbers) - 1)) for e in entries)
        table = np.fromiter(rows, [("size", np.int64), ("hash", np.uint64), ("class", np.int32)], len(entries))
        return Images(table["size"].copy(), table["hash"].copy(), table["class"].copy())

    @property
    def labelled(self) -> bool:
        return bool(self.classes.max(initial=-1) >= 0)

    @property
    def sized(self) -> bool:
        return bool(self.sizes.min(initial=0) != UNKNOWN)


@dataclass(frozen=True, slots=True)
class Sample:
    """The results of the images at `places`, ascending. Bytes of an image that failed are 0.

    `places`, `good` and `source_bytes` have the shape (sampled,), `bytes` (distances, sampled).
    """

    places: NDArray[np.int64]
    good: NDArray[np.bool_]
    source_bytes: NDArray[np.int64]
    bytes: NDArray[np.int64]

    @staticmethod
    def of(places: NDArray[np.int64], part: pa.Table, distances: Sequence[float]) -> Sample:
        good = pc.is_null(part["error_code"]).to_numpy()
        sizes = [pc.fill_null(part[index.column("bytes", d)], 0).to_numpy() * good for d in distances]
        return Sample(places, good, pc.fill_null(part["source_bytes"], 0).to_numpy(), np.array(sizes, np.int64))


def strata(images: Images, sampled: int, balanced: bool) -> NDArray[np.int64]:
    """The stratum of each image, numbered from 0, shape (images,): by ascending size, of about equal bytes.

    Of a balanced order, the first part is richer in small classes than the whole. So there, each group of classes with
    about as many images has strata of its own.
    """
    most = min(max(sampled // (BALANCED_STRATUM_IMAGES if balanced else STRATUM_IMAGES), 1), MOST_STRATA)
    groups = np.zeros(len(images.sizes), np.int64)
    if balanced and len(groups):
        groups = _class_groups(images.classes, min(CLASS_GROUPS, most))
    shares = np.zeros(len(groups), np.int64)
    for group in np.unique(groups) if images.sized else ():
        (members,) = np.nonzero(groups == group)
        members = members[np.argsort(images.sizes[members], kind="stable")]
        shares[members] = _shares(np.maximum(images.sizes[members], 1), most // (int(groups.max()) + 1))
    numbers: NDArray[np.int64] = np.unique(groups * MOST_STRATA + shares, return_inverse=True)[1]
    return numbers


def _class_groups(classes: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    numbers = classes - classes.min()
    sizes = np.bincount(numbers)
    by_size = np.argsort(sizes, kind="stable")
    group_of = np.empty(len(sizes), np.int64)
    group_of[by_size] = _shares(sizes[by_size], count)
    groups: NDArray[np.int64] = group_of[numbers]
    return groups


def _shares(weights: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Which of `count` consecutive shares of about equal weight each member belongs to."""
    middles = np.cumsum(weights) - weights / 2
    shares: NDArray[np.int64] = np.minimum(middles * count / weights.sum(), count - 1).astype(np.int64)
    return shares


def draw(strata_: NDArray[np.int64], ranks: NDArray[np.uint64], sampled: int) -> NDArray[np.int64]:
    """Places of the images to sample, ascending: the lowest ranks of each stratum, equally many of each, or all it
    has."""
    by_rank = np.argsort(ranks, kind="stable")
    by_rank = by_rank[np.argsort(strata_[by_rank], kind="stable")]
    sizes = np.bincount(strata_)
    starts = np.cumsum(sizes) - sizes
    places, remaining = [np.empty(0, np.int64)], sampled
    for done, stratum in enumerate(np.argsort(sizes, kind="stable").tolist()):
        count = min(int(sizes[stratum]), remaining // (len(sizes) - done))
        places.append(by_rank[starts[stratum] : starts[stratum] + count])
        remaining -= count
    return np.sort(np.concatenate(places))


@dataclass(frozen=True, slots=True)
class Imputed:
    """One imputation: whole bytes of the images, shape (rows, images), which of them are good, shape (images,), None
    where all are, and how often each donor was drawn, shape (sampled,)."""

    bytes: NDArray[np.float64]
    good: NDArray[np.bool_] | None
    draws: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Donors:
    """The sampled images, from which the others are imputed.

    `strata` and `scale` have the shape (images,), `places` of the sampled images, ascending, and `good` (sampled,).
    `scale`: bytes of an image's source, or 1 where sizes are unknown. `ratios`: bytes of a sampled image for each unit
    of its scale, shape (rows, sampled): a row for each distance, and where sizes are unknown one more for the sources.
    """

    strata: NDArray[np.int64]
    scale: NDArray[np.float64]
    places: NDArray[np.int64]
    good: NDArray[np.bool_]
    ratios: NDArray[np.float64]

    @staticmethod
    def of(images: Images, strata_: NDArray[np.int64], sample: Sample) -> Donors:
        scale = np.maximum(images.sizes, 1).astype(np.float64) if images.sized else np.ones(len(images.sizes))
        rows = sample.bytes if images.sized else np.vstack([sample.bytes, sample.source_bytes])
        return Donors(strata_, scale, sample.places, sample.good, rows / scale[sample.places])

    @property
    def freedom(self) -> int:
        """Degrees of freedom of a variance that is estimated from the sample."""
        imputed = np.unique(self.strata[self.unknown(np.arange(len(self.strata)))])
        return max(int((self.strata_sampled[imputed] - 1).sum()), 1)

    @property
    def strata_sampled(self) -> NDArray[np.int64]:
        """How many images of each stratum are sampled."""
        return np.bincount(self.strata[self.places], minlength=int(self.strata.max(initial=0)) + 1)

    def unknown(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `places` that are not sampled."""
        is_sampled = np.zeros(len(self.scale), np.bool_)
        is_sampled[self.places] = True
        return places[~is_sampled[places]]

    def expected(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Expected sums over the images at `places`, shape (rows,).

        The separate ratio estimator (Cochran 1977, 6.10).
        """
        here = np.zeros(len(self.scale), np.bool_)
        here[places] = True
        unknown, count = self.unknown(places), len(self.strata_sampled)
        stratum, scale = self.strata[self.places], self.scale[self.places]
        rest = np.bincount(self.strata[unknown], self.scale[unknown], count)
        share = rest / np.maximum(np.bincount(stratum, scale, count), 1)
        sums: NDArray[np.float64] = (np.rint(self.ratios * scale) * (here[self.places] + share[stratum])).sum(axis=1)
        return sums

    def impute(self, places: NDArray[np.int64], times: int, rng: np.random.Generator) -> Iterator[Imputed]:
        """Impute the images at `places`, `times` times; the next imputation overwrites the bytes of the one before."""
        slots, draws = self._slots(times, rng)
        sampled_at = np.flatnonzero(np.isin(places, self.places))
        own = np.searchsorted(self.places, places[sampled_at])
        first, scale = self.strata[places] * SLOTS, self.scale[places]
        values = np.empty((len(self.ratios), len(places)))
        for run in range(times):
            donors = slots[run, first + rng.integers(0, SLOTS, len(places), np.uint16)]
            donors[sampled_at] = own
            for row, ratios in zip(values, self.ratios, strict=True):
                np.take(ratios, donors, out=row, mode="clip")
            values *= scale
            np.rint(values, out=values)
            yield Imputed(values, None if self.good.all() else self.good[donors], draws[run])

    def _slots(self, times: int, rng: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Donors drawn again `times` times: those in the slots of each stratum, shape (times, strata * SLOTS), and how
        often each was drawn, shape (times, sampled).

        A donor has slots by its scale, so that the mean of imputed sums is `expected`.
        """
        stratum, count = self.strata[self.places], len(self.strata_sampled)
        slots = np.zeros((times, count, SLOTS), np.int32)
        draws = np.zeros((times, len(self.places)))
        for number in np.unique(stratum):
            (members,) = np.nonzero(stratum == number)
            donors = members[rng.integers(0, len(members), (times, max(len(members) - 1, 1)))]
            np.add.at(draws, (np.arange(times)[:, None], donors), 1)
            shares = np.cumsum(self.scale[self.places[donors]], axis=1)
            ends = np.ceil(shares / shares[:, -1:] * SLOTS - rng.random((times, 1))).clip(0, SLOTS)
            ends[:, -1] = SLOTS
            counts = np.diff(ends, axis=1, prepend=0).astype(np.int64)
            slots[:, number] = np.repeat(donors.ravel(), counts.ravel()).reshape(times, SLOTS)
        return slots.reshape(times, -1), draws
