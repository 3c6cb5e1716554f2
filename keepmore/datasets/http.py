"""Files on the web: read whole, or in parts where the server can."""

from __future__ import annotations

import io
import re
from urllib.parse import urldefrag, urljoin

from urllib3 import BaseHTTPResponse, PoolManager, Retry
from urllib3.exceptions import HTTPError, MaxRetryError

from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.file import BUFFER_BYTES, Opened
from keepmore.errors import SourceNotAllowed
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.net.failure import FailureReason, RemoteFailure, check_version, retry_policy
from keepmore.net.http import guarded_http
from keepmore.net.ranged import RangedFile, Stream

REDIRECTS = 5
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
IDENTITY = {"Accept-Encoding": "identity"}


class HttpFiles:
    """Files by http(s):// URI. Every redirect is checked like the URI that led to it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._retries = retry_policy(access.retries)
        self._pool: PoolManager | None = None

    def close(self) -> None:
        if self._pool:
            self._pool.clear()

    def open(self, uri: str) -> Opened:
        """Seekable if the server answers ranges; else the file can be read once, from the start."""
        response = self._get(uri, {"Range": "bytes=0-0"})
        answered = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status in (206, 416) and answered:
            _discard(response)
            version, size = _version(response), int(answered[3])
            file: io.RawIOBase = RangedFile(
                size, lambda start, end: self._range(uri, start, end, version), self._retries
            )
        else:
            if response.status == 206:  # a part of nobody knows what
                _discard(response)
                response = self._get(uri, {})
            _check(response)
            version, size = _version(response), int(response.headers.get("Content-Length", UNKNOWN))
            file = _Once(Stream(response))
        return Opened(io.BufferedReader(file, BUFFER_BYTES), uri, urldefrag(uri).url, size, version)

    def read(self, uri: str, most: int) -> tuple[bytes, int, str | None]:
        """The file's bytes (none if they are more than `most`), its size and its version."""
        retries = self._retries
        while True:
            response = self._get(uri, {})
            _check(response)
            try:
                return _read(response, most)
            except HTTPError as error:
                retries = _again(retries, error)

    def _range(self, uri: str, start: int, end: int, version: str | None) -> Stream:
        response = self._get(uri, {"Range": f"bytes={start}-{end - 1}"})
        if response.status != 416:
            _check(response)
        stream = Stream(response)  # raises HTTPError, as reading it does: who reads on may try again
        answered = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        try:
            check_version(version, _version(response))
            if response.status != 206 or not answered or answered[1] != str(start):
                raise RemoteFailure(FailureReason.OTHER, "its server answers with another part than was asked for")
        except (RemoteFailure, HTTPError):
            stream.close()
            raise
        return stream

    def _get(self, uri: str, headers: dict[str, str]) -> BaseHTTPResponse:
        hop = urldefrag(uri).url
        for _ in range(REDIRECTS + 1):
            self._access.check(hop)
            response = self._request(hop, headers)
            location = response.get_redirect_location()
            if not location:
                return response
            _discard(response)
            hop = urldefrag(urljoin(hop, location)).url
            if uris.parse(hop).scheme not in uris.DEFAULT_PORTS:
                raise SourceNotAllowed(
                    f"{uri} redirects to {uris.parse(hop).scheme}://: only http and https are followed"
                )
        raise RemoteFailure(FailureReason.OTHER, f"more than {REDIRECTS} redirects")

    def _request(self, uri: str, headers: dict[str, str]) -> BaseHTTPResponse:
        if self._pool is None:
            self._pool = guarded_http(self._access.private_addresses, self._retries)
        try:
            return self._pool.request("GET", uri, headers=IDENTITY | headers, preload_content=False, redirect=False)
        except MaxRetryError as error:
            raise RemoteFailure(FailureReason.UNAVAILABLE, str(error.reason or error)) from error
        except HTTPError as error:
            raise RemoteFailure(FailureReason.OTHER, str(error)) from error


class _Once(io.RawIOBase):
    """A body that can be read once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except HTTPError as error:
            raise RemoteFailure(FailureReason.UNAVAILABLE, str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read(response: BaseHTTPResponse, most: int) -> tuple[bytes, int, str | None]:
    stream = Stream(response)
    try:
        stated = int(response.headers.get("Content-Length", UNKNOWN))
        if stated > most:
            return b"", stated, _version(response)
        data = stream.read(most + 1)
        if len(data) < stated:
            raise HTTPError(f"the connection ended {stated - len(data):,} bytes early")
        return data if len(data) <= most else b"", len(data), _version(response)
    finally:
        stream.close()


def _check(response: BaseHTTPResponse) -> None:
    if response.status in (200, 206):
        return
    _discard(response)
    why = {
        401: FailureReason.DENIED,
        403: FailureReason.DENIED,
        404: FailureReason.ABSENT,
        410: FailureReason.ABSENT,
        429: FailureReason.UNAVAILABLE,
    }.get(response.status)
    if why is None:
        why = FailureReason.UNAVAILABLE if response.status >= 500 else FailureReason.OTHER
    raise RemoteFailure(why, f"HTTP status {response.status}")


def _again(retries: Retry, error: HTTPError) -> Retry:
    try:
        left = retries.increment("GET", error=error)
    except (MaxRetryError, HTTPError):
        raise RemoteFailure(FailureReason.UNAVAILABLE, str(error)) from error
    left.sleep()
    return left


def _discard(response: BaseHTTPResponse) -> None:
    response.close()
    response.release_conn()


def _version(response: BaseHTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    return f"etag:{etag}" if etag else None
