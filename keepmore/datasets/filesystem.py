"""Files wherever they are: opened to read parts of them, or read whole up to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.file import Content, SourceFile, open_local
from keepmore.datasets.http import HttpFiles
from keepmore.datasets.s3 import S3Files
from keepmore.errors import InvalidUri
from keepmore.net import uri as uris
from keepmore.net.access import Access


class Sources:
    """Reads what `access` allows. Use as a context manager, in one thread.

    Raises InvalidUri, SourceNotAllowed and AddressRefused for what may not be read, RemoteFailure and OSError for what
    cannot be.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._http = HttpFiles(access)
        self._s3 = S3Files(access)

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()
        self._s3.close()

    def open(self, uri: str) -> SourceFile:
        remote = self._remote(uri)
        return remote.open(uri) if remote else self._local(uri)

    def read(self, uri: str, max_bytes: int) -> Content:
        remote = self._remote(uri)
        if remote:
            return remote.read(uri, max_bytes)
        with self._local(uri) as source:
            # One byte more than there should be, to see whether the file has grown; never room for all of `max_bytes`.
            data = source.file.read(min(max_bytes, source.size + 1)) if source.size <= max_bytes else b""
            return Content(data, source.size, source.version)

    def list_prefix(self, uri: str, skipped: Skipped) -> Iterator[Entry]:
        """Images below an s3:// prefix."""
        return self._s3.list(uri, skipped)

    def _remote(self, uri: str) -> HttpFiles | S3Files | None:
        scheme = uri.partition("://")[0].lower()
        if scheme in ("http", "https"):
            return self._http
        return self._s3 if scheme == "s3" else None

    def _local(self, uri: str) -> SourceFile:
        self._access.check(uri)
        parsed = uris.parse(uri)
        if parsed.scheme != "file":
            raise InvalidUri(f"{uri}: {parsed.scheme}:// cannot be read; use file://, s3://, http:// or https://")
        if "#" in uri:
            raise InvalidUri(
                f'{uri}: "#" begins a part of an archive, and this is not an archive; write it as %23 in a file name'
            )
        return open_local(parsed.local_path)
