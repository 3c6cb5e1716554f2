"""The select step: an index and a budget become one manifest per variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import assert_never

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
from keepmore.selection.manifest import ManifestSpec, Totals
from keepmore.selection.pool import Pool, in_order, read_pool
from keepmore.selection.subset import FitDistance, RuleResult, SpreadResult, Subset, SubsetRow, SubsetSpec
from keepmore.spec.budget import Budget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Selection
from keepmore.spec.variants import FitCount, Spread, VariantSpec
from keepmore.storage import layout
from keepmore.storage.base import Store

SHARED = ("path", "source_uri", "label", "width", "height", "source_sha256")
OWN = ("bytes", "encoding", "sha256", "encoder_distance")

# A placeholder for a checksum: only `keepmore.storage.layout` knows the form of an object's key.
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
            fixed_order = None if sampling.size_keys(selection.order) else in_order(pool, selection, None)
            for distance in distances:
                order = in_order(pool, selection, pool.bytes[distance]) if fixed_order is None else fixed_order
                with _naming(f"distance {text(distance)}"):
                    yield sampling.select(pool.bytes[distance], order, budget)


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """The message of a budget that is too small begins with the variant."""
    try:
        yield
    except BudgetTooSmall as error:
        raise BudgetTooSmall(f"{variant}: {error.reason}", field=error.field) from error


def choose_rungs(pool: Pool, spread: Spread, selection: Selection, budget: int | None) -> ladders.Choice:
    """The level at which each image of the pool is kept; `pool` has the sizes at all levels of the spread's ladder."""
    ladder = spread.ladder
    with freed_memory_kept(), _naming(spread.name):
        sizes = np.empty((len(ladder), len(pool.rows)), np.result_type(*(pool.bytes[d] for d in ladder)))
        for rung, distance in enumerate(ladder):
            sizes[rung] = pool.bytes[distance]
            pool.bytes[distance] = sizes[rung]  # a view, so that sizes are in memory once
        order = in_order(pool, selection, sizes.min(axis=0))
        return ladders.choose(spread, sizes, pool.path_hashes, selection.seed, order, budget)


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """The variants of a job, and the budget and order that a subset of each is chosen with."""

    distances: Sequence[float]
    effort: int
    budget: Budget | None
    selection: Selection
    rules: Sequence[VariantSpec] = ()

    @property
    def measured(self) -> frozenset[float]:
        """The distances at which the index has the sizes of all images."""
        return frozenset((*self.distances, *(d for rule in self.rules for d in rule.ladder)))


def write_subsets(store: Store, job_id: str, subset_id: str, plan: SelectionPlan, summary: Summary) -> Subset:
    """Write a manifest for every variant. The results of the subset's fit steps are read from the store."""
    budget_bytes = plan.budget.bytes(summary.pool_bytes) if plan.budget else None
    spec = SubsetSpec(job_id, plan.budget, budget_bytes, plan.selection, plan.effort)
    pool_images, variants = _variants(store, subset_id, plan, spec)
    keys = [layout.manifest(job_id, subset_id, variant.name) for variant in variants]
    with ExitStack() as stack:
        files = [stack.enter_context(store.writer(key)) for key in keys]
        manifests = [
            _Manifest(store, variant, plan.effort, manifest.Writer(file, variant.spec))
            for variant, file in zip(variants, files, strict=True)
        ]
        indexed = sorted({d for variant in variants if variant.fitted is None for d in variant.distances})
        columns = [*SHARED, *(index.column(name, d) for d in indexed for name in OWN)]
        totals = _write(manifests, index.rows(store, layout.index(job_id), columns))
    rows = {
        variant.name: SubsetRow(
            **asdict(total), manifest=store.uri(key), classes=variant.classes, levels=variant.result
        )
        for variant, total, key in zip(variants, totals, keys, strict=True)
    }
    return Subset(spec, subset_id, pool_images, rows)


@dataclass(frozen=True, slots=True)
class _Variant:
    """The images of one manifest. `marks`: for every row of the index up to the last good one, 0, or 1 plus the place
    among `distances` at which it is kept; `fitted`: the rows themselves, where the index does not have their sizes.

    `spec` goes into the manifest's metadata, `result` into the subset's record.
    """

    name: str
    distances: Sequence[float]
    marks: NDArray[np.uint8]
    classes: dict[str, int]
    spec: ManifestSpec
    result: RuleResult | None = None
    fitted: pa.Table | None = None


