"""The file of a model's weights, from wherever it is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.file import SourceFile
from keepmore.datasets.filesystem import Sources
from keepmore.errors import DatasetError, ImageError, KeepmoreError, SourceTooLarge, UnreadableImage, WeightsUnavailable
from keepmore.net.access import Access
from keepmore.net.failure import RemoteFailure, image_error
from keepmore.storage.scratch import Scratch

LARGEST_BYTES = 20_000_000_000


@contextmanager
def weights_file(uri: str, access: Access, scratch: Scratch) -> Iterator[Path]:
    """The file that `training.weights` names, within the block: a path of this machine, or downloaded to scratch, where
    it stays until the one at its address changes. Raises WeightsUnavailable, and StoreFull of the scratch disk.
    """
    if "://" not in uri:
        yield Path(uri)
        return
    name = uri.rsplit("/", 1)[1]
    if not Path(name).suffix:  # it decides how the file is read
        raise WeightsUnavailable(
            f"{uri} names no file; give one such as model.safetensors or model.pt", field="training.weights"
        )
    with ExitStack() as stack:
        yield _download(uri, name, access, scratch, stack)


def _download(uri: str, name: str, access: Access, scratch: Scratch, stack: ExitStack) -> Path:
    try:
        with Sources(access) as sources, _open(sources, absolute_uri(uri)) as source:
            if source.path:
                return Path(source.path)
            if source.size > LARGEST_BYTES:
                raise SourceTooLarge(f"{source.size:,} bytes is over the limit of {LARGEST_BYTES:,}")

            def write(folder: Path) -> None:
                if source.size != UNKNOWN and not scratch.make_room(source.size, folder):
                    raise scratch.full()
                _copy(source, folder / name)

            if source.version:
                digest = hashlib.sha256(f"{uri} {source.size} {source.version}".encode()).hexdigest()[:16]
                return stack.enter_context(scratch.entry(f"weights-{digest}", write)) / name
            folder = stack.enter_context(scratch.temporary("weights-"))
            write(folder)
            return folder / name
    except RemoteFailure as failure:
        raise _unavailable(uri, image_error(uri, failure, is_listed=False)) from failure
    except (DatasetError, ImageError) as error:
        raise _unavailable(uri, error) from error


def _open(sources: Sources, uri: str) -> SourceFile:
    try:
        return sources.open(uri)
    except OSError as error:
        raise UnreadableImage(f"{uri}: {error.strerror}") from error


def _copy(source: SourceFile, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source.file, file)
        size = file.tell()
    if source.size not in (UNKNOWN, size):
        raise UnreadableImage(f"{source.uri} has {source.size:,} bytes and ended after {size:,}")


def _unavailable(uri: str, error: KeepmoreError) -> WeightsUnavailable:
    return WeightsUnavailable(f"{uri} cannot be read ({error.message}); check the name", field="training.weights")
