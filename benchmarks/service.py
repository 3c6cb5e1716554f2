"""The overhead of the service: compressing, polling, accepting a large dataset, streaming a large manifest.

1. Images per second of the compress stage: Celery workers, Redis and S3 on this machine, against `keepmore serve` with
as many processes, over the same JPEGs, in turn. 2. Requests per second of `GET /v1/jobs/{id}` against a bare FastAPI
route that returns the same bytes; one uvicorn worker each, one client process, in turn. 3. Milliseconds until the POST
of a dataset of 100,000 entries is answered, and peak memory of listing 10^4 and 10^5. 4. Memory of the API while the
manifests of 10^5 and 10^6 rows stream out.

`python -m benchmarks.service [compress] [poll] [post] [stream]`; without words all four. Needs what the tests need.
"""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import urllib3
import uvicorn
from fastapi import FastAPI, Response

from benchmarks.images import draw_images
from benchmarks.table import in_new_process, peak_megabytes, ratios, show
from keepmore.compression import chunking
from keepmore.jobs.job import JobRepository
from keepmore.net.access import EVERYTHING
from keepmore.selection import manifest
from keepmore.selection.manifest import ManifestSpec
from keepmore.selection.subset import SubsetSpec
from keepmore.spec.job import Request, Selection
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.synthetic.dataset import write_sample
from tests.servers import free_ports
from tests.service import Service, distributed, embedded

DISTANCES = [2, 4, 6, 8, 10]
PROCESSES = 2
SIZES = {512: 960, 1024: 320}  # pixels along the longer side (512: as Food-101 has them), and how many images
ROUNDS = 3
CONNECTIONS = 16
REQUESTS = 6000
ENTRIES = 100_000
POSTS = 20
MANIFEST_ROWS = (10**5, 10**6)
EFFORT = 3


def compress(root: Path) -> None:
    for side, images in SIZES.items():
        _compress(root / str(side), side, images)


def _compress(root: Path, side: int, images: int) -> None:
    files = draw_images(root, side, images, PROCESSES)
    seconds: dict[str, list[float]] = {"keepmore serve, folder": [], "Celery, Redis, S3": []}
    for number in range(ROUNDS):
        with embedded(root / f"embedded-{number}", KEEPMORE_PROCESSES=str(PROCESSES)) as service:
            seconds["keepmore serve, folder"].append(_compress_seconds(service, files.as_uri()))
        # The images come from the same disk: what is measured is queue and store.
        work = root / f"distributed-{number}"
        with distributed(work, workers=PROCESSES, KEEPMORE_ALLOWED_SOURCES="file:///") as service:
            seconds["Celery, Redis, S3"].append(_compress_seconds(service, files.as_uri()))
        print(f"round {number + 1}: {[f'{times[-1]:.1f} s' for times in seconds.values()]}", file=sys.stderr)
    first = seconds["keepmore serve, folder"]
    rows = []
    for name, times in seconds.items():
        rows.append([name, f"{images / statistics.median(times):.1f}", ratios(first, times)])
    title = (
        f"Compress stage: {images} JPEGs of {side} pixels, effort {EFFORT}, distances 2 to 10, {PROCESSES} processes"
    )
    show(title, ["way", "images/s", "of the embedded rate"], rows)


def _compress_seconds(service: Service, dataset: str) -> float:
    """Seconds between the end of the listing and the index, as a poller sees them."""
    client = service.client
    client.wait(client.start({"dataset": dataset, "distances": [25], "effort": 1})["job"])  # processes have started
    job = client.start({"dataset": dataset, "distances": DISTANCES, "effort": EFFORT})["job"]
    start = time.perf_counter()
    while (status := client.job(job))["stage"] in ("list", "compress"):
        if status["stage"] == "list":
            start = time.perf_counter()
        if status["state"] != "accepted":
            raise RuntimeError(status["error"])
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    client.wait(job)
    return seconds


