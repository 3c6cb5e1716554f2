"""A tar as a dataset: a plain tree, or WebDataset samples (`key.jpg` beside `key.cls` or `key.json`)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from keepmore.datasets.entry import Entry, Skipped, first_folder, is_hidden, is_image, part_uri, printable
from keepmore.datasets.file import SourceFile
from keepmore.errors import DuplicateImage, InvalidTable, UnsupportedDataset

LABEL_SUFFIXES = (".cls", ".json")
LABEL_BYTES = 1 << 20

ZERO_BLOCK = bytes(tarfile.BLOCKSIZE)


@dataclass(slots=True)
class _Contents:
    """The members of a tar: images as offset and size by name, hard links to them, and label files by sample key."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tarfile.TarInfo] = field(default_factory=dict)


def list_tar(source: SourceFile, skipped: Skipped) -> Iterator[Entry]:
    """Images of the tar by ascending path; each URI contains the offset of its bytes, so reading one is one seek.

    The label is that of WebDataset where the sample has one, else the first folder. Raises UnsupportedDataset for a
    file that is not a complete, uncompressed tar, DuplicateImage for a name that occurs twice.
    """
    source.check_seekable()
    try:
        with tarfile.open(fileobj=source.file, mode="r:") as archive:
            contents = _scan(source.name, archive, skipped)
            # tarfile takes a damaged header for the end of the archive; a real end is zeros, or the end of the file.
            source.file.seek(archive.offset)
            if source.file.read(tarfile.BLOCKSIZE) not in (b"", ZERO_BLOCK):
                raise UnsupportedDataset(
                    f"dataset {source.name}: the tar is damaged at byte {archive.offset:,}; fetch or write it again"
                )
            labels = _labels(archive, contents, skipped)
    except (tarfile.TarError, EOFError) as error:
        raise UnsupportedDataset(
            f"dataset {source.name}: not an uncompressed tar ({error}); unpack or rewrite it"
        ) from error
    for name in sorted(contents.images):
        offset, size = contents.images[name]
        label = labels.get(_sample_key(name)) or first_folder(name)
        uri = part_uri(source.uri, {"offset": offset, "length": size, "path": name})
        yield Entry(name, uri, label, size, source.version)


def _scan(title: str, archive: tarfile.TarFile, skipped: Skipped) -> _Contents:
    contents = _Contents()
    for member in archive:
        # tarfile remembers every member it has seen; a million of them take a gigabyte.
        archive.members = []  # type: ignore[attr-defined]
        if member.isdir():
            continue
        name = _plain(member.name)
        reason = _why_not(member, name)
        if reason:
            skipped[reason] += 1
        elif name.endswith(LABEL_SUFFIXES):
            contents.labels[_sample_key(name)] = member
        elif name in contents.images or name in contents.links:
            raise DuplicateImage(f"dataset {title}: {name} occurs twice; every image needs a name of its own")
        elif member.islnk():
            contents.links[name] = _plain(member.linkname)
        else:
            contents.images[name] = (member.offset_data, member.size)
    for name, target in contents.links.items():
        if target in contents.images:
            contents.images[name] = contents.images[target]
        else:
            skipped["link to no image"] += 1
    return contents


def _plain(name: str) -> str:
    return printable(name).removeprefix("./")


def _why_not(member: tarfile.TarInfo, name: str) -> str | None:
    pure = PurePosixPath(name)
    if not (member.isreg() or member.islnk()) or member.issparse():
        return "not a regular file"
    if pure.is_absolute() or ".." in pure.parts:
        return "name that leaves the dataset"
    if any(is_hidden(part) for part in pure.parts):
        return "hidden"
    if not (is_image(name) or name.endswith(LABEL_SUFFIXES)):
        return "not an image"
    return None


def _labels(archive: tarfile.TarFile, contents: _Contents, skipped: Skipped) -> dict[str, str | None]:
    """Labels by sample key, of the label files that belong to an image."""
    samples = {_sample_key(name) for name in contents.images}
    if lonely := len(contents.labels.keys() - samples):
        skipped["label without an image"] += lonely
    return {key: _label(archive, member) for key, member in contents.labels.items() if key in samples}


def _sample_key(name: str) -> str:
    """WebDataset's key: the path up to the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    file = archive.extractfile(member)
    if file is None or member.size > LABEL_BYTES:
        raise InvalidTable(f"{member.name}: a label file may hold at most {LABEL_BYTES:,} bytes, not {member.size:,}")
    try:
        text = file.read().decode("utf-8").strip()
        label = json.loads(text) if member.name.endswith(".json") else text
    except ValueError as error:
        raise InvalidTable(f"{member.name}: not readable as a label ({error}); fix or remove it") from error
    if isinstance(label, dict):
        label = label.get("label", label.get("cls"))
    return None if label is None or label == "" else str(label)
