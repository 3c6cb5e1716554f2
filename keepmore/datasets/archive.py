"""A tar as a dataset: a plain tree, or WebDataset samples (`key.jpg` beside `key.cls` or `key.json`)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

from keepmore.datasets.entry import Entry, Skipped, file_uri, first_folder, is_hidden, is_image, printable
from keepmore.errors import DuplicateImage, InvalidTable, UnsupportedDataset

LABEL_SUFFIXES = (".cls", ".json")
LABEL_BYTES = 1 << 20

_Found = tuple[str, int, int]  # path, offset of the data, size


def list_tar(path: Path, skipped: Skipped) -> Iterator[Entry]:
    """Images of the tar by ascending path; each URI holds the offset of its bytes, so reading one is one seek.

    Raises UnsupportedDataset for a file that is no uncompressed tar, DuplicateImage for a name that stands twice.
    """
    labels: dict[str, str | None] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            images = _scan(archive, labels, skipped)
    except (tarfile.TarError, EOFError) as error:
        raise UnsupportedDataset(f"dataset {path}: not an uncompressed tar ({error}); unpack or rewrite it") from error
    images.sort()
    _refuse_duplicates(path, images)
    mtime_ns = path.stat().st_mtime_ns
    full = str(path.resolve())
    for name, offset, size in images:
        label = labels.get(_sample_key(name)) if labels else first_folder(name)
        yield Entry(name, file_uri(full, {"offset": offset, "length": size, "path": name}), label, size, mtime_ns)


def _scan(archive: tarfile.TarFile, labels: dict[str, str | None], skipped: Skipped) -> list[_Found]:
    images = []
    for member in archive:
        # tarfile remembers every member it has seen; a million of them take a gigabyte.
        archive.members = []  # type: ignore[attr-defined]
        if member.isdir():
            continue
        name = printable(member.name).removeprefix("./")
        reason = _why_not(member, name)
        if reason:
            skipped[reason] += 1
        elif name.endswith(LABEL_SUFFIXES):
            labels[_sample_key(name)] = _label(archive, member)
        else:
            images.append((name, member.offset_data, member.size))
    return images


def _why_not(member: tarfile.TarInfo, name: str) -> str | None:
    pure = PurePosixPath(name)
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if pure.is_absolute() or ".." in pure.parts:
        return "name that leaves the dataset"
    if any(is_hidden(part) for part in pure.parts):
        return "hidden"
    if not (is_image(name) or name.endswith(LABEL_SUFFIXES)):
        return "not an image"
    return None


def _sample_key(name: str) -> str:
    """WebDataset's key: the path up to the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    file = archive.extractfile(member)
    if file is None or member.size > LABEL_BYTES:
        raise InvalidTable(f"{member.name}: a label file may hold at most {LABEL_BYTES:,} bytes, not {member.size:,}")
    try:
        written = file.read().decode("utf-8").strip()
        found = json.loads(written) if member.name.endswith(".json") else written
    except ValueError as error:
        raise InvalidTable(f"{member.name}: not readable as a label ({error}); mend or remove it") from error
    if isinstance(found, dict):
        found = found.get("label", found.get("cls"))
    return None if found is None or found == "" else str(found)


def _refuse_duplicates(path: Path, images: list[_Found]) -> None:
    for before, behind in pairwise(images):
        if before[0] == behind[0]:
            raise DuplicateImage(f"dataset {path}: {before[0]} is there twice; every image needs a name of its own")
