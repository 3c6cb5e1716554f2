"""Reading an image's bytes by its source URI."""

from __future__ import annotations

import os
import stat
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

from keepmore.datasets.embedded import EmbeddedReader
from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.listing import local_path
from keepmore.errors import DatasetChanged, SourceNotFound, SourceTooLarge, UnreadableImage


class SourceReader:
    """Bytes by source URI; keeps the last archive open, so that reading in listed order is fast.

    `max_bytes` caps an image. Use as a context manager.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._embedded: tuple[str, EmbeddedReader] | None = None

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._embedded:
            self._embedded[1].close()

    def read(self, uri: str, size: int = UNKNOWN, mtime_ns: int = UNKNOWN) -> bytes:
        """The image's bytes. `size` of the image and `mtime_ns` of its archive are what the listing saw.

        Raises DatasetChanged if they no longer hold, and ImageError (SourceNotFound, SourceTooLarge,
        UnreadableImage) for what concerns this image alone.
        """
        parts = urlsplit(uri)
        if parts.scheme != "file":
            raise SourceNotFound(f"{uri}: {parts.scheme}:// cannot be read; use file:// URIs or paths")
        path = local_path(uri)
        place = {name: values[0] for name, values in parse_qs(parts.fragment).items()}
        try:
            _check_unchanged(path, mtime_ns)
            if "row" in place:
                data = self._embedded_reader(path).read(int(place["row"]))
            else:
                data = _read_file(path, int(place.get("offset", 0)), int(place.get("length", UNKNOWN)), self._max_bytes)
        except FileNotFoundError as error:
            raise _missing(uri, listed=(size, mtime_ns) != (UNKNOWN, UNKNOWN)) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UnreadableImage(f"{uri} cannot be read: {error}") from error
        if len(data) > self._max_bytes:
            raise _too_large(len(data), self._max_bytes)
        if size not in (UNKNOWN, len(data)):
            raise DatasetChanged(f"{uri} had {size} bytes when it was listed and has {len(data)} now; {REMEDY}")
        return data

    def _embedded_reader(self, path: str) -> EmbeddedReader:
        if self._embedded is None or self._embedded[0] != path:
            if self._embedded:
                self._embedded[1].close()
            self._embedded = (path, EmbeddedReader(path))
        return self._embedded[1]


REMEDY = "put the dataset back as it was and resume the job, or start a new job over what is there now"


def _read_file(path: str, offset: int, length: int, max_bytes: int) -> bytes:
    # Without O_NONBLOCK a named pipe in a table's `uri` would hang the worker for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableImage(f"{path} is not a regular file")
        wanted = state.st_size if length == UNKNOWN else length
        if wanted > max_bytes:
            raise _too_large(wanted, max_bytes)
        file.seek(offset)
        return file.read(wanted)


def _check_unchanged(path: str, mtime_ns: int) -> None:
    if mtime_ns != UNKNOWN and os.stat(path).st_mtime_ns != mtime_ns:
        raise DatasetChanged(f"{path} was modified after it was listed; {REMEDY}")


def _missing(uri: str, listed: bool) -> DatasetChanged | SourceNotFound:
    if listed:
        return DatasetChanged(f"{uri} was there when the dataset was listed and is gone; {REMEDY}")
    return SourceNotFound(f"{uri}: there is no such file")


def _too_large(size: int, limit: int) -> SourceTooLarge:
    return SourceTooLarge(f"{size:,} bytes is over the limit of {limit:,} bytes an image; raise it with --max-bytes")
