"""Which reader a dataset URI calls for."""

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


def absolute_uri(written: str) -> str:
    """The URI of a dataset that a user named by path or URI. Raises UnsupportedDataset and InvalidUri."""
    if "://" not in written:
        return file_uri(os.path.abspath(os.path.expanduser(written)))
    scheme = written.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UnsupportedDataset(f"dataset {written}: {_start(written)} cannot be read; give {SUPPORTED}")
    uri = uris.parse(written)
    if scheme == "file" and ".." in uri.local_path.split("/"):
        raise InvalidUri(f'{written!r} has a part ".."; write the path that is meant')
    return file_uri(os.path.abspath(uri.local_path)) if scheme == "file" else scheme + written[len(scheme) :]


def list_images(uri: str, skipped: Skipped, access: Access = EVERYTHING) -> Iterator[Entry]:
    """The images of the dataset at `uri`, by ascending path; what is no image is counted in `skipped`.

    Raises DatasetNotFound, UnsupportedDataset, InvalidTable, DuplicateImage, DatasetUnreadable and what `access` does
    not allow, some of them only while iterating.
    """
    check_dataset(uri, access)
    return _images(absolute_uri(uri), skipped, access)


def check_dataset(uri: str, access: Access = EVERYTHING) -> None:
    """Whether `uri` names a dataset that may be read; connects to nothing.

    Raises InvalidUri, SourceNotAllowed, EndpointMissing, UnsupportedDataset, and DatasetNotFound for a path.
    """
    absolute = absolute_uri(uri)
    access.check(absolute)
    place = uris.parse(absolute)
    if place.scheme == "s3":
        access.endpoint(place.bucket)
    elif place.scheme == "file":
        path = Path(place.local_path)
        if not path.exists():
            raise DatasetNotFound(f"dataset {uri}: there is nothing at {path}; check the path")
        if not path.is_dir():
            _check_kind(uri, path.suffix)
    else:
        _check_kind(uri, _kind(place))


def _images(uri: str, skipped: Skipped, access: Access) -> Iterator[Entry]:
    place = uris.parse(uri)
    kind = _kind(place)
    try:
        with Sources(access) as sources:
            if place.scheme == "file" and os.path.isdir(place.local_path):
                yield from list_folder(Path(place.local_path), skipped)
            elif place.scheme == "s3" and kind not in (ARCHIVE, *TABLES):
                yield from sources.list_prefix(uri, skipped)
            else:
                with sources.open(uri) as source:
                    yield from list_tar(source, skipped) if kind == ARCHIVE else list_table(source, kind)
    except RemoteFailure as failure:
        raise dataset_error(uri, failure) from failure
    except PermissionError as error:
        raise DatasetUnreadable(
            f"dataset {uri} cannot be read ({error.strerror}); give permission to read it"
        ) from error


def _kind(place: Uri) -> str:
    return splitext(place.local_path if place.scheme == "file" else place.path)[1]


def _check_kind(uri: str, suffix: str) -> None:
    if suffix not in (ARCHIVE, *TABLES):
        kind = suffix or "file without a suffix"
        raise UnsupportedDataset(f"dataset {uri}: a {kind} cannot be read; give {SUPPORTED}")


def _start(written: str) -> str:
    scheme, _, rest = written.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"
