"""The file of a subset: what a trainer or a retention system reads, its digest and its exports."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, BinaryIO, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from keepmore.codec import version as codec_version
from keepmore.errors import InvalidRequest
from keepmore.selection.subset import FitDistance, RuleResult, SpreadResult, SubsetSpec
from keepmore.spec.distance import text
from keepmore.spec.variants import VariantSpec

FORMAT = 1
METADATA = b"keepmore"
BATCH_ROWS = 10_000
BLOCK_BYTES = 1 << 20

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

# A dictionary helps where values repeat; for checksums and addresses the attempt only costs time.
REPEATING = ["label", "width", "height", "encoding", "distance", "encoder_distance"]

# The bytes that JSON in ASCII writes unchanged.
UNQUOTED = np.array([" " <= chr(byte) <= "~" and chr(byte) not in '"\\' for byte in range(256)])


class Digest:
    """SHA-256 over rows by ascending path: of each, path, label, bytes, sha256, encoding and distance.

    A row counts as one line of JSON, an array of these six in ASCII without spaces; the distance in its shortest
    form. URIs are left out, so that the digest does not depend on where dataset and store live.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, rows: pa.RecordBatch) -> None:
        if len(rows):
            columns = [rows[name] for name in ("path", "label", "bytes", "sha256", "encoding", "distance")]
            self._sha256.update(_joined_lines(*columns) if _are_plain(*columns) else _quoted_lines(*columns))

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _quoted_lines(*columns: pa.Array) -> bytes:
    """The digest's lines, for any texts."""
    lines = [
        f"[{quoted(path)},{'null' if label is None else quoted(label)},{size},{quoted(sha256)},{quoted(encoding)},"
        f"{text(distance)}]\n"
        for path, label, size, sha256, encoding, distance in zip(*(c.to_pylist() for c in columns), strict=True)
    ]
    return "".join(lines).encode("ascii")


def _joined_lines(
    path: pa.Array, label: pa.Array, size: pa.Array, sha256: pa.Array, encoding: pa.Array, distance: pa.Array
) -> memoryview:
    """As `_quoted_lines`, twenty times as fast, for columns that `_are_plain`."""
    label = pc.fill_null(pc.binary_join_element_wise('"', label, '"', ""), "null")
    end = f'",{text(distance[0].as_py())}]\n'
    middle = (path, '",', label, ",", size.cast(pa.string()), ',"', sha256, '","', encoding)
    return _text_bytes(pc.binary_join_element_wise('["', *middle, end, ""))


def _are_plain(
    path: pa.Array, label: pa.Array, size: pa.Array, sha256: pa.Array, encoding: pa.Array, distance: pa.Array
) -> bool:
    """Whether JSON writes every text as it is, only labels are missing, and all rows have one distance."""
    complete = not any(column.null_count for column in (path, size, sha256, encoding, distance))
    texts = (path, label, sha256, encoding)
    typed = all(column.type == pa.string() for column in texts) and pa.types.is_integer(size.type)
    if not (complete and typed and len(pc.unique(distance)) == 1):
        return False
    return all(bool(UNQUOTED[np.frombuffer(_text_bytes(column), np.uint8)].all()) for column in texts)


def _text_bytes(texts: pa.Array) -> memoryview:
    """All bytes of a string array, one text after another, without copying."""
    _, offsets, values = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset :]
    return memoryview(values or b"")[ends[0] : ends[len(texts)]]


