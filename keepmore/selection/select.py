"""The select step: an index and a budget become one manifest an arm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from keepmore.codec import version as codec_version
from keepmore.codec.malloc import freed_memory_kept
from keepmore.compression import index
from keepmore.compression.index import Summary
from keepmore.errors import BudgetTooSmall
from keepmore.selection import fitted, manifest
from keepmore.selection import spread as ladders
from keepmore.selection.fitted import Found
from keepmore.spec import budget as budgets
from keepmore.spec.budget import Budget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Selection
from keepmore.spec.variants import Fit, Level, Spread
from keepmore.storage import layout
from keepmore.storage.folder import Store

SHARED = ("path", "source_uri", "label", "width", "height", "source_sha256")
OWN = ("bytes", "encoding", "sha256", "encoder_distance")

# Stands for a checksum where only `keys` knows how an object's key is spelt.
ANY_SHA256 = "".join(chr(ord("g") + place % 20) for place in range(64))


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool as selection sees it, in the index's order. `rows` are the places of its good images there, ascending.

    `rows`, `path_hashes`, `classes` (−1: no label) and each of `bytes` have the shape (images,). As `read_pool` makes
    it, a pool holds 16 bytes an image and 4 for each distance.
    """

    rows: NDArray[np.integer[Any]]
    path_hashes: NDArray[np.uint64]
    classes: NDArray[np.int32]
    class_names: list[str]
    bytes: dict[float, NDArray[np.integer[Any]]]

    @property
    def labelled(self) -> bool:
        return len(self.class_names) > 0


def read_pool(store: Store, index_key: str, distances: Sequence[float]) -> Pool:
    return _read_pool(store, index_key, {d: index.column("bytes", d) for d in distances})


def read_originals(store: Store, index_key: str) -> Pool:
    """The pool with the sizes of its sources, whether or not they are among the distances."""
    return _read_pool(store, index_key, {ORIGINAL: "source_bytes"})


def _read_pool(store: Store, index_key: str, sizes: dict[float, str]) -> Pool:
    """The pool with the columns `sizes` of the index."""
    good, hashes, classes = _Column(np.bool_), _Column(np.uint64), _Column(np.int32)
    bytes_ = {d: _Column(np.uint32) for d in sizes}
    numbers: dict[str, int] = {}
    for batch in index.rows(store, index_key, ["error_code", "path_hash", "label", *sizes.values()]):
        sound = pc.is_null(batch["error_code"])
        good.add(sound)
        rows = batch.filter(sound)
        hashes.add(rows["path_hash"])
        classes.add(_numbered(rows["label"], numbers))
        for d, name in sizes.items():
            bytes_[d].add(rows[name])
    names = sorted(numbers)
    place = {name: number for number, name in enumerate(names)}
    places = np.array([*(place[name] for name in numbers), -1], np.int32)
    return Pool(
        rows=_narrow(np.flatnonzero(good.whole())),
        path_hashes=hashes.whole(),
        classes=np.take(places, classes.whole()),
        class_names=names,
        bytes={d: column.whole() for d, column in bytes_.items()},
    )


class _Column:
    """A column of the pool while it is read, in batches of its own: what pyarrow decoded is not held by them."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._kind = kind
        self._batches: list[NDArray[Any]] = []

    def add(self, values: pa.Array | NDArray[Any]) -> None:
        found = np.asarray(values)
        self._batches.append(_narrow(found) if self._kind is np.uint32 else found.astype(self._kind))

    def whole(self) -> NDArray[Any]:
        batches, self._batches = self._batches, []
        return np.concatenate([np.array([], self._kind), *batches])


def _narrow(numbers: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Numbers from 0 on in four bytes each, if none is too large."""
    fit = len(numbers) == 0 or numbers.max() <= np.iinfo(np.uint32).max
    return numbers.astype(np.uint32 if fit else np.int64)


