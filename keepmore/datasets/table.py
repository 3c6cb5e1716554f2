"""A table as a dataset: rows with `uri` and optional `label`, or Parquet with the images embedded."""

from __future__ import annotations

import io
import json
import os
import posixpath
from collections.abc import Iterator
from itertools import islice
from urllib.parse import quote, urljoin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from keepmore.datasets.entry import Entry, file_uri
from keepmore.datasets.file import SourceFile
from keepmore.datasets.parquet import holds_images, list_embedded
from keepmore.errors import DuplicateImage, InvalidTable
from keepmore.net import uri as uris

SCHEMA = pa.schema([("uri", pa.string()), ("label", pa.string())])
BATCH_ROWS = 10_000


def list_table(source: SourceFile, kind: str) -> Iterator[Entry]:
    """Images that a table of `kind` (".csv", ".jsonl", ".parquet") names, by ascending URI.

    Relative URIs are relative to the table's folder.

    Raises InvalidTable for a malformed table, DuplicateImage for two rows with the same URI.
    """
    if kind == ".parquet" and holds_images(source):
        return list_embedded(source)
    read = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[kind]
    try:
        table = read(source)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidTable(
            f"dataset {source.name}: {error}; a table must have a column uri and may have a column label"
        ) from error
    return _entries(source, table)


def _read_csv(source: SourceFile) -> pa.Table:
    if not source.file.peek(1):
        raise pa.ArrowInvalid("the file is empty")
    options = pa_csv.ConvertOptions(column_types=SCHEMA, strings_can_be_null=True, null_values=[""])
    with pa_csv.open_csv(source.native, convert_options=options) as reader:
        batches = [_two_columns(pa.Table.from_batches([batch])) for batch in reader]
    return pa.concat_tables(batches) if batches else SCHEMA.empty_table()


def _read_parquet(source: SourceFile) -> pa.Table:
    with pq.ParquetFile(source.native) as file:
        names = file.schema_arrow.names
        return _two_columns(file.read(columns=[name for name in SCHEMA.names if name in names]))


def _read_jsonl(source: SourceFile) -> pa.Table:
    tables = []
    with io.TextIOWrapper(source.file, encoding="utf-8-sig") as lines:
        rows = (_json_row(line, number) for number, line in enumerate(lines, 1) if line.strip())
        while batch := list(islice(rows, BATCH_ROWS)):
            columns = zip(*batch, strict=True)
            tables.append(pa.Table.from_pydict(dict(zip(SCHEMA.names, columns, strict=True)), SCHEMA))
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _json_row(line: str, number: int) -> tuple[str, str | None]:
    """The URI and the label."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise pa.ArrowInvalid(f"line {number} is not JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("uri"), str):
        raise pa.ArrowInvalid(f"line {number} has no uri that is a string")
    label = row.get("label")
    return row["uri"], None if label is None else str(label)


def _two_columns(table: pa.Table) -> pa.Table:
    table = table.rename_columns([name.strip() for name in table.column_names])
    if "uri" not in table.column_names:
        raise pa.ArrowInvalid(f"the columns are {', '.join(table.column_names)}: uri is missing")
    if "label" not in table.column_names:
        table = table.append_column("label", pa.nulls(len(table), pa.string()))
    return table.select(SCHEMA.names).cast(SCHEMA)


def _entries(source: SourceFile, table: pa.Table) -> Iterator[Entry]:
    empty = pc.fill_null(pc.equal(table["uri"], ""), True)
    if pc.any(empty).as_py():
        row = pc.index(empty, True).as_py()
        raise InvalidTable(f"dataset {source.name}: row {row + 1} has no uri; every row needs one")
    table = table.sort_by("uri")
    before = None
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        for uri, label in zip(batch["uri"].to_pylist(), batch["label"].to_pylist(), strict=True):
            if uri == before:
                raise DuplicateImage(f"dataset {source.name}: {uri} is in two rows; every image needs a URI of its own")
            before = uri
            yield Entry(uri, resolved(uri, source.uri), label)


def resolved(uri: str, table: str) -> str:
    """The URI that `uri` means in the table at `table`: a name without a scheme is a path, not percent-encoded."""
    if "://" in uri:
        return uri
    if table.startswith("file://"):
        return file_uri(os.path.join(os.path.dirname(uris.parse(table).local_path), uri))
    if table.startswith("s3://"):
        bucket, _, key = table.removeprefix("s3://").partition("/")
        path = posixpath.join("/", posixpath.dirname(key), uri)
        return f"s3://{bucket}{posixpath.normpath(path) if '/.' in path else path}"
    return urljoin(table, quote(uri))
