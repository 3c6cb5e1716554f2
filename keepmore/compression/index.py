"""The table with one row an image: its columns, the chunks and parts it is made from, and its merge."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from keepmore.codec import version as codec_version
from keepmore.datasets.entry import Entry
from keepmore.errors import CountMismatch, DuplicateImage, StoreError
from keepmore.prefetch import ahead
from keepmore.spec.distance import ORIGINAL, text
from keepmore.storage.folder import Store

FORMAT = 1
METADATA = b"keepmore"
IN_EVALUATION = "evaluation_image"
POOL, EVALUATION = "pool", "evaluation"

# Whoever opens an index holds a kilobyte for every column of every row group, so one is written for many parts.
GROUP_ROWS = 1 << 14
# And what pyarrow learns of a group it keeps until it has read all that it was asked for, so that is a few at a time.
ROW_GROUPS = 32
BATCH_ROWS = 1 << 14
PARTS_AHEAD = 4

CHUNK = pa.schema(
    [
        ("split", pa.string()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a chunk: an entry and the split it belongs to."""

    split: str
    entry: Entry


def schema(distances: Sequence[float]) -> pa.Schema:
    """Columns of a part and of the index. Per distance d: `bytes@d`, `encoding@d`, `sha256@d`, `encoder_distance@d`.

    Sizes are bytes, `width` and `height` pixels of the upright image; a row has either these or an error.
    """
    columns = [
        ("split", pa.string()),
        ("path", pa.string()),
        ("path_hash", pa.uint64()),
        ("source_uri", pa.string()),
        ("label", pa.string()),
        ("source_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("error_code", pa.string()),
        ("error", pa.string()),
    ]
    for distance in distances:
        columns += [
            (column("bytes", distance), pa.int64()),
            (column("encoding", distance), pa.string()),
            (column("sha256", distance), pa.string()),
            (column("encoder_distance", distance), pa.float32()),
        ]
    return pa.schema(columns)


def column(name: str, distance: float) -> str:
    return f"{name}@{text(distance)}"


def write_chunk(rows: Iterable[Listed]) -> bytes:
    values = [(row.split, e.path, e.uri, e.label, e.size, e.version) for row in rows for e in (row.entry,)]
    columns = [pa.array(list(c), t) for c, t in zip(zip(*values, strict=True), CHUNK.types, strict=True)]
    return to_parquet(pa.Table.from_arrays(columns, schema=CHUNK))


def read_chunk(data: bytes) -> list[Listed]:
    return [
        Listed(r["split"], Entry(r["path"], r["uri"], r["label"], r["size"], r["version"]))
        for r in pq.read_table(io.BytesIO(data), page_checksum_verification=True).to_pylist()
    ]


def to_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


@dataclass(slots=True)
class Summary:
    """What the merged index holds, in numbers. `pool_bytes`: bytes of the whole pool by distance."""

    listed: int = 0
    compressed: int = 0
    failed: int = 0
    pool: int = 0
    evaluation: int = 0
    source_bytes: int = 0
    pool_bytes: dict[float, int] = field(default_factory=dict)
    encodings: dict[float, dict[str, int]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        written = {name: getattr(self, name) for name in self.__slots__}
        for name in ("pool_bytes", "encodings"):
            written[name] = {text(d): value for d, value in written[name].items()}
        return written

    @staticmethod
    def from_json(written: dict[str, Any]) -> Summary:
        fields = dict(written)
        for name in ("pool_bytes", "encodings"):
            fields[name] = {float(d): value for d, value in fields[name].items()}
        return Summary(**fields)


def merge(
    store: Store,
    parts: Sequence[str],
    listed: Mapping[str, int],
    distances: Sequence[float],
    to_index: str,
    to_evaluation: str,
) -> Summary:
    """Write the rows of all `parts`, in their order, to the index of the pool and that of the evaluation images.

    An image of the pool that is byte for byte an evaluation image becomes a failed row: training on it would be
    testing on what was learnt. Holds a row group at a time, and 32 bytes an evaluation image. Raises CountMismatch when
    the parts do not hold exactly as many images of each split as were `listed`, and DuplicateImage when two rows of a
    split have one path.
    """
    columns = schema(distances).with_metadata(_stamp())
    tested = _tested(store, parts if listed[EVALUATION] else ())
    tally = _Tally(distances)
    with store.writer(to_index) as pool_file, store.writer(to_evaluation) as evaluation_file:
        with _writer(pool_file, columns) as pool, _writer(evaluation_file, columns) as evaluation:
            for rows in _together(_parts(store, parts)):
                table = _without_tested(rows, tested)
                tally.add(table)
                for name, writer in ((POOL, pool), (EVALUATION, evaluation)):
                    own = table.filter(pc.equal(table["split"], name))
                    if len(own):
                        writer.write_table(own.replace_schema_metadata(columns.metadata))
        if tally.listed != Counter(listed):
            raise CountMismatch(
                f"{listed[POOL]} images of the pool and {listed[EVALUATION]} of the evaluation split were listed and "
                f"{tally.listed[POOL]} and {tally.listed[EVALUATION]} are in the parts: the job's work in the store "
                "was altered; start a new job, which will find the encoded objects again"
            )
    return tally.finished()


def _stamp() -> dict[bytes, bytes]:
    made_by = {"format": FORMAT, "codec": codec_version.codec(), "versions": codec_version.versions()}
    return {METADATA: json.dumps(made_by).encode()}


def _tested(store: Store, parts: Sequence[str]) -> NDArray[np.bytes_]:
    """Checksums of the sources of all evaluation images, ascending, shape (images,): 32 bytes each."""
    found = [
        _digests(table.filter(pc.equal(table["split"], EVALUATION))["source_sha256"].drop_null())
        for table in _parts(store, parts, ["split", "source_sha256"])
    ]
    tested = np.concatenate([_digests(pa.array([])), *found])
    tested.sort()
    return tested


def _digests(sha256: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    return np.array([bytes.fromhex(text) for text in sha256.to_pylist()], "S32")


def _parts(store: Store, parts: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The tables of the parts, in order; over a network, waiting for one after another would be most of a merge."""

    def read(key: str) -> pa.Table:
        data = store.get(key)
        # Half the time of `pq.read_table`, which prepares for many files.
        with _undamaged(key), pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as parquet:
            return parquet.read(columns, use_threads=False)

    with ThreadPoolExecutor(PARTS_AHEAD) as threads:
        for _, table in ahead(parts, lambda key: threads.submit(read, key), PARTS_AHEAD):
            yield table.result()


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of GROUP_ROWS, or up to a part more: for a few, calls cost more than work."""
    gathered: list[pa.Table] = []
    for table in tables:
        gathered.append(table.replace_schema_metadata())
        if sum(map(len, gathered)) >= GROUP_ROWS:
            yield pa.concat_tables(gathered).combine_chunks()
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered).combine_chunks()


def _without_tested(table: pa.Table, tested: NDArray[np.bytes_]) -> pa.Table:
    """`table` with its images of the pool that are among `tested`, ascending checksums, made failed rows."""
    if len(tested) == 0:
        return table
    digests = _digests(pc.fill_null(table["source_sha256"], ""))
    # A search costs the same in every part. A set to look them up in is built anew for each call of pyarrow's, which is
    # as much work for every part as there are evaluation images.
    found = tested[np.minimum(np.searchsorted(tested, digests), len(tested) - 1)] == digests
    hit = pc.and_(pc.equal(table["split"], POOL), pa.array(found))
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
        self.summary = Summary(
            pool_bytes=dict.fromkeys(distances, 0), encodings={d: {} for d in distances if d != ORIGINAL}
        )
        self._classes: Counter[str | None] = Counter()
        self._errors: Counter[str] = Counter()
        self._encodings: dict[float, Counter[str]] = {d: Counter() for d in self.summary.encodings}
        self._last_path = {POOL: "", EVALUATION: ""}
        self.listed: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        good = table.filter(pc.is_null(table["error_code"]))
        pool = good.filter(pc.equal(good["split"], POOL))
        evaluation = good.filter(pc.equal(good["split"], EVALUATION))
        s = self.summary
        self.listed.update(_counts(table["split"]))
        s.compressed += len(good)
        s.failed += len(table) - len(good)
        s.pool += len(pool)
        s.evaluation += len(evaluation)
        s.source_bytes += pc.sum(table["source_bytes"]).as_py() or 0
        for distance in s.pool_bytes:
            s.pool_bytes[distance] += pc.sum(pool[column("bytes", distance)]).as_py() or 0
        for distance, counter in self._encodings.items():
            counter.update(_counts(pool[column("encoding", distance)]))
        self._classes.update(_counts(pool["label"]))
        self._errors.update(_counts(table["error_code"].drop_null()))
        self._check_order(table)

    def finished(self) -> Summary:
        s = self.summary
        s.listed = self.listed.total()
        s.unlabelled = self._classes.pop(None, 0)
        s.classes = {str(name): self._classes[name] for name in sorted(filter(None, self._classes))}
        s.errors = dict(sorted(self._errors.items()))
        s.encodings = {d: dict(sorted(counter.items())) for d, counter in self._encodings.items()}
        return s

    def _check_order(self, table: pa.Table) -> None:
        for split, last in self._last_path.items():
            for path in table.filter(pc.equal(table["split"], split))["path"].to_pylist():
                if path <= last:
                    raise DuplicateImage(f"{split}: {path} does not sort behind {last}; two images have one path")
                last = path
            self._last_path[split] = last


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()}


def rows(store: Store, key: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of an index in its order, in flat memory. Raises StoreError for one that is damaged."""
    with store.open(key) as file, _undamaged(key), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        _check_format(parquet, key)
        # Checksums cover neither names of columns nor headers of pages; a page with a damaged one may count as none.
        if lost := set(columns or ()).difference(parquet.schema_arrow.names):
            raise pa.ArrowInvalid(f"its columns {', '.join(sorted(lost))} are missing")
        left = parquet.metadata.num_rows
        for window in _windows(parquet.metadata):
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=window, columns=columns):
                left -= len(batch)
                yield batch
        if left:
            raise pa.ArrowInvalid(f"{left:,} of its {parquet.metadata.num_rows:,} rows are missing")


def _check_format(parquet: pq.ParquetFile, key: str) -> None:
    stamp = json.loads((parquet.schema_arrow.metadata or {}).get(METADATA, b"{}"))
    if (found := stamp.get("format", FORMAT)) > FORMAT:
        raise StoreError(f"{key} is of format {found}, which a later release wrote: use that one again")


def _windows(metadata: pq.FileMetaData) -> Iterator[list[int]]:
    """Row groups, in their order, a few at a time."""
    window, count = [], 0
    for group in range(metadata.num_row_groups):
        window.append(group)
        count += metadata.row_group(group).num_rows
        if count >= BATCH_ROWS or len(window) == ROW_GROUPS:
            yield window
            window, count = [], 0
    if window:
        yield window


@contextmanager
def _undamaged(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{key} is damaged ({error}); start a new job, which finds the encoded objects again"
        ) from error


def errors(store: Store, *keys: str) -> Iterator[dict[str, Any]]:
    """Every image that failed: split, path, source URI, error code and text."""
    wanted = ["split", "path", "source_uri", "error_code", "error"]
    for key in keys:
        for batch in rows(store, key, wanted):
            yield from batch.filter(pc.is_valid(batch["error_code"])).to_pylist()
