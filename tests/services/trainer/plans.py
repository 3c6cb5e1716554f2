"""Fine-tunings over the drawn images, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from keepmore.spec.training import Training, Tuning
from keepmore.training.results import Run
from keepmore.training.trainer import Images
from keepmore_trainer import image_cache, models
from keepmore_trainer.distributed import ProcessGroup
from keepmore_trainer.finetune_trainer import FineTuner
from keepmore_trainer.run_plan import DONE, NAMED, WEIGHTS, Outcome, Plan
from keepmore_trainer.transforms import Transform
from tests.services.trainer.conftest import Pictures, Workplace

ALONE = ProcessGroup(0, 1, torch.device("cpu"))
QUICK = Tuning(batch=16, image_size=64)


def fine_tune(
    training: Training, train: Images, test: Images, place: Workplace, trainer: FineTuner | None = None
) -> Run:
    classes = sorted(set(train.labels))
    (run,) = (trainer or FineTuner()).train(train, [test], classes, training, [0], place.context())
    return run


def plan_of(
    folder: Path, pictures: Pictures, sample: Path, place: Workplace, training: Training, **fields: Any
) -> Plan:
    """A plan over the drawn images, which are decoded, and stay: nothing evicts them."""
    transform = models.load(training.model, training.weights).at((training.tuning or Tuning()).image_size).transform
    train, test = pictures(sample / "train"), pictures(sample / "test", "evaluation")
    folders = [decode(images, transform, place)[0] for images in (train, test)]
    classes = sorted(set(train.labels))
    targets = [classes.index(label) for label in train.labels]
    folder.mkdir()
    tests = {"": str(folders[1])}
    return Plan(str(folder), training, 0, classes, targets, str(folders[0]), tests, training.weights, **fields)


def decode(images: Images, transform: Transform, place: Workplace) -> tuple[Path, image_cache.Decoded]:
    with image_cache.decode_all(images, transform, place.scratch, lambda progress: None) as result:
        return result


def never(images: int) -> bool:
    return False


def outputs(plan: Plan) -> tuple[dict[str, torch.Tensor], Any, Outcome]:
    with np.load(plan.file(NAMED)) as arrays:
        return load_file(plan.file(WEIGHTS)), arrays["@"], Outcome.read(plan.file(DONE))


def alike(one: Plan, other: Plan) -> None:
    (weights, predictions, outcome), (weights_too, predictions_too, outcome_too) = outputs(one), outputs(other)
    assert np.array_equal(predictions, predictions_too)
    assert outcome.losses == outcome_too.losses
    for name, value in weights.items():
        assert torch.equal(value, weights_too[name]), name
