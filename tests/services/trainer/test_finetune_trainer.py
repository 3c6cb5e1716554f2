"""Fine-tuning: what it learns, and that nothing of it is left to chance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from keepmore.errors import Stopping
from keepmore.progress import Progress
from keepmore.spec.training import Training, Tuning
from keepmore.storage.folder import FolderStore
from keepmore.training.results import FineTuneExecution, Run
from keepmore.training.trainer import Images, load_trainer
from keepmore_trainer import image_cache, models, param_groups
from keepmore_trainer.data_loader import DataLoader
from keepmore_trainer.finetune_trainer import FineTuner
from keepmore_trainer.run_plan import CHECKPOINT, DONE
from keepmore_trainer.train_loop import Interrupted, fit, rate
from keepmore_trainer.transforms import Transform, random_crop
from tests.services.trainer.conftest import Pictures, Workplace
from tests.services.trainer.plans import ALONE, QUICK, alike, decode, fine_tune, never, outputs, plan_of


@pytest.fixture
def vit(tmp_path: Path) -> str:
    """Weights of a small vision transformer in a local file."""
    torch.manual_seed(7)
    save_file(timm.create_model("test_vit", num_classes=11).state_dict(), tmp_path / "vit.safetensors")
    return str(tmp_path / "vit.safetensors")


def _top1(run: Run, test: Images) -> float:
    classes = sorted(set(test.labels))
    return float(
        np.mean([classes[n] == label for n, label in zip(run.top_classes[""][:, 0], test.labels, strict=True)])
    )


def test_mobilenet_learns_and_leaves_its_weights(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else fine-tuning reports what an untrained model does, or the model that it reports on is lost."""
    trainer = load_trainer("finetune")
    assert isinstance(trainer, FineTuner)
    training = Training(method="finetune", steps=12, tuning=replace(QUICK, image_size=96))
    train = pictures(sample / "train")
    run = fine_tune(training, train, train, workplace, trainer)
    assert _top1(run, train) > 0.6, "eight classes: chance is 0.125"
    assert run.top_classes[""].shape == (48, 5)
    assert isinstance(run.execution, FineTuneExecution)
    assert str(run.execution.weights_sha256).startswith("b0353104")
    assert (run.execution.steps, run.execution.batch, run.execution.processes) == (12, 16, 1)
    assert len(run.curve["loss"]) == 12
    weights = load_file(run.artifacts["weights"].uri.removeprefix("file://"))
    assert weights["classifier.1.weight"].shape == (8, 1280)
    events = Path(run.artifacts["events"].uri.removeprefix("file://"))
    assert _scalars(events.parent, "loss/train")[-1] == pytest.approx(run.curve["loss"][-1], rel=1e-4)