def poll(root: Path) -> None:
    write_sample(root / "small", train_per_class=1, test_per_class=0)
    rates: dict[str, list[float]] = {"bare FastAPI route": [], "GET /v1/jobs/{id}": []}
    with embedded(root / "polled") as service:
        job = service.client.start({"dataset": (root / "small" / "train").as_uri(), "distances": [4]})["job"]
        service.client.wait(job)
        path = f"/v1/jobs/{job}"
        body = service.client._ask("GET", path).data
        with _bare(root, body) as address:
            for _ in range(ROUNDS):
                rates["bare FastAPI route"].append(requests_a_second(address, "/job"))
                rates["GET /v1/jobs/{id}"].append(requests_a_second(service.url, path))
    first = rates["bare FastAPI route"]
    rows = []
    for name, own in rates.items():
        rows.append([name, f"{statistics.median(own):,.0f}", ratios(own, first)])
    show(
        f"{len(body):,} bytes of JSON, {CONNECTIONS} connections",
        ["way", "requests/s", "of the bare route's rate"],
        rows,
    )


@contextmanager
def _bare(root: Path, body: bytes) -> Iterator[str]:
    """A route that does nothing but return `body`, in a process of its own."""
    (root / "body.json").write_bytes(body)
    port = free_ports(1)[0]
    pid = os.fork()
    if pid == 0:
        serve_bare(root / "body.json", port)
        os._exit(0)
    address = f"http://127.0.0.1:{port}"
    try:
        urllib3.request("GET", address + "/job", retries=urllib3.Retry(20, backoff_factor=0.1))
        yield address
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)


def serve_bare(file: Path, port: int) -> None:
    app, body = FastAPI(), file.read_bytes()

    @app.get("/job")
    async def job() -> Response:
        return Response(body, media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


def requests_a_second(address: str, path: str) -> float:
    """As fast as CONNECTIONS kept-alive connections get answers, each asking again at once."""
    place = urlsplit(address)
    request = f"GET {path} HTTP/1.1\r\nHost: {place.hostname}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        connection = socket.create_connection((place.hostname, place.port))
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, bytearray())
    answers = 0
    start = time.perf_counter()
    while answers < REQUESTS:
        for key, _ in selector.select():
            buffer = key.data
            asking = key.fileobj
            assert isinstance(asking, socket.socket)
            buffer += asking.recv(1 << 16)
            if _is_whole(buffer):
                assert buffer.startswith(b"HTTP/1.1 200"), buffer[:100]
                buffer.clear()
                answers += 1
                asking.sendall(request)
    seconds = time.perf_counter() - start
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    return answers / seconds


def _is_whole(answer: bytearray) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) == int(length.split(b":")[1])


