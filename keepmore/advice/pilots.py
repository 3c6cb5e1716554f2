"""The images of pilots: which ones take part, in which order, and their encodings at every distance.

Pilots are small trainings on a part of the pool, from which the accuracy at every distance and budget is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.compression import batch, index
from keepmore.compression.batch import BatchEncoder
from keepmore.selection.pool import Pool, in_order, read_originals, rows_at
from keepmore.spec import pilot_grid
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import Selection
from keepmore.storage import layout
from keepmore.storage.base import Store


def order(table: pa.Table, seed: int) -> NDArray[np.int64]:
    """The order in which the pilots of a seed take images of `table`, whatever their distance."""
    names, classes = np.unique(np.array(table["label"].to_pylist(), np.str_), return_inverse=True)
    hashes = np.array([sampling.path_hash(path) for path in table["path"].to_pylist()], np.uint64)
    pool = Pool(np.arange(len(table)), hashes, classes.astype(np.int32), names.tolist(), {})
    return in_order(pool, Selection("random", True, seed), table["source_bytes"].to_numpy())


def encode(encoder: BatchEncoder, store: Store, job_id: str, request: AdviceRequest, seed: int) -> pa.Table:
    """The images of the pilots at every distance, with the schema of an index: a random part of each class."""
    pool = read_originals(store, layout.index(job_id))
    places = in_order(pool, Selection("random", True, seed), pool.bytes[ORIGINAL])
    places = places[pool.classes[places] >= 0]
    places = np.sort(places[: pilot_grid.count(len(places), len(pool.class_names), request.images)])
    table = rows_at(store, layout.index(job_id), pool, places, batch.COLUMNS)
    return batch.encode_rows(encoder, table, request.distances)


def means(table: pa.Table, distances: Sequence[float], pool_means: dict[float, float]) -> dict[float, float]:
    """Mean bytes of an image of the whole pool at each of `distances`.

    Where the pool was never encoded, a ratio estimate from the pilots' images: their mean there, times the ratio of the
    pool's mean to theirs at the nearest distance at which both are known.
    """
    estimates = {}
    for distance in distances:
        nearest = min(pool_means, key=lambda d: (d == ORIGINAL, abs(d - distance)))
        scale = pool_means[nearest] / _mean(table, nearest)
        estimates[distance] = pool_means.get(distance, scale * _mean(table, distance))
    return estimates


def _mean(table: pa.Table, distance: float) -> float:
    return float(np.mean(table[index.column("bytes", distance)].to_numpy()))
