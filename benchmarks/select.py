"""Time and memory of selection over 10^5, 10^6 and 10^7 images at six distances, and of writing the manifests of 10^5.

Each row of the first table is a process of its own that draws sizes for that many images, ranks them, orders them in
balanced turns of 100 classes, and takes the longest prefix that fits at every distance. The second compares the whole
select step, from an index to six manifests, with the few lines of pyarrow that one would write instead: the same rows,
without digests, object URIs and page checksums. `python -m benchmarks.select`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore import sampling
from keepmore.compression import index
from keepmore.compression.index import Summary
from keepmore.selection.pool import Pool
from keepmore.selection.select import SelectionPlan, choose, write_subsets
from keepmore.spec.budget import DistanceBudget
from keepmore.spec.job import Selection
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore

COUNTS = (10**5, 10**6, 10**7)
DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
CLASSES = 100
MANIFEST_IMAGES = 10**5
CHUNK_IMAGES = 512
ROUNDS = 5


def measure(images: int, order: str) -> dict[str, float]:
    """Seconds of the selection and peak MB of the process, its input arrays included."""
    rng = np.random.default_rng(0)
    original = rng.lognormal(10, 0.6, images).astype(np.int64) + 500
    pool = Pool(
        rows=np.arange(images),
        path_hashes=rng.integers(0, 2**64, images, np.uint64),
        classes=rng.integers(0, CLASSES, images).astype(np.int32),
        class_names=[str(number) for number in range(CLASSES)],
        bytes={d: (original / (1 + 0.5 * d)).astype(np.int64) for d in DISTANCES},
    )
    budget = int(pool.bytes[10.0].sum()) // 2
    start = time.perf_counter()
    counts = [len(places) for places in choose(pool, DISTANCES, Selection(order), budget)]
    return {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes(), "kept": counts[-1]}


def drawn_index(store: FolderStore, job_id: str) -> Summary:
    """An index of MANIFEST_IMAGES images with random sizes and checksums, in row groups as the index step writes."""
    rng = np.random.default_rng(0)
    schema = index.schema(DISTANCES)
    summary = Summary(pool_bytes=dict.fromkeys(DISTANCES, 0))
    with store.writer(layout.index(job_id)) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, MANIFEST_IMAGES, CHUNK_IMAGES):
            part = _drawn_part(rng, np.arange(start, min(start + CHUNK_IMAGES, MANIFEST_IMAGES)), schema)
            writer.write_table(part)
            for distance in DISTANCES:
                summary.pool_bytes[distance] += pc.sum(part[index.column("bytes", distance)]).as_py()
    return summary


def _drawn_part(rng: np.random.Generator, numbers: np.ndarray, schema: pa.Schema) -> pa.Table:
    original = rng.lognormal(10, 0.6, len(numbers)).astype(np.int64) + 500
    paths = [f"class-{number // 1000:03d}/photograph-{number:08d}.jpg" for number in numbers]
    columns = {
        "split": ["pool"] * len(numbers),
        "path": paths,
        "path_hash": rng.integers(0, 2**64, len(numbers), np.uint64),
        "source_uri": [f"file:///data/photographs/{path}" for path in paths],
        "label": [path.partition("/")[0] for path in paths],
        "source_bytes": original,
        "source_sha256": _checksums(rng, len(numbers)),
        "width": [640] * len(numbers),
        "height": [480] * len(numbers),
    }
    for d in DISTANCES:
        columns[index.column("bytes", d)] = (original / (1 + 0.5 * d)).astype(np.int64)
        columns[index.column("encoding", d)] = ["lossy" if d else "original"] * len(numbers)
        columns[index.column("sha256", d)] = _checksums(rng, len(numbers))
    nothing = [None] * len(numbers)
    return pa.Table.from_arrays([pa.array(columns.get(f.name, nothing), f.type) for f in schema], schema=schema)


def _checksums(rng: np.random.Generator, count: int) -> list[str]:
    return [rng.bytes(32).hex() for _ in range(count)]


def by_hand(index_file: Path, folder: Path, budget: int) -> None:
    """The same subsets as `write_subsets` writes them, with pyarrow and numpy alone."""
    table = pq.read_table(index_file)
    table = table.filter(pc.is_null(table["error_code"]))
    order = np.argsort(sampling.ranks(table["path_hash"].to_numpy(), 0), kind="stable")
    shared = ["path", "source_uri", "label", "width", "height", "source_sha256"]
    for d in DISTANCES:
        own = [index.column(name, d) for name in ("bytes", "encoding", "sha256", "encoder_distance")]
        count = np.searchsorted(np.cumsum(table[own[0]].to_numpy()[order]), budget, side="right")
        rows = table.select([*shared, *own]).take(np.sort(order[:count]))
        pq.write_table(rows, folder / f"{d}.parquet", compression="zstd")


def measure_manifests() -> dict[str, list[float]]:
    """Seconds of every round, in turn: the select step, and the same by hand."""
    seconds: dict[str, list[float]] = {"keepmore": [], "by hand": []}
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder) / "store")
        summary = drawn_index(store, "job")
        budget = DistanceBudget(10.0, Decimal("0.5"))
        selection = Selection(balance=False)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            write_subsets(store, "job", "subset", SelectionPlan(DISTANCES, 3, budget, selection), summary)
            seconds["keepmore"].append(time.perf_counter() - start)
            start = time.perf_counter()
            by_hand(store.root / layout.index("job"), Path(folder), budget.bytes(summary.pool_bytes))
            seconds["by hand"].append(time.perf_counter() - start)
    return seconds


def show_manifests() -> None:
    seconds = json.loads(in_new_process("benchmarks.select", "manifests"))
    ratios = [ours / hand for ours, hand in zip(seconds["keepmore"], seconds["by hand"], strict=True)]
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    show(
        f"Index of {MANIFEST_IMAGES:,} images to manifests at {len(DISTANCES)} distances, half of the pool at 10",
        ["way", "seconds", "against by hand"],
        [
            [
                "keepmore: manifests with digests, URIs, page checksums",
                f"{statistics.median(seconds['keepmore']):.2f}",
                spread,
            ],
            ["pyarrow by hand: the rows alone", f"{statistics.median(seconds['by hand']):.2f}", "1.00"],
        ],
    )


def main() -> None:
    rows = []
    for order in ("random", "smallest"):
        first = None
        for images in COUNTS:
            result = json.loads(in_new_process("benchmarks.select", str(images), order))
            per_image = result["seconds"] / images
            first = first or per_image
            growth, power = per_image / first, len(str(images)) - 1
            figures = [
                f"{result['seconds']:.2f}",
                f"{growth:.2f}",
                f"{result['megabytes']:,.0f}",
                f"{result['kept']:,}",
            ]
            rows.append([order, f"10^{power}", *figures])
    show(
        f"Selection at {len(DISTANCES)} distances, balanced over {CLASSES} classes",
        ["order", "images", "seconds", "time an image, against 10^5", "peak MB", "kept at distance 10"],
        rows,
    )

    show_manifests()


if __name__ == "__main__":
    if sys.argv[1:] == ["manifests"]:
        print(json.dumps(measure_manifests()))
    elif len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
    else:
        main()
