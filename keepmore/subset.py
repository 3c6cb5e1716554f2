"""The select step: an index and a budget become one manifest a distance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from keepmore import budget as budgets
from keepmore import index, installed, keys, manifest
from keepmore.budget import Budget
from keepmore.distance import ORIGINAL, text
from keepmore.errors import BudgetTooSmall
from keepmore.index import Summary
from keepmore.memory import freed_memory_kept
from keepmore.request import Selection
from keepmore.store import Store

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
    sizes = {d: index.column("bytes", d) for d in distances}
    good, hashes, classes = _Column(np.bool_), _Column(np.uint64), _Column(np.int32)
    bytes_ = {d: _Column(np.uint32) for d in distances}
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
    balance = pool.labelled if selection.balance is None else selection.balance
    classes = pool.classes if balance else None
    if selection.order == "random":
        order = budgets.in_order(budgets.ranks(pool.path_hashes, selection.seed), classes)
    for distance in distances:
        if selection.order == "smallest":
            order = budgets.in_order(pool.bytes[distance], classes)
        try:
            yield budgets.select(pool.bytes[distance], order, budget)
        except BudgetTooSmall as error:
            raise BudgetTooSmall(f"distance {text(distance)}: {error}") from error


def write_subsets(
    store: Store,
    job_id: str,
    distances: Sequence[float],
    effort: int,
    budget: Budget | None,
    selection: Selection,
    subset_id: str,
    summary: Summary,
) -> dict[str, Any]:
    """Write a manifest for every distance; gives the subset's record, by distance in its text form."""
    budget_bytes = budget.bytes(summary.pool_bytes) if budget else None
    index_key = keys.index(job_id)
    asked = {
        "job": job_id,
        "budget": budgets.as_json(budget),
        "budget_bytes": budget_bytes,
        "selection": asdict(selection),
        "effort": effort,
    }
    images, chosen = _chosen(store, index_key, distances, selection, budget_bytes)
    to = {d: keys.manifest(job_id, subset_id, d) for d in distances}
    with ExitStack() as stack:
        manifests = []
        for distance, found in zip(distances, chosen, strict=True):
            file = stack.enter_context(store.writer(to[distance]))
            writer = manifest.Writer(file, {**asked, "distance": distance})
            manifests.append(_Manifest(store, distance, effort, found.marks, writer))
        written = _write(manifests, index.rows(store, index_key, _columns(distances)))
    made = {
        text(distance): {
            "images": about["images"],
            "bytes": about["bytes"],
            "digest": about["digest"],
            "manifest": store.uri(to[distance]),
            "classes": found.classes,
        }
        for distance, found, about in zip(distances, chosen, written, strict=True)
    }
    return {**asked, "subset": subset_id, "pool_images": images, "distances": made}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is kept at one distance: a mark for every row of the index up to the last good one, and images by class."""

    marks: NDArray[np.bool_]
    classes: dict[str, int]


def _chosen(
    store: Store, index_key: str, distances: Sequence[float], selection: Selection, budget_bytes: int | None
) -> tuple[int, list[_Chosen]]:
    """How many images there are to choose from, and what is kept at every distance.

    Holds the pool, which nobody needs any more on return, and a byte an image for each distance.
    """
    pool = read_pool(store, index_key, distances)
    chosen = []
    for places in choose(pool, distances, selection, budget_bytes):
        marks = np.zeros(pool.rows[-1] + 1 if len(pool.rows) else 0, np.bool_)
        marks[pool.rows[places]] = True
        chosen.append(_Chosen(marks, _class_counts(pool, places)))
    return len(pool.rows), chosen


def _class_counts(pool: Pool, places: NDArray[np.int64]) -> dict[str, int]:
    chosen = pool.classes[places]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(pool.class_names))
    return dict(zip(pool.class_names, counts.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The manifest at one distance while it is written. `marks`: which of the index's rows go into it."""

    store: Store
    distance: float
    effort: int
    marks: NDArray[np.bool_]
    writer: manifest.Writer

    def add(self, batch: pa.RecordBatch, start: int) -> None:
        """Write the rows among `batch`, which begins at row `start` of the index."""
        places = np.flatnonzero(self.marks[start : start + len(batch)])
        if len(places):
            own = {index.column(name, self.distance): name for name in OWN}
            found = batch.select([*SHARED, *own]).take(pa.array(places))
            self.writer.add(self._rows({own.get(name, name): found[name] for name in found.schema.names}))

    def _rows(self, columns: dict[str, pa.Array]) -> pa.RecordBatch:
        sources, sha256, encodings = (columns[name] for name in ("source_uri", "source_sha256", "encoding"))
        columns["distance"] = pa.repeat(pa.scalar(self.distance, pa.float64()), len(sources))
        columns["object_uri"] = (
            object_uris(self.store, sha256, encodings, self.distance, self.effort)
            if self.distance != ORIGINAL
            else sources
        )
        return pa.RecordBatch.from_arrays([columns[name] for name in manifest.SCHEMA.names], schema=manifest.SCHEMA)


def _columns(distances: Sequence[float]) -> list[str]:
    return [*SHARED, *(index.column(name, d) for d in distances for name in OWN)]


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
        store.uri(keys.object(ANY_SHA256, kind, distance, effort, installed.codec())) for kind in kinds.to_pylist()
    ]
    folders, names = zip(*(pattern.split(ANY_SHA256) for pattern in patterns), strict=True)
    (folder,) = set(folders)
    root, behind_shard = folder.rsplit(ANY_SHA256[:2], 1)
    shards = pc.binary_slice(sha256.cast(pa.binary()), 0, 2).cast(pa.string())
    name = pa.array(names, pa.string()).take(pc.index_in(encodings, value_set=kinds))
    return pc.binary_join_element_wise(root, shards, behind_shard, sha256, name, "")
