"""The select step: an index and a budget become one manifest a variant."""

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

from keepmore import sampling
from keepmore.codec import version as codec_version
from keepmore.codec.malloc import freed_memory_kept
from keepmore.compression import index
from keepmore.compression.index import Summary
from keepmore.errors import BudgetTooSmall
from keepmore.selection import fit, manifest
from keepmore.selection import spread as ladders
from keepmore.selection.fit import FitResult
from keepmore.selection.pool import Pool, in_order, read_pool
from keepmore.spec import budget as budgets
from keepmore.spec.budget import Budget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Selection
from keepmore.spec.variants import FitCount, Spread, VariantSpec
from keepmore.storage import layout
from keepmore.storage.base import Store

SHARED = ("path", "source_uri", "label", "width", "height", "source_sha256")
OWN = ("bytes", "encoding", "sha256", "encoder_distance")

# Stands for a checksum where only `keys` knows how an object's key is spelt.
ANY_SHA256 = "".join(chr(ord("g") + place % 20) for place in range(64))


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
            yield sampling.select(pool.bytes[distance], found, budget)


@contextmanager
def _named(variant: str) -> Iterator[None]:
    """A budget that is too small says at what."""
    try:
        yield
    except BudgetTooSmall as error:
        raise BudgetTooSmall(f"{variant}: {error}") from error


def choose_rungs(pool: Pool, spread: Spread, selection: Selection, budget: int | None) -> ladders.Choice:
    """What each image of the pool is kept at; `pool` has the sizes at all levels of the spread's ladder."""
    with freed_memory_kept(), _named(spread.name):
        sizes = _ladder_sizes(pool, spread.ladder)
        order = in_order(pool, selection, sizes.min(axis=0))
        return ladders.choose(spread, sizes, pool.path_hashes, selection.seed, order, budget)


def _ladder_sizes(pool: Pool, distances: Sequence[float]) -> NDArray[np.integer[Any]]:
    """Bytes at these distances, shape (rungs, images). The pool's own become its rows, so that they are held once."""
    sizes = np.empty((len(distances), len(pool.rows)), np.result_type(*(pool.bytes[d] for d in distances)))
    for rung, distance in enumerate(distances):
        sizes[rung] = pool.bytes[distance]
        pool.bytes[distance] = sizes[rung]
    return sizes


@dataclass(frozen=True, slots=True)
class Asked:
    """What a subset is asked to be: the variants of a job, and the budget and order of the question."""

    distances: Sequence[float]
    effort: int
    budget: Budget | None
    selection: Selection
    rules: Sequence[VariantSpec] = ()

    @property
    def spreads(self) -> list[Spread]:
        return [rule for rule in self.rules if isinstance(rule, Spread)]


def write_subsets(store: Store, job_id: str, subset_id: str, asked: Asked, summary: Summary) -> dict[str, Any]:
    """Write a manifest for every variant; gives the subset's record, by the variants' names.

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
    images, variants = _variants(store, job_id, subset_id, asked, budget_bytes)
    with ExitStack() as stack:
        manifests = []
        for variant in variants:
            file = stack.enter_context(store.writer(layout.manifest(job_id, subset_id, variant.name)))
            manifests.append(_Manifest(store, variant, asked.effort, manifest.Writer(file, {**about, **variant.about})))
        written = _write(manifests, index.rows(store, index_key, _columns(variants)))
    made = {
        variant.name: {
            "images": totals["images"],
            "bytes": totals["bytes"],
            "digest": totals["digest"],
            "manifest": store.uri(layout.manifest(job_id, subset_id, variant.name)),
            "classes": variant.classes,
            **variant.record,
        }
        for variant, totals in zip(variants, written, strict=True)
    }
    return {**about, "subset": subset_id, "pool_images": images, "distances": made}


@dataclass(frozen=True, slots=True)
class _Variant:
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


def _variants(
    store: Store, job_id: str, subset_id: str, asked: Asked, budget: int | None
) -> tuple[int, list[_Variant]]:
    """How many images there are to choose from, and what is kept in every variant.

    Holds the pool, which nobody needs any more on return, and a byte an image for each variant.
    """
    compressed = {*asked.distances, *(d for spread in asked.spreads for d in spread.ladder)}
    pool = read_pool(store, layout.index(job_id), sorted(compressed))
    variants = []
    for d, places in zip(asked.distances, choose(pool, asked.distances, asked.selection, budget), strict=True):
        marks = _marks(pool, places, np.uint8(1))
        variants.append(_Variant(text(d), (d,), marks, _class_counts(pool, places), {"distance": d}))
    for rule in asked.rules:
        if isinstance(rule, Spread):
            variants.append(_spread(pool, rule, asked.selection, budget))
        else:
            variants.append(_fit(pool, rule, *fit.read(store, layout.fitted(job_id, subset_id, rule.name))))
    return len(pool.rows), variants


def _spread(pool: Pool, spread: Spread, selection: Selection, budget: int | None) -> _Variant:
    chosen = choose_rungs(pool, spread, selection, budget)
    counts = np.bincount(chosen.rungs, minlength=len(spread.ladder)).tolist()
    used = {text(d): count for d, count in zip(spread.ladder, counts, strict=True) if count}
    return _Variant(
        spread.name,
        spread.ladder,
        _marks(pool, chosen.places, chosen.rungs + np.uint8(1)),
        _class_counts(pool, chosen.places),
        {"distance": None, "level": spread.as_json(), "scale": chosen.scale},
        {"levels": {"scale": chosen.scale, "distances": used}},
    )


def _fit(pool: Pool, fit: FitCount, found: FitResult, rows: pa.Table) -> _Variant:
    places = np.searchsorted(pool.rows, rows["row"].to_numpy())
    return _Variant(
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
    """The manifest of one variant while it is written."""

    store: Store
    variant: _Variant
    effort: int
    writer: manifest.Writer

    def add(self, batch: pa.RecordBatch, start: int) -> None:
        """Write the rows among `batch`, which begins at row `start` of the index."""
        marks = self.variant.marks[start : start + len(batch)]
        kept = [(d, np.flatnonzero(marks == place)) for place, d in enumerate(self.variant.distances, start=1)]
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
        if self.variant.fitted is None:
            names = {name: index.column(name, distance) for name in OWN}
            own = batch.select(list(names.values())).take(pa.array(places))
            return {name: own[column] for name, column in names.items()}
        first = int(np.searchsorted(self.variant.fitted["row"].to_numpy(), start + places[0]))
        rows = self.variant.fitted.slice(first, len(places)).combine_chunks()
        return {name: rows[name].chunk(0) for name in OWN}


def _by_place(pieces: Sequence[tuple[NDArray[np.int64], pa.RecordBatch]]) -> pa.RecordBatch:
    """The rows of all pieces, each with the places of its own, by ascending place."""
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    table = pa.Table.from_batches([rows for _, rows in pieces]).combine_chunks()
    (rows,) = table.take(pa.array(order)).combine_chunks().to_batches()
    return rows


def _columns(variants: Sequence[_Variant]) -> list[str]:
    indexed = sorted({d for variant in variants if variant.fitted is None for d in variant.distances})
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
