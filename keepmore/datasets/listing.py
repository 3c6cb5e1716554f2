"""Listing the images of a dataset, by the reader that its URI needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keepmore.datasets.address import ARCHIVE, TABLES, absolute_uri, check_dataset, kind_of
from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.filesystem import Sources
from keepmore.datasets.folder import list_folder
from keepmore.datasets.table import list_table
from keepmore.datasets.tar import list_tar
from keepmore.errors import DatasetUnreadable
from keepmore.net import uri as uris
from keepmore.net.access import EVERYTHING, Access
from keepmore.net.failure import RemoteFailure, dataset_error


def list_images(uri: str, skipped: Skipped, access: Access = EVERYTHING) -> Iterator[Entry]:
    """The images of the dataset at `uri`, by ascending path; everything else is counted in `skipped`.

    Raises DatasetNotFound, UnsupportedDataset, InvalidTable, DuplicateImage, DatasetUnreadable and what `Access.check`
    raises, some of them only while iterating.
    """
    check_dataset(uri, access)
    return _images(absolute_uri(uri), skipped, access)


def _images(uri: str, skipped: Skipped, access: Access) -> Iterator[Entry]:
    parsed = uris.parse(uri)
    kind = kind_of(parsed)
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
