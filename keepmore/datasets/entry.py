"""One dataset entry, what counts as an image, and the count of what does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from posixpath import splitext
from urllib.parse import quote, urlencode

UNKNOWN = -1

# Every kind of picture that a dataset may hold, whether the codec can read it or not: one that it cannot read becomes
# a row in the errors list, while a file that is not a picture is only counted.
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".jxl", ".avif", ".avifs", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c",
    ".jpc", ".jpx", ".tga", ".ico", ".icns", ".cur", ".psd", ".dds", ".sgi", ".rgb", ".blp", ".eps", ".fli",
    ".flc", ".pcx", ".im", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a dataset as listed; its bytes have not been read yet.

    `path` is its name within the dataset, `uri` the address of its bytes, `size` in bytes, UNKNOWN where a listing
    does not say. `version` is that of the file which holds it ("mtime:<ns>", "etag:<etag>"), or None: offsets in a
    rewritten archive point at other bytes.
    """

    path: str
    uri: str
    label: str | None
    size: int = UNKNOWN
    version: str | None = None

    def __post_init__(self) -> None:
        if self.label == "":
            object.__setattr__(self, "label", None)


class Skipped(Counter[str]):
    """How many entries of a dataset are not listed as images, by reason."""

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.items())) or "nothing"


def is_image(name: str) -> bool:
    return splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    return name.startswith(".")


def first_folder(path: str) -> str | None:
    """The label in a folder tree: the first folder below the root; None directly in the root."""
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def file_uri(path: str) -> str:
    """`path` as a file:// URI that keeps every byte of the name."""
    return "file://" + quote(path.encode("utf-8", "surrogateescape"))


def part_uri(uri: str, fragment: dict[str, object]) -> str:
    """The URI of an image inside the archive at `uri`."""
    return uri + "#" + urlencode(fragment, safe="/", quote_via=quote)


def printable(name: str) -> str:
    """A name as text that every format can store: bytes that are not UTF-8 become backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
