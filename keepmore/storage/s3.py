"""The store that is a prefix of an S3 bucket."""

from __future__ import annotations

import errno
import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from keepmore.errors import NotFound, StoreError, StoreFull
from keepmore.net.access import RETRIES, S3Endpoint
from keepmore.net.failure import RemoteFailure, store_error
from keepmore.net.ranged import RangedFile
from keepmore.net.s3 import Bucket
from keepmore.storage.base import check_key, is_key

WHOLE_BYTES = 8 << 20  # up to here an object is fetched and verified at once
BUFFER_BYTES = 1 << 16
WRITERS = 8  # more threads alternate with the encoder so often that it loses a tenth of its time
CALLERS = 40  # threads with which an API answers; a worker has a few
SPOOL_BYTES = 8 << 20  # up to here a writer's bytes stay in memory


class S3Store:
    """Keys are objects below `prefix`. What a call wrote is durable, and can be read, when the call returns.

    Bytes are written with their SHA-256 and compared with it when they are read whole. The default `retries`, with
    growing pauses, last through an outage of about 30 seconds. Nothing connects before the first call.
    """

    def __init__(self, endpoint: S3Endpoint, bucket: str, prefix: str = "", retries: int = RETRIES) -> None:
        self._arguments = (endpoint, bucket, prefix, retries)
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._uri = f"s3://{bucket}/{self._prefix}".removesuffix("/")
        self._title = f"{self._uri} at {endpoint.url}"
        self._unchecked_bucket = Bucket(endpoint, bucket, retries, WRITERS + CALLERS)
        self._bucket_exists = False
        self._threads = ThreadPoolExecutor(WRITERS, "store")  # none before the first call

    def __reduce__(self) -> tuple[type[S3Store], tuple[Any, ...]]:
        # Connections belong to one process: another process that receives this store opens its own.
        return S3Store, self._arguments

    def get(self, key: str) -> bytes:
        name = self._name(key)
        with self._explained(key):
            for _ in range(2):
                data, info = self._bucket.read(name)
                if info.sha256 in (None, hashlib.sha256(data).hexdigest()):
                    return data
        raise StoreError(
            f"the store {self._title}: {key} is damaged, its content is not what was written (SHA-256); "
            "delete that object and resume the job, which writes it again"
        )

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        with self._explained(key):
            self._bucket.put(name, data)

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        def put_each(items: Sequence[tuple[str, bytes]]) -> None:
            for key, data in items:
                self.put(key, data)

        # A task per thread, not per object: submitting those would cost as much as a third of the writing.
        items = list(objects.items())
        writes = [self._threads.submit(put_each, items[start::WRITERS]) for start in range(min(WRITERS, len(items)))]
        wait(writes)  # whatever fails, nothing is written any more when this returns
        for write in writes:
            write.result()

    def create(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        with self._explained(key):
            return self._bucket.create(name, data)

    def delete(self, key: str) -> None:
        name = self._name(key)
        with self._explained(key):
            self._bucket.delete(name)

    def exists(self, key: str) -> bool:
        name = self._name(key)
        try:
            with self._explained(key):
                self._bucket.head(name)
        except NotFound:
            return False
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        with self._explained(prefix):
            for info in self._bucket.list(self._prefix + prefix, self._prefix + after if after else ""):
                key = info.key.removeprefix(self._prefix)
                if is_key(key):
                    yield key

    def keys_in(self, folder: str) -> frozenset[str]:
        check_key(folder)
        return frozenset(self.keys(folder + "/"))

    def open(self, key: str) -> BinaryIO:
        name = self._name(key)
        with self._explained(key):
            info = self._bucket.head(name)
        if info.size <= WHOLE_BYTES:
            return io.BytesIO(self.get(key))
        bucket = self._bucket
        file = RangedFile(
            info.size,
            lambda start, end: bucket.stream(name, start, end, info.etag),
            bucket.retries,
            lambda failure: store_error(self._title, key, failure),
        )
        return io.BufferedReader(file, BUFFER_BYTES)

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        name = self._name(key)
        with _temporary_space(), tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            file = cast(BinaryIO, spool)
            yield file
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            sha256 = hashlib.file_digest(spool, "sha256").hexdigest()
            file.seek(0)
            with self._explained(key):
                self._bucket.put_file(name, file, size, sha256)

    def uri(self, key: str) -> str:
        """s3://bucket/prefix/key; the key is not percent-encoded."""
        check_key(key)
        return f"{self._uri}/{key}"

    @property
    def _bucket(self) -> Bucket:
        """The bucket, once it is known to exist: some servers create a bucket when something is put into it."""
        if not self._bucket_exists:
            self._unchecked_bucket.check()
            self._bucket_exists = True
        return self._unchecked_bucket

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except RemoteFailure as failure:
            raise store_error(self._title, key, failure) from failure


@contextmanager
def _temporary_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreFull(
            f"the folder {tempfile.gettempdir()} for temporary files is full; free some space there or set TMPDIR, "
            "then resume the job"
        ) from error