def _numbered(labels: pa.Array, numbers: dict[str, int]) -> NDArray[np.int32]:
    """The number of every label, −1 where there is none; a label that `numbers` lacks gets the next."""
    encoded = labels.dictionary_encode()
    found = [numbers.setdefault(name, len(numbers)) if name else -1 for name in encoded.dictionary.to_pylist()]
    places: NDArray[np.int32] = np.asarray(encoded.indices.fill_null(-1))
    return np.take(np.array([*found, -1], np.int32), places)


def choose(
    pool: Pool, distances: Sequence[float], selection: Selection, budget: int | None
) -> Iterator[NDArray[np.int64]]:
    """For each distance, the chosen places in the pool: all of them where `budget` (bytes) is None.

    Raises BudgetTooSmall naming the distance.
    """
    if budget is None:
        yield from repeat(np.arange(len(pool.rows)), len(distances))
    else:
        with freed_memory_kept():
            yield from _choose(pool, distances, selection, budget)


def _choose(pool: Pool, distances: Sequence[float], selection: Selection, budget: int) -> Iterator[NDArray[np.int64]]:
    order = in_order(pool, selection, None) if selection.order == "random" else None
    for distance in distances:
        found = in_order(pool, selection, pool.bytes[distance]) if order is None else order
        with _named(f"distance {text(distance)}"):
            yield budgets.select(pool.bytes[distance], found, budget)


def in_order(pool: Pool, selection: Selection, bytes_: NDArray[np.integer[Any]] | None) -> NDArray[np.int64]:
    """Places in the pool as they are to be kept, the first one first; `bytes_` are what `smallest` goes by."""
    balance = pool.labelled if selection.balance is None else selection.balance
    classes = pool.classes if balance else None
    if selection.order == "random" or bytes_ is None:
        return budgets.in_order(budgets.ranks(pool.path_hashes, selection.seed), classes)
    return budgets.in_order(bytes_, classes)


@contextmanager
def _named(arm: str) -> Iterator[None]:
    """A budget that is too small says at what."""
    try:
        yield
    except BudgetTooSmall as error:
        raise BudgetTooSmall(f"{arm}: {error}") from error


def choose_levels(pool: Pool, spread: Spread, selection: Selection, budget: int | None) -> ladders.Choice:
    """What each image of the pool is kept at; `pool` has the sizes at all levels of the spread's ladder."""
    with freed_memory_kept(), _named(spread.name):
        sizes = _ladder_sizes(pool, spread.ladder)
        order = in_order(pool, selection, sizes.min(axis=0))
        return ladders.choose(spread, sizes, pool.path_hashes, selection.seed, order, budget)


def _ladder_sizes(pool: Pool, distances: Sequence[float]) -> NDArray[np.integer[Any]]:
    """Bytes at these distances, shape (levels, images). The pool's own become its rows, so that they are held once."""
    sizes = np.empty((len(distances), len(pool.rows)), np.result_type(*(pool.bytes[d] for d in distances)))
    for level, distance in enumerate(distances):
        sizes[level] = pool.bytes[distance]
        pool.bytes[distance] = sizes[level]
    return sizes


@dataclass(frozen=True, slots=True)
class Asked:
    """What a subset is asked to be: the arms of a job, and the budget and order of the question."""

    distances: Sequence[float]
    effort: int
    budget: Budget | None
    selection: Selection
    levels: Sequence[Level] = ()

    @property
    def spreads(self) -> list[Spread]:
        return [level for level in self.levels if isinstance(level, Spread)]


