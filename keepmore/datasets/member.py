"""What a source URI names: a whole file, or an image inside an archive."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEMBER = re.compile(r"(.*)#offset=([0-9]{1,19})&length=([0-9]{1,19})&path=[^#&]*", re.DOTALL)
ROW = re.compile(r"(.*)#row=([0-9]{1,19})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """`uri` of a file; within it either `length` bytes from `offset`, or the image of `row`."""

    uri: str
    offset: int | None = None
    length: int = 0
    row: int | None = None


def place_of(uri: str) -> Place:
    """Only the very end of a URI is ours, and only behind an archive: "#" may stand anywhere in an object's key."""
    member, row = MEMBER.fullmatch(uri), ROW.fullmatch(uri)
    if member and _is_archive(member[1], ".tar"):
        return Place(member[1], int(member[2]), int(member[3]))
    if row and _is_archive(row[1], ".parquet"):
        return Place(row[1], row=int(row[2]))
    return Place(uri)


def _is_archive(uri: str, suffix: str) -> bool:
    # What is behind a "?" may be the signature of a URL.
    return uri.endswith(suffix) or (uri.startswith(("http://", "https://")) and suffix in uri)
