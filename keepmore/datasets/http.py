"""Files on the web: read whole, or in parts where the server supports ranges."""

from __future__ import annotations

import io
import re
from urllib.parse import urldefrag, urljoin

from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.file import BUFFER_BYTES, Content, SourceFile
from keepmore.errors import SourceNotAllowed
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.net.failure import (
    FailureReason,
    RemoteFailure,
    check_version,
    connection_failures,
    failure_of_status,
)
from keepmore.net.http import guarded_http
from keepmore.net.ranged import RangedFile, Stream
from keepmore.net.retry import retried, retry_policy

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

    def open(self, uri: str) -> SourceFile:
        """Seekable if the server answers ranges; else the file can be read once, from the start."""
        response = self._get(uri, {"Range": "bytes=0-0"})
        content_range = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status in (206, 416) and content_range:
            _discard(response)
            version, size = _version(response), int(content_range[3])
            file: io.RawIOBase = RangedFile(
                size, lambda start, end: self._range(uri, start, end, version), self._retries
            )
        else:
            if response.status == 206:  # some part, without saying which
                _discard(response)
                response = self._get(uri, {})
            _check(response)
            version, size = _version(response), int(response.headers.get("Content-Length", UNKNOWN))
            file = _Once(Stream(response))
        return SourceFile(io.BufferedReader(file, BUFFER_BYTES), uri, urldefrag(uri).url, size, version)

    def read(self, uri: str, max_bytes: int) -> Content:
        def attempt() -> Content:
            response = self._get(uri, {})
            _check(response)
            return _read(response, max_bytes)

        return retried(self._retries, attempt)

    def _range(self, uri: str, start: int, end: int, version: str | None) -> Stream:
        response = self._get(uri, {"Range": f"bytes={start}-{end - 1}"})
        if response.status != 416:
            _check(response)
        stream = Stream(response)  # raises HTTPError, as reading it does: the reader may try again
        content_range = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        try:
            check_version(version, _version(response))
            if response.status != 206 or not content_range or content_range[1] != str(start):
                raise RemoteFailure(FailureReason.OTHER, "its server answers with another part than was requested")
        except (RemoteFailure, HTTPError):
            stream.close()
            raise
        return stream

    def _get(self, uri: str, headers: dict[str, str]) -> BaseHTTPResponse:
        if self._pool is None:
            self._pool = guarded_http(self._access.private_addresses, self._retries)
        hop = urldefrag(uri).url
        for _ in range(REDIRECTS + 1):
            self._access.check(hop)
            with connection_failures():
                response = self._pool.request(
                    "GET", hop, headers=IDENTITY | headers, preload_content=False, redirect=False
                )
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


class _Once(io.RawIOBase):
    """A body that can be read once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with connection_failures():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read(response: BaseHTTPResponse, max_bytes: int) -> Content:
    stream = Stream(response)
    try:
        stated_bytes = int(response.headers.get("Content-Length", UNKNOWN))
        if stated_bytes > max_bytes:
            return Content(b"", stated_bytes, _version(response))
        data = stream.read(max_bytes + 1)
        if len(data) < stated_bytes:
            raise HTTPError(f"the connection ended {stated_bytes - len(data):,} bytes early")
        return Content(data if len(data) <= max_bytes else b"", len(data), _version(response))
    finally:
        stream.close()


def _check(response: BaseHTTPResponse) -> None:
    if response.status not in (200, 206):
        _discard(response)
        raise failure_of_status(response.status, f"HTTP status {response.status}")


def _discard(response: BaseHTTPResponse) -> None:
    response.close()
    response.release_conn()


def _version(response: BaseHTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    return f"etag:{etag}" if etag else None
