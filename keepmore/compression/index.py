"""The table with one row an image: its columns, the chunks and parts it is made from, and its merge."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from keepmore.datasets.entry import Entry
from keepmore.errors import StoreError
from keepmore.spec.distance import text
from keepmore.storage.base import Store

FORMAT = 1
METADATA = b"keepmore"
POOL, EVALUATION = "pool", "evaluation"

# And what pyarrow learns of a group it keeps until it has read all that it was asked for, so that is a few at a time.
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


def rows(store: Store, key: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of an index in its order, in flat memory. Raises StoreError for one that is damaged."""
    with store.open(key) as file, undamaged(key), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
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
def undamaged(key: str) -> Iterator[None]:
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
