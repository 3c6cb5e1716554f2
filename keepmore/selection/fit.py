"""The fit step: finds the distance at which exactly the given number of images fills the budget, by encoding them.

The index does not have sizes at every distance. So a few images are encoded at distances over the whole range, then all
of them at a handful of distances, each closer than the one before. Encodings stay in the store, where a repeated step
or another job finds them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from keepmore.compression import batch, index
from keepmore.compression.batch import BatchEncoder
from keepmore.errors import BudgetTooSmall, InvalidRequest, StoreError
from keepmore.selection import fit_search
from keepmore.selection.fit_search import Curve, Trial
from keepmore.selection.pool import in_order, read_originals, rows_at
from keepmore.spec.distance import LARGEST, ORIGINAL, SMALLEST
from keepmore.spec.job import Selection
from keepmore.spec.variants import FitCount
from keepmore.storage.base import Store

SAMPLE_IMAGES = 24
# Where the sample is encoded: at close steps where photographs cease to be smallest as transcodes, whose sizes are the
# same at any distance; and from distance 10 on, where the encoder works differently and the sizes follow another curve.
SAMPLE_DISTANCES = (SMALLEST, 0.35, 0.6, 1.0, 1.6, 2.0, 2.5, 5.0, 10.0, 10.5, 16.0, LARGEST)
METADATA = b"keepmore"
# `row`: the image's place in the index; rows ascend.
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("encoding", pa.string()),
        ("sha256", pa.string()),
        ("encoder_distance", pa.float32()),
    ]
)


@dataclass(frozen=True, slots=True)
class FitResult:
    """The distance; whether one more image would not fit at it; how many distances were tried on all images."""

    distance: float
    exact: bool
    trials: int


def find(encoder: BatchEncoder, index_key: str, fit: FitCount, budget: int, selection: Selection) -> bytes:
    """The result and the images' rows as Parquet, for `read`. `budget` is in bytes; the images are the first ones in
    the order of `selection`.

    Raises InvalidRequest where the pool has too few images, BudgetTooSmall where they fit at no distance, and
    DatasetChanged.
    """
    images = _Images.first(encoder.store, index_key, fit, selection)
    if (originals := images.originals()).fits(budget):
        return to_parquet(FitResult(ORIGINAL, originals.hits(budget), 0), images.original_rows())
    digits = fit_search.digits(fit.images)
    curve = Curve(images.sample_points(encoder, SAMPLE_DISTANCES))
    trials: list[Trial] = []
    best: tuple[Trial, pa.Table] | None = None
    while (distance := fit_search.next_trial(curve, trials, budget, digits)) is not None:
        trial, rows = images.encode(encoder, distance)
        trials.append(trial)
        if trial.fits(budget) and (best is None or trial.hits(budget) or trial.bytes > best[0].bytes):
            best = trial, rows  # a hit is the last one
    if best is None:
        least = min(trial.bytes for trial in trials)
        raise BudgetTooSmall(
            f"{fit.name}: {budget:,} bytes do not hold {fit.images:,} images at any distance; they take "
            f"{least:,} bytes at least: raise the budget, or fit fewer",
            field="budget",
        )
    trial, rows = best
    return to_parquet(FitResult(trial.distance, trial.hits(budget), len(trials)), rows)


@dataclass(frozen=True, slots=True)
class _Images:
    """The first images of an order, and the following one if there is one, in the index's order.

    `table` holds columns of the index and `row`, an image's place there; `is_kept` (images,) is False for the following
    one.
    """

    table: pa.Table
    is_kept: NDArray[np.bool_]

    @staticmethod
    def first(store: Store, index_key: str, fit: FitCount, selection: Selection) -> _Images:
        pool = read_originals(store, index_key)
        if fit.images > len(pool.rows):
            raise InvalidRequest(
                f"{fit.expression} is not possible: the pool has {len(pool.rows):,} images; fit fewer",
                field="distances",
            )
        places = in_order(pool, selection, pool.bytes[ORIGINAL])[: fit.images + 1]
        by_row = np.argsort(places)
        return _Images(rows_at(store, index_key, pool, places[by_row], batch.COLUMNS), by_row < fit.images)

    def originals(self) -> Trial:
        return self._trial(ORIGINAL, self.table["source_bytes"].to_numpy())

    def original_rows(self) -> pa.Table:
        """The kept images as their sources, with the SCHEMA."""
        images = self.table.filter(pa.array(self.is_kept))
        columns = [
            images["row"],
            images["path"],
            images["source_bytes"],
            pa.repeat(pa.scalar("original"), len(images)),
        ]
        columns += [images["source_sha256"], pa.nulls(len(images), pa.float32())]
        return pa.table(columns, schema=SCHEMA)

    def encode(self, encoder: BatchEncoder, distance: float) -> tuple[Trial, pa.Table]:
        """The sizes of the images at `distance`, and the kept ones with the SCHEMA."""
        encodings = batch.encode_rows(encoder, self.table, (distance,))
        names = [index.column(name, distance) for name in SCHEMA.names[2:]]
        columns = [self.table["row"], self.table["path"], *(encodings[name] for name in names)]
        rows = pa.table(columns, schema=SCHEMA)
        trial = self._trial(distance, rows["bytes"].to_numpy())
        return trial, rows.filter(pa.array(self.is_kept)).combine_chunks()

    def sample_points(self, encoder: BatchEncoder, distances: Sequence[float]) -> list[tuple[float, float]]:
        """Each of `distances` and the bytes of all images there, extrapolated from a sample by the sources' bytes."""
        few = np.unique(np.linspace(0, len(self.is_kept) - 1, min(SAMPLE_IMAGES, len(self.is_kept))).astype(np.int64))
        table = self.table.take(pa.array(few))
        scale = self.originals().point[1] / max(1, pc.sum(table["source_bytes"]).as_py())
        encodings = batch.encode_rows(encoder, table, distances)
        return [(d, scale * pc.sum(encodings[index.column("bytes", d)]).as_py()) for d in distances]

    def _trial(self, distance: float, sizes: NDArray[np.int64]) -> Trial:
        """If no image follows, one of mean size takes its place: then a budget with room for two more does not count as
        filled."""
        total = int(sizes[self.is_kept].sum())
        following = sizes[~self.is_kept]
        return Trial(distance, total, float(following[0]) if len(following) else total / len(self.is_kept))


def to_parquet(result: FitResult, rows: pa.Table) -> bytes:
    """`rows` have SCHEMA."""
    buffer = io.BytesIO()
    table = rows.replace_schema_metadata({METADATA: json.dumps(asdict(result)).encode()})
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read(store: Store, key: str) -> tuple[FitResult, pa.Table]:
    """Read what `to_parquet` wrote; raises StoreError if it is damaged."""
    data = store.get(key)
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True).combine_chunks()
        return FitResult(**json.loads(table.schema.metadata[METADATA])), table.cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{key} is damaged ({error}); delete it and resume the job, which makes it again") from error
