"""The probe trainer on photograph-like images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keepmore.errors import StoreError
from keepmore.spec.training import Training
from keepmore.training import evaluation, results
from keepmore.training.results import Run
from keepmore.training.trainer import Images, Trainer, load_trainer
from keepmore_trainer import image_cache, models
from keepmore_trainer.linear_probe import fit_probe
from keepmore_trainer.probe_trainer import ProbeTrainer
from tests.services.trainer.conftest import Pictures, Workplace

SMALL = Training(weights="none", steps=20, seeds=2)


def _train(
    trainer: Trainer, images: Images, test: Images, training: Training, place: Workplace, seeds: Sequence[int]
) -> list[Run]:
    train, test = (_with_features(trainer, source, training, place) for source in (images, test))
    classes = results.all_classes(sorted(set(images.labels)), test.labels)
    return list(trainer.train(train, [test], classes, training, seeds, place.context()))


def _with_features(trainer: Trainer, images: Images, training: Training, place: Workplace) -> Images:
    return replace(images, features=trainer.features(images, training, place.context()))


def _result(runs: list[Run], images: Images, test: Images, training: Training) -> dict[str, object]:
    classes = results.all_classes(sorted(set(images.labels)), test.labels)
    return evaluation.evaluate(runs, images.labels, test.labels, classes, training).as_json()


def test_pretrained_features_tell_classes_apart(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else the reported accuracy says nothing about the images that were kept."""
    trainer, training = load_trainer("probe"), Training(steps=100, seeds=2)
    images, test = pictures(sample / "train"), pictures(sample / "test", "evaluation")
    runs = _train(trainer, images, test, training, workplace, [0, 1])
    result = evaluation.evaluate(runs, images.labels, test.labels, sorted(set(images.labels)), training).as_json()
    assert sum(progress.images for progress in workplace.reports) == 48 + 24
    assert result["train_images"] == 48
    assert result["test_images"] == 24
    assert result["top1"] > 0.25, "eight classes: chance is 0.125"
    assert result["top1"] < result["top5"] <= 1
    assert result["interval"][0] < result["top1"] < result["interval"][1]
    assert len(result["top1_by_seed"]) == 2
    assert sum(of_class["images"] for of_class in result["per_class"].values()) == 24
    assert sum(map(sum, result["confusion"]["counts"])) == 2 * 24
    assert result["weights"] == "IMAGENET1K_V1"
    assert result["weights_sha256"].startswith("b0353104")
    assert [set(artifacts) for artifacts in result["kept"]] == [{"seed", "weights"}] * 2


def test_the_same_seed_gives_the_same_result(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else a resumed job reports another accuracy, and nobody can run a result again."""
    images = pictures(sample / "test")
    first, again = (_train(ProbeTrainer(), images, images, SMALL, workplace, [1])[0] for _ in range(2))
    assert first.as_bytes() == again.as_bytes()


def test_a_second_training_over_the_same_images_makes_no_features(
    sample: Path, pictures: Pictures, workplace: Workplace
) -> None:
    """Else every other number of steps or seeds costs the hours of the features again."""
    trainer = ProbeTrainer()
    trainer.features(pictures(sample / "train", most=30), SMALL, workplace.context())
    keys = set(workplace.store.keys("features/"))

    def unreadable(row: int) -> bytes:
        raise AssertionError(f"image {row} was read again")

    subset = pictures(sample / "train", most=20)
    trainer.features(Images(subset.table, unreadable, subset.group), SMALL, workplace.context())
    assert set(workplace.store.keys("features/")) == keys
    more = pictures(sample / "train")
    rows = []

    def read_row(row: int) -> bytes:
        rows.append(row)
        return more.read(row)

    trainer.features(Images(more.table, read_row, more.group), SMALL, workplace.context())
    assert rows == list(range(30, 48))


def test_features_do_not_depend_on_where_the_pixels_came_from(
    sample: Path, pictures: Pictures, workplace: Workplace
) -> None:
    """Else a training after a fine-tuning, which left decoded images, gives another accuracy than before it."""
    images = pictures(sample / "test")
    backbone = models.backbone(models.load("mobilenet_v2", "none"), torch.device("cpu"), "float32")
    streamed = ProbeTrainer().features(images, SMALL, workplace.context())
    _, vectors = workplace.context().feature_cache(streamed.backbone, "0").find(images.names())
    for key in list(workplace.store.keys("features/")):
        workplace.store.delete(key)
    with image_cache.decode_all(images, backbone.transform, workplace.scratch, lambda progress: None):
        pass
    assert image_cache.find(images, backbone.transform, workplace.scratch) is not None
    again = ProbeTrainer().features(images, SMALL, workplace.context())
    assert again == streamed
    _, from_pixels = workplace.context().feature_cache(streamed.backbone, "0").find(images.names())
    assert np.array_equal(vectors, from_pixels)


def test_missing_features_are_reported(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else a training on half of the features passes for one on all of them."""
    trainer, images = ProbeTrainer(), pictures(sample / "test")
    images = _with_features(trainer, images, SMALL, workplace)
    (key,) = workplace.store.keys("features/")
    workplace.store.put(key, workplace.store.get(key)[:-30])
    with pytest.raises(StoreError, match=r"npz is damaged .* delete it"):
        list(trainer.train(images, [images], sorted(set(images.labels)), SMALL, [0], workplace.context()))
    workplace.store.delete(key)
    with pytest.raises(StoreError, match="features of 24 images are gone"):
        list(trainer.train(images, [images], sorted(set(images.labels)), SMALL, [0], workplace.context()))


def test_epochs_instead_of_steps(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else who asks for passes over the images gets the same number of steps for every subset after all."""
    images = pictures(sample / "train")
    training = Training(weights="none", epochs=30, seeds=1)
    (run,) = _train(ProbeTrainer(), images, images, training, workplace, [0])
    assert run.execution.steps == 23, "30 passes over 48 images, 64 a step"


def test_a_separable_problem_is_solved() -> None:
    """Else the head does not learn, whatever the features hold."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16)) * 3
    numbers = np.arange(90) % 3
    vectors = torch.from_numpy((centres[numbers] + rng.normal(size=(90, 16))).astype(np.float32))
    head, losses = fit_probe(vectors, torch.from_numpy(numbers), 3, steps=300, seed=0)
    assert (head(vectors).argmax(1).numpy() == numbers).mean() > 0.95
    assert losses[-10:].mean() < losses[:10].mean() / 4
