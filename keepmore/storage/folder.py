"""The store that is a folder on disk."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from keepmore.errors import NotFound, StoreError, StoreFull, StoreUnwritable
from keepmore.net.uri import absolute_path
from keepmore.storage.base import TEMPORARY, check_key, is_key

STALE_S = 24 * 3600
BLOCK_BYTES = 4096
TEMPORARY_NAME = "keepmore-{}.partial"
OWN_NAME = re.compile(r"keepmore-[0-9a-f]{16}\.partial")


class FolderStore:
    """A store in a folder: a key is a path below `root`. Writes are a temporary file, sync, then rename.

    Reading changes nothing in the folder. Of what lies in it already, a write removes only temporary files of its own
    kind that a process left a day ago.
    """

    def __init__(self, root: Path) -> None:
        # Manifests hold it: it must not depend on a folder that the store is not in.
        self.root = Path(absolute_path(str(root)))
        self._temporary = self.root / TEMPORARY
        self._is_ready = False
        with self._explained():
            if self.root.exists() and not self.root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def check_writable(self) -> None:
        """Raises StoreUnwritable or StoreFull where nothing can be written."""
        with self._explained():
            temporary = self._temporary_path()
            try:
                with temporary.open("xb") as file:
                    file.write(bytes(BLOCK_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                temporary.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        with self.open(key) as file, self._explained():
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        self.put_all({key: data})

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        if not objects:
            return
        temporaries: dict[str, Path] = {}
        with self._explained():
            try:
                for key, data in objects.items():
                    temporaries[key] = self._write_temporary(data)
                self._sync()
                for key, temporary in temporaries.items():
                    os.replace(temporary, self._ready_path(key))
            finally:  # a disk that is full is not filled by what could not be written
                for temporary in temporaries.values():
                    temporary.unlink(missing_ok=True)

    def create(self, key: str, data: bytes) -> bool:
        with self._explained():
            temporary = self._write_temporary(data)
            try:
                self._sync()
                path = self._ready_path(key)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
            finally:
                temporary.unlink()
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained(), suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            path.unlink()

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        folder, slash, _ = prefix.rpartition("/")
        with self._explained():
            if not slash:
                yield from self._walk("", prefix, after)
            elif is_key(folder):
                yield from self._walk(folder + "/", prefix, after)

    def keys_in(self, folder: str) -> frozenset[str]:
        check_key(folder)
        return frozenset(self.keys(folder + "/"))

    def open(self, key: str) -> BinaryIO:
        with suppress(OSError), self._explained(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            # A named pipe of somebody else's would be waited for.
            try:
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link to itself, a socket
                    raise FileNotFoundError from error
                raise
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
        raise NotFound(f"nothing is stored under {key} in {self.root}")

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        with self._explained():
            temporary = self._temporary_path()
            try:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._ready_path(key))
            finally:
                temporary.unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key

    def _ready_path(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _temporary_path(self) -> Path:
        """Where to write a new temporary file. The first one makes their folder, and room of what is stale in it."""
        if not self._is_ready or not self._temporary.exists():
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            self._is_ready = True
        return self._temporary / TEMPORARY_NAME.format(secrets.token_hex(8))

    def _write_temporary(self, data: bytes) -> Path:
        temporary = self._temporary_path()
        try:
            temporary.write_bytes(data)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _sync(self) -> None:
        """One sync of the file system for a whole batch: a sync per object would cost as much as its encoding."""
        if _SYNCFS is None:
            os.sync()
            return
        folder = os.open(self._temporary, os.O_RDONLY)
        try:
            if _SYNCFS(folder) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(folder)

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        for name in _sorted_names(self.root / folder):
            key = folder + name
            if key.endswith("/"):
                may_match = key.startswith(prefix) or prefix.startswith(key)
                # `after` may be inside this folder, so skip it only when all of its keys sort before `after`.
                if may_match and (key > after or after.startswith(key)):
                    yield from self._walk(key, prefix, after)
            elif key.startswith(prefix) and key > after:
                yield key

    def _remove_stale(self) -> None:
        """Remove temporary files that a killed process left a day ago."""
        limit = time.time() - STALE_S
        with os.scandir(self._temporary) as entries:
            for entry in entries:
                if OWN_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # its owner, or another starting process, was faster
                        if entry.stat(follow_symlinks=False).st_mtime < limit:
                            os.unlink(entry)

    @contextmanager
    def _explained(self, *but: type[OSError]) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except OSError as error:
            raise _explain(error, self.root) from error


def _sorted_names(folder: Path) -> list[str]:
    """Names in `folder`, those of folders with a slash at the end, because that is how their keys sort."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name != TEMPORARY + "/")


_SYNCFS = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def _explain(error: OSError, root: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        existing = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        return StoreFull(
            f"the store {root} is full ({free:,} bytes free); free some space or move the store, then resume the job"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return StoreUnwritable(
            f"the store {root} cannot be written ({error.strerror}); make it a writable folder "
            "or name another one with --store or KEEPMORE_STORE, then start or resume the job"
        )
    return StoreError(f"the store {root} failed: {error}")