@dataclass(frozen=True, slots=True)
class ManifestSpec:
    """What was requested of a manifest: the subset's spec, and the variant's distance, which is None for a spread; for
    a rule also that and its result."""

    subset: SubsetSpec
    distance: float | None
    rule: VariantSpec | None = None
    result: RuleResult | None = None

    def as_json(self) -> dict[str, Any]:
        record = self.subset.as_json() | {"distance": self.distance}
        if self.rule:
            record["level"] = self.rule.as_json()
        match self.result:
            case SpreadResult(scale):
                record["scale"] = scale
            case FitDistance(_, exact):
                record["exact"] = exact
            case None:
                pass
            case _:
                assert_never(self.result)
        return record


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a manifest's rows."""

    images: int
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a manifest; the file also has its spec, codec and versions."""

    format: int
    totals: Totals
    budget_bytes: int | None


class Writer:
    """Writes rows (RecordBatches of SCHEMA, by ascending path), then the metadata: totals, digest, request."""

    def __init__(self, file: BinaryIO, spec: ManifestSpec) -> None:
        self._spec = spec
        self._parquet = pq.ParquetWriter(
            file, SCHEMA, compression="zstd", use_dictionary=REPEATING, write_page_checksum=True
        )
        self._digest = Digest()
        self.images = 0
        self.bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        self._parquet.write_batch(rows)
        self._digest.add(rows)
        self.images += len(rows)
        self.bytes += pc.sum(rows["bytes"]).as_py() or 0

    def close(self) -> Totals:
        """Write the metadata and finish the file."""
        totals = Totals(self.images, self.bytes, self._digest.hexdigest())
        record = {
            "format": FORMAT,
            **asdict(totals),
            "codec": codec_version.codec(),
            "versions": codec_version.versions(),
            **self._spec.as_json(),
        }
        self._parquet.add_key_value_metadata({METADATA: json.dumps(record).encode()})
        self._parquet.close()
        return totals


@contextmanager
def open_manifest(file: Path | BinaryIO | bytes) -> Iterator[pq.ParquetFile]:
    """A manifest for reading; raises InvalidRequest for any other file."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    name = file if isinstance(file, Path) else "this file"
    try:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
    except FileNotFoundError:
        raise InvalidRequest(
            f"manifest {name}: there is no such file; of a job write JOB/DISTANCE, which `keepmore show JOB` lists"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidRequest(
            f"manifest {name}: not readable as Parquet ({error}); give a .parquet of `keepmore export`, or JOB/DISTANCE"
        ) from error
    with parquet:
        if METADATA not in (parquet.schema_arrow.metadata or {}) and METADATA not in (parquet.metadata.metadata or {}):
            raise InvalidRequest(f"manifest {name}: a Parquet file, but not a manifest that Keepmore wrote")
        if (later := metadata(parquet).format) > FORMAT:
            raise InvalidRequest(
                f"manifest {name}: of format {later}, which a later release wrote; read it with that one"
            )
        try:
            yield parquet
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"manifest {name}: damaged ({error}); write it again with keepmore select") from error


def batches(parquet: pq.ParquetFile, most_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """All rows of an opened manifest, in its order; raises ArrowInvalid where it lost some.

    The checksums of pages do not cover their headers, and a page whose header is damaged may count as none.
    """
    rows_left = parquet.metadata.num_rows
    for batch in parquet.iter_batches(most_rows):
        rows_left -= len(batch)
        yield batch
    if rows_left:
        raise pa.ArrowInvalid(f"{rows_left:,} of its {parquet.metadata.num_rows:,} rows are missing")


def metadata(parquet: pq.ParquetFile) -> Metadata:
    """What is stated of a manifest as a whole. Raises InvalidRequest for Keepmore's other tables, such as an index."""
    try:
        record = json.loads(parquet.metadata.metadata[METADATA])
        totals = Totals(record["images"], record["bytes"], record["digest"])
        return Metadata(record["format"], totals, record["budget_bytes"])
    except KeyError as error:
        raise InvalidRequest(f"this is a table of Keepmore's, but no manifest: it does not state {error}") from error


def rows(file: Path | BinaryIO | bytes) -> Iterator[dict[str, Any]]:
    """The rows of a manifest, streamed."""
    with open_manifest(file) as parquet:
        for batch in batches(parquet):
            yield from batch.to_pylist()


def ndjson_lines(file: Path | BinaryIO) -> Iterator[bytes]:
    """One JSON object per row, in blocks of many lines."""
    with open_manifest(file) as parquet:
        for batch in batches(parquet):
            lines = [json.dumps(row, ensure_ascii=False) for row in batch.to_pylist()]
            yield "".join(f"{line}\n" for line in lines).encode()


def csv_blocks(file: Path | BinaryIO) -> Iterator[bytes]:
    """A header, then one line per row; a missing label is an empty, unquoted field."""
    buffer = io.BytesIO()
    with open_manifest(file) as parquet, pa_csv.CSVWriter(buffer, SCHEMA) as writer:
        for batch in batches(parquet):
            writer.write_batch(batch.cast(SCHEMA))
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        yield buffer.getvalue()


def parquet_blocks(file: Path | BinaryIO) -> Iterator[bytes]:
    """The manifest as it is."""
    with open(file, "rb") if isinstance(file, Path) else file as source:
        while block := source.read(BLOCK_BYTES):
            yield block


@dataclass(frozen=True, slots=True)
class Export:
    """A form in which a manifest is handed out."""

    media_type: str
    write: Callable[[Path | BinaryIO], Iterator[bytes]]


# By the suffix of a file; the first is what the API answers by default.
EXPORTS = {
    ".parquet": Export("application/vnd.apache.parquet", parquet_blocks),
    ".ndjson": Export("application/x-ndjson", ndjson_lines),
    ".csv": Export("text/csv", csv_blocks),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row, or (path "") with the manifest as a whole: one outcome of `verify`."""

    path: str
    code: str
    message: str


def check_bytes(data: bytes, size: int, sha256: str) -> str | None:
    """How `data` differs from an object with `size` and `sha256` as a manifest states them; None if it does not."""
    if len(data) != size:
        return f"has {len(data):,} bytes, not the {size:,} of the manifest"
    if hashlib.sha256(data).hexdigest() != sha256:
        return "has another SHA-256 than the manifest: its content changed"
    return None
