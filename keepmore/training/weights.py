"""The file that the weights of a model are in, wherever it is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keepmore.datasets.entry import UNKNOWN
from keepmore.datasets.file import SourceFile
from keepmore.datasets.filesystem import Sources
from keepmore.datasets.listing import absolute_uri
from keepmore.errors import DatasetError, ImageError, KeepmoreError, SourceTooLarge, UnreadableImage, WeightsUnavailable
from keepmore.net.access import Access
from keepmore.net.failure import RemoteFailure, image_error
from keepmore.storage.scratch import Scratch

LARGEST_BYTES = 20_000_000_000


@contextmanager
def weights_file(uri: str, access: Access, scratch: Scratch) -> Iterator[Path]:
    """The file that `training.weights` names, for as long as this lasts: a path of this machine, or fetched to scratch,
    where it stays until it is another one at its address. Raises WeightsUnavailable, and StoreFull of the scratch disk.
    """
    if "://" not in uri:
        yield Path(uri)
        return
    name = uri.rsplit("/", 1)[1]
    if not Path(name).suffix:  # tells how to read it
        raise WeightsUnavailable(
            f"training.weights: {uri} names no file; give one such as model.safetensors or model.pt"
        )
    with ExitStack() as held:
        yield _fetched(uri, name, access, scratch, held)


def _fetched(uri: str, name: str, access: Access, scratch: Scratch, held: ExitStack) -> Path:
    try:
        with Sources(access) as sources, _opened(sources, absolute_uri(uri)) as opened:
            if opened.path:
                return Path(opened.path)
            if opened.size > LARGEST_BYTES:
                raise SourceTooLarge(f"{opened.size:,} bytes is over the limit of {LARGEST_BYTES:,}")

            def write(folder: Path) -> None:
                if opened.size != UNKNOWN and not scratch.make_room(opened.size, folder):
                    raise scratch.full()
                _copy(opened, folder / name)

            if opened.version:
                said = hashlib.sha256(f"{uri} {opened.size} {opened.version}".encode()).hexdigest()[:16]
                return held.enter_context(scratch.entry(f"weights-{said}", write)) / name
            folder = held.enter_context(scratch.temporary("weights-"))
            write(folder)
            return folder / name
    except RemoteFailure as failure:
        raise _unavailable(uri, image_error(uri, failure, listed=False)) from failure
    except (DatasetError, ImageError) as error:
        raise _unavailable(uri, error) from error


def _opened(sources: Sources, uri: str) -> SourceFile:
    try:
        return sources.open(uri)
    except OSError as error:
        raise UnreadableImage(f"{uri}: {error.strerror}") from error


def _copy(source: SourceFile, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source.file, file)
        written = file.tell()
    if source.size not in (UNKNOWN, written):
        raise UnreadableImage(f"{source.uri} has {source.size:,} bytes and ended after {written:,}")


def _unavailable(uri: str, error: KeepmoreError) -> WeightsUnavailable:
    return WeightsUnavailable(f"training.weights: {uri} cannot be read ({error.message}); check the name")
