"""What a source URI names: a whole file, or an image inside an archive."""

from __future__ import annotations

import re
from dataclasses import dataclass

PART = re.compile(r"(.*)#offset=([0-9]{1,19})&length=([0-9]{1,19})&path=[^#&]*", re.DOTALL)
ROW = re.compile(r"(.*)#row=([0-9]{1,19})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """`uri` of a file; within it either `length` bytes from `offset`, or the image of `row`."""

    uri: str
    offset: int | None = None
    length: int = 0
    row: int | None = None


def member_of(uri: str) -> Member:
    """Only the very end of a URI is ours, and only after an archive: "#" may be anywhere in an object's key."""
    part, row = PART.fullmatch(uri), ROW.fullmatch(uri)
    if part and _is_archive(part[1], ".tar"):
        return Member(part[1], int(part[2]), int(part[3]))
    if row and _is_archive(row[1], ".parquet"):
        return Member(row[1], row=int(row[2]))
    return Member(uri)


def _is_archive(uri: str, suffix: str) -> bool:
    # What follows a "?" may be the signature of a URL.
    return uri.endswith(suffix) or (uri.startswith(("http://", "https://")) and suffix in uri)
