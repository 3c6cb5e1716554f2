"""Merging the parts of a job into its index and the table of its evaluation images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from keepmore.codec import version as codec_version
from keepmore.compression.index import EVALUATION, FORMAT, METADATA, POOL, Summary, column, schema, undamaged
from keepmore.errors import CountMismatch, DuplicateImage
from keepmore.prefetch import ahead
from keepmore.spec.distance import ORIGINAL
from keepmore.storage.base import Store

IN_EVALUATION = "evaluation_image"
# A reader of an index holds a kilobyte for every column of every row group, so many parts share a group.
GROUP_ROWS = 1 << 14
PARTS_AHEAD = 4


def merge(
    store: Store,
    parts: Sequence[str],
    counts: Mapping[str, int],
    distances: Sequence[float],
    to_index: str,
    to_evaluation: str,
) -> Summary:
    """Write the rows of all `parts`, in their order, to the index of the pool and that of the evaluation images.

    An image of the pool that is byte for byte an evaluation image becomes a failed row: training on it would be
    training on the test set. Holds one row group at a time, and 32 bytes per evaluation image. Raises CountMismatch
    when the parts do not hold exactly as many images of each split as `counts` says, and DuplicateImage when two rows
    of a split have the same path.
    """
    stamp = {"format": FORMAT, "codec": codec_version.codec(), "versions": codec_version.versions()}
    columns = schema(distances).with_metadata({METADATA: json.dumps(stamp).encode()})
    evaluation_sha256 = _evaluation_sha256(store, parts if counts[EVALUATION] else ())
    tally = _Tally(distances)
    with store.writer(to_index) as pool_file, store.writer(to_evaluation) as evaluation_file:
        with _writer(pool_file, columns) as pool, _writer(evaluation_file, columns) as evaluation:
            for rows in _regrouped(_parts(store, parts)):
                table = _without_evaluation_images(rows, evaluation_sha256)
                tally.add(table)
                for name, writer in ((POOL, pool), (EVALUATION, evaluation)):
                    own = table.filter(pc.equal(table["split"], name))
                    if len(own):
                        writer.write_table(own.replace_schema_metadata(columns.metadata))
        tally.check_counts(counts)
    return tally.summary()


def _evaluation_sha256(store: Store, parts: Sequence[str]) -> NDArray[np.bytes_]:
    """Checksums of the sources of all evaluation images, ascending, shape (images,): 32 bytes each."""
    by_part = [
        _digests(table.filter(pc.equal(table["split"], EVALUATION))["source_sha256"].drop_null())
        for table in _parts(store, parts, ["split", "source_sha256"])
    ]
    digests = np.concatenate([_digests(pa.array([])), *by_part])
    digests.sort()
    return digests


def _digests(sha256: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    return np.array([bytes.fromhex(text) for text in sha256.to_pylist()], "S32")


def _parts(store: Store, parts: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The tables of the parts, in order; over a network, waiting for each in turn would be most of a merge."""

    def read(key: str) -> pa.Table:
        data = store.get(key)
        # Half the time of `pq.read_table`, which prepares for many files.
        with undamaged(key), pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as parquet:
            return parquet.read(columns, use_threads=False)

    with ThreadPoolExecutor(PARTS_AHEAD) as threads:
        for _, table in ahead(parts, lambda key: threads.submit(read, key), PARTS_AHEAD):
            yield table.result()


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of GROUP_ROWS, or up to a part more: for a few rows, calls cost more than work."""
    group: list[pa.Table] = []
    for table in tables:
        group.append(table.replace_schema_metadata())
        if sum(map(len, group)) >= GROUP_ROWS:
            yield pa.concat_tables(group).combine_chunks()
            group = []
    if group:
        yield pa.concat_tables(group).combine_chunks()


def _without_evaluation_images(table: pa.Table, evaluation_sha256: NDArray[np.bytes_]) -> pa.Table:
    """`table`, in which images of the pool that are among `evaluation_sha256` (ascending) became failed rows."""
    if len(evaluation_sha256) == 0:
        return table
    digests = _digests(pc.fill_null(table["source_sha256"], ""))
    # A search costs the same for every part. pyarrow's `is_in` would build its set again in each call, which is as much
    # work for every part as there are evaluation images.
    nearest = np.minimum(np.searchsorted(evaluation_sha256, digests), len(evaluation_sha256) - 1)
    hit = pc.and_(pc.equal(table["split"], POOL), pa.array(evaluation_sha256[nearest] == digests))
    if not pc.any(hit).as_py():
        return table
    error = {"error_code": IN_EVALUATION, "error": "byte for byte an image of the evaluation split; it is never kept"}
    columns = []
    for field_ in table.schema:
        other = pa.scalar(error.get(field_.name), field_.type)
        replaced = field_.name in error or "@" in field_.name
        columns.append(pc.if_else(hit, other, table[field_.name]) if replaced else table[field_.name])
    return pa.Table.from_arrays(columns, schema=table.schema)


def _writer(file: BinaryIO, columns: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, columns, compression="zstd", write_page_checksum=True)


class _Tally:
    """Adds up parts."""

    def __init__(self, distances: Sequence[float]) -> None:
        self._splits: Counter[str] = Counter()  # of all images
        self._good: Counter[str] = Counter()  # by split
        self._source_bytes = 0
        self._pool_bytes = dict.fromkeys(distances, 0)
        self._encodings: dict[float, Counter[str]] = {d: Counter() for d in distances if d != ORIGINAL}
        self._classes: Counter[str | None] = Counter()
        self._errors: Counter[str] = Counter()
        self._last_path = {POOL: "", EVALUATION: ""}

    def add(self, table: pa.Table) -> None:
        """Raises DuplicateImage."""
        good = table.filter(pc.is_null(table["error_code"]))
        pool = good.filter(pc.equal(good["split"], POOL))
        self._splits.update(_counts(table["split"]))
        self._good.update(_counts(good["split"]))
        self._source_bytes += pc.sum(table["source_bytes"]).as_py() or 0
        for distance in self._pool_bytes:
            self._pool_bytes[distance] += pc.sum(pool[column("bytes", distance)]).as_py() or 0
        for distance, counter in self._encodings.items():
            counter.update(_counts(pool[column("encoding", distance)]))
        self._classes.update(_counts(pool["label"]))
        self._errors.update(_counts(table["error_code"].drop_null()))
        for split, last in self._last_path.items():
            for path in table.filter(pc.equal(table["split"], split))["path"].to_pylist():
                if path <= last:
                    raise DuplicateImage(f"{split}: {path} does not sort after {last}; two images have the same path")
                last = path
            self._last_path[split] = last

    def check_counts(self, counts: Mapping[str, int]) -> None:
        if self._splits != Counter(counts):
            raise CountMismatch(
                f"{counts[POOL]} images of the pool and {counts[EVALUATION]} of the evaluation split were listed and "
                f"{self._splits[POOL]} and {self._splits[EVALUATION]} are in the parts: the job's work in the store "
                "was altered; start a new job, which will find the encoded objects again"
            )

    def summary(self) -> Summary:
        image_count, compressed = self._splits.total(), self._good.total()
        return Summary(
            listed=image_count,
            compressed=compressed,
            failed=image_count - compressed,
            pool=self._good[POOL],
            evaluation=self._good[EVALUATION],
            source_bytes=self._source_bytes,
            pool_bytes=self._pool_bytes,
            encodings={d: dict(sorted(counter.items())) for d, counter in self._encodings.items()},
            classes={name: self._classes[name] for name in sorted(filter(None, self._classes))},
            unlabelled=self._classes[None],
            errors=dict(sorted(self._errors.items())),
        )


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()}
