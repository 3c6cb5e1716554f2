"""A file that a dataset is read from, local or remote."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from keepmore.datasets.entry import file_uri
from keepmore.errors import UnreadableImage
from keepmore.net.failure import FailureReason, RemoteFailure

BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Content:
    """A whole file: `data` (empty if the file is larger than was allowed), `size` in bytes, `version` as in Entry."""

    data: bytes
    size: int
    version: str | None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An open file: `name` as a user knows it, `size` in bytes or UNKNOWN, `version` as in Entry; `path` if local."""

    file: io.BufferedReader[Any]
    name: str
    uri: str
    size: int
    version: str | None
    path: str | None = None

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    @property
    def native(self) -> str | io.BufferedReader[Any]:
        """What pyarrow reads fastest: the path, for a local file."""
        return self.path or self.file

    def check_seekable(self) -> None:
        """Raises RemoteFailure (NO_RANGES) for a file that its server can only send from start to end."""
        if not self.file.seekable():
            raise RemoteFailure(FailureReason.NO_RANGES, "its server does not answer requests for a part (HTTP ranges)")

    def version_now(self) -> str | None:
        """A local file may have changed since; of a remote one, every answer was checked."""
        return version_of(os.stat(self.path)) if self.path else self.version


def open_local(path: str) -> SourceFile:
    """Raises OSError, and UnreadableImage for what is not a regular file."""
    # Without O_NONBLOCK a named pipe in a table's `uri` would hang the worker forever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise UnreadableImage(f"{path} is not a regular file")
    file = io.BufferedReader(io.FileIO(descriptor), BUFFER_BYTES)
    return SourceFile(file, path, file_uri(os.path.realpath(path)), state.st_size, version_of(state), path)


def version_of(state: os.stat_result) -> str:
    return f"mtime:{state.st_mtime_ns}"
