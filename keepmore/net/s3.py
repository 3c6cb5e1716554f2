"""The objects of one S3 bucket. The only module that imports minio; it knows no keys of ours and no images."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from keepmore.net.access import RETRIES, S3Endpoint
from keepmore.net.failure import (
    FailureReason,
    RemoteFailure,
    check_version,
    connection_failures,
    failure_of_status,
)
from keepmore.net.ranged import Stream
from keepmore.net.retry import RETRIED_STATUS, retried, retry_policy
from keepmore.net.s3_listing import OutOfOrder, ascending

THREADS = 16
CONNECT_S, READ_S = 10, 30
PART_BYTES = 16 << 20
PRESIGNED = timedelta(hours=1)
CHECKSUM = "x-amz-meta-sha256"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or an answer describes it; `sha256` only where it was written with one."""

    key: str
    size: int
    etag: str
    sha256: str | None = None


class Bucket:
    """One bucket, over a pool of `threads` connections. Nothing connects before the first call.

    Every call raises RemoteFailure, UNAVAILABLE only after `retries` more attempts with growing pauses.
    """

    def __init__(self, endpoint: S3Endpoint, name: str, retries: int = RETRIES, threads: int = THREADS) -> None:
        self.name = name
        self.retries = retry_policy(retries)
        address = urlsplit(endpoint.url)
        self._http = PoolManager(
            maxsize=threads, retries=self.retries, timeout=Timeout(connect=CONNECT_S, read=READ_S), cert_reqs="REQUIRED"
        )
        self._client = Minio(
            address.netloc,
            None if endpoint.role else endpoint.access_key or None,
            None if endpoint.role else endpoint.secret_key,
            secure=address.scheme == "https",
            region=endpoint.region,
            http_client=self._http,
            credentials=_Role(region=endpoint.region) if endpoint.role else None,
        )

    def close(self) -> None:
        self._http.clear()

    def check(self) -> None:
        """Raises NO_BUCKET, where other calls may say that an object is absent, or create the bucket."""
        try:
            with _failures():
                if not self._client.bucket_exists(self.name):
                    raise RemoteFailure(FailureReason.NO_BUCKET, "NoSuchBucket")
        except RemoteFailure as failure:
            # Credentials that are limited to a prefix may not look at the bucket; wrong ones fail at the next call.
            if failure.reason is not FailureReason.DENIED:
                raise

    def make(self) -> bool:
        """Create the bucket; False where it exists already."""
        with _failures():
            if self._client.bucket_exists(self.name):
                return False
            self._client.make_bucket(self.name)
            return True

    def head(self, key: str) -> ObjectInfo:
        with _failures():
            answer = self._client.stat_object(self.name, key)
        headers = answer.metadata or {}
        return ObjectInfo(key, answer.size or 0, answer.etag or "", headers.get(CHECKSUM))

    def read(self, key: str, max_bytes: int | None = None) -> tuple[bytes, ObjectInfo]:
        """The object's bytes, none if they are more than `max_bytes`, and what the answer says of it."""

        def attempt() -> tuple[bytes, ObjectInfo]:
            with _s3_failures():
                response = self._client.get_object(self.name, key)
            stream = Stream(response)
            try:
                size = int(response.headers.get("Content-Length", 0))
                info = ObjectInfo(key, size, _etag(response), response.headers.get(CHECKSUM))
                return stream.exactly(size) if max_bytes is None or size <= max_bytes else b"", info
            finally:
                stream.close()

        return retried(self.retries, attempt)

    def stream(self, key: str, start: int, end: int, etag: str = "") -> Stream:
        """Bytes from `start` to before `end`; raises CHANGED if the object is no longer the one with `etag`."""
        with _failures():
            response = self._client.get_object(self.name, key, start, end - start)
        stream = Stream(response)  # raises HTTPError, as reading it does: the reader may try again
        try:
            check_version(etag, _etag(response))
        except (RemoteFailure, HTTPError):
            stream.close()
            raise
        return stream

    def put(self, key: str, data: bytes) -> None:
        self.put_file(key, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def put_file(self, key: str, file: BinaryIO, size: int, sha256: str) -> None:
        """Write `size` bytes of `file`, in parts if they are many; none of them can be seen before all are there."""
        with _failures():
            self._client.put_object(
                self.name, key, file, size, metadata={"sha256": sha256}, part_size=PART_BYTES, num_parallel_uploads=2
            )

    def create(self, key: str, data: bytes) -> bool:
        """Write unless `key` exists; returns whether it wrote. put_object takes no condition, a signed URL does."""
        with _failures():
            url = self._client.get_presigned_url("PUT", self.name, key, PRESIGNED)
            response = self._http.request(
                "PUT",
                url,
                body=data,
                headers={"If-None-Match": "*", "Content-Type": "application/octet-stream"},
                retries=retry_policy(self.retries.total or 0, RETRIED_STATUS | {409}),
            )
            if response.status in (200, 201, 204):
                return True
            if response.status in (304, 412):
                # The answer to an earlier attempt may have been lost: then what is there is ours.
                return bool(response.retries and response.retries.history) and self.read(key)[0] == data
            if response.data.lstrip().startswith(b"<"):
                raise S3Error.fromxml(response)
            raise _failure(response.status)

    def delete(self, key: str) -> None:
        with _failures():
            self._client.remove_object(self.name, key)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Objects by ascending key, streamed; also folder markers, whose keys end with a slash."""

        def unordered(prefix: str, start: str) -> Iterator[ObjectInfo]:
            for item in self._client.list_objects(self.name, prefix, recursive=True, start_after=start or None):
                key = item.object_name or ""
                # SeaweedFS takes the prefix "a//" for "a/".
                if key.startswith(prefix):
                    yield ObjectInfo(key, item.size or 0, (item.etag or "").strip('"'))

        with _failures():
            yield from ascending(unordered, prefix, after)


def _etag(response: BaseHTTPResponse) -> str:
    return response.headers.get("ETag", "").strip('"')


class _Role(IamAwsProvider):
    """Credentials of the role that the cloud gave this process, from where AWS_* variables or an instance say: a web
    identity (IRSA), a container's endpoint, or the instance's. They are fetched again when they expire."""

    def retrieve(self) -> Credentials:
        try:
            return super().retrieve()
        except (ValueError, KeyError, OSError, HTTPError, ParseError) as error:
            raise RemoteFailure(FailureReason.DENIED, f"no credentials for a role: {error}") from error


@contextmanager
def _failures() -> Iterator[None]:
    """Raises RemoteFailure for what minio and urllib3 raise in the block."""
    with connection_failures(), _s3_failures():
        yield


@contextmanager
def _s3_failures() -> Iterator[None]:
    """Raises RemoteFailure for what minio raises in the block, and lets urllib3's exceptions pass."""
    try:
        yield
    except S3Error as error:
        raise _failure(error.response.status, error.code, error.message) from error
    except (InvalidResponseError, ServerError) as error:
        raise _failure(error.status_code if isinstance(error, ServerError) else error._code) from error
    except OutOfOrder as error:
        raise RemoteFailure(FailureReason.OTHER, f"it does not list its keys in order ({error})") from error
    except ParseError as error:
        raise RemoteFailure(FailureReason.UNAVAILABLE, f"an answer is not XML ({error})") from error
    except MinioException as error:
        raise RemoteFailure(FailureReason.OTHER, str(error)) from error


def _failure(status: int, code: str | None = None, message: str | None = None) -> RemoteFailure:
    detail = ": ".join(dict.fromkeys(filter(None, (code, message)))) or f"HTTP status {status}"
    return failure_of_status(status, detail, code or "")
