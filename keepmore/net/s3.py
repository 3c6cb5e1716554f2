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
from urllib3.exceptions import HTTPError, MaxRetryError

from keepmore.net.access import RETRIES, S3Endpoint
from keepmore.net.failure import FailureReason, RemoteFailure, check_version, retry_policy
from keepmore.net.ranged import Stream
from keepmore.net.s3_listing import OutOfOrder, ascending

THREADS = 16
CONNECT_S, READ_S = 10, 30
PART_BYTES = 16 << 20
PRESIGNED = timedelta(hours=1)
CHECKSUM = "x-amz-meta-sha256"

ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound"})
DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "ExpiredToken"})
FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"})


@dataclass(frozen=True, slots=True)
class Found:
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
        place = urlsplit(endpoint.url)
        self._http = PoolManager(
            maxsize=threads, retries=self.retries, timeout=Timeout(connect=CONNECT_S, read=READ_S), cert_reqs="REQUIRED"
        )
        self._client = Minio(
            place.netloc,
            None if endpoint.role else endpoint.access_key or None,
            None if endpoint.role else endpoint.secret_key,
            secure=place.scheme == "https",
            region=endpoint.region,
            http_client=self._http,
            credentials=_Role(region=endpoint.region) if endpoint.role else None,
        )

    def close(self) -> None:
        self._http.clear()

    def check(self) -> None:
        """Raises NO_BUCKET, where other calls may say that an object is absent, or make the bucket."""
        try:
            with _told():
                if not self._client.bucket_exists(self.name):
                    raise RemoteFailure(FailureReason.NO_BUCKET, "NoSuchBucket")
        except RemoteFailure as failure:
            # Credentials that are bound to a prefix may not look at the bucket; wrong ones fail at the next call.
            if failure.why is not FailureReason.DENIED:
                raise

    def make(self) -> bool:
        """Make the bucket; False where it is there already."""
        with _told():
            if self._client.bucket_exists(self.name):
                return False
            self._client.make_bucket(self.name)
            return True

    def head(self, key: str) -> Found:
        with _told():
            found = self._client.stat_object(self.name, key)
        headers = found.metadata or {}
        return Found(key, found.size or 0, found.etag or "", headers.get(CHECKSUM))

    def read(self, key: str, most: int | None = None) -> tuple[bytes, Found]:
        """The object's bytes, none if they are more than `most`, and what the answer says of it."""
        retries = self.retries
        while True:
            try:
                with _told(broken=True):
                    return self._read(key, most)
            except _Broken as broken:
                try:
                    retries = retries.increment("GET", error=broken.error)
                except (MaxRetryError, HTTPError) as error:
                    raise RemoteFailure(FailureReason.UNAVAILABLE, f"{broken.error}") from error
                retries.sleep()

    def stream(self, key: str, start: int, end: int, etag: str = "") -> Stream:
        """Bytes from `start` to before `end`; raises CHANGED if the object is no longer the one with `etag`."""
        with _told():
            response = self._client.get_object(self.name, key, start, end - start)
        stream = Stream(response)  # raises HTTPError, as reading it does: who reads on may try again
        try:
            check_version(etag, _etag(response))
        except (RemoteFailure, HTTPError):
            stream.close()
            raise
        return stream

    def put(self, key: str, data: bytes) -> None:
        self.put_file(key, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def put_file(self, key: str, file: BinaryIO, size: int, sha256: str) -> None:
        """Write `size` bytes of `file`, in parts if they are many; nothing can be seen of them before all are there."""
        with _told():
            self._client.put_object(
                self.name, key, file, size, metadata={"sha256": sha256}, part_size=PART_BYTES, num_parallel_uploads=2
            )

    def create(self, key: str, data: bytes) -> bool:
        """Write unless `key` exists; says whether it wrote. put_object takes no condition: a signed URL does."""
        with _told():
            url = self._client.get_presigned_url("PUT", self.name, key, PRESIGNED)
            response = self._http.request(
                "PUT",
                url,
                body=data,
                headers={"If-None-Match": "*", "Content-Type": "application/octet-stream"},
                retries=retry_policy(self.retries.total or 0, frozenset({409, 429, 500, 502, 503, 504})),
            )
            if response.status in (200, 201, 204):
                return True
            if response.status in (304, 412):
                # The answer to an earlier attempt may have been lost: then what is there is ours.
                return bool(response.retries and response.retries.history) and self.read(key)[0] == data
            raise _from_status(response)

    def delete(self, key: str) -> None:
        with _told():
            self._client.remove_object(self.name, key)

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        """Objects by ascending key, streamed; also folder markers, whose keys end with a slash."""
        with _told():
            yield from ascending(self._listing, prefix, after)

    def _listing(self, prefix: str, start: str) -> Iterator[Found]:
        listed = self._client.list_objects(self.name, prefix, recursive=True, start_after=start or None)
        for one in listed:
            name = one.object_name or ""
            # SeaweedFS takes the prefix "a//" for "a/".
            if name.startswith(prefix):
                yield Found(name, one.size or 0, (one.etag or "").strip('"'))

    def _read(self, key: str, most: int | None) -> tuple[bytes, Found]:
        response = self._client.get_object(self.name, key)
        stream = Stream(response)
        try:
            size = int(response.headers.get("Content-Length", 0))
            found = Found(key, size, _etag(response), response.headers.get(CHECKSUM))
            return stream.exactly(size) if most is None or size <= most else b"", found
        finally:
            stream.close()


class _Broken(Exception):
    """A connection that broke while a body came in; urllib3 retries requests, not bodies."""

    def __init__(self, error: HTTPError) -> None:
        super().__init__(str(error))
        self.error = error


def _etag(response: BaseHTTPResponse) -> str:
    return response.headers.get("ETag", "").strip('"')


class _Role(IamAwsProvider):
    """Credentials of the role that the cloud gave this process, from where AWS_* variables or an instance say so: a web
    identity (IRSA), a container's endpoint, or the instance's. They are fetched again when they expire."""

    def retrieve(self) -> Credentials:
        try:
            return super().retrieve()
        except (ValueError, KeyError, OSError, HTTPError, ParseError) as error:
            raise RemoteFailure(FailureReason.DENIED, f"no credentials for a role: {error}") from error


@contextmanager
def _told(broken: bool = False) -> Iterator[None]:
    """What minio and urllib3 raise, as RemoteFailure."""
    try:
        yield
    except S3Error as error:
        raise _failure(error.code or "", error.response.status, error.message or error.code or "") from error
    except (InvalidResponseError, ServerError) as error:
        status = error.status_code if isinstance(error, ServerError) else error._code
        raise _failure("", status, f"HTTP status {status}") from error
    except MaxRetryError as error:
        raise RemoteFailure(FailureReason.UNAVAILABLE, str(error.reason or error)) from error
    except HTTPError as error:
        if broken:
            raise _Broken(error) from error
        raise RemoteFailure(FailureReason.UNAVAILABLE, str(error)) from error
    except OutOfOrder as error:
        raise RemoteFailure(FailureReason.OTHER, f"it does not list its keys in order ({error})") from error
    except ParseError as error:
        raise RemoteFailure(FailureReason.UNAVAILABLE, f"an answer is not XML ({error})") from error
    except MinioException as error:
        raise RemoteFailure(FailureReason.OTHER, str(error)) from error


def _from_status(response: BaseHTTPResponse) -> RemoteFailure:
    if response.data.lstrip().startswith(b"<"):
        error = S3Error.fromxml(response)
        return _failure(error.code or "", response.status, error.message or "")
    return _failure("", response.status, f"HTTP status {response.status}")


def _failure(code: str, status: int, detail: str) -> RemoteFailure:
    detail = f"{code}: {detail}" if code and code != detail else detail
    if code == "NoSuchBucket":
        return RemoteFailure(FailureReason.NO_BUCKET, detail)
    if code in FULL or status == 507:
        return RemoteFailure(FailureReason.FULL, detail)
    if code in ABSENT or status == 404:
        return RemoteFailure(FailureReason.ABSENT, detail)
    if code in DENIED or status in (401, 403):
        return RemoteFailure(FailureReason.DENIED, detail)
    if status >= 500 or status in (409, 429):
        return RemoteFailure(FailureReason.UNAVAILABLE, detail)
    return RemoteFailure(FailureReason.OTHER, detail)
