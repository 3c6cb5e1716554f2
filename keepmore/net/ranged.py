"""Remote bytes as a file: ranged requests, read ahead, taken up again where a connection broke."""

from __future__ import annotations

import io
from collections.abc import Callable

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, MaxRetryError

from keepmore.net.failure import FailureReason, RemoteFailure

FIRST_BYTES = 1 << 16  # as much as a buffered reader asks for at once: none of it is fetched in vain
MOST_BYTES = 1 << 24
GAP_BYTES = 1 << 18  # reading on over such a gap takes no longer than another request
PIECE_BYTES = 1 << 20  # what a broken connection can cost


class Stream:
    """The body of an answer as it comes in: the very bytes, whatever encoding a header claims.

    Making one and reading it raise urllib3's HTTPError for a connection that broke.
    """

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        if not _has_end(response):
            self.close()
            raise HTTPError("the connection ended within the headers of an answer")

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer at the end."""
        pieces = []
        while count > 0 and (piece := self._response.read(min(count, PIECE_BYTES), decode_content=False)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def exactly(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) < count:
            raise HTTPError(f"the connection ended {count - len(data):,} bytes early")
        return data

    def close(self) -> None:
        """A body that was read to its end leaves its connection to others."""
        self._response.close()
        self._response.release_conn()


def _has_end(response: BaseHTTPResponse) -> bool:
    """http.client takes headers that were cut off for all of them; then the body would be empty, without an error."""
    headers = response.headers
    ends = "Content-Length" in headers or "Transfer-Encoding" in headers
    return ends or response.version == 10 or headers.get("Connection", "").lower() == "close"


Fetch = Callable[[int, int], Stream]  # bytes from (inclusive) to (exclusive); raises RemoteFailure


class RangedFile(io.RawIOBase):
    """A seekable file of `size` bytes. Requests grow while it is read in order, and small gaps are read over.

    Wrap it in io.BufferedReader. Errors from `fetch` come out of the reading call as `explain` made them.
    """

    def __init__(
        self,
        size: int,
        fetch: Fetch,
        retries: Retry,
        explain: Callable[[RemoteFailure], Exception] = lambda failure: failure,
    ) -> None:
        self._size = size
        self._fetch = fetch
        self._retries = retries
        self._explain = explain
        self._place = 0
        self._stream: Stream | None = None
        self._from = self._until = 0  # what the open stream still holds
        self._window = FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the start")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """One read: fills `buffer` unless the file ends before."""
        wanted = min(len(buffer), self._size - self._place)
        done = 0
        retries = self._retries
        while done < wanted:
            try:
                data = self._read(wanted - done)
            except RemoteFailure as failure:
                raise self._explain(failure) from failure
            except HTTPError as error:
                self._drop()
                retries = self._again(retries, error)
                continue
            buffer[done : done + len(data)] = data
            done += len(data)
        return max(done, 0)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, wanted: int) -> bytes:
        gap = self._place - self._from
        if self._stream is None or not (0 <= gap <= GAP_BYTES and self._place < self._until):
            self._request(wanted)
        elif gap:
            self._advance(gap)
        return self._advance(min(wanted, self._until - self._from, PIECE_BYTES))

    def _request(self, wanted: int) -> None:
        in_order = self._until > 0 and 0 <= self._place - self._until <= GAP_BYTES
        self._window = min(self._window * 2, MOST_BYTES) if in_order else FIRST_BYTES
        self._drop()
        until = min(self._place + max(wanted, self._window), self._size)
        self._stream = self._fetch(self._place, until)
        self._from, self._until = self._place, until

    def _advance(self, count: int) -> bytes:
        assert self._stream is not None
        data = self._stream.exactly(count)
        self._from += count
        self._place = self._from
        if self._from == self._until:
            self._close_stream()
        return data

    def _again(self, retries: Retry, error: HTTPError) -> Retry:
        try:
            left = retries.increment("GET", error=error)
        except (MaxRetryError, HTTPError) as last:
            failure = RemoteFailure(FailureReason.UNAVAILABLE, f"{error} ({last})")
            raise self._explain(failure) from error
        left.sleep()
        return left

    def _drop(self) -> None:
        self._close_stream()
        self._from = 0

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
