"""The probe: features of images once, and a linear layer on them for every seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keepmore.codec.malloc import keep_freed_memory
from keepmore.errors import StoreError
from keepmore.progress import Progress, Report
from keepmore.spec.training import Training
from keepmore.training.feature_cache import FeatureCache
from keepmore.training.results import numbers
from keepmore.training.trainer import TOP, WEIGHTS, Images, Run, TrainerContext
from keepmore_trainer import artifacts, device, image_cache, models
from keepmore_trainer.linear_probe import BATCH_IMAGES as PROBE_BATCH
from keepmore_trainer.linear_probe import fit_probe
from keepmore_trainer.models import Backbone

BATCH_IMAGES = 32
# Put on the shelf at once: what a step that is stopped has to do again.
SHELVED_IMAGES = 4096
THREADS = 2


class ProbeTrainer:
    """Implements `keepmore.training.trainer.Trainer`. A loaded backbone is kept for the next features."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._loaded: tuple[tuple[Any, ...], Backbone] | None = None

    def features(self, images: Images, training: Training, context: TrainerContext) -> dict[str, Any]:
        found = self._backbone(training, context)
        feature_cache = context.feature_cache(found.id, images.group)
        names = images.names()
        there, _ = feature_cache.find(names)
        context.report(Progress(images=int(there.sum())))
        missing = np.flatnonzero(~there)
        pixels = image_cache.found(images, found.transform, context.scratch)
        for start in range(0, len(missing), SHELVED_IMAGES):
            rows = missing[start : start + SHELVED_IMAGES].tolist()
            source = middles(images, rows, found, context.report, pixels)
            feature_cache.add(names[rows], extract(found, source).astype(np.float16), found.about)
        return {"shelf": feature_cache.prefix, "backbone": found.id, **found.about}

    def train(
        self,
        images: Images,
        tests: Sequence[Images],
        classes: list[str],
        training: Training,
        seeds: Sequence[int],
        context: TrainerContext,
    ) -> Iterator[Run]:
        made = images.made or {}
        vectors, targets = (
            load_features(images, made, context),
            torch.from_numpy(numbers(images.labels, classes)).long(),
        )
        tested = {test.at: load_features(test, test.made or {}, context) for test in tests}
        steps = training.steps if training.epochs is None else math.ceil(training.epochs * len(images) / PROBE_BATCH)
        about = {name: value for name, value in made.items() if name not in ("shelf", "backbone", "images")}
        for seed in seeds:
            head, losses = fit_probe(vectors, targets, len(classes), steps, seed)
            with torch.inference_mode():
                named = {at: models.named(head(found), TOP).numpy() for at, found in tested.items()}
            curve = artifacts.curve(losses.tolist(), [])
            kept = {WEIGHTS: artifacts.keep_weights(head.state_dict(), {"classes": classes}, seed, context)}
            yield Run(seed, named, {**about, "steps": steps}, curve, kept)

    def _backbone(self, training: Training, context: TrainerContext) -> Backbone:
        size, asked = (tuning.image_size, tuning.precision) if (tuning := training.tuning) else (None, None)
        wanted = (training.model, training.weights, size, asked)
        if self._loaded is None or self._loaded[0] != wanted:
            place = device.device()
            classifier = models.load(training.model, training.weights, context.file).at(size)
            self._loaded = (wanted, models.backbone(classifier, place, device.precision(place, asked)))
        return self._loaded[1]


def middles(
    images: Images, rows: Sequence[int], found: Backbone, report: Report, pixels: image_cache.Decoded | None
) -> Iterator[list[image_cache.Pixels]]:
    """The middles of the images in `rows`, in batches."""
    if pixels is not None:
        with ThreadPoolExecutor(THREADS) as threads:
            for batch in image_cache.batches(
                len(rows), lambda row: found.transform.center_crop(pixels[rows[row]]), BATCH_IMAGES, threads
            ):
                yield batch
                report(Progress(images=len(batch)))
        return
    batch, size = [], 0
    for data, image in image_cache.decoding(images, rows, found.transform):
        batch.append(found.transform.center_crop(image))
        size += len(data)
        if len(batch) == BATCH_IMAGES:
            yield batch
            report(Progress(images=len(batch), bytes_in=size))
            batch, size = [], 0
    if batch:
        yield batch
        report(Progress(images=len(batch), bytes_in=size))


def extract(found: Backbone, source: Iterator[list[image_cache.Pixels]]) -> NDArray[np.float32]:
    """Features (images, width) of the images in the batches of `source`."""
    place = torch.device(found.about["device"])
    with torch.inference_mode(), device.autocast(place, found.about["precision"]):
        made = (found.module(found.transform.tensor(batch, place)) for batch in source)
        return np.concatenate([vectors.float().cpu().numpy() for vectors in made])


def load_features(images: Images, made: dict[str, Any], context: TrainerContext) -> Tensor:
    """The features of `images`, (images, width), of which `ProbeTrainer.features` said that it `made` them."""
    feature_cache: FeatureCache = context.feature_cache(made["backbone"], images.group)
    there, vectors = feature_cache.find(images.names())
    if not there.all():
        raise StoreError(
            f"{feature_cache.prefix}: features of {int((~there).sum()):,} images are gone; train under a new job"
        )
    return torch.from_numpy(vectors.astype(np.float32))
