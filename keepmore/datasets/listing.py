"""Listing the images of a dataset, by the reader that its URI needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from posixpath import splitext

from keepmore.datasets.entry import Entry, Skipped, file_uri
from keepmore.datasets.filesystem import Sources
from keepmore.datasets.folder import list_folder
from keepmore.datasets.table import list_table
from keepmore.datasets.tar import list_tar
from keepmore.errors import DatasetNotFound, DatasetUnreadable, InvalidUri, UnsupportedDataset
from keepmore.net import uri as uris
from keepmore.net.access import EVERYTHING, Access
from keepmore.net.failure import RemoteFailure, dataset_error
from keepmore.net.uri import Uri

ARCHIVE = ".tar"
TABLES = (".csv", ".jsonl", ".parquet")
SCHEMES = ("file", "s3", "http", "https")
SUPPORTED = (
    "a folder, a .tar, or a table (.csv, .jsonl, .parquet), as a path or a file:// URI; s3://bucket/prefix; "
    "or a .tar or table at s3://, http:// or https://"
)


def absolute_uri(address: str) -> str:
    """The URI of a dataset that a user named by path or URI. Raises UnsupportedDataset and InvalidUri."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator:
        return file_uri(os.path.abspath(os.path.expanduser(address)))
    if scheme not in SCHEMES:
        host = rest.partition("/")[0].rpartition("@")[2]
        raise UnsupportedDataset(f"dataset {address}: {scheme}://{host} cannot be read; use {SUPPORTED}")
    uri = uris.parse(address)
    if scheme != "file":
        return f"{scheme}://{rest}"
    if ".." in uri.local_path.split("/"):
        raise InvalidUri(f'{address!r} has a part ".."; write the path without it')
    return file_uri(os.path.abspath(uri.local_path))


def list_images(uri: str, skipped: Skipped, access: Access = EVERYTHING) -> Iterator[Entry]:
    """The images of the dataset at `uri`, by ascending path; everything else is counted in `skipped`.

    Raises DatasetNotFound, UnsupportedDataset, InvalidTable, DuplicateImage, DatasetUnreadable and what `Access.check`
    raises, some of them only while iterating.
    """
    check_dataset(uri, access)
    return _images(absolute_uri(uri), skipped, access)


def check_dataset(uri: str, access: Access = EVERYTHING) -> None:
    """Check that `uri` names a dataset that may be read, without connecting to a server.

    Raises InvalidUri, SourceNotAllowed, EndpointMissing, UnsupportedDataset, and DatasetNotFound for a path.
    """
    absolute = absolute_uri(uri)
    access.check(absolute)
    parsed = uris.parse(absolute)
    if parsed.scheme == "s3":
        access.endpoint(parsed.bucket)
    elif parsed.scheme == "file":
        path = Path(parsed.local_path)
        if not path.exists():
            raise DatasetNotFound(f"dataset {uri}: there is nothing at {path}; check the path")
        if not path.is_dir():
            _check_kind(uri, path.suffix)
    else:
        _check_kind(uri, _kind(parsed))


def _images(uri: str, skipped: Skipped, access: Access) -> Iterator[Entry]:
    parsed = uris.parse(uri)
    kind = _kind(parsed)
    try:
        with Sources(access) as sources:
            if parsed.scheme == "file" and os.path.isdir(parsed.local_path):
                yield from list_folder(Path(parsed.local_path), skipped)
            elif parsed.scheme == "s3" and kind not in (ARCHIVE, *TABLES):
                yield from sources.list_prefix(uri, skipped)
            else:
                with sources.open(uri) as source:
                    yield from list_tar(source, skipped) if kind == ARCHIVE else list_table(source, kind)
    except RemoteFailure as failure:
        raise dataset_error(uri, failure) from failure
    except PermissionError as error:
        raise DatasetUnreadable(
            f"dataset {uri} cannot be read ({error.strerror}); grant permission to read it"
        ) from error


def _kind(uri: Uri) -> str:
    return splitext(uri.local_path if uri.scheme == "file" else uri.path)[1]


def _check_kind(uri: str, suffix: str) -> None:
    if suffix not in (ARCHIVE, *TABLES):
        kind = suffix or "file without a suffix"
        raise UnsupportedDataset(f"dataset {uri}: a {kind} cannot be read; use {SUPPORTED}")
