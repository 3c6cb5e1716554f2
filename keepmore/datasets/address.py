"""Addresses of datasets: what a user named, as a URI, and whether it may be read. Reads no dataset."""

from __future__ import annotations

import os
from pathlib import Path
from posixpath import splitext

from keepmore.datasets.entry import file_uri
from keepmore.errors import DatasetNotFound, InvalidUri, UnsupportedDataset
from keepmore.net import uri as uris
from keepmore.net.access import EVERYTHING, Access
from keepmore.net.uri import Uri

ARCHIVE = ".tar"
TABLES = (".csv", ".jsonl", ".parquet")
SUPPORTED = (
    "a folder, a .tar, or a table (.csv, .jsonl, .parquet), as a path or a file:// URI; s3://bucket/prefix; "
    "or a .tar or table at s3://, http:// or https://"
)


def absolute_uri(address: str) -> str:
    """The URI of a dataset that a user named by path or URI. Raises UnsupportedDataset and InvalidUri."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator:
        return file_uri(uris.absolute_path(os.path.expanduser(address)))
    if scheme not in uris.SCHEMES:
        host = rest.partition("/")[0].rpartition("@")[2]
        shown = f"{scheme}://{host}" if "@" in rest else address  # it may hold a password
        raise UnsupportedDataset(f"dataset {shown}: {scheme}://{host} cannot be read; use {SUPPORTED}")
    uri = uris.parse(address)
    if scheme != "file":
        return f"{scheme}://{rest}"
    if ".." in uri.local_path.split("/"):
        raise InvalidUri(f'{address!r} has a part ".."; write the path without it')
    return file_uri(os.path.abspath(uri.local_path))


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
        _check_kind(uri, kind_of(parsed))


def kind_of(uri: Uri) -> str:
    """The suffix, which says how a dataset is read."""
    return splitext(uri.local_path if uri.scheme == "file" else uri.path)[1]


def _check_kind(uri: str, suffix: str) -> None:
    if suffix not in (ARCHIVE, *TABLES):
        kind = suffix or "file without a suffix"
        raise UnsupportedDataset(f"dataset {uri}: a {kind} cannot be read; use {SUPPORTED}")
