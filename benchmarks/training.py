"""How fast the trainer is: feature extraction against the bare model's forward passes, fine-tuning against a bare loop,
and the cache of decoded images against decoding again.

`python -m benchmarks.training [ROUNDS]`. Over drawn JPEGs, as JPEG XL at distance 4 where images are decoded. Each
comparison takes turns, ours and theirs, and prints the median ratio of the rounds. mobilenet_v2 without weights: what
it computes does not depend on them.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
from torch import nn

from benchmarks.images import draw_images
from benchmarks.table import ratios, show
from keepmore.codec import jpegxl
from keepmore.codec.malloc import keep_freed_memory
from keepmore.spec.job import LARGEST_PIXELS
from keepmore.spec.training import Training, Tuning
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import Images
from keepmore_trainer import device, image_cache, models, param_groups, probe_trainer
from keepmore_trainer.distributed import ProcessGroup
from keepmore_trainer.run_plan import Plan
from keepmore_trainer.train_loop import fit
from keepmore_trainer.transforms import Transform

IMAGES, SIDE, DISTANCE = 96, 512, 4.0
MODEL = "mobilenet_v2"
STEPS, BATCH = 6, 16
CPU = torch.device("cpu")


def images_of(folder: Path) -> Images:
    """The drawn images of a folder as JPEG XL."""
    data = [
        jpegxl.encode(jpegxl.decode(file.read_bytes(), LARGEST_PIXELS), DISTANCE, 3)
        for file in sorted(folder.rglob("*.jpg"))
    ]
    columns = {
        "path": [str(number) for number in range(len(data))],
        "label": [str(number % 2) for number in range(len(data))],
        "sha256": [hashlib.sha256(one).hexdigest() for one in data],
        "object_uri": [""] * len(data),
        "bytes": [len(one) for one in data],
    }
    return Images(pa.table(columns), lambda row: data[row], "4")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_step_s(batch: int, side: int) -> float:
    """Seconds of one step of `bare_training` here, after one that does not count."""
    return bare_training(batch, side, 4)[1]


def bare_training(batch: int, side: int, steps: int) -> tuple[nn.Module, float]:
    """The loop that a user would write, over one batch of tensors in memory: the model, and seconds per step."""
    torch.manual_seed(0)
    classifier = models.load(MODEL, models.NO_WEIGHTS)
    classifier.set_head(models.new_head(classifier.width, 10, 0))
    module = param_groups.trainable(classifier, False, ProcessGroup(0, 1, CPU))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    inputs = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (batch,))

    def step() -> None:
        with device.autocast(CPU, device.precision(CPU)):
            scores = module(inputs)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(scores.float(), targets, label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def several() -> None:
        for _ in range(steps):
            step()

    step()
    return module, timed(several) / steps


def _decoded(images: Images, transform: Transform, scratch: Scratch) -> tuple[Path, image_cache.Decoded]:
    """Decoded images, which stay: nothing else uses the scratch disk of the benchmark."""
    with image_cache.decode_all(images, transform, scratch, lambda progress: None) as decoded:
        return decoded


def extraction(images: Images, scratch: Scratch) -> tuple[float, float, float]:
    """Seconds of features from decoded pixels, of features from files, and of the bare forward passes."""
    backbone = models.backbone(models.load(MODEL, models.NO_WEIGHTS), CPU, device.precision(CPU))
    _, pixels = _decoded(images, backbone.transform, scratch)
    rows = list(range(len(images)))
    middles = [backbone.transform.center_crop(pixels[row]) for row in rows]
    batches = [
        backbone.transform.tensor(middles[start : start + probe_trainer.BATCH_IMAGES], CPU)
        for start in range(0, len(rows), probe_trainer.BATCH_IMAGES)
    ]

    def bare() -> None:
        with torch.inference_mode(), device.autocast(CPU, device.precision(CPU)):
            for batch in batches:
                backbone.module(batch)

    def ours(decoded: image_cache.Decoded | None) -> None:
        crops = probe_trainer.center_crops(images, rows, backbone, lambda progress: None, decoded)
        probe_trainer.extract(backbone, crops)

    return timed(lambda: ours(pixels)), timed(lambda: ours(None)), timed(bare)


def tuning(images: Images, scratch: Scratch, side: int, folder: Path) -> tuple[float, float]:
    """Seconds per step of fine-tuning from decoded pixels, and of the bare loop."""
    transform = models.load(MODEL, models.NO_WEIGHTS).at(side).transform
    where, _ = _decoded(images, transform, scratch)
    settings = Tuning(batch=BATCH, image_size=side, head="new")
    training = Training(MODEL, models.NO_WEIGHTS, "finetune", STEPS + 1, tuning=settings)
    targets = [int(label) for label in images.labels]
    plan = Plan(str(folder), training, 0, ["0", "1"], targets, str(where), {}, models.NO_WEIGHTS)
    at: list[float] = []

    def tell(count: int) -> bool:
        at.append(time.perf_counter())
        return False

    fit(plan, ProcessGroup(0, 1, CPU), tell)
    return (at[-1] - at[0]) / STEPS, bare_training(BATCH, side, STEPS)[1]


def epochs(images: Images, scratch: Scratch) -> tuple[float, float]:
    """Seconds of reading all images from the cache, and of decoding them, in this thread alone."""
    transform = models.load(MODEL, models.NO_WEIGHTS).transform
    _, pixels = _decoded(images, transform, scratch)
    cached = timed(lambda: [pixels[row].sum() for row in range(len(images))])
    again = timed(lambda: [transform.decoded(images.read(row)).sum() for row in range(len(images))])
    return cached, again


def main(rounds: int) -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        images = images_of(draw_images(Path(place) / "images", SIDE, IMAGES, processes=1))
        scratch = Scratch(f"{place}/scratch")
        extracted = [extraction(images, scratch) for _ in range(rounds + 1)][1:]
        rows = [
            [
                "features, decoded before",
                "bare forward",
                ratios([bare for _, _, bare in extracted], [ours for ours, _, _ in extracted]),
            ],
            [
                "features, from JPEG XL",
                "bare forward",
                ratios([bare for _, _, bare in extracted], [ours for _, ours, _ in extracted]),
            ],
        ]
        for side in (128, 224):
            seconds = []
            for number in range(rounds):
                folder = Path(place) / f"{side}-{number}"
                folder.mkdir()
                seconds.append(tuning(images, scratch, side, folder))
            ours, theirs = zip(*seconds, strict=True)
            rows.append([f"fine-tuning at {side} pixels", "bare loop", ratios(theirs, ours)])
        cached, again = zip(*(epochs(images, scratch) for _ in range(rounds)), strict=True)
        rows.append(["an epoch from the cache", "decoding again", ratios(again, cached)])
    show(
        f"Speed against what it is compared with ({IMAGES} drawn images, {MODEL})",
        ["ours", "theirs", "times as fast"],
        rows,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
