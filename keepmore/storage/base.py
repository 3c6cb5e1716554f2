"""Bytes under keys: the protocol that every store implements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from keepmore.errors import StoreError

TEMPORARY = ".tmp"


class Store(Protocol):
    """Bytes under keys. What a call wrote is durable before anything written after it becomes visible."""

    def get(self, key: str) -> bytes:
        """The bytes under `key`; raises NotFound."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write `data` under `key`, atomically: a reader sees the old bytes or the new ones, never a mixture."""
        ...

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """`put` each of `objects`; any of them may be visible before the others, none before it is durable."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write only if `key` is absent, atomically; returns whether it wrote."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove `key`; does nothing if it is absent."""
        ...

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and sort after `after`, in ascending order, streamed."""
        ...

    def keys_in(self, folder: str) -> frozenset[str]:
        """The keys below `folder`, all at once, so they should be few."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable reader, for formats that read parts of the object; raises NotFound."""
        ...

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        """A file to write a large object into; it appears under `key` when the block ends without an exception."""
        ...

    def uri(self, key: str) -> str:
        """The address under which others can read `key`."""
        ...


def check_key(key: str) -> None:
    if not is_key(key):
        raise StoreError(f"{key!r} is not a store key: keys are relative paths without empty or dot parts")


def is_key(key: str) -> bool:
    parts = key.split("/")
    return not any(part in ("", ".", "..") for part in parts) and parts[0] != TEMPORARY and "\0" not in key
