"""Objects in S3 as a dataset: a prefix is a folder, and a key below it a path. Keys stand in URIs as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keepmore.datasets.entry import Entry, Skipped, first_folder, is_hidden, is_image
from keepmore.datasets.file import BUFFER_BYTES, Opened
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.net.failure import FailureReason, RemoteFailure
from keepmore.net.ranged import RangedFile

if TYPE_CHECKING:
    from keepmore.net.s3 import Bucket, Found


class S3Files:
    """Objects by s3:// URI, over one pool of connections a bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._buckets: dict[str, Bucket] = {}

    def close(self) -> None:
        for bucket in self._buckets.values():
            bucket.close()
        self._buckets.clear()

    def open(self, uri: str) -> Opened:
        bucket, key = self._at(uri)
        found = bucket.head(key)
        file = RangedFile(found.size, lambda start, end: bucket.stream(key, start, end, found.etag), bucket.retries)
        return Opened(io.BufferedReader(file, BUFFER_BYTES), uri, uri, found.size, _version(found))

    def read(self, uri: str, most: int) -> tuple[bytes, int, str | None]:
        """The object's bytes (none if they are more than `most`), its size and its version."""
        bucket, key = self._at(uri)
        data, found = bucket.read(key, most)
        return data, found.size, _version(found)

    def list(self, uri: str, skipped: Skipped) -> Iterator[Entry]:
        """Images below the prefix `uri`, by ascending key; paths, labels and order are those of a copied folder."""
        bucket, key = self._at(uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        root = f"s3://{bucket.name}/{prefix}"
        hidden = None
        anything = False
        for found in bucket.list(prefix):
            anything = True
            path = found.key.removeprefix(prefix)
            reason = _why_not(path)
            if reason == "hidden":
                # A hidden folder counts once, as on a disk.
                folder = _hidden_part(path)
                skipped[reason] += folder != hidden
                hidden = folder
            elif reason:
                skipped[reason] += 1
            else:
                yield Entry(path, root + path, first_folder(path), found.size, _version(found))
        if not anything:
            raise RemoteFailure(FailureReason.ABSENT, "no object has this prefix")

    def _at(self, uri: str) -> tuple[Bucket, str]:
        # Imported here because minio takes longer to import than all else that a command needs.
        from keepmore.net.s3 import Bucket

        self._access.check(uri)
        place = uris.parse(uri)
        if place.bucket not in self._buckets:
            endpoint = self._access.endpoint(place.bucket)
            self._buckets[place.bucket] = Bucket(endpoint, place.bucket, self._access.retries)
        return self._buckets[place.bucket], place.key


def _why_not(path: str) -> str | None:
    if path == "" or path.endswith("/"):
        return "folder marker"
    if _hidden_part(path):
        return "hidden"
    return None if is_image(path) else "not an image"


def _hidden_part(path: str) -> str:
    """`path` up to its first hidden part; nothing if it has none."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if is_hidden(part):
            return "/".join(parts[: number + 1])
    return ""


def _version(found: Found) -> str | None:
    return f"etag:{found.etag}" if found.etag else None
