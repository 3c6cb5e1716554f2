"""Pilots: small trainings on a part of the pool, from which is foretold what every distance and budget would give.

Which images take part, in which order, and their encodings at every distance.
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
    """The order, of its own for each seed and the same at every distance, in which pilots take images of `table`."""
    return in_order(_as_pool(table), Selection("random", True, seed), table["source_bytes"].to_numpy())


def _as_pool(table: pa.Table) -> Pool:
    labels = np.array(table["label"].to_pylist(), np.str_)
    names, classes = np.unique(labels, return_inverse=True)
    hashes = np.array([sampling.path_hash(path) for path in table["path"].to_pylist()], np.uint64)
    return Pool(np.arange(len(labels)), hashes, classes.astype(np.int32), names.tolist(), {})


def encode(workbench: BatchEncoder, store: Store, job_id: str, request: AdviceRequest, seed: int) -> pa.Table:
    """The images of the pilots at every distance, with the schema of an index: a random part of each class."""
    pool = read_originals(store, layout.index(job_id))
    places = in_order(pool, Selection("random", True, seed), pool.bytes[ORIGINAL])
    places = places[pool.classes[places] >= 0]
    chosen = np.sort(places[: pilot_grid.count(len(places), len(pool.class_names), request.images)])
    table = rows_at(store, layout.index(job_id), pool, chosen, batch.COLUMNS)
    return batch.encode_rows(workbench, table, request.distances)


def means(table: pa.Table, asked: Sequence[float], pool_means: dict[float, float]) -> dict[float, float]:
    """Mean bytes of an image of the whole pool at each of `asked` distances.

    Where the pool was never encoded, as the pilots' images tell (a ratio estimate): their mean there, times how much
    larger the pool's images are than theirs at the nearest distance at which both are known.
    """
    found = {}
    for distance in asked:
        nearest = min(pool_means, key=lambda known: (known == ORIGINAL, abs(known - distance)))
        scale = pool_means[nearest] / _mean(table, nearest)
        found[distance] = pool_means.get(distance, scale * _mean(table, distance))
    return found


def _mean(table: pa.Table, distance: float) -> float:
    return float(np.mean(table[index.column("bytes", distance)].to_numpy()))
