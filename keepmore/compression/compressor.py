"""One compress step: chunk rows -> read, check limits, decode once -> encode per distance -> objects -> rows."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
from PIL import Image

from keepmore.codec import header, jpegxl, malloc
from keepmore.codec import version as codec_version
from keepmore.codec.jpegxl import Pixels
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.index import ChunkRow, IndexRow, StoredImage
from keepmore.datasets.reader import SourceReader
from keepmore.errors import DatasetError, ImageError, InvalidRequest, Stopping, StoreError
from keepmore.net.access import Access
from keepmore.prefetch import ahead
from keepmore.progress import Progress, Report
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import LARGEST_PIXELS, Limits
from keepmore.storage import layout
from keepmore.storage.base import Store

# A bit-exact transcode takes 0.66 to 0.88 of a JPEG, 0.85 on average: below that, it is not worth trying.
TRANSCODE_FROM = 0.85
# Written at once: with smaller batches, writers and encoder alternate more often, 5 % of the rate at 512 pixels.
FLUSH_BYTES = 2_000_000
# Images that are read and looked up in the store while one is encoded: over a network, either takes as long as encoding
# a small image (decision 24). Larger images are not read ahead, because encoding them needs the memory.
IMAGES_AHEAD = 2
AHEAD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """How an image is kept at a distance: `encoding` is "original", "lossless" or "lossy"."""

    encoding: str
    data: bytes

    def stored_at(self, distance: float) -> StoredImage:
        encoder_distance = jpegxl.encoder_distance(distance) if self.encoding == "lossy" else None
        return StoredImage(len(self.data), self.encoding, hashlib.sha256(self.data).hexdigest(), encoder_distance)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An image's bytes, and the keys of its stored encodings."""

    source: bytes
    sha256: str
    stored_keys: frozenset[str]


