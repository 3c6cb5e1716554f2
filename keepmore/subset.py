"""The select step: an index and a budget become one manifest a distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
    batches = list(index.rows(store, index_key, ["path_hash", "label", "error_code", *sizes.values()]))
    fields = ["path_hash", "label", "error_code", *sizes.values()]
    schema = pa.schema([index.schema(distances).field(name) for name in fields])
    table = pa.Table.from_batches(batches, schema)
    good = np.flatnonzero(pc.is_null(table["error_code"]).to_numpy())
    table = table.take(good)
    names = sorted(filter(None, pc.unique(table["label"]).to_pylist()))
    classes = pc.fill_null(pc.index_in(table["label"], value_set=pa.array(names, pa.string())), -1)
    return Pool(
        rows=good,
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
    made = {}
    chosen = choose(pool, distances, selection, budget_bytes)
    for distance, places in zip(distances, chosen, strict=True):
        key = keys.manifest(job_id, subset_id, distance)
        with store.writer(key) as file:
            writer = manifest.Writer(file, {**asked, "distance": distance})
            for rows in _manifest_rows(store, index_key, np.sort(pool.rows[places]), distance, effort):
                writer.add(rows)
            written = writer.close()
        made[text(distance)] = {
            "images": written["images"],
            "bytes": written["bytes"],
            "digest": written["digest"],
            "manifest": store.uri(key),
            "classes": _class_counts(pool, places),
        }
    return {**asked, "subset": subset_id, "pool_images": len(pool.rows), "distances": made}


def _class_counts(pool: Pool, places: NDArray[np.int64]) -> dict[str, int]:
    chosen = pool.classes[places]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(pool.class_names))
    return dict(zip(pool.class_names, counts.tolist(), strict=True))


def _manifest_rows(
    store: Store, index_key: str, chosen: NDArray[np.int64], distance: float, effort: int
) -> Iterator[pa.RecordBatch]:
    own = {name: index.column(name, distance) for name in ("bytes", "encoding", "sha256", "encoder_distance")}
    shared = ["path", "source_uri", "label", "width", "height", "source_sha256"]
    start = 0
    for batch in index.rows(store, index_key, [*shared, *own.values()]):
        first, last = np.searchsorted(chosen, (start, start + len(batch)))
        rows = batch.take(pa.array(chosen[first:last] - start))
        start += len(batch)
        if len(rows) == 0:
            continue
        columns = {name: rows[name] for name in shared} | {name: rows[column] for name, column in own.items()}
        columns["distance"] = pa.repeat(pa.scalar(distance, pa.float64()), len(rows))
        columns["object_uri"] = _object_uris(store, columns, distance, effort)
        yield pa.RecordBatch.from_arrays([columns[name] for name in manifest.SCHEMA.names], schema=manifest.SCHEMA)


def _object_uris(store: Store, columns: dict[str, Any], distance: float, effort: int) -> pa.Array:
    if distance == ORIGINAL:
        return columns["source_uri"]
    pairs = zip(columns["source_sha256"].to_pylist(), columns["encoding"].to_pylist(), strict=True)
    return pa.array(store.uri(keys.object(sha, encoding, distance, effort, codec.CODEC)) for sha, encoding in pairs)
