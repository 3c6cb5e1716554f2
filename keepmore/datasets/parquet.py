"""Parquet with embedded image bytes, as Hugging Face datasets writes it: `image.bytes`, `image.path`, `label`."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from keepmore.datasets.entry import Entry, part_uri
from keepmore.datasets.file import SourceFile
from keepmore.errors import InvalidTable, UnreadableImage

BATCH_ROWS = 10_000
READ_ROWS = 16


def holds_images(source: SourceFile) -> bool:
    source.check_seekable()
    try:
        schema = pq.read_schema(source.native)
    except pa.ArrowInvalid as error:
        raise InvalidTable(f"dataset {source.name}: not readable as Parquet ({error})") from error
    if "image" not in schema.names or not pa.types.is_struct(schema.field("image").type):
        return False
    return bool(schema.field("image").type.get_field_index("bytes") >= 0)


def list_embedded(source: SourceFile) -> Iterator[Entry]:
    """One image per row, in their order; its path is the row's number and the image's name in the row, if any."""
    with pq.ParquetFile(source.native) as file:
        names = _class_names(file.schema_arrow)
        columns = [c for c in ("image.path", "label") if c.split(".")[0] in file.schema_arrow.names]
        row = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            for value in batch.to_pylist():
                name = (value.get("image") or {}).get("path")
                path = f"{row:09d}-{PurePosixPath(name).name}" if name else f"{row:09d}"
                label = _label(value.get("label"), names)
                yield Entry(path, part_uri(source.uri, {"row": row}), label, version=source.version)
                row += 1


def _label(value: Any, names: list[str]) -> str | None:
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None  # -1: Hugging Face's "unknown"
    return None if value is None else str(value)


def _class_names(schema: pa.Schema) -> list[str]:
    """The names behind integer labels, from the metadata that Hugging Face datasets writes into the schema."""
    features = (schema.metadata or {}).get(b"huggingface")
    if not features:
        return []
    label = json.loads(features).get("info", {}).get("features", {}).get("label", {})
    return list(label.get("names") or []) if isinstance(label, dict) else []


class EmbeddedReader:
    """Image bytes by row. Reading rows in ascending order decodes each row group once, a few rows at a time."""

    def __init__(self, source: SourceFile) -> None:
        source.check_seekable()
        self._file = pq.ParquetFile(source.native)
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.metadata.num_row_groups)]
        self._starts: list[int] = [sum(sizes[:g]) for g in range(len(sizes) + 1)]
        self._rows: Iterator[bytes | None] = iter(())
        self._next = self._end = 0

    def read(self, row: int) -> bytes:
        if not 0 <= row < self._starts[-1]:
            raise UnreadableImage(f"row {row} is not in the file, which has {self._starts[-1]} rows")
        if not self._next <= row < self._end:
            group = bisect_right(self._starts, row) - 1
            self._next, self._end = self._starts[group], self._starts[group + 1]
            self._rows = self._stream(group)
        for _ in range(self._next, row):
            next(self._rows)
        data = next(self._rows)
        self._next = row + 1
        if not data:
            raise UnreadableImage(f"row {row} holds no image bytes")
        return data

    def close(self) -> None:
        self._file.close()

    def _stream(self, group: int) -> Iterator[bytes | None]:
        for batch in self._file.iter_batches(READ_ROWS, row_groups=[group], columns=["image.bytes"]):
            for value in batch.to_pylist():
                yield (value["image"] or {}).get("bytes")
