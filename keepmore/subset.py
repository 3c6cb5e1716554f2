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
from keepmore import codec, index, keys, manifest
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
    """The pool as selection sees it, in the index's order. `rows` are the places of its good images there.

    `path_hashes`, `classes` (−1: no label) and each of `bytes` have the shape (images,).
    """

    rows: NDArray[np.int64]
    path_hashes: NDArray[np.uint64]
    classes: NDArray[np.int32]
    class_names: list[str]
    bytes: dict[float, NDArray[np.int64]]

    @property
    def labelled(self) -> bool:
        return len(self.class_names) > 0


def read_pool(store: Store, index_key: str, distances: Sequence[float]) -> Pool:
    sizes = {d: index.column("bytes", d) for d in distances}
    fields = ["path_hash", "label", *sizes.values()]
    good, batches = [], []
    for batch in index.rows(store, index_key, ["error_code", *fields]):
        good.append(pc.is_null(batch["error_code"]))
        batches.append(batch.select(fields).filter(good[-1]))
    table = pa.Table.from_batches(batches, pa.schema([index.schema(distances).field(name) for name in fields]))
    names = sorted(filter(None, pc.unique(table["label"]).to_pylist()))
    classes = pc.fill_null(pc.index_in(table["label"], value_set=pa.array(names, pa.string())), -1)
    return Pool(
        rows=np.flatnonzero(pa.chunked_array(good, pa.bool_()).to_numpy()),
        path_hashes=table["path_hash"].to_numpy(),
        classes=classes.to_numpy().astype(np.int32),
        class_names=names,
        bytes={d: table[name].to_numpy() for d, name in sizes.items()},
    )


def choose(pool: Pool, distances: Sequence[float], selection: Selection, budget: int | None) -> list[NDArray[np.int64]]:
    """For each distance, the chosen places in the pool: all of them where `budget` (bytes) is None.

    Raises BudgetTooSmall naming the distance.
    """
    if budget is None:
        return [np.arange(len(pool.rows)) for _ in distances]
    with freed_memory_kept():
        return list(_choose(pool, distances, selection, budget))


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
    pool = read_pool(store, index_key, distances)
    asked = {
        "job": job_id,
        "budget": budgets.as_json(budget),
        "budget_bytes": budget_bytes,
        "selection": asdict(selection),
        "effort": effort,
    }
    chosen = choose(pool, distances, selection, budget_bytes)
    to = {d: keys.manifest(job_id, subset_id, d) for d in distances}
    with ExitStack() as stack:
        manifests = []
        for distance, places in zip(distances, chosen, strict=True):
            file = stack.enter_context(store.writer(to[distance]))
            writer = manifest.Writer(file, {**asked, "distance": distance})
            manifests.append(_Manifest(store, distance, effort, np.sort(pool.rows[places]), writer))
        written = _write(manifests, index.rows(store, index_key, _columns(distances)))
    made = {
        text(distance): {
            "images": about["images"],
            "bytes": about["bytes"],
            "digest": about["digest"],
            "manifest": store.uri(to[distance]),
            "classes": _class_counts(pool, places),
        }
        for distance, places, about in zip(distances, chosen, written, strict=True)
    }
    return {**asked, "subset": subset_id, "pool_images": len(pool.rows), "distances": made}


def _class_counts(pool: Pool, places: NDArray[np.int64]) -> dict[str, int]:
    chosen = pool.classes[places]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(pool.class_names))
    return dict(zip(pool.class_names, counts.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The manifest at one distance while it is written. `places`: the index's rows that go into it, ascending."""

    store: Store
    distance: float
    effort: int
    places: NDArray[np.int64]
    writer: manifest.Writer

    def add(self, batch: pa.RecordBatch, start: int) -> None:
        """Write the rows among `batch`, which begins at row `start` of the index."""
        first, last = np.searchsorted(self.places, (start, start + len(batch)))
        if last > first:
            own = {index.column(name, self.distance): name for name in OWN}
            found = batch.select([*SHARED, *own]).take(pa.array(self.places[first:last] - start))
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
    patterns = [store.uri(keys.object(ANY_SHA256, kind, distance, effort, codec.CODEC)) for kind in kinds.to_pylist()]
    folders, names = zip(*(pattern.split(ANY_SHA256) for pattern in patterns), strict=True)
    (folder,) = set(folders)
    root, behind_shard = folder.rsplit(ANY_SHA256[:2], 1)
    shards = pc.binary_slice(sha256.cast(pa.binary()), 0, 2).cast(pa.string())
    name = pa.array(names, pa.string()).take(pc.index_in(encodings, value_set=kinds))
    return pc.binary_join_element_wise(root, shards, behind_shard, sha256, name, "")
