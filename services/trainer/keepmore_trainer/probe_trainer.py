"""The probe: features of images once, and a linear layer on them for every seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keepmore.codec.malloc import keep_freed_memory
from keepmore.errors import StoreError
from keepmore.progress import Progress, Report
from keepmore.spec.training import Training
from keepmore.training.results import Features, ProbeExecution, Run, numbers
from keepmore.training.trainer import Images, TrainerContext
from keepmore_trainer import artifacts, device, image_cache, models
from keepmore_trainer.linear_probe import BATCH_IMAGES as PROBE_BATCH
from keepmore_trainer.linear_probe import fit_probe
from keepmore_trainer.models import Backbone

BATCH_IMAGES = 32
# Features are put into the feature cache in groups of this size: a stopped step repeats one group at most.
CACHED_IMAGES = 4096
THREADS = 2


@dataclass(frozen=True, slots=True)
class _BackboneKey:
    """What a loaded backbone depends on."""

    model: str
    weights: str
    image_size: int | None
    precision: str | None

    @staticmethod
    def of(training: Training) -> _BackboneKey:
        tuning = training.tuning
        image_size, precision = (tuning.image_size, tuning.precision) if tuning else (None, None)
        return _BackboneKey(training.model, training.weights, image_size, precision)


class ProbeTrainer:
    """Implements `keepmore.training.trainer.Trainer`. The backbone stays loaded for the next features."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._cached_backbone: tuple[_BackboneKey, Backbone] | None = None

    def features(self, images: Images, training: Training, context: TrainerContext) -> Features:
        backbone = self._backbone(training, context)
        feature_cache = context.feature_cache(backbone.id, images.group)
        names = images.names()
        cached, _ = feature_cache.find(names)
        context.report(Progress(images=int(cached.sum())))
        missing = np.flatnonzero(~cached)
        pixels = image_cache.find(images, backbone.transform, context.scratch)
        for start in range(0, len(missing), CACHED_IMAGES):
            rows = missing[start : start + CACHED_IMAGES].tolist()
            batches = center_crops(images, rows, backbone, context.report, pixels)
            feature_cache.add(names[rows], extract(backbone, batches).astype(np.float16), backbone.model)
        return Features(len(images), feature_cache.prefix, backbone.id, backbone.model)

    def train(
        self,
        images: Images,
        tests: Sequence[Images],
        classes: list[str],
        training: Training,
        seeds: Sequence[int],
        context: TrainerContext,
    ) -> Iterator[Run]:
        features = require_features(images)
        vectors = load_features(images, features, context)
        targets = torch.from_numpy(numbers(images.labels, classes)).long()
        test_vectors = {test.at: load_features(test, require_features(test), context) for test in tests}
        steps = training.steps if training.epochs is None else math.ceil(training.epochs * len(images) / PROBE_BATCH)
        execution = ProbeExecution(**asdict(features.model), steps=steps)
        for seed in seeds:
            head, losses = fit_probe(vectors, targets, len(classes), steps, seed)
            with torch.inference_mode():
                top_classes = {at: models.top_classes(head(test)).numpy() for at, test in test_vectors.items()}
            curve = artifacts.curve(losses.tolist(), [])
            weights = artifacts.store_weights(head.state_dict(), {"classes": classes}, seed, context)
            yield Run(seed, top_classes, execution, curve, weights)

    def _backbone(self, training: Training, context: TrainerContext) -> Backbone:
        key = _BackboneKey.of(training)
        if self._cached_backbone is None or self._cached_backbone[0] != key:
            place = device.device()
            classifier = models.load(key.model, key.weights, context.weights_file).at(key.image_size)
            self._cached_backbone = key, models.backbone(classifier, place, device.precision(place, key.precision))
        return self._cached_backbone[1]


def center_crops(
    images: Images, rows: Sequence[int], backbone: Backbone, report: Report, pixels: image_cache.Decoded | None
) -> Iterator[list[image_cache.Pixels]]:
    """The middles of the images in `rows`, in batches; from `pixels` where they are decoded already."""
    if pixels is not None:
        with ThreadPoolExecutor(THREADS) as threads:
            for batch in image_cache.batches(
                len(rows), lambda row: backbone.transform.center_crop(pixels[rows[row]]), BATCH_IMAGES, threads
            ):
                yield batch
                report(Progress(images=len(batch)))
        return
    batch, size = [], 0
    for data, image in image_cache.decode_rows(images, rows, backbone.transform):
        batch.append(backbone.transform.center_crop(image))
        size += len(data)
        if len(batch) == BATCH_IMAGES:
            yield batch
            report(Progress(images=len(batch), bytes_in=size))
            batch, size = [], 0
    if batch:
        yield batch
        report(Progress(images=len(batch), bytes_in=size))


def extract(backbone: Backbone, batches: Iterator[list[image_cache.Pixels]]) -> NDArray[np.float32]:
    """Features (images, width) of the images in `batches`."""
    place = torch.device(backbone.model.device)
    with torch.inference_mode(), device.autocast(place, backbone.model.precision):
        vectors = (backbone.module(backbone.transform.tensor(batch, place)) for batch in batches)
        return np.concatenate([batch.float().cpu().numpy() for batch in vectors])


def require_features(images: Images) -> Features:
    if images.features is None:
        raise StoreError(f"there is no record of the features of {images.group}; resume the job, which makes it again")
    return images.features


def load_features(images: Images, features: Features, context: TrainerContext) -> Tensor:
    """The cached features of `images`, (images, width); raises StoreError where some are gone."""
    feature_cache = context.feature_cache(features.backbone, images.group)
    cached, vectors = feature_cache.find(images.names())
    if not cached.all():
        raise StoreError(
            f"{feature_cache.prefix}: features of {int((~cached).sum()):,} images are gone; train under a new job"
        )
    return torch.from_numpy(vectors.astype(np.float32))
