"""Files wherever they are: opened to read parts of them, or read whole under a cap."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.file import Opened, open_local
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

    def open(self, uri: str) -> Opened:
        remote = self._remote(uri)
        return remote.open(uri) if remote else self._local(uri)

    def read(self, uri: str, most: int) -> tuple[bytes, int, str | None]:
        """The file's bytes (none if they are more than `most`), its size and its version."""
        remote = self._remote(uri)
        if remote:
            return remote.read(uri, most)
        with self._local(uri) as opened:
            # One byte more than there should be, to see whether the file has grown; never room for all of `most`.
            data = opened.file.read(min(most, opened.size + 1)) if opened.size <= most else b""
            return data, opened.size, opened.version

    def list_prefix(self, uri: str, skipped: Skipped) -> Iterator[Entry]:
        """Images below an s3:// prefix."""
        return self._s3.list(uri, skipped)

    def _remote(self, uri: str) -> HttpFiles | S3Files | None:
        scheme = uri.partition("://")[0].lower()
        if scheme in ("http", "https"):
            return self._http
        return self._s3 if scheme == "s3" else None

    def _local(self, uri: str) -> Opened:
        self._access.check(uri)
        place = uris.parse(uri)
        if place.scheme != "file":
            raise InvalidUri(f"{uri}: {place.scheme}:// cannot be read; use file://, s3://, http:// or https://")
        if "#" in uri:
            raise InvalidUri(f'{uri}: "#" begins a part of an archive, which this is not; write %23 for it in a name')
        return open_local(place.local_path)