def _variants(store: Store, subset_id: str, plan: SelectionPlan, spec: SubsetSpec) -> tuple[int, list[_Variant]]:
    """How many images there are to choose from, and what is kept in every variant.

    Holds the pool, which is free again on return, and a byte per image for each variant.
    """
    pool = read_pool(store, layout.index(spec.job), sorted(plan.measured))
    variants = []
    choices = choose(pool, plan.distances, plan.selection, spec.budget_bytes)
    for d, places in zip(plan.distances, choices, strict=True):
        marks = _marks(pool, places, np.uint8(1))
        variants.append(_Variant(text(d), (d,), marks, _class_counts(pool, places), ManifestSpec(spec, d)))
    for rule in plan.rules:
        match rule:
            case Spread():
                variants.append(_spread(pool, rule, spec))
            case FitCount():
                variants.append(_fit(pool, rule, *fit.read(store, layout.fitted(spec.job, subset_id, rule.name)), spec))
            case _:
                assert_never(rule)
    return len(pool.rows), variants


def _spread(pool: Pool, spread: Spread, spec: SubsetSpec) -> _Variant:
    choice = choose_rungs(pool, spread, spec.selection, spec.budget_bytes)
    counts = np.bincount(choice.rungs, minlength=len(spread.ladder)).tolist()
    result = SpreadResult(choice.scale, {text(d): n for d, n in zip(spread.ladder, counts, strict=True) if n})
    marks, classes = _marks(pool, choice.places, choice.rungs + np.uint8(1)), _class_counts(pool, choice.places)
    return _Variant(spread.name, spread.ladder, marks, classes, ManifestSpec(spec, None, spread, result), result)


def _fit(pool: Pool, rule: FitCount, fitted: FitResult, rows: pa.Table, spec: SubsetSpec) -> _Variant:
    places = np.searchsorted(pool.rows, rows["row"].to_numpy())
    result = FitDistance(fitted.distance, fitted.exact)
    marks, classes = _marks(pool, places, np.uint8(1)), _class_counts(pool, places)
    return _Variant(
        rule.name, (result.distance,), marks, classes, ManifestSpec(spec, result.distance, rule, result), result, rows
    )


def _marks(pool: Pool, places: NDArray[np.int64], values: NDArray[np.uint8] | np.uint8) -> NDArray[np.uint8]:
    marks = np.zeros(pool.rows[-1] + 1 if len(pool.rows) else 0, np.uint8)
    marks[pool.rows[places]] = values
    return marks


def _class_counts(pool: Pool, places: NDArray[np.int64]) -> dict[str, int]:
    classes = pool.classes[places]
    counts = np.bincount(classes[classes >= 0], minlength=len(pool.class_names))
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
        by_distance = [(d, np.flatnonzero(marks == mark)) for mark, d in enumerate(self.variant.distances, start=1)]
        pieces = [(places, self._rows(batch, start, d, places)) for d, places in by_distance if len(places)]
        if len(pieces) == 1:
            self.writer.add(pieces[0][1])
        elif pieces:  # rows by ascending place, whatever their distance
            order = np.argsort(np.concatenate([places for places, _ in pieces]))
            table = pa.Table.from_batches([rows for _, rows in pieces]).combine_chunks()
            (rows,) = table.take(pa.array(order)).combine_chunks().to_batches()
            self.writer.add(rows)

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
        """The columns that depend on the distance: from the index, or from the result of the fit step."""
        if self.variant.fitted is None:
            names = {name: index.column(name, distance) for name in OWN}
            own = batch.select(list(names.values())).take(pa.array(places))
            return {name: own[column] for name, column in names.items()}
        first = int(np.searchsorted(self.variant.fitted["row"].to_numpy(), start + places[0]))
        rows = self.variant.fitted.slice(first, len(places)).combine_chunks()
        return {name: rows[name].chunk(0) for name in OWN}


def _write(manifests: Sequence[_Manifest], batches: Iterable[pa.RecordBatch]) -> list[Totals]:
    """Pass over the index once; returns the totals of each manifest.

    A batch goes into all manifests at the same time: pyarrow and hashlib hold no lock while they work.
    """
    start = 0
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        for batch in batches:
            list(threads.map(_Manifest.add, manifests, repeat(batch), repeat(start)))
            start += len(batch)
        return list(threads.map(manifest.Writer.close, [each.writer for each in manifests]))


def object_uris(store: Store, sha256: pa.Array, encodings: pa.Array, distance: float, effort: int) -> pa.Array:
    """The addresses of the images' objects, by the checksums of their sources: `store.uri(layout.object(...))` of
    each."""
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
