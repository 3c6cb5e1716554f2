"""One compress step: chunk rows -> read, check caps, decode once -> one encode a distance -> objects -> rows."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa
from PIL import Image

from keepmore.codec import header, jpegxl, malloc
from keepmore.codec import version as codec_version
from keepmore.codec.jpegxl import Pixels
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.index import Listed
from keepmore.datasets.reader import SourceReader
from keepmore.errors import DatasetError, ImageError, InvalidRequest, Stopping, StoreError
from keepmore.net.access import Access
from keepmore.prefetch import ahead
from keepmore.progress import Progress, Report
from keepmore.sampling import path_hash
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import LARGEST_PIXELS, Limits
from keepmore.storage import layout
from keepmore.storage.base import Store

# A bit-exact transcode takes 0.66 to 0.88 of a JPEG, 0.85 in the mean: below that, trying it is time lost.
TRANSCODE_FROM = 0.85
# Written at once: in smaller batches writers and encoder take turns more often, a twentieth of the rate at 512 pixels.
FLUSH_BYTES = 2_000_000
# Images that are read and looked up in the store while one is encoded: over a network either takes as long as encoding
# a small one. More bytes than that would be missing where a large image is encoded.
IMAGES_AHEAD = 2
AHEAD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Stored:
    """How an image is kept at a distance."""

    encoding: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An image's bytes, and the keys of what is stored of it."""

    source: bytes
    sha256: str
    there: frozenset[str]


@dataclass(slots=True)
class Compressor:
    """Compresses chunks into `store`. `isolate` decodes every image in a process of its own, not only risky kinds."""

    store: Store
    distances: Sequence[float]
    effort: int
    limits: Limits
    decoder: IsolatedDecoder
    access: Access = field(default_factory=Access)
    isolate: bool = False
    _pending: dict[str, bytes] = field(default_factory=dict)
    _encode_s: float = 0.0
    _writer: ThreadPoolExecutor | None = None
    _writing: Future[None] | None = None

    def chunk(self, rows: Sequence[Listed], report: Report) -> pa.Table:
        """The part for a chunk: one row an image, shape (len(rows),); its objects are in the store on return.

        Raises DatasetError and StoreError; whatever else is wrong with an image becomes its row's error.
        """
        done = []
        with (
            SourceReader(self.limits.max_bytes, self.access) as reader,
            ThreadPoolExecutor(1) as reading,
            ThreadPoolExecutor(1) as looking,
            ThreadPoolExecutor(1) as self._writer,
        ):

            def fetch(row: Listed) -> Future[_Fetched]:
                source = reading.submit(reader.read, row.entry.uri, row.entry.size, row.entry.version)
                return looking.submit(self._look, source)

            for row, fetched in ahead(rows, fetch, IMAGES_AHEAD, _is_small):
                self._encode_s = 0.0
                result = self._one(row, fetched)
                done.append(result)
                try:
                    report(_progress(result, self.distances, self._encode_s))
                except Stopping:  # whoever goes on finds every image that is done
                    self._flush()
                    self._wait()
                    raise
            self._flush()
            self._wait()
        return pa.Table.from_pylist(done, index.schema(self.distances))

    def _look(self, read: Future[bytes]) -> _Fetched:
        """What is stored of an image, by one listing and not a question a distance."""
        source = read.result()
        sha256 = hashlib.sha256(source).hexdigest()
        return _Fetched(source, sha256, self.store.keys_in(layout.objects_of(sha256)))

    def _one(self, row: Listed, fetched: Future[_Fetched]) -> dict[str, Any]:
        entry = row.entry
        result: dict[str, Any] = {
            "split": row.split,
            "path": entry.path,
            "path_hash": path_hash(entry.path),
            "source_uri": entry.uri,
            "label": entry.label,
        }
        try:
            image = fetched.result()
            result["source_bytes"] = len(image.source)
            self._encode_into(result, image, self.distances if row.split == index.POOL else (ORIGINAL,))
        except (DatasetError, StoreError):
            raise
        except (ImageError, InvalidRequest) as error:
            result |= {"error_code": error.code, "error": error.message}
        except Exception as error:  # noqa: BLE001 one image never fails a job: what it raised stands in its row
            text = "".join(traceback.format_exception(error, limit=-3))
            result |= {"error_code": "unexpected", "error": text}
        return result

    def _encode_into(self, result: dict[str, Any], image: _Fetched, distances: Sequence[float]) -> None:
        source, sha256, there = image.source, image.sha256, image.there
        known = {d: found for d in distances if d != ORIGINAL and (found := self._known(sha256, d, there))}
        missing = [d for d in distances if d != ORIGINAL and d not in known]
        if known and not missing:
            width, height = header.size(next(iter(known.values())).data)
            jpegxl.check_pixels((width, height), self.limits.max_pixels)
        else:
            pixels = self._pixels(source)
            width, height = pixels.width, pixels.height
            begun = time.perf_counter()
            known |= dict(encodings(pixels, source, missing, self.effort))
            self._encode_s = time.perf_counter() - begun
            for distance in missing:
                self._keep(sha256, distance, known[distance], there)
        result |= {"source_sha256": sha256, "width": width, "height": height}
        for distance in distances:
            if distance == ORIGINAL:
                result |= _columns(distance, "original", len(source), sha256)
            else:
                stored = known[distance]
                result |= _columns(distance, stored.encoding, len(stored.data), stored.sha256)

    def _pixels(self, source: bytes) -> Pixels:
        """The bare pixels alone: a decoded image of 12 megapixels beside them is another 36 MB."""
        image = self._decode(source)
        malloc.suit_image(image.width * image.height)
        return Pixels.of(image)

    def _decode(self, source: bytes) -> Image.Image:
        if jpegxl.reads_safely(source) and not self.isolate:
            return jpegxl.decode(source, self.limits.max_pixels)
        return self.decoder.decode(source, self.limits.max_pixels)

    def _key(self, sha256: str, encoding: str, distance: float) -> str:
        return layout.object(sha256, encoding, distance, self.effort, codec_version.codec())

    def _known(self, sha256: str, distance: float, there: Container[str]) -> Stored | None:
        """A lossy encoding that an earlier job stored, if it is sound.

        The other kinds are not looked for: whether they are right depends on a lossy one that was not kept.
        """
        key = self._key(sha256, "lossy", distance)
        if key not in there:
            return None
        data = self.store.get(key)
        try:
            jpegxl.decode(data, LARGEST_PIXELS)
        except ImageError:
            return None  # damaged in the store: it is encoded and written again
        return Stored("lossy", data)

    def _keep(self, sha256: str, distance: float, stored: Stored, there: Container[str]) -> None:
        key = self._key(sha256, stored.encoding, distance)
        if key not in there or self.store.get(key) != stored.data:
            self._pending[key] = stored.data
        if sum(map(len, self._pending.values())) >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what is pending while the next images are encoded; one batch at a time."""
        self._wait()
        if self._pending and self._writer:
            self._writing = self._writer.submit(self.store.put_all, self._pending)
        self._pending = {}

    def _wait(self) -> None:
        """Until what is being written is there; raises what its writing raised."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()


