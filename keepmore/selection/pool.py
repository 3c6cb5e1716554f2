"""The pool of a job as arrays: sizes by distance, classes, and the hash of every path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.compression import index
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import Selection
from keepmore.storage.base import Store


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool as selection sees it, in the index's order. `rows` are the places of its good images there, ascending.

    `rows`, `path_hashes`, `classes` (−1: no label) and each of `bytes` have the shape (images,). As `read_pool` makes
    it, a pool holds 16 bytes per image and 4 for each distance.
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
    """A column of the pool while it is read, as copies, so that they do not keep pyarrow's buffers alive."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._kind = kind
        self._batches: list[NDArray[Any]] = []

    def add(self, values: pa.Array | NDArray[Any]) -> None:
        array = np.asarray(values)
        self._batches.append(_narrow(array) if self._kind is np.uint32 else array.astype(self._kind))

    def whole(self) -> NDArray[Any]:
        batches, self._batches = self._batches, []
        return np.concatenate([np.array([], self._kind), *batches])


def _narrow(numbers: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Numbers from 0 on in four bytes each, if none is too large."""
    fit = len(numbers) == 0 or numbers.max() <= np.iinfo(np.uint32).max
    return numbers.astype(np.uint32 if fit else np.int64)


def _numbered(labels: pa.Array, numbers: dict[str, int]) -> NDArray[np.int32]:
    """The number of each label, −1 where there is none; a label that is not in `numbers` gets the next number."""
    encoded = labels.dictionary_encode()
    class_numbers = [numbers.setdefault(name, len(numbers)) if name else -1 for name in encoded.dictionary.to_pylist()]
    places: NDArray[np.int32] = np.asarray(encoded.indices.fill_null(-1))
    return np.take(np.array([*class_numbers, -1], np.int32), places)


def in_order(pool: Pool, selection: Selection, bytes_: NDArray[np.integer[Any]] | None) -> NDArray[np.int64]:
    """Places in the pool in the order in which they are kept; an order by size needs `bytes_`."""
    balance = pool.labelled if selection.balance is None else selection.balance
    classes = pool.classes if balance else None
    size_keys = sampling.size_keys(selection.order)
    if size_keys is None:
        return sampling.in_order(sampling.ranks(pool.path_hashes, selection.seed), classes)
    if bytes_ is None:
        raise ValueError(f"the order {selection.order} needs the sizes of the images")
    return sampling.in_order(size_keys(bytes_), classes)


def rows_at(store: Store, index_key: str, pool: Pool, places: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
    """`columns` of the index's rows of ascending `places` in the pool, each with its `row`."""
    rows = pool.rows[places].astype(np.int64)
    batches, start = [], 0
    for batch in index.rows(store, index_key, columns):
        first, end = np.searchsorted(rows, [start, start + len(batch)])
        batches.append(batch.take(pa.array(rows[first:end] - start)))
        start += len(batch)
    return pa.Table.from_batches(batches).append_column("row", pa.array(rows)).combine_chunks()
