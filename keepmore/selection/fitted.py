"""What a fit step found, written down: the distance at which so many images fill a budget, and each image at it."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from keepmore.errors import StoreError
from keepmore.storage.folder import Store

METADATA = b"keepmore"

# `row`: the image's place in the index; rows ascend.
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("encoding", pa.string()),
        ("sha256", pa.string()),
        ("encoder_distance", pa.float32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Found:
    """The distance; whether one image more would not fit at it; how many distances were tried on all images."""

    distance: float
    exact: bool
    trials: int


def to_parquet(found: Found, rows: pa.Table) -> bytes:
    """`rows` have SCHEMA."""
    buffer = io.BytesIO()
    table = rows.replace_schema_metadata({METADATA: json.dumps(asdict(found)).encode()})
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read(store: Store, key: str) -> tuple[Found, pa.Table]:
    """What `to_parquet` wrote; raises StoreError for what is damaged."""
    data = store.get(key)
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True).combine_chunks()
        return Found(**json.loads(table.schema.metadata[METADATA])), table.cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{key} is damaged ({error}); delete it and resume the job, which makes it again") from error