def _is_small(row: Listed) -> bool:
    return 0 <= row.entry.size <= AHEAD_BYTES


def encodings(
    image: Image.Image | Pixels, source: bytes, distances: Sequence[float], effort: int
) -> Iterator[tuple[float, Stored]]:
    """How `image`, decoded from `source`, is best kept at each of `distances` (none of them 0).

    What is kept at a distance depends on that distance alone, not on which others are asked for: objects are shared.
    """
    transcoded = cache(lambda: jpegxl.transcode(source) if jpegxl.is_jpeg(source) else None)
    for distance in distances:
        lossy = jpegxl.encode(image, distance, effort)
        worth_trying = len(lossy) > TRANSCODE_FROM * len(source)
        yield distance, smallest(source, lossy, transcoded() if worth_trying else None)


def smallest(source: bytes, lossy: bytes, packed: bytes | None) -> Stored:
    """The fewest bytes of the three; of equals the truest, so that nothing larger than the source is ever kept."""
    options = [Stored("original", source), Stored("lossy", lossy)]
    if packed is not None:
        options.insert(1, Stored("lossless", packed))
    return min(options, key=lambda stored: len(stored.data))


def _columns(distance: float, encoding: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        index.column("bytes", distance): size,
        index.column("encoding", distance): encoding,
        index.column("sha256", distance): sha256,
        index.column("encoder_distance", distance): (
            jpegxl.encoder_distance(distance) if encoding == "lossy" else None
        ),
    }


def _progress(result: dict[str, Any], distances: Sequence[float], encode_s: float) -> Progress:
    sizes = [result.get(index.column("bytes", d)) or 0 for d in distances if d != ORIGINAL]
    return Progress(1, int("error" in result), result.get("source_bytes", 0), sum(sizes), encode_s)
