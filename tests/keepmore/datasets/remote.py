"""Datasets that tests write, list and read, wherever they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.datasets.reader import SourceReader
from keepmore.net.access import Access

Upload = Callable[[Path], str]


def write_tree(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"bytes of " + name.encode())
    return root


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    if path.suffix == ".csv":
        path.write_text("uri,label\n" + "".join(f'"{uri}",{label}\n' for uri, label in rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"uri": uri, "label": label}) + "\n" for uri, label in rows))
    else:
        pq.write_table(pa.table({"uri": [uri for uri, _ in rows], "label": [label for _, label in rows]}), path)
    return path


def list_dataset(uri: str, access: Access) -> tuple[list[Entry], Skipped]:
    skipped = Skipped()
    return list(list_images(uri, skipped, access)), skipped


def read_images(entries: list[Entry], access: Access) -> list[bytes]:
    with SourceReader(1_000_000, access) as reader:
        return [reader.read(entry.uri, entry.size, entry.version) for entry in entries]