def write_subsets(store: Store, job_id: str, subset_id: str, asked: Asked, summary: Summary) -> dict[str, Any]:
    """Write a manifest for every arm; gives the subset's record, by the arms' names.

    What the fit steps of the subset found is read from the store.
    """
    budget_bytes = asked.budget.bytes(summary.pool_bytes) if asked.budget else None
    index_key = layout.index(job_id)
    about = {
        "job": job_id,
        "budget": budgets.as_json(asked.budget),
        "budget_bytes": budget_bytes,
        "selection": asdict(asked.selection),
        "effort": asked.effort,
    }
    images, arms = _arms(store, job_id, subset_id, asked, budget_bytes)
    with ExitStack() as stack:
        manifests = []
        for arm in arms:
            file = stack.enter_context(store.writer(layout.manifest(job_id, subset_id, arm.name)))
            manifests.append(_Manifest(store, arm, asked.effort, manifest.Writer(file, {**about, **arm.about})))
        written = _write(manifests, index.rows(store, index_key, _columns(arms)))
    made = {
        arm.name: {
            "images": totals["images"],
            "bytes": totals["bytes"],
            "digest": totals["digest"],
            "manifest": store.uri(layout.manifest(job_id, subset_id, arm.name)),
            "classes": arm.classes,
            **arm.record,
        }
        for arm, totals in zip(arms, written, strict=True)
    }
    return {**about, "subset": subset_id, "pool_images": images, "distances": made}


@dataclass(frozen=True, slots=True)
class _Arm:
    """What is kept in one manifest. `marks`: for every row of the index up to the last good one 0, or 1 and the place
    among `distances` at which it is kept; `fitted`: the rows themselves, where the index does not have their sizes.

    `about` goes into the manifest's metadata, `record` into the subset's.
    """

    name: str
    distances: Sequence[float]
    marks: NDArray[np.uint8]
    classes: dict[str, int]
    about: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    fitted: pa.Table | None = None


def _arms(store: Store, job_id: str, subset_id: str, asked: Asked, budget: int | None) -> tuple[int, list[_Arm]]:
    """How many images there are to choose from, and what is kept in every arm.

    Holds the pool, which nobody needs any more on return, and a byte an image for each arm.
    """
    compressed = {*asked.distances, *(d for spread in asked.spreads for d in spread.ladder)}
    pool = read_pool(store, layout.index(job_id), sorted(compressed))
    arms = []
    for d, places in zip(asked.distances, choose(pool, asked.distances, asked.selection, budget), strict=True):
        marks = _marks(pool, places, np.uint8(1))
        arms.append(_Arm(text(d), (d,), marks, _class_counts(pool, places), {"distance": d}))
    for level in asked.levels:
        if isinstance(level, Spread):
            arms.append(_spread(pool, level, asked.selection, budget))
        else:
            arms.append(_fit(pool, level, *fitted.read(store, layout.fitted(job_id, subset_id, level.name))))
    return len(pool.rows), arms


def _spread(pool: Pool, spread: Spread, selection: Selection, budget: int | None) -> _Arm:
    chosen = choose_levels(pool, spread, selection, budget)
    counts = np.bincount(chosen.levels, minlength=len(spread.ladder)).tolist()
    used = {text(d): count for d, count in zip(spread.ladder, counts, strict=True) if count}
    return _Arm(
        spread.name,
        spread.ladder,
        _marks(pool, chosen.places, chosen.levels + np.uint8(1)),
        _class_counts(pool, chosen.places),
        {"distance": None, "level": spread.as_json(), "scale": chosen.scale},
        {"levels": {"scale": chosen.scale, "distances": used}},
    )


def _fit(pool: Pool, fit: Fit, found: Found, rows: pa.Table) -> _Arm:
    places = np.searchsorted(pool.rows, rows["row"].to_numpy())
    return _Arm(
        fit.name,
        (found.distance,),
        _marks(pool, places, np.uint8(1)),
        _class_counts(pool, places),
        {"distance": found.distance, "level": fit.as_json(), "exact": found.exact},
        {"levels": {"distance": found.distance, "exact": found.exact}},
        rows,
    )


def _marks(pool: Pool, places: NDArray[np.int64], values: NDArray[np.uint8] | np.uint8) -> NDArray[np.uint8]:
    marks = np.zeros(pool.rows[-1] + 1 if len(pool.rows) else 0, np.uint8)
    marks[pool.rows[places]] = values
    return marks