def post(root: Path) -> None:
    write_sample(root / "one", train_per_class=1, test_per_class=0)
    jpeg = min((root / "one").rglob("*.jpg")).read_bytes()
    for start in range(0, ENTRIES, 1000):
        folder = root / "entries" / f"{start // 1000:03d}"
        folder.mkdir(parents=True)
        (folder / f"{start:06d}.jpg").write_bytes(jpeg)
        for number in range(start + 1, start + 1000):
            os.link(folder / f"{start:06d}.jpg", folder / f"{number:06d}.jpg")
    milliseconds = []
    with distributed(root / "posted", workers=1, KEEPMORE_ALLOWED_SOURCES="file:///") as service:
        client = service.client
        client.cancel(client.start({"dataset": (root / "entries").as_uri(), "distances": [4]})["job"])
        for _ in range(POSTS):
            started_at = time.perf_counter()
            job = client.start({"dataset": (root / "entries").as_uri(), "distances": [4]})["job"]
            milliseconds.append(1000 * (time.perf_counter() - started_at))
            client.cancel(job)
    rows = [[f"{ENTRIES:,}", f"{statistics.median(milliseconds):.0f}", f"{max(milliseconds):.0f}"]]
    show(
        f"POST /v1/jobs, {POSTS} times, each while the one before is listed",
        ["entries", "median ms", "slowest ms"],
        rows,
    )
    memory = [
        [f"{count:,}", in_new_process("benchmarks.service", "list", str(root / "entries"), str(count)).strip()]
        for count in (ENTRIES // 10, ENTRIES)
    ]
    show("Listing a folder into chunks, a process of its own", ["entries", "peak MB"], memory)


def list_some(dataset: Path, count: int) -> float:
    """Peak MB of listing the first `count` entries of `dataset`."""
    with tempfile.TemporaryDirectory() as folder:
        part_of = Path(folder) / "dataset"
        part_of.mkdir()
        for part in sorted(dataset.iterdir())[: count // 1000]:
            (part_of / part.name).mkdir()
            for file in part.iterdir():
                os.link(file, part_of / part.name / file.name)
        store = FolderStore(Path(folder) / "store")
        chunking.write_listing(store, "job", Request(part_of.as_uri(), (4,)), EVERYTHING)
        return peak_megabytes()


def stream(root: Path) -> None:
    write_sample(root / "tiny", train_per_class=1, test_per_class=0)
    rows = []
    with embedded(root / "streamed") as service:
        job = service.client.start({"dataset": (root / "tiny" / "train").as_uri(), "distances": [4]})["job"]
        service.client.wait(job)
        store = FolderStore(root / "streamed" / "store")
        subset = JobRepository(store).get(job).request.subset_id
        for count in MANIFEST_ROWS:
            with store.writer(layout.manifest(job, subset, "4")) as file:
                _write_manifest(file, count)
            for name, kind in (("NDJSON", "application/x-ndjson"), ("CSV", "text/csv"), ("Parquet", "*/*")):
                size, seconds, before, peak = _streamed(service, f"/v1/jobs/{job}/subsets/own/4", kind)
                rate = f"{size / seconds / 1e6:.0f}"
                rows.append([f"{count:,}", name, f"{size / 1e6:.0f}", rate, f"{before:.0f}", f"{peak:.0f}"])
    show("Streaming a manifest", ["rows", "form", "MB", "MB/s", "API before, MB", "API at most, MB"], rows)


def _write_manifest(file: object, count: int) -> None:
    writer = manifest.Writer(file, ManifestSpec(SubsetSpec("job", None, None, Selection(), 3), 4.0))  # type: ignore[arg-type]
    for start in range(0, count, 10_000):
        names = [f"class/{number:09d}.jpg" for number in range(start, start + 10_000)]
        columns = {
            "path": names,
            "object_uri": [f"s3://bucket/objects/{name}" for name in names],
            "source_uri": [f"s3://photos/{name}" for name in names],
            "label": ["class"] * len(names),
            "bytes": [12345] * len(names),
            "sha256": [f"{number:064x}" for number in range(start, start + 10_000)],
            "width": [400] * len(names),
            "height": [300] * len(names),
            "encoding": ["lossy"] * len(names),
            "distance": [4.0] * len(names),
            "encoder_distance": [4.0] * len(names),
            "source_sha256": [f"{number:064x}" for number in range(start, start + 10_000)],
        }
        writer.add(pa.RecordBatch.from_pydict(columns, schema=manifest.SCHEMA))
    writer.close()


def _streamed(service: Service, path: str, kind: str) -> tuple[int, float, float, float]:
    """Bytes, seconds, and MB of the API's memory before and at most."""
    pid = service.processes["api"].pid
    before = most = _resident_megabytes(pid)
    start, size = time.perf_counter(), 0
    answer = urllib3.request("GET", service.url + path, headers={"Accept": kind}, preload_content=False)
    for block in answer.stream(1 << 20):
        size += len(block)
        most = max(most, _resident_megabytes(pid))
    return size, time.perf_counter() - start, before, most


def _resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


PARTS: dict[str, Callable[[Path], None]] = {"compress": compress, "poll": poll, "post": post, "stream": stream}


def main(words: list[str]) -> None:
    if words[:1] == ["list"]:
        print(f"{list_some(Path(words[1]), int(words[2])):.0f}")
        return
    for name in words or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
