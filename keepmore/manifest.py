"""A subset written down: what a trainer or a retention system reads, its digest, exports, and its verification."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from keepmore import codec
from keepmore.datasets import SourceReader
from keepmore.distance import text
from keepmore.errors import ImageError, InvalidRequest
from keepmore.isolation import IsolatedDecoder
from keepmore.request import Limits

FORMAT = 1
METADATA = b"keepmore"
BATCH_ROWS = 10_000
VERIFY_BATCH_ROWS = 64

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("object_uri", pa.string()),
        ("source_uri", pa.string()),
        ("label", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("encoding", pa.string()),
        ("distance", pa.float64()),
        ("encoder_distance", pa.float32()),
        ("source_sha256", pa.string()),
    ]
)


class Digest:
    """SHA-256 over rows by ascending path: of each, path, label, bytes, sha256, encoding and distance.

    A row counts as one line of JSON, an array of these six in ASCII without spaces; the distance in its shortest
    form. URIs are left out, so that the digest does not depend on where dataset and store live.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, rows: pa.RecordBatch) -> None:
        columns = [rows[name].to_pylist() for name in ("path", "label", "bytes", "sha256", "encoding", "distance")]
        lines = [
            f"[{quoted(path)},{'null' if label is None else quoted(label)},{size},{quoted(sha256)},{quoted(encoding)},"
            f"{text(distance)}]\n"
            for path, label, size, sha256, encoding, distance in zip(*columns, strict=True)
        ]
        self._sha256.update("".join(lines).encode("ascii"))

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


class Writer:
    """Writes rows (RecordBatches of SCHEMA, by ascending path), then the metadata: totals, digest, what was asked."""

    def __init__(self, file: BinaryIO, about: dict[str, Any]) -> None:
        self._about = about
        self._parquet = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._digest = Digest()
        self.images = 0
        self.bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        self._parquet.write_batch(rows)
        self._digest.add(rows)
        self.images += len(rows)
        self.bytes += sum(rows["bytes"].to_pylist())

    def close(self) -> dict[str, Any]:
        """Finish the file; gives the metadata that it holds."""
        metadata = {
            "format": FORMAT,
            "images": self.images,
            "bytes": self.bytes,
            "digest": self._digest.hexdigest(),
            "codec": codec.CODEC,
            "versions": codec.ENCODER_VERSIONS,
            **self._about,
        }
        self._parquet.add_key_value_metadata({METADATA: json.dumps(metadata).encode()})
        self._parquet.close()
        return metadata


@contextmanager
def opened(file: Path | BinaryIO | bytes) -> Iterator[pq.ParquetFile]:
    """A manifest for reading; raises InvalidRequest for what is none."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    name = file if isinstance(file, Path) else "this file"
    try:
        parquet = pq.ParquetFile(source)
    except FileNotFoundError:
        raise InvalidRequest(f"manifest {name}: there is no such file; `keepmore show JOB` names them") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidRequest(f"manifest {name}: not readable as Parquet ({error})") from error
    with parquet:
        if METADATA not in (parquet.schema_arrow.metadata or {}) and METADATA not in (parquet.metadata.metadata or {}):
            raise InvalidRequest(f"manifest {name}: a Parquet file, but not a manifest that Keepmore wrote")
        try:
            yield parquet
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"manifest {name}: damaged ({error}); write it again with keepmore select") from error


def metadata(parquet: pq.ParquetFile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(parquet.metadata.metadata[METADATA])
    return found


def rows(file: Path | BinaryIO | bytes) -> Iterator[dict[str, Any]]:
    """The rows of a manifest, streamed."""
    with opened(file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


def export_ndjson(file: Path | BinaryIO, out: TextIO) -> None:
    """One JSON object a row."""
    for row in rows(file):
        out.write(json.dumps(row, ensure_ascii=False) + "\n")


def export_csv(file: Path | BinaryIO, out: BinaryIO) -> None:
    """A header, then one line a row; a missing label is an empty, unquoted field."""
    with opened(file) as parquet, pa_csv.CSVWriter(out, SCHEMA) as writer:
        for batch in parquet.iter_batches(BATCH_ROWS):
            writer.write_batch(batch.cast(SCHEMA))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row, or (path "") with the manifest as a whole."""

    path: str
    code: str
    message: str


def verify(file: Path, limits: Limits, on_row: Callable[[int, int], None]) -> Iterator[Problem]:
    """Read every object again and compare its size, checksum and decodability; then the totals and the digest.

    `on_row` is told the count and the bytes of the rows as they are checked.
    """
    try:
        yield from _verify(file, limits, on_row)
    except InvalidRequest as error:
        yield Problem("", "unreadable_manifest", error.message)


def _verify(file: Path, limits: Limits, on_row: Callable[[int, int], None]) -> Iterator[Problem]:
    digest, images, total = Digest(), 0, 0
    with opened(file) as parquet, SourceReader(limits.max_bytes) as reader, IsolatedDecoder() as decoder:
        about = metadata(parquet)
        for batch in parquet.iter_batches(VERIFY_BATCH_ROWS):
            digest.add(batch)
            for row in batch.to_pylist():
                images += 1
                total += row["bytes"]
                yield from _check_row(row, reader, decoder, limits)
                on_row(1, row["bytes"])
    yield from _check_whole(about, images, total, digest.hexdigest())


def _check_row(
    row: dict[str, Any], reader: SourceReader, decoder: IsolatedDecoder, limits: Limits
) -> Iterator[Problem]:
    try:
        data = reader.read(row["object_uri"])
        found = check_bytes(row, data)
        if found is None:
            image = decoder.decode(data, limits.max_pixels)
            if image.size != (row["width"], row["height"]):
                found = f"decodes to {image.width} x {image.height} pixels, not {row['width']} x {row['height']}"
        if found:
            yield Problem(row["path"], "differs", f"{row['object_uri']} {found}")
    except ImageError as error:
        yield Problem(row["path"], error.code, error.message)


def check_bytes(row: dict[str, Any], data: bytes) -> str | None:
    """What is wrong with `data` as the object of a manifest's row; None if nothing is."""
    if len(data) != row["bytes"]:
        return f"has {len(data):,} bytes, not the {row['bytes']:,} of the manifest"
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return "has another SHA-256 than the manifest: its content changed"
    return None


def _check_whole(about: dict[str, Any], images: int, total: int, digest: str) -> Iterator[Problem]:
    for name, found in (("images", images), ("bytes", total), ("digest", digest)):
        if about[name] != found:
            yield Problem("", "altered", f"the manifest states {name} {about[name]}, its rows give {found}")
    if about["budget_bytes"] is not None and total > about["budget_bytes"]:
        yield Problem("", "over_budget", f"{total:,} bytes are over the budget of {about['budget_bytes']:,}")
