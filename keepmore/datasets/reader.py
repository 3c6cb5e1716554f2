"""Reading an image's bytes by its source URI."""

from __future__ import annotations

from types import TracebackType

import pyarrow as pa

from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.file import SourceFile
from keepmore.datasets.filesystem import Sources
from keepmore.datasets.member import Member, member_of
from keepmore.datasets.parquet import EmbeddedReader
from keepmore.errors import DatasetChanged, InvalidUri, SourceTooLarge, UnreadableImage
from keepmore.net.access import EVERYTHING, Access
from keepmore.net.failure import REMEDY, RemoteFailure, image_error, missing_image


class SourceReader:
    """Bytes by source URI; keeps the last archive open, so that reading in listed order is fast.

    `max_bytes` limits an image, `access` says what may be read. Use as a context manager, in one thread.
    """

    def __init__(self, max_bytes: int, access: Access = EVERYTHING) -> None:
        self._max_bytes = max_bytes
        self._sources = Sources(access)
        self._archive: SourceFile | None = None
        self._archive_uri = ""
        self._embedded: EmbeddedReader | None = None

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close_archive()
        self._sources.__exit__(kind, error, tb)

    def read(self, uri: str, size: int = UNKNOWN, version: str | None = None) -> bytes:
        """The image's bytes. `size` of the image and `version` of the file that holds it are those of the listing.

        Raises DatasetChanged if they have changed, DatasetUnreadable while its server cannot be reached,
        SourceNotAllowed and AddressRefused for what may not be read, and ImageError (SourceNotFound, SourceForbidden,
        SourceTooLarge, UnreadableImage) for any other problem with this image alone.
        """
        is_listed = (size, version) != (UNKNOWN, None)
        try:
            data = self._read(uri, member_of(uri), version)
        except RemoteFailure as failure:
            raise image_error(uri, failure, is_listed) from failure
        except InvalidUri as error:
            raise UnreadableImage(f"a source cannot be read: {error.message}") from error
        except FileNotFoundError as error:
            raise missing_image(uri, is_listed) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UnreadableImage(f"{uri} cannot be read: {error}") from error
        if len(data) > self._max_bytes:
            raise _too_large(len(data), self._max_bytes)
        if size not in (UNKNOWN, len(data)):
            raise DatasetChanged(f"{uri} had {size} bytes when it was listed and has {len(data)} now; {REMEDY}")
        return data

    def _read(self, uri: str, member: Member, version: str | None) -> bytes:
        if member.row is None and member.offset is None:
            content = self._sources.read(uri, self._max_bytes)
            _check_unchanged(uri, version, content.version)
            if content.size > self._max_bytes:
                raise _too_large(content.size, self._max_bytes)
            return content.data
        if self._archive is None or self._archive_uri != member.uri:
            self._close_archive()
            self._archive, self._archive_uri = self._sources.open(member.uri), member.uri
        archive = self._archive
        _check_unchanged(member.uri, version, archive.version_now())
        if member.row is not None:
            self._embedded = self._embedded or EmbeddedReader(archive)
            return self._embedded.read(member.row)
        if member.length > self._max_bytes:
            raise _too_large(member.length, self._max_bytes)
        archive.check_seekable()
        archive.file.seek(member.offset or 0)
        return archive.file.read(member.length)

    def _close_archive(self) -> None:
        if self._embedded:
            self._embedded.close()
        if self._archive:
            self._archive.close()
        self._archive = self._embedded = None


def _check_unchanged(uri: str, listed_version: str | None, version: str | None) -> None:
    if listed_version is not None and listed_version != version:
        raise DatasetChanged(f"{uri} was modified after it was listed ({listed_version}, now {version}); {REMEDY}")


def _too_large(size: int, limit: int) -> SourceTooLarge:
    return SourceTooLarge(f"{size:,} bytes is over the limit of {limit:,} bytes per image; raise it with --max-bytes")
