"""The probe trainer on real photographs-like images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from keepmore.errors import NotTrainable, UnknownModel, WeightsUnavailable
from keepmore.progress import Progress
from keepmore.request import Training
from keepmore.trainers import Sample, load_trainer
from services.trainer import data
from services.trainer.app import ProbeTrainer, accuracy
from services.trainer.data import Features
from services.trainer.evaluate import Counts
from services.trainer.fit import fit_probe
from services.trainer.model import load_backbone

SMALL = Training(weights="none", steps=20, seeds=2)


def _samples(folder: Path) -> Iterator[Sample]:
    for file in sorted(folder.rglob("*.jpg")):
        yield Sample(file.name, file.parent.name, file.read_bytes())


def _features(vectors: list[list[float]], labels: list[str]) -> bytes:
    return data.to_bytes(Features(np.array(vectors, np.float32), np.array(labels), {"model": "m"}))


def test_pretrained_features_tell_classes_apart(sample: Path) -> None:
    """Else the reported accuracy says nothing about the images that were kept."""
    trainer = load_trainer("probe")
    training = Training(steps=100, seeds=2)
    seen: list[Progress] = []
    train = trainer.features(_samples(sample / "train"), training, seen.append)
    test = trainer.features(_samples(sample / "test"), training, seen.append)
    classes = sorted(folder.name for folder in (sample / "train").iterdir())
    result = trainer.train(train, test, classes, training)
    assert sum(progress.images for progress in seen) == 48 + 24
    assert result["train_images"] == 48
    assert result["test_images"] == 24
    assert result["top1"] > 0.25, "eight classes: chance is 0.125"
    assert result["interval"][0] < result["top1"] < result["interval"][1]
    assert len(result["top1_by_seed"]) == 2
    assert sum(found["images"] for found in result["per_class"].values()) == 24
    assert result["weights"] == "IMAGENET1K_V1"
    assert result["weights_sha256"].startswith("b0353104")


def test_the_same_seed_gives_the_same_result(sample: Path) -> None:
    """Else a resumed job reports another accuracy, and nobody can run a result again."""
    results = []
    for _ in range(2):
        trainer = ProbeTrainer()
        made = trainer.features(_samples(sample / "test"), SMALL, lambda progress: None)
        results.append((made, trainer.train(made, made, sorted({s.label for s in _samples(sample / "test")}), SMALL)))
    assert results[0] == results[1]


def test_a_separable_problem_is_solved() -> None:
    """Else the head does not learn, whatever the features hold."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16)) * 3
    numbers = np.arange(90) % 3
    vectors = torch.from_numpy((centres[numbers] + rng.normal(size=(90, 16))).astype(np.float32))
    head = fit_probe(vectors, torch.from_numpy(numbers), 3, steps=300, seed=0)
    assert (head(vectors).argmax(1).numpy() == numbers).mean() > 0.95


def test_accuracy_comes_from_counts() -> None:
    """Else classes with few images count as much as those with many."""
    found = accuracy([Counts(np.array([9, 1, 0]), np.array([9, 0, 0]))], ["a", "b", "c"])
    assert found["top1"] == 0.9
    assert found["per_class"] == {"a": {"images": 9, "top1": 1.0}, "b": {"images": 1, "top1": 0.0}}
    assert found["seed_std"] is None


def test_what_cannot_be_trained_says_why() -> None:
    """Else training on one class reports 100 %, and wrong labels count as wrong answers."""
    trainer = ProbeTrainer()
    good = _features([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    with pytest.raises(NotTrainable, match="two classes or more; the pool has 1"):
        trainer.train(good, good, ["a"], SMALL)
    with pytest.raises(NotTrainable, match=r"none of their labels \(c\) is among the classes of the pool \(a, b\)"):
        trainer.train(good, _features([[0.0, 1.0]], ["c"]), ["a", "b"], SMALL)
    with pytest.raises(NotTrainable, match="no image with a label"):
        trainer.features(iter(()), SMALL, lambda progress: None)


def test_test_images_of_a_class_without_training_images_count_as_wrong() -> None:
    """Else one unreadable image, the last of its class, ends a job, or flatters the accuracy by leaving tests out."""
    train = _features([[0.0, 9.0], [9.0, 0.0]], ["a", "b"])
    test = _features([[0.0, 9.0], [9.0, 0.0], [9.0, 9.0]], ["a", "b", "c"])
    result = ProbeTrainer().train(train, test, ["a", "b"], Training(steps=200, seeds=1))
    assert result["untrained_classes"] == ["c"]
    assert result["test_images"] == 3
    assert result["top1"] == pytest.approx(2 / 3)
    assert result["per_class"]["c"] == {"images": 1, "top1": 0.0}


def test_weights_from_a_file(tmp_path: Path) -> None:
    """Else a model that was trained elsewhere cannot be used."""
    model = models.get_model("squeezenet1_1", weights=None)
    torch.save(model.state_dict(), tmp_path / "squeeze.pth")
    torch.manual_seed(1)
    other = models.get_model("mobilenet_v3_small", weights=None, num_classes=7)
    torch.save(other.state_dict(), tmp_path / "small.pth")
    backbone = load_backbone("mobilenet_v3_small", str(tmp_path / "small.pth"))
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(backbone.module.features(image), other.eval().features(image))  # type: ignore[operator]
    with pytest.raises(WeightsUnavailable, match="belongs to another architecture"):
        load_backbone("mobilenet_v3_small", str(tmp_path / "squeeze.pth"))


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an hour of compressing ends in a download error that nobody can act on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    expected = f"put the file resnet18-f37072fd.pth.* into {tmp_path}/hub/checkpoints, then resume the job"
    with pytest.raises(WeightsUnavailable, match=expected):
        load_backbone("resnet18", "default")
    with pytest.raises(WeightsUnavailable, match="no weights 'BEST'; use IMAGENET1K_V1, IMAGENET1K_V2, none"):
        load_backbone("mobilenet_v2", "BEST")
    with pytest.raises(WeightsUnavailable, match="there is no file"):
        load_backbone("mobilenet_v2", str(tmp_path / "none.pth"))
    with pytest.raises(UnknownModel, match="no classifier 'mobile'"):
        load_backbone("mobile", "default")


def test_weights_files_run_no_code(tmp_path: Path) -> None:
    """Else a weights file from the web takes over the trainer."""
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(marker),)

    torch.save({"w": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsUnavailable, match="not a PyTorch state dict"):
        load_backbone("mobilenet_v2", str(tmp_path / "bomb.pth"))
    assert not marker.exists()


def test_features_survive_their_bytes() -> None:
    """Else training reads other features, or other labels, than those that were extracted."""
    found = data.from_bytes(_features([[0.5, 2.0]], ["späße"]))
    assert found.vectors.tolist() == [[0.5, 2.0]]
    assert found.labels.tolist() == ["späße"]
    assert found.about == {"model": "m"}
