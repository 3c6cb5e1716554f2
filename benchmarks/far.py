"""Images per second of one process whose dataset and store are 20 ms away, in turn: a compress step, and a loop that
gets an image, encodes it at each distance and puts the encodings, with the same client and encoder.

`python -m benchmarks.far`. Needs what the tests need.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.images import draw_images
from benchmarks.table import ratios, show
from keepmore.codec import jpegxl
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import POOL, ChunkRow
from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.net.access import Access
from keepmore.net.s3 import Bucket
from keepmore.spec.job import LARGEST_PIXELS, Limits
from keepmore.storage.s3 import S3Store
from tests.proxy import proxy_for
from tests.servers import seaweed

DISTANCES = (2.0, 4.0, 6.0, 8.0, 10.0)
EFFORT = 3
SIDE, IMAGES = 512, 64
DELAY_S = 0.02
ROUNDS = 3
LOOP, STEP = "get, encode, put in a loop", "keepmore compress step"


def measure(root: Path) -> None:
    files = sorted(draw_images(root, SIDE, IMAGES, processes=2).rglob("*.jpg"))
    rates: dict[str, list[float]] = {LOOP: [], STEP: []}
    with seaweed(root) as server, proxy_for(server.url) as proxy:
        endpoint = replace(server.endpoint, url=proxy.url)
        bucket, access = Bucket(endpoint, server.bucket), Access((endpoint,))
        for file in files:
            bucket.put(f"photos/a/{file.parent.name}-{file.name}", file.read_bytes())
        entries = list(list_images(f"s3://{server.bucket}/photos", Skipped(), access))
        proxy.delay_s = DELAY_S
        for number in range(ROUNDS):
            rates[LOOP].append(len(entries) / loop_seconds(bucket, entries, f"loop-{number}"))
            store = S3Store(endpoint, server.bucket, f"store-{number}")
            rates[STEP].append(len(entries) / step_seconds(store, entries, access))
    rows = [[name, f"{statistics.median(own):.1f}", ratios(own, rates[LOOP])] for name, own in rates.items()]
    title = f"One process, {len(files)} JPEGs of {SIDE} pixels, {1000 * DELAY_S:.0f} ms to the object store"
    show(title, ["way", "images/s", "of the loop's rate"], rows)


def loop_seconds(bucket: Bucket, entries: Sequence[Entry], prefix: str) -> float:
    start_s = time.perf_counter()
    for entry in entries:
        image = jpegxl.decode(bucket.read(entry.uri.removeprefix(f"s3://{bucket.name}/"))[0], LARGEST_PIXELS)
        for distance in DISTANCES:
            bucket.put(f"{prefix}/{entry.path}-{distance}.jxl", jpegxl.encode(image, distance, EFFORT))
    return time.perf_counter() - start_s


def step_seconds(store: S3Store, entries: Sequence[Entry], access: Access) -> float:
    with IsolatedDecoder() as decoder:
        compressor = Compressor(store, DISTANCES, EFFORT, Limits(), decoder, access)
        start_s = time.perf_counter()
        compressor.chunk([ChunkRow(POOL, entry) for entry in entries], lambda progress: None)
        return time.perf_counter() - start_s


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))
