"""Remote bytes as a file: ranged requests, read-ahead, resumed where a connection broke."""

from __future__ import annotations

import io
from collections.abc import Callable

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError

from keepmore.net.failure import RemoteFailure
from keepmore.net.retry import retried

FIRST_BYTES = 1 << 16  # as much as a buffered reader asks for at once, so none of it is wasted
MOST_BYTES = 1 << 24
GAP_BYTES = 1 << 18  # reading on over such a gap takes no longer than another request
PIECE_BYTES = 1 << 20  # the most that a broken connection can cost


class Stream:
    """The body of an answer as it arrives: its exact bytes, whatever encoding a header claims.

    Creating one and reading it raise urllib3's HTTPError for a connection that broke.
    """

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        headers = response.headers
        ends = "Content-Length" in headers or "Transfer-Encoding" in headers
        # http.client takes headers that were cut off for all of them: the body would be empty, without an error.
        if not (ends or response.version == 10 or headers.get("Connection", "").lower() == "close"):
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


Fetch = Callable[[int, int], Stream]  # bytes from (inclusive) to (exclusive); raises RemoteFailure


class RangedFile(io.RawIOBase):
    """A seekable file of `size` bytes. Requests grow while it is read in order, and small gaps are read over.

    Wrap it in io.BufferedReader. A RemoteFailure leaves the reading call as the exception that `translate` returns.
    """

    def __init__(
        self,
        size: int,
        fetch: Fetch,
        retries: Retry,
        translate: Callable[[RemoteFailure], Exception] = lambda failure: failure,
    ) -> None:
        self._size = size
        self._fetch = fetch
        self._retries = retries
        self._translate = translate
        self._position = 0
        self._stream: Stream | None = None
        self._from = self._until = 0  # what the open stream still holds
        self._window_bytes = FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """One read: fills `buffer` unless the file ends before."""
        start = self._position
        count = max(0, min(len(buffer), self._size - start))

        def fill() -> None:
            while (done := self._position - start) < count:
                data = self._read(count - done)
                buffer[done : done + len(data)] = data

        try:
            retried(self._retries, fill)
        except RemoteFailure as failure:
            raise self._translate(failure) from failure
        return count

    def close(self) -> None:
        self._close_stream()
        super().close()

    def _read(self, max_bytes: int) -> bytes:
        """The next bytes, some of them at least."""
        gap = self._position - self._from
        try:
            if self._stream is None or not (0 <= gap <= GAP_BYTES and self._position < self._until):
                self._stream = self._request(max_bytes)
            elif gap:
                self._advance(self._stream, gap)
            return self._advance(self._stream, min(max_bytes, self._until - self._from, PIECE_BYTES))
        except HTTPError:
            self._close_stream()
            raise

    def _request(self, count: int) -> Stream:
        in_order = self._until > 0 and 0 <= self._position - self._until <= GAP_BYTES
        self._window_bytes = min(self._window_bytes * 2, MOST_BYTES) if in_order else FIRST_BYTES
        self._close_stream()
        until = min(self._position + max(count, self._window_bytes), self._size)
        stream = self._fetch(self._position, until)
        self._from, self._until = self._position, until
        return stream

    def _advance(self, stream: Stream, count: int) -> bytes:
        data = stream.exactly(count)
        self._from += count
        self._position = self._from
        if self._from == self._until:
            self._close_stream()
        return data

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
