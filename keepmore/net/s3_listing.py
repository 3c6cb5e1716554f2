"""Names in ascending order from a server that walks folders: pure, and in flat memory.

S3 promises names in the order of their bytes, where `a-b` and `a.b` come before `a/c`. Servers over a file system
(SeaweedFS) walk the tree instead and list the folder `a` with everything in it before its sibling `a-b`. Sorting one
batch at a time fixes that, except where a batch ends inside a folder or among such siblings of a folder: these few
siblings are then requested early (decisions 10 and 24).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Protocol, TypeVar

BATCH = 1000
LAST_CHARACTER = "\U0010ffff"


class Named(Protocol):
    @property
    def key(self) -> str: ...


class OutOfOrder(Exception):
    """The server lists names in an order that cannot be fixed while streaming."""


T = TypeVar("T", bound=Named)

# Names that start with the first argument and come after the second, in the order of bytes or of a walk.
Listing = Callable[[str, str], Iterator[T]]

by_key = attrgetter("key")


def ascending(listing: Listing[T], prefix: str, after: str = "", batch: int = BATCH) -> Iterator[T]:
    """What `listing` yields for `prefix`, in ascending order of names after `after`. Raises OutOfOrder."""
    if after <= prefix:
        return _ascending(listing, prefix, "", after, "", batch)
    if not after.startswith(prefix):
        return iter(())
    return _ascending(listing, prefix, _start(prefix, after), after, "", batch)


def _ascending(listing: Listing[T], prefix: str, start: str, after: str, until: str, size: int) -> Iterator[T]:
    last = after
    # Folders whose siblings were requested early.
    done: set[str] = set()
    items = listing(prefix, start)
    while batch := list(islice(items, size)):
        end = batch[-1].key
        batch.sort(key=by_key)
        early: list[Iterator[T]] = []
        if len(batch) == size:
            for folder in _unfinished(end, len(prefix), batch):
                if folder not in done:
                    done.add(folder)
                    end_of_folder = f"{folder}/{LAST_CHARACTER}"
                    early.append(_ascending(listing, folder, end_of_folder, folder, folder + "/", size))
        for item in merge(batch, *early, key=by_key):
            if item.key > last:
                if until and item.key >= until:
                    return
                yield item
                last = item.key
            elif item.key > after and not any(folder < item.key < folder + "/" for folder in done):
                raise OutOfOrder(f"{item.key!r} is listed after {last!r}")
        done = {folder for folder in done if end.startswith(folder)}


def _unfinished(end: str, prefix_length: int, batch: list[T]) -> Iterator[str]:
    """Folders with names in `batch` of which siblings that sort before them may follow, as the walk is at `end`."""
    for position in range(prefix_length, len(end)):
        folder = end[:position]
        if end[position] <= "/" and any(item.key.startswith(folder + "/") for item in batch):
            yield folder


def _start(prefix: str, after: str) -> str:
    """The latest name that a walk surely reaches before every name which sorts after `after`.

    With `after` "p/a.b" that is just before the folder "p/a": a walk has left it before it comes to "p/a.b".
    """
    after = after.rstrip("/")
    cuts = (i for i in range(max(len(prefix), 1), len(after)) if after[i] < "/" and after[i - 1] != "/")
    position = next(cuts, len(after))
    if position <= len(prefix):
        return ""
    before = ord(after[position - 1]) - 1
    return after[: position - 1] + chr(0xD7FF if 0xD800 <= before <= 0xDFFF else before)
