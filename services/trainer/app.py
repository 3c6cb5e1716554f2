"""The probe trainer, as the steps call it: features of images once, then a linear head for every seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchvision

from keepmore.accuracy import wilson
from keepmore.errors import NotTrainable
from keepmore.memory import keep_freed_memory
from keepmore.progress import Progress, Report
from keepmore.request import Training
from keepmore.trainers import Sample
from services.trainer import data
from services.trainer.data import Features
from services.trainer.evaluate import Counts, count
from services.trainer.fit import fit_probe
from services.trainer.model import Backbone, load_backbone


class ProbeTrainer:
    """Implements `keepmore.steps.Trainer`. A loaded backbone is kept for the next features."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._loaded: tuple[tuple[str, str], Backbone] | None = None

    def features(self, samples: Iterator[Sample], training: Training, report: Report) -> bytes:
        backbone = self._backbone(training)
        vectors, labels = [], []
        threads = os.cpu_count() or 1
        place = torch.device(backbone.about["device"])
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=_in_bf16(backbone)):
            for images, batch in data.batches(samples, backbone.prepare, threads):
                found = backbone.module(images.to(place, memory_format=torch.channels_last))
                vectors.append(found.float().cpu().numpy())
                labels += [sample.label for sample in batch]
                report(Progress(images=len(batch), bytes_in=sum(len(sample.data) for sample in batch)))
        if not vectors:
            raise NotTrainable("no image with a label: put the images of each class into a folder of its own")
        return data.to_bytes(Features(np.concatenate(vectors), np.array(labels), backbone.about))

    def train(self, train: bytes, test: bytes, classes: list[str], training: Training) -> dict[str, Any]:
        if len(classes) < 2:
            raise NotTrainable(f"a classifier needs two classes or more; the pool has {len(classes)}: {classes}")
        fitted, tested = data.from_bytes(train), data.from_bytes(test)
        untrained = sorted(set(tested.labels.tolist()) - set(classes))
        if len(untrained) == len(set(tested.labels.tolist())):
            raise NotTrainable(
                f"evaluation images: none of their labels ({', '.join(untrained[:5])}) is among the classes "
                f"of the pool ({', '.join(classes[:5])}); name both alike"
            )
        classes = [*classes, *untrained]  # a model cannot name what it never saw: such test images count as wrong
        vectors = torch.from_numpy(fitted.vectors)
        numbers = torch.from_numpy(data.class_numbers(fitted.labels, classes))
        test_vectors = torch.from_numpy(tested.vectors)
        test_numbers = torch.from_numpy(data.class_numbers(tested.labels, classes))
        counts = []
        for seed in range(training.seeds):
            head = fit_probe(vectors, numbers, len(classes), training.steps, seed)
            counts.append(count(head, test_vectors, test_numbers))
        return {
            **fitted.about,
            "method": training.method,
            "steps": training.steps,
            "train_images": len(vectors),
            "untrained_classes": untrained,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
            **accuracy(counts, classes),
        }

    def _backbone(self, training: Training) -> Backbone:
        wanted = (training.model, training.weights)
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = (wanted, load_backbone(*wanted))
        return self._loaded[1]


def _in_bf16(backbone: Backbone) -> bool:
    return bool(backbone.about["precision"] == "bfloat16")


def accuracy(counts: list[Counts], classes: list[str]) -> dict[str, Any]:
    """Top-1 over seeds that share their test images, so the interval counts each test image once."""
    top1 = [found.top1 for found in counts]
    images = int(counts[0].images.sum())
    mean = float(np.mean(top1))
    low, high = wilson(mean, images)
    right = np.mean([found.correct for found in counts], axis=0)
    per_class = {
        name: {"images": int(n), "top1": float(c / n)}
        for name, n, c in zip(classes, counts[0].images, right, strict=True)
        if n
    }
    return {
        "test_images": images,
        "top1": mean,
        "interval": [low, high],
        "interval_kind": "95 % Wilson interval over the test images",
        "top1_by_seed": top1,
        "seed_std": float(np.std(top1, ddof=1)) if len(top1) > 1 else None,
        "per_class": per_class,
    }