@dataclass(slots=True)
class Compressor:
    """Compresses chunks into `store`. `isolate` decodes every image in a separate process, not only risky kinds."""

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
    _write: Future[None] | None = None

    def chunk(self, rows: Sequence[ChunkRow], report: Report) -> pa.Table:
        """The part for a chunk: one row per image, shape (len(rows),); its objects are in the store on return.

        Raises DatasetError and StoreError; whatever else is wrong with an image becomes its row's error.
        """
        done: list[IndexRow] = []
        with (
            SourceReader(self.limits.max_bytes, self.access) as reader,
            ThreadPoolExecutor(1) as reads,
            ThreadPoolExecutor(1) as lookups,
            ThreadPoolExecutor(1) as self._writer,
        ):

            def fetch(row: ChunkRow) -> Future[_Fetched]:
                source = reads.submit(reader.read, row.entry.uri, row.entry.size, row.entry.version)
                return lookups.submit(self._look_up, source)

            for row, fetched in ahead(rows, fetch, IMAGES_AHEAD, lambda row: 0 <= row.entry.size <= AHEAD_BYTES):
                index_row = self._index_row(row, fetched)
                done.append(index_row)
                try:
                    failed, bytes_in = int(index_row.error is not None), index_row.source_bytes or 0
                    report(Progress(1, failed, bytes_in, index_row.encoded_bytes, self._encode_s))
                except Stopping:  # the next worker finds every finished image
                    self._flush()
                    self._wait()
                    raise
            self._flush()
            self._wait()
        return index.part(done, self.distances)

    def _look_up(self, source: Future[bytes]) -> _Fetched:
        """An image and the keys of its stored encodings, by one listing instead of a request per distance."""
        data = source.result()
        sha256 = hashlib.sha256(data).hexdigest()
        return _Fetched(data, sha256, self.store.keys_in(layout.objects_of(sha256)))

    def _index_row(self, row: ChunkRow, fetched: Future[_Fetched]) -> IndexRow:
        self._encode_s = 0.0
        source_bytes = None
        try:
            image = fetched.result()
            source_bytes = len(image.source)
            distances = self.distances if row.split == index.POOL else (ORIGINAL,)
            (width, height), stored = self._compress(image, distances)
        except (DatasetError, StoreError):
            raise
        except (ImageError, InvalidRequest) as error:
            return IndexRow(row, source_bytes, error_code=error.code, error=error.message)
        except Exception as error:  # noqa: BLE001 one image never fails a job: what it raised is in its row
            text = "".join(traceback.format_exception(error, limit=-3))
            return IndexRow(row, source_bytes, error_code="unexpected", error=text)
        return IndexRow(row, source_bytes, image.sha256, width, height, stored)

    def _compress(
        self, image: _Fetched, distances: Sequence[float]
    ) -> tuple[tuple[int, int], dict[float, StoredImage]]:
        """The image's width and height in pixels, and how it is stored at each of `distances`."""
        encoded = {d: lossy for d in distances if d != ORIGINAL and (lossy := self._find_lossy(image, d))}
        missing = [d for d in distances if d != ORIGINAL and d not in encoded]
        if encoded and not missing:
            size = header.size(next(iter(encoded.values())).data)
            jpegxl.check_pixels(size, self.limits.max_pixels)
        else:
            pixels = self._pixels(image.source)
            size = pixels.width, pixels.height
            start_s = time.perf_counter()
            encoded |= dict(encodings(pixels, image.source, missing, self.effort))
            self._encode_s = time.perf_counter() - start_s
            for distance in missing:
                self._keep(image, distance, encoded[distance])
        original = StoredImage(len(image.source), "original", image.sha256, None)
        return size, {d: original if d == ORIGINAL else encoded[d].stored_at(d) for d in distances}

    def _pixels(self, source: bytes) -> Pixels:
        """Only the pixels: a decoded image of 12 megapixels would take another 36 MB."""
        trusted = jpegxl.reads_safely(source) and not self.isolate
        image = (jpegxl.decode if trusted else self.decoder.decode)(source, self.limits.max_pixels)
        malloc.suit_image(image.width * image.height)
        return Pixels.of(image)

    def _key(self, sha256: str, encoding: str, distance: float) -> str:
        return layout.object(sha256, encoding, distance, self.effort, codec_version.codec())

    def _find_lossy(self, image: _Fetched, distance: float) -> EncodedImage | None:
        """A lossy encoding that an earlier job stored, if it is undamaged.

        The other kinds are not looked for: whether they are right depends on a lossy one that was not kept.
        """
        key = self._key(image.sha256, "lossy", distance)
        if key not in image.stored_keys:
            return None
        data = self.store.get(key)
        try:
            jpegxl.decode(data, LARGEST_PIXELS)
        except ImageError:
            return None  # damaged in the store: it is encoded and written again
        return EncodedImage("lossy", data)

    def _keep(self, image: _Fetched, distance: float, encoded: EncodedImage) -> None:
        key = self._key(image.sha256, encoded.encoding, distance)
        if key not in image.stored_keys or self.store.get(key) != encoded.data:
            self._pending[key] = encoded.data
        if sum(map(len, self._pending.values())) >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what is pending while the next images are encoded; one batch at a time."""
        self._wait()
        if self._pending and self._writer:
            self._write = self._writer.submit(self.store.put_all, self._pending)
        self._pending = {}

    def _wait(self) -> None:
        """Wait for the current write; raises what it raised."""
        write, self._write = self._write, None
        if write:
            write.result()


def encodings(
    image: Image.Image | Pixels, source: bytes, distances: Sequence[float], effort: int
) -> Iterator[tuple[float, EncodedImage]]:
    """The best way to keep `image`, decoded from `source`, at each of `distances` (none of them 0).

    What is kept at a distance depends on that distance alone, not on the other ones requested: objects are shared.
    """
    transcoded = cache(lambda: jpegxl.transcode(source) if jpegxl.is_jpeg(source) else None)
    for distance in distances:
        lossy = jpegxl.encode(image, distance, effort)
        worth_trying = len(lossy) > TRANSCODE_FROM * len(source)
        yield distance, smallest(source, lossy, transcoded() if worth_trying else None)


def smallest(source: bytes, lossy: bytes, lossless: bytes | None) -> EncodedImage:
    """The fewest bytes of the three; of equals the truest, so that no encoding larger than the source is ever kept."""
    options = [EncodedImage("original", source), EncodedImage("lossy", lossy)]
    if lossless is not None:
        options.insert(1, EncodedImage("lossless", lossless))
    return min(options, key=lambda encoded: len(encoded.data))