def _class_counts(pool: Pool, places: NDArray[np.int64]) -> dict[str, int]:
    chosen = pool.classes[places]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(pool.class_names))
    return dict(zip(pool.class_names, counts.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The manifest of one arm while it is written."""

    store: Store
    arm: _Arm
    effort: int
    writer: manifest.Writer

    def add(self, batch: pa.RecordBatch, start: int) -> None:
        """Write the rows among `batch`, which begins at row `start` of the index."""
        marks = self.arm.marks[start : start + len(batch)]
        kept = [(d, np.flatnonzero(marks == place)) for place, d in enumerate(self.arm.distances, start=1)]
        pieces = [(places, self._rows(batch, start, d, places)) for d, places in kept if len(places)]
        if len(pieces) == 1:
            self.writer.add(pieces[0][1])
        elif pieces:
            self.writer.add(_by_place(pieces))

    def _rows(self, batch: pa.RecordBatch, start: int, distance: float, places: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of the manifest for images at one distance, at `places` in the batch."""
        shared = batch.select(SHARED).take(pa.array(places))
        columns = {name: shared[name] for name in SHARED} | self._own(batch, start, distance, places)
        sources, sha256, encodings = (columns[name] for name in ("source_uri", "source_sha256", "encoding"))
        columns["distance"] = pa.repeat(pa.scalar(distance, pa.float64()), len(sources))
        columns["object_uri"] = (
            object_uris(self.store, sha256, encodings, distance, self.effort) if distance != ORIGINAL else sources
        )
        return pa.RecordBatch.from_arrays([columns[name] for name in manifest.SCHEMA.names], schema=manifest.SCHEMA)

    def _own(
        self, batch: pa.RecordBatch, start: int, distance: float, places: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """What depends on the distance: from the index, or from what the fit step found."""
        if self.arm.fitted is None:
            names = {name: index.column(name, distance) for name in OWN}
            own = batch.select(list(names.values())).take(pa.array(places))
            return {name: own[column] for name, column in names.items()}
        first = int(np.searchsorted(self.arm.fitted["row"].to_numpy(), start + places[0]))
        rows = self.arm.fitted.slice(first, len(places)).combine_chunks()
        return {name: rows[name].chunk(0) for name in OWN}


def _by_place(pieces: Sequence[tuple[NDArray[np.int64], pa.RecordBatch]]) -> pa.RecordBatch:
    """The rows of all pieces, each with the places of its own, by ascending place."""
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    table = pa.Table.from_batches([rows for _, rows in pieces]).combine_chunks()
    (rows,) = table.take(pa.array(order)).combine_chunks().to_batches()
    return rows


def _columns(arms: Sequence[_Arm]) -> list[str]:
    indexed = sorted({d for arm in arms if arm.fitted is None for d in arm.distances})
    return [*SHARED, *(index.column(name, d) for d in indexed for name in OWN)]


def _write(manifests: Sequence[_Manifest], batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Pass the index once; gives the metadata of each manifest.

    A batch goes into all manifests at the same time: pyarrow and hashlib hold no lock while they work.
    """
    start = 0
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        for batch in batches:
            list(threads.map(_Manifest.add, manifests, repeat(batch), repeat(start)))
            start += len(batch)
        return list(threads.map(manifest.Writer.close, [made.writer for made in manifests]))


def object_uris(store: Store, sha256: pa.Array, encodings: pa.Array, distance: float, effort: int) -> pa.Array:
    """Where the objects of images lie, by the checksums of their sources: `store.uri(keys.object(...))` of each."""
    kinds = pc.unique(encodings)
    patterns = [
        store.uri(layout.object(ANY_SHA256, kind, distance, effort, codec_version.codec()))
        for kind in kinds.to_pylist()
    ]
    folders, names = zip(*(pattern.split(ANY_SHA256) for pattern in patterns), strict=True)
    (folder,) = set(folders)
    root, behind_shard = folder.rsplit(ANY_SHA256[:2], 1)
    shards = pc.binary_slice(sha256.cast(pa.binary()), 0, 2).cast(pa.string())
    name = pa.array(names, pa.string()).take(pc.index_in(encodings, value_set=kinds))
    return pc.binary_join_element_wise(root, shards, behind_shard, sha256, name, "")
