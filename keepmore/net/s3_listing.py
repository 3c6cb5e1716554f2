"""Names in ascending order from a server that walks folders: pure, and in flat memory.

S3 promises names in the order of their bytes, where `a-b` and `a.b` stand before `a/c`. Servers over a file system
(SeaweedFS) walk the tree instead and list the folder `a` with all that it holds before its sibling `a-b`. Sorting one
batch at a time mends that, except where a batch ends inside a folder or among such siblings of one: these few siblings
are then asked for before their turn.
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
    """The server lists names in no order that can be mended in passing."""


T = TypeVar("T", bound=Named)

# Names that start with the first argument and lie behind the second, in the order of bytes or of a walk.
Listing = Callable[[str, str], Iterator[T]]

by_key = attrgetter("key")


def ascending(listing: Listing[T], prefix: str, after: str = "", batch: int = BATCH) -> Iterator[T]:
    """What `listing` gives for `prefix`, in ascending order of names behind `after`. Raises OutOfOrder."""
    if after <= prefix:
        return _ascending(listing, prefix, "", after, "", batch)
    if not after.startswith(prefix):
        return iter(())
    return _ascending(listing, prefix, _start(prefix, after), after, "", batch)


def _ascending(listing: Listing[T], prefix: str, start: str, after: str, until: str, size: int) -> Iterator[T]:
    last = after
    # Folders whose out-of-turn siblings have been given.
    done: set[str] = set()
    found = listing(prefix, start)
    while batch := list(islice(found, size)):
        end = batch[-1].key
        batch.sort(key=by_key)
        early: list[Iterator[T]] = []
        if len(batch) == size:
            for folder in _unfinished(end, len(prefix), batch):
                if folder not in done:
                    done.add(folder)
                    behind = f"{folder}/{LAST_CHARACTER}"
                    early.append(_ascending(listing, folder, behind, folder, folder + "/", size))
        for item in merge(batch, *early, key=by_key):
            if item.key > last:
                if until and item.key >= until:
                    return
                yield item
                last = item.key
            elif item.key > after and not any(folder < item.key < folder + "/" for folder in done):
                raise OutOfOrder(f"{item.key!r} is listed behind {last!r}")
        done = {folder for folder in done if end.startswith(folder)}


def _unfinished(end: str, least: int, batch: list[T]) -> Iterator[str]:
    """Folders with names in `batch` that may still get siblings which sort before them, given where the walk stands."""
    for place in range(least, len(end)):
        folder = end[:place]
        if end[place] <= "/" and any(item.key.startswith(folder + "/") for item in batch):
            yield folder


def _start(prefix: str, after: str) -> str:
    """A name that a walk reaches before every name which sorts behind `after`; as late as can be told.

    With `after` "p/a.b" that is just before the folder "p/a": a walk is through with it before it comes to "p/a.b".
    """
    after = after.rstrip("/")
    cuts = (i for i in range(max(len(prefix), 1), len(after)) if after[i] < "/" and after[i - 1] != "/")
    place = next(cuts, len(after))
    if place <= len(prefix):
        return ""
    before = ord(after[place - 1]) - 1
    return after[: place - 1] + chr(0xD7FF if 0xD800 <= before <= 0xDFFF else before)
