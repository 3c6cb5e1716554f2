"""Objects in S3 as a dataset: a prefix is a folder, and a key below it a path. URIs hold keys unencoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keepmore.datasets.entry import Entry, Skipped, first_folder, is_hidden, is_image
from keepmore.datasets.file import BUFFER_BYTES, Content, SourceFile
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.net.failure import FailureReason, RemoteFailure
from keepmore.net.ranged import RangedFile

if TYPE_CHECKING:
    from keepmore.net.s3 import Bucket, ObjectInfo


class S3Files:
    """Objects by s3:// URI, over one pool of connections per bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._buckets: dict[str, Bucket] = {}

    def close(self) -> None:
        for bucket in self._buckets.values():
            bucket.close()
        self._buckets.clear()

    def open(self, uri: str) -> SourceFile:
        bucket, key = self._at(uri)
        info = bucket.head(key)
        file = RangedFile(info.size, lambda start, end: bucket.stream(key, start, end, info.etag), bucket.retries)
        return SourceFile(io.BufferedReader(file, BUFFER_BYTES), uri, uri, info.size, _version(info))

    def read(self, uri: str, max_bytes: int) -> Content:
        bucket, key = self._at(uri)
        data, info = bucket.read(key, max_bytes)
        return Content(data, info.size, _version(info))

    def list(self, uri: str, skipped: Skipped) -> Iterator[Entry]:
        """Images below the prefix `uri`, by ascending key; paths, labels and order are those of a copied folder."""
        bucket, key = self._at(uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        root = f"s3://{bucket.name}/{prefix}"
        last_hidden = None
        is_empty = True
        for info in bucket.list(prefix):
            is_empty = False
            path = info.key.removeprefix(prefix)
            if path == "" or path.endswith("/"):
                skipped["folder marker"] += 1
            elif hidden := _hidden_part(path):
                # A hidden folder counts once, as on a disk.
                skipped["hidden"] += hidden != last_hidden
                last_hidden = hidden
            elif not is_image(path):
                skipped["not an image"] += 1
            else:
                yield Entry(path, root + path, first_folder(path), info.size, _version(info))
        if is_empty:
            raise RemoteFailure(FailureReason.ABSENT, "no object has this prefix")

    def _at(self, uri: str) -> tuple[Bucket, str]:
        # Imported here because minio takes longer to import than everything else that a command needs.
        from keepmore.net.s3 import Bucket

        self._access.check(uri)
        parsed = uris.parse(uri)
        if parsed.bucket not in self._buckets:
            endpoint = self._access.endpoint(parsed.bucket)
            self._buckets[parsed.bucket] = Bucket(endpoint, parsed.bucket, self._access.retries)
        return self._buckets[parsed.bucket], parsed.key


def _hidden_part(path: str) -> str:
    """`path` up to its first hidden part; "" if it has none."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if is_hidden(part):
            return "/".join(parts[: number + 1])
    return ""


def _version(info: ObjectInfo) -> str | None:
    return f"etag:{info.etag}" if info.etag else None
