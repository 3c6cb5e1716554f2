"""Which reader a dataset URI calls for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from keepmore.datasets.archive import list_tar
from keepmore.datasets.entry import Entry, Skipped, file_uri
from keepmore.datasets.folder import list_folder
from keepmore.datasets.table import list_table
from keepmore.errors import DatasetNotFound, UnsupportedDataset

ARCHIVE = ".tar"
TABLES = (".csv", ".jsonl", ".parquet")
SUPPORTED = "a folder, a .tar, or a table (.csv, .jsonl, .parquet), as a path or a file:// URI"


def absolute_uri(written: str) -> str:
    """The URI of a dataset that a user named by path or URI. Raises UnsupportedDataset for other schemes."""
    if "://" not in written:
        return file_uri(os.path.abspath(os.path.expanduser(written)))
    parts = urlsplit(written)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise UnsupportedDataset(f"dataset {written}: {parts.scheme}://{parts.netloc} cannot be read; give {SUPPORTED}")
    return file_uri(os.path.abspath(local_path(written)))


def local_path(uri: str) -> str:
    """The path that a file:// URI names."""
    return os.fsdecode(unquote_to_bytes(urlsplit(uri).path))


def list_images(uri: str, skipped: Skipped) -> Iterator[Entry]:
    """The images of the dataset at `uri`, by ascending path; what is no image is counted in `skipped`.

    Raises DatasetNotFound, UnsupportedDataset, InvalidTable or DuplicateImage, some of them only while iterating.
    """
    path = check_dataset(uri)
    if path.is_dir():
        return list_folder(path, skipped)
    return list_tar(path, skipped) if path.suffix == ARCHIVE else list_table(path)


def check_dataset(uri: str) -> Path:
    """The dataset's path. Raises DatasetNotFound or UnsupportedDataset without reading anything."""
    path = Path(local_path(absolute_uri(uri)))
    if not path.exists():
        raise DatasetNotFound(f"dataset {uri}: there is nothing at {path}; check the path")
    if not (path.is_dir() or path.suffix in (ARCHIVE, *TABLES)):
        kind = path.suffix or "file without a suffix"
        raise UnsupportedDataset(f"dataset {uri}: a {kind} cannot be read; give {SUPPORTED}")
    return path
