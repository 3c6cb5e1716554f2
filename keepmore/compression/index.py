"""The table with one row per image: its columns, and the chunks and parts it is made from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from keepmore.datasets.entry import Entry
from keepmore.errors import StoreError
from keepmore.sampling import path_hash
from keepmore.spec.distance import ORIGINAL, text
from keepmore.storage.base import Store

FORMAT = 1
METADATA = b"keepmore"
POOL, EVALUATION = "pool", "evaluation"

# pyarrow keeps the metadata of a row group until it has read everything requested, so a few are requested at a time.
ROW_GROUPS = 32
BATCH_ROWS = 1 << 14

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
class ChunkRow:
    """One row of a chunk: an entry and the split it belongs to."""

    split: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class StoredImage:
    """How an image is stored at a distance. `encoder_distance` is None where no lossy encoder was used."""

    bytes: int
    encoding: str
    sha256: str
    encoder_distance: float | None


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One row of a part: an image and what was stored of it by distance, or its error. Sizes are bytes and pixels."""

    chunk_row: ChunkRow
    source_bytes: int | None = None
    source_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    stored: Mapping[float, StoredImage] = field(default_factory=dict)
    error_code: str | None = None
    error: str | None = None

    @property
    def encoded_bytes(self) -> int:
        """Bytes at all distances but that of the original."""
        return sum(stored.bytes for distance, stored in self.stored.items() if distance != ORIGINAL)


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image of the errors list."""

    split: str
    path: str
    source_uri: str
    error_code: str
    error: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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


def part(rows: Sequence[IndexRow], distances: Sequence[float]) -> pa.Table:
    """`rows` as a table with the columns of `schema`, shape (len(rows),)."""
    columns: list[list[object]] = [
        [row.chunk_row.split for row in rows],
        [row.chunk_row.entry.path for row in rows],
        [path_hash(row.chunk_row.entry.path) for row in rows],
        [row.chunk_row.entry.uri for row in rows],
        [row.chunk_row.entry.label for row in rows],
        [row.source_bytes for row in rows],
        [row.source_sha256 for row in rows],
        [row.width for row in rows],
        [row.height for row in rows],
        [row.error_code for row in rows],
        [row.error for row in rows],
    ]
    for distance in distances:
        stored = [row.stored.get(distance) for row in rows]
        columns += [[image and getattr(image, name) for image in stored] for name in StoredImage.__slots__]
    types = schema(distances)
    return pa.Table.from_arrays(
        [pa.array(values, column_type) for values, column_type in zip(columns, types.types, strict=True)], schema=types
    )


def write_chunk(rows: Iterable[ChunkRow]) -> bytes:
    values = [(row.split, e.path, e.uri, e.label, e.size, e.version) for row in rows for e in (row.entry,)]
    columns = [pa.array(list(c), t) for c, t in zip(zip(*values, strict=True), CHUNK.types, strict=True)]
    return to_parquet(pa.Table.from_arrays(columns, schema=CHUNK))


def read_chunk(data: bytes) -> list[ChunkRow]:
    return [
        ChunkRow(r["split"], Entry(r["path"], r["uri"], r["label"], r["size"], r["version"]))
        for r in pq.read_table(io.BytesIO(data), page_checksum_verification=True).to_pylist()
    ]


def to_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Summary:
    """The merged index in numbers. `pool_bytes`: bytes of the whole pool by distance."""

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
        fields = {name: getattr(self, name) for name in self.__slots__}
        for name in ("pool_bytes", "encodings"):
            fields[name] = {text(d): value for d, value in fields[name].items()}
        return fields

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Summary:
        fields = dict(document)
        for name in ("pool_bytes", "encodings"):
            fields[name] = {float(d): value for d, value in fields[name].items()}
        return Summary(**fields)


def rows(store: Store, key: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of an index in its order, in flat memory. Raises StoreError for one that is damaged."""
    with store.open(key) as file, undamaged(key), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        stamp = json.loads((parquet.schema_arrow.metadata or {}).get(METADATA, b"{}"))
        if (index_format := stamp.get("format", FORMAT)) > FORMAT:
            raise StoreError(f"{key} has format {index_format}, which a later release wrote: use that release")
        # Checksums cover neither names of columns nor headers of pages; a page with a damaged header may go unnoticed.
        if missing := set(columns or ()).difference(parquet.schema_arrow.names):
            raise pa.ArrowInvalid(f"its columns {', '.join(sorted(missing))} are missing")
        rows_left = parquet.metadata.num_rows
        for window in _windows(parquet.metadata):
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=window, columns=columns):
                rows_left -= len(batch)
                yield batch
        if rows_left:
            raise pa.ArrowInvalid(f"{rows_left:,} of its {parquet.metadata.num_rows:,} rows are missing")


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
def undamaged(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{key} is damaged ({error}); start a new job, which finds the encoded objects again"
        ) from error


def errors(store: Store, *keys: str) -> Iterator[FailedImage]:
    """Every image that failed."""
    for key in keys:
        for batch in rows(store, key, list(FailedImage.__slots__)):
            for row in batch.filter(pc.is_valid(batch["error_code"])).to_pylist():
                yield FailedImage(**row)
