"""Time and memory of selection over 10^5, 10^6 and 10^7 images at six distances.

Each row is a process of its own that draws sizes for that many images, ranks them, orders them in balanced turns of
100 classes, and takes the longest prefix that fits at every distance. `python -m benchmarks.select`.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from benchmarks.table import in_new_process, peak_megabytes, show
from keepmore.request import Selection
from keepmore.subset import Pool, choose

COUNTS = (10**5, 10**6, 10**7)
DISTANCES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
CLASSES = 100


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
    begun = time.perf_counter()
    kept = [len(places) for places in choose(pool, DISTANCES, Selection(order), budget)]
    return {"seconds": time.perf_counter() - begun, "megabytes": peak_megabytes(), "kept": kept[-1]}


def main() -> None:
    rows = []
    for order in ("random", "smallest"):
        first = None
        for images in COUNTS:
            found = json.loads(in_new_process("benchmarks.select", str(images), order))
            per_image = found["seconds"] / images
            first = first or per_image
            growth, power = per_image / first, len(str(images)) - 1
            figures = [f"{found['seconds']:.2f}", f"{growth:.2f}", f"{found['megabytes']:,.0f}", f"{found['kept']:,}"]
            rows.append([order, f"10^{power}", *figures])
    show(
        f"Selection at {len(DISTANCES)} distances, balanced over {CLASSES} classes",
        ["order", "images", "seconds", "time an image, against 10^5", "peak MB", "kept at distance 10"],
        rows,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
    else:
        main()
