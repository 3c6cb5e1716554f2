"""A folder tree as a dataset: the first folder below the root is the label."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from keepmore.datasets.entry import Entry, Skipped, file_uri, first_folder, is_hidden, is_image, printable
from keepmore.errors import DatasetUnreadable


def list_folder(root: Path, skipped: Skipped) -> Iterator[Entry]:
    """Images below `root` by ascending path. Holds the names of one folder at a time."""
    real_root = os.path.realpath(root)
    try:
        yield from _walk(real_root, "", real_root, skipped)
    except OSError as error:
        raise DatasetUnreadable(
            f"dataset {root}: {error.filename or root} cannot be listed ({error.strerror}); "
            "grant permission to read it, or move it out of the dataset"
        ) from error


def _walk(folder: str, inside: str, root: str, skipped: Skipped) -> Iterator[Entry]:
    for name in _sorted_names(folder, skipped):
        full = os.path.join(folder, name)
        if name.endswith("/"):
            yield from _walk(full, inside + name, root, skipped)
            continue
        state = _state_of_image(full, root, skipped)
        if state:
            path = printable(inside + name)
            yield Entry(path, file_uri(full), first_folder(path), state.st_size)


def _sorted_names(folder: str, skipped: Skipped) -> list[str]:
    """Names of images, and of folders with a slash at the end, because that is how their paths sort."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                skipped["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")
            elif entry.is_dir():
                skipped["link to a folder"] += 1
            elif is_image(entry.name):
                names.append(entry.name)
            else:
                skipped["not an image"] += 1
    names.sort(key=printable)
    return names


def _state_of_image(full: str, root: str, skipped: Skipped) -> os.stat_result | None:
    state = os.lstat(full)
    if stat.S_ISLNK(state.st_mode):
        target = os.path.realpath(full)
        if not target.startswith(root + os.sep):
            skipped["link that leaves the dataset"] += 1
            return None
        if not os.path.exists(target):
            skipped["broken link"] += 1
            return None
        state = os.stat(target)
    if not stat.S_ISREG(state.st_mode):
        skipped["not a regular file"] += 1
        return None
    return state