def _scalars(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    event_file = folder / "events.out.tfevents.0"
    if not event_file.exists():
        (file,) = folder.iterdir()
        file.rename(event_file)
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def test_a_transformer_of_timm_learns_from_a_local_file(
    sample: Path, pictures: Pictures, workplace: Workplace, vit: str
) -> None:
    """Else the published model cannot be fine-tuned where there is no internet."""
    training = Training(
        "timm:test_vit", vit, "finetune", steps=25, tuning=Tuning(batch=16, learning_rate=2e-3, crop=0.6)
    )
    train = pictures(sample / "train")
    run = fine_tune(training, train, train, workplace)
    assert _top1(run, train) > 0.3
    assert np.mean(run.curve["loss"][-5:]) < np.mean(run.curve["loss"][:5]) - 0.1
    assert run.execution.model == "timm:test_vit"


def test_a_killed_run_goes_on_to_the_same_end(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else a run that lost its machine reports another accuracy than one that did not, or begins again for ever."""
    training = Training("mobilenet_v2", "none", "finetune", steps=8, tuning=replace(QUICK, head="new"))
    plans = [
        plan_of(tmp_path / name, pictures, sample, workplace, training, checkpoint_every_s=0)
        for name in ("whole", "killed")
    ]
    plans[1].write()
    with subprocess.Popen(
        [sys.executable, "-m", "keepmore_trainer.torchrun", plans[1].folder],
        stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout
        for _ in range(4):
            assert json.loads(run.stdout.readline()) == {"images": 16}
        run.send_signal(signal.SIGKILL)
    assert plans[1].file(CHECKPOINT).exists()
    assert not plans[1].file(DONE).exists()
    steps: list[int] = []

    def report(images: int) -> bool:
        steps.append(images)
        return False

    fit(plans[1], ALONE, report)
    assert 1 <= len(steps) <= 5, "most of it was done before"
    fit(plans[0], ALONE, never)
    alike(plans[0], plans[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_goes_on_elsewhere(
    sample: Path, pictures: Pictures, workplace: Workplace, processes: int
) -> None:
    """Else a worker that is drained, or whose turn is over, throws away the hours of its run."""
    training = Training("mobilenet_v2", "default", "finetune", steps=6, tuning=replace(QUICK, head="new"))
    train, test = pictures(sample / "train"), pictures(sample / "test", "evaluation")
    trainer = FineTuner(processes)

    def interrupt(reports: list[Progress]) -> None:
        if sum(progress.images for progress in reports) >= 48:
            raise Stopping("this worker was asked to stop")

    workplace.interrupt = interrupt
    with pytest.raises(Stopping, match="asked to stop"):
        fine_tune(training, train, test, workplace, trainer)
    before = sum(progress.images for progress in workplace.reports)
    workplace.reports.clear()
    workplace.interrupt = lambda reports: None
    again = fine_tune(training, train, test, workplace, trainer)
    after = sum(progress.images for progress in workplace.reports)
    assert before + after == 6 * 16, "no step is done twice"
    assert isinstance(again.execution, FineTuneExecution)
    assert again.execution.processes == processes
    elsewhere = replace(workplace, store=FolderStore(workplace.store.root / "other"))
    whole = fine_tune(training, train, test, elsewhere)
    assert again.curve["loss"] == pytest.approx(whole.curve["loss"], rel=0.02)
    if processes == 1:
        assert np.array_equal(again.top_classes[""], whole.top_classes[""])
        assert again.artifacts["weights"].sha256 == whole.artifacts["weights"].sha256


def test_two_processes_do_what_one_does(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path, vit: str
) -> None:
    """Else the accuracy depends on how many GPUs a machine has."""
    training = Training("timm:test_vit", vit, "finetune", steps=4, tuning=Tuning(batch=12))
    one, two = (plan_of(tmp_path / f"ranks{n}", pictures, sample, workplace, training) for n in (1, 2))
    fit(one, ALONE, never)
    two.write()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "keepmore_trainer.torchrun", two.folder],
        capture_output=True, text=True, check=False, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('{"images"') == 4
    assert outputs(two)[2].processes == 2
    weights, weights_too = outputs(one)[0], outputs(two)[0]
    for key, value in weights.items():
        assert torch.allclose(value.float(), weights_too[key].float(), atol=2e-3), key
    assert outputs(one)[2].losses == pytest.approx(outputs(two)[2].losses, rel=0.02)
    agree = (outputs(one)[1][:, 0] == outputs(two)[1][:, 0]).mean()
    assert agree >= 23 / 24, "sums in another order may turn one tie"


def test_half_precision_learns_and_goes_on(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path, vit: str
) -> None:
    """Else gradients vanish on a GPU without bfloat16, or a run that was stopped there goes on as another."""
    tuning = Tuning(batch=8, learning_rate=2e-3, precision="float16")
    training = Training("timm:test_vit", vit, "finetune", steps=3, tuning=tuning)
    whole, stopped, wide = (
        plan_of(
            tmp_path / name, pictures, sample, workplace, replace(training, tuning=replace(tuning, precision=precision))
        )
        for name, precision in (("whole", "float16"), ("stopped", "float16"), ("wide", "float32"))
    )
    fit(whole, ALONE, never)
    with pytest.raises(Interrupted):
        fit(stopped, ALONE, lambda images: True)
    checkpoint = torch.load(stopped.file(CHECKPOINT), weights_only=True)
    assert checkpoint["scaler"]["scale"] > 1, "the scale that was found is kept"
    fit(stopped, ALONE, never)
    alike(whole, stopped)
    fit(wide, ALONE, never)
    outcome, outcome_wide = outputs(whole)[2], outputs(wide)[2]
    assert outcome.model == replace(outcome_wide.model, precision="float16")
    assert outcome.preparation == outcome_wide.preparation
    assert outputs(whole)[2].losses == pytest.approx(outputs(wide)[2].losses, rel=0.05)


def test_the_loss_is_that_of_pytorch_with_smoothed_labels(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else a model is trained towards other targets than were asked for, and nobody sees why it learns otherwise."""
    tuning = Tuning(batch=8, image_size=64, head="new", label_smoothing=0.5, precision="float32")
    training = Training("mobilenet_v2", "default", "finetune", epochs=1, tuning=tuning)
    plan = plan_of(tmp_path / "plan", pictures, sample, workplace, training)
    fit(plan, ALONE, never)
    losses = outputs(plan)[2].losses
    assert len(losses) == 48 / 8, "each image once"
    classifier = models.load("mobilenet_v2", "default").at(64)
    classifier.set_head(models.new_head(classifier.width, 8, plan.seed))
    module = param_groups.trainable(classifier, True, ALONE)
    images = image_cache.open_folder(Path(plan.images), classifier.transform)
    batch, targets = next(DataLoader(plan, images, classifier.transform, ALONE).steps(0))
    scores, labels = module(classifier.transform.tensor(batch, ALONE.place)), torch.tensor(targets)
    expected, plain = (cross_entropy(scores, labels, label_smoothing=part).item() for part in (0.5, 0.0))
    assert losses[0] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - plain) > 1e-3


def test_small_parts_of_a_batch_give_the_same_step(
    sample: Path, pictures: Pictures, workplace: Workplace, tmp_path: Path
) -> None:
    """Else a model on a small GPU, in parts of a batch, is another model."""
    plans = [
        plan_of(
            tmp_path / str(micro), pictures, sample, workplace,
            Training("mobilenet_v2", "default", "finetune", steps=3, tuning=replace(QUICK, micro_batch=micro)),
        )
        for micro in (16, 5)
    ]  # fmt: skip
    for plan in plans:
        fit(plan, ALONE, never)
    assert outputs(plans[0])[2].losses == pytest.approx(outputs(plans[1])[2].losses, rel=0.02)


def test_decoded_images_are_shared(sample: Path, pictures: Pictures, workplace: Workplace) -> None:
    """Else every seed decodes all images again."""
    images, transform = pictures(sample / "train"), Transform(64, 56)
    folder, first = decode(images, transform, workplace)

    def unreadable(row: int) -> bytes:
        raise AssertionError(f"image {row} was read again")

    same_images = replace(images, read=unreadable)
    again, second = decode(same_images, transform, workplace)
    assert again == folder
    assert all(np.array_equal(first[row], second[row]) for row in range(len(images)))
    assert np.array_equal(first[5], transform.decoded(images.read(5)))


@pytest.mark.parametrize("part", ["pixels.u8", "table.npy", "encoded.bin"])
def test_decoded_images_of_which_a_part_is_gone_are_decoded_again(
    part: str, sample: Path, pictures: Pictures, workplace: Workplace
) -> None:
    """Else what cleans temporary folders by age ends every later fine-tuning on these images, for good."""
    images, transform = pictures(sample / "train", most=6), Transform(64, 56)
    folder, first = decode(images, transform, workplace)
    (folder / part).unlink()
    _, second = decode(images, transform, workplace)
    assert all(np.array_equal(first[row], second[row]) for row in range(len(images)))


def test_random_crops_lie_in_the_image() -> None:
    """Else a crop shows what is not there, or the same corner every time."""
    draws = np.random.Generator(np.random.Philox(key=np.array([0, 1], np.uint64)))
    for height, width in ((40, 60), (64, 64), (300, 30), (1, 1)):
        crops = [random_crop(height, width, 0.25, draws) for _ in range(50)]
        for crop in crops:
            assert 0 <= crop.top <= crop.top + crop.height <= height
            assert 0 <= crop.left <= crop.left + crop.width <= width
        assert {crop.flipped for crop in crops} == {True, False}


def test_the_rate_rises_then_falls_to_nothing() -> None:
    """Else pretrained weights are thrown away in the first steps, or the last ones do not settle."""
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(later <= before for before, later in pairwise(rates[10:]))
    assert rates[10] == 1
    assert rates[-1] < 0.001
