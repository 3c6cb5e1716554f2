"""The steps of a training over real images: what they find, what they refuse, and what they leave behind."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from keepmore.errors import DatasetChanged, NotTrainable
from keepmore.jobs.graph import EVALUATION
from keepmore.jobs.job import Job
from keepmore.jobs.step import Kind
from keepmore.net.access import EVERYTHING, Access
from keepmore.pipeline import training as training_steps
from keepmore.pipeline.training import TrainingSteps
from keepmore.selection import manifest
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Evaluation, Request, Selection
from keepmore.spec.training import Training, Tuning
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import load_trainer
from tests.steps import do_steps, ignore_progress, selected_job

pytestmark = pytest.mark.slow

QUICK = Training(weights="none", steps=60, seeds=2)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path / "scratch"))


def _copy(sample: Path, target: Path, classes: Sequence[tuple[str, int]]) -> Path:
    """A folder of so many images of each of these classes; a class that is none of the sample's looks like a mug."""
    for name, count in classes:
        source = sample / name if (sample / name).is_dir() else sample / "mug"
        (target / name).mkdir(parents=True)
        for file in sorted(source.iterdir())[:count]:
            shutil.copy(file, target / name)
    return target


def _classes(sample: Path, count: int) -> list[str]:
    return sorted(folder.name for folder in (sample / "train").iterdir() if folder.name != "mug")[:count]


def _request(train: Path, test: Path, **fields: Any) -> Request:
    options: dict[str, Any] = {"distances": (0, 8), "training": QUICK, **fields}
    return Request(train.as_uri(), evaluation=Evaluation(dataset=test.as_uri()), **options)


@pytest.fixture
def request_for(sample: Path, tmp_path: Path) -> Callable[..., Request]:
    """A request for a training on so many images of some classes, tested on two of each of the first three."""

    def make(classes: Sequence[tuple[str, int]], test_classes: Sequence[tuple[str, int]], **fields: Any) -> Request:
        train = _copy(sample / "train", tmp_path / "train", classes)
        return _request(train, _copy(sample / "test", tmp_path / "test", test_classes), **fields)

    return make


def _training_steps(job: Job, store: FolderStore, scratch: Scratch, access: Access = EVERYTHING) -> TrainingSteps:
    return TrainingSteps.of(job, job.request.training_id, store, access, scratch, ignore_progress)


def _train(job: Job, store: FolderStore, scratch: Scratch) -> dict[str, dict[str, Any]]:
    """The results of each variant."""
    do_steps(Kind.FEATURES, job, store, scratch)
    do_steps(Kind.TRAIN, job, store, scratch)
    keys_ = {variant: layout.training(job.id, job.request.training_id, variant) for variant in job.request.variants}
    return {variant: json.loads(store.get(key)) for variant, key in keys_.items()}


def _objects(job: Job, store: FolderStore, variant: str) -> dict[str, Path]:
    """The files of a manifest, by path within the dataset."""
    file = store.root / layout.manifest(job.id, job.request.subset_id, variant)
    return {row["path"]: Path(row["object_uri"].removeprefix("file://")) for row in manifest.rows(file)}


def test_a_corrupt_object_is_named_and_nothing_is_left_half_written(
    store: FolderStore, scratch: Scratch, sample: Path, request_for: Callable[..., Request]
) -> None:
    """Else a model is trained on what nobody stored; or once it is fixed, the damaged features are found again."""
    names = _classes(sample, 2)
    job = selected_job(store, request_for([(name, 3) for name in names], [(name, 2) for name in names]))
    training_steps, broken = _training_steps(job, store, scratch), max(_objects(job, store, "8").values())
    good = broken.read_bytes()
    broken.chmod(0o644)
    broken.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    def keys() -> set[str]:
        return {*store.keys("features/"), *store.keys("work/")}

    before = keys()
    with pytest.raises(DatasetChanged) as excinfo:
        training_steps.features("8", load_trainer("probe"))
    assert broken.name in excinfo.value.message
    assert "put it back as it was and resume the job" in excinfo.value.message
    assert keys() == before
    broken.unlink()
    with pytest.raises(DatasetChanged, match="is gone; put the dataset back as it was"):
        training_steps.features("8", load_trainer("probe"))
    assert keys() == before
    broken.write_bytes(good)
    assert training_steps.features("8", load_trainer("probe")).images == 6


def test_one_class_is_nothing_to_tell_apart(
    store: FolderStore, scratch: Scratch, sample: Path, request_for: Callable[..., Request]
) -> None:
    """Else a model that knows one answer is reported to be always right."""
    (name,) = _classes(sample, 1)
    job = selected_job(store, request_for([(name, 3)], [(name, 2)]))
    do_steps(Kind.FEATURES, job, store, scratch)
    with pytest.raises(NotTrainable, match=f"distance 0: a classifier needs two classes or more; .* 1: {name}"):
        _training_steps(job, store, scratch).results("0", load_trainer("probe"))


def test_one_image_to_test_on_is_enough_to_end_a_training(
    store: FolderStore, scratch: Scratch, request_for: Callable[..., Request], sample: Path
) -> None:
    """Else hours of training end in a traceback as their results are compared, and again at every resume."""
    one, other = _classes(sample, 2)
    job = selected_job(store, request_for([(one, 3), (other, 3)], [(one, 1)]))
    for result in _train(job, store, scratch).values():
        assert (result["test_images"], result["untested_classes"]) == (1, [other])
    assert _training_steps(job, store, scratch).comparison(job.request.variants).pairs == []


def test_a_class_with_one_image_and_a_class_that_training_never_saw(
    store: FolderStore, scratch: Scratch, sample: Path, request_for: Callable[..., Request]
) -> None:
    """Else a rare class ends a training; or what no model could know is left out, and the accuracy is too high."""
    one, other, rare = _classes(sample, 3)
    classes = [(one, 4), (other, 4), (rare, 1)]
    job = selected_job(store, request_for(classes, [(one, 2), (rare, 2), ("unseen", 3)]))
    for result in _train(job, store, scratch).values():
        assert result["train_images"] == 9
        assert result["untrained_classes"] == ["unseen"]
        assert result["untested_classes"] == [other]
        assert result["test_images"] == 7
        assert result["per_class"]["unseen"]["images"] == 3
        assert result["per_class"]["unseen"]["top1"] == 0
        right = sum(of["images"] * of["top1"] for of in result["per_class"].values())
        assert result["top1"] == pytest.approx(right / 7)


def test_a_subset_without_labels_names_its_distance(
    store: FolderStore, scratch: Scratch, sample: Path, tmp_path: Path
) -> None:
    """Else a budget that happens to keep no labelled image ends as a defect, at a distance that nobody knows."""
    files = sorted((sample / "train").rglob("*.jpg"), key=lambda file: file.stat().st_size)[:12]
    lines = [f"{file.as_uri()},{'' if number == 0 else file.parent.name}" for number, file in enumerate(files)]
    (tmp_path / "images.csv").write_text("\n".join(["uri,label", *lines]))
    budget, smallest = BytesBudget(files[0].stat().st_size), Selection("smallest", balance=False)
    request = _request(tmp_path / "images.csv", sample / "test", budget=budget, selection=smallest)
    job = selected_job(store, request)
    with pytest.raises(NotTrainable, match=r"^distance 0: no image with a label is kept; .* or raise the budget"):
        _training_steps(job, store, scratch).features("0", load_trainer("probe"))


@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_test_images_without_labels_are_refused(
    store: FolderStore, scratch: Scratch, sample: Path, tmp_path: Path, method: str
) -> None:
    """Else a folder of test images without classes ends as a defect after the hours of compressing."""
    train = _copy(sample / "train", tmp_path / "train", [(name, 2) for name in _classes(sample, 2)])
    (tmp_path / "test").mkdir()
    shutil.copy(min((sample / "test").rglob("*.jpg")), tmp_path / "test" / "1.jpg")
    job = selected_job(store, _request(train, tmp_path / "test", training=Training(weights="none", method=method)))
    training_steps, trainer = _training_steps(job, store, scratch), load_trainer(method)
    with pytest.raises(NotTrainable, match=r"^evaluation images: there is none with a label; .* a folder of its own"):
        training_steps.features(EVALUATION, trainer) if method == "probe" else training_steps.tune("0", 0, trainer)


def test_test_images_at_a_distance_are_what_a_job_stores_at_it(
    store: FolderStore, sample: Path, tmp_path: Path
) -> None:
    """Else a model is said to hold on compressed images that it was never tested on."""
    names = [(name, 2) for name in _classes(sample, 2)]
    folders = [_copy(sample / "train", tmp_path / part, names) for part in ("pool", "tested")]
    for file in folders[1].rglob("*.jpg"):
        file.write_bytes(file.read_bytes() + b"0")  # the same picture; the same file would not be kept
    job = selected_job(store, _request(*folders))
    objects, table = _objects(job, store, "8"), training_steps.evaluation_table(store, job.id)
    with training_steps.open_images(table, job.request, EVERYTHING, EVALUATION, "8") as images:
        assert len(images) == len(objects) == 4
        for row, path in enumerate(images.table["path"].to_pylist()):
            original = images.read(row)
            assert original != images.changed(original) == objects[path].read_bytes()
    with training_steps.open_images(table, job.request, EVERYTHING, EVALUATION) as plain:
        assert plain.changed(original) == original
        assert not set(plain.names().tolist()) & set(images.names().tolist())


def test_accuracy_at_other_distances_stands_beside_that_on_the_originals(
    store: FolderStore, scratch: Scratch, sample: Path, request_for: Callable[..., Request]
) -> None:
    """Else it is unknown whether a model holds where its images arrive compressed."""
    names = _classes(sample, 2)
    training = Training(weights="none", steps=30, seeds=2, test_distances=(10,))
    job = selected_job(store, request_for([(n, 4) for n in names], [(n, 3) for n in names], training=training))
    for result in _train(job, store, scratch).values():
        assert list(result["tests"]) == ["10-e3"]
        assert result["tests"]["10-e3"]["test_images"] == result["test_images"] == 6


def test_variants_without_predictions_are_left_out_of_the_comparison(
    store: FolderStore, scratch: Scratch, sample: Path, request_for: Callable[..., Request]
) -> None:
    """Else results of an earlier release, which kept no predictions, end the training that compares them."""
    names = _classes(sample, 2)
    job = selected_job(store, request_for([(n, 4) for n in names], [(n, 3) for n in names], distances=(0, 4, 8)))
    _train(job, store, scratch)
    training_steps = _training_steps(job, store, scratch)
    whole = {(pair.variant, pair.against) for pair in training_steps.comparison(job.request.variants).pairs}
    assert {variant for pair in whole for variant in pair} == {"0", "4", "8"}
    store.delete(layout.predictions(job.id, training_steps.name, "4"))
    part = {(pair.variant, pair.against) for pair in training_steps.comparison(job.request.variants).pairs}
    assert {variant for pair in part for variant in pair} == {"0", "8"}
    for variant in ("0", "8"):
        store.delete(layout.predictions(job.id, training_steps.name, variant))
    assert training_steps.comparison(job.request.variants).pairs == []


class _CountingStore(FolderStore):
    """Counts how often each key is opened, which `get` does, too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def open(self, key: str) -> BinaryIO:
        self.reads[key] += 1
        return super().open(key)

    def tables_read(self) -> dict[str, int]:
        """Since the last call: how often each Parquet file was read, and the index's summary."""
        reads = {Path(key).name: count for key, count in self.reads.items() if key.endswith((".parquet", "index.json"))}
        self.reads.clear()
        return reads


@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_a_training_step_reads_each_table_once(
    store: FolderStore, scratch: Scratch, request_for: Callable[..., Request], sample: Path, method: str
) -> None:
    """Else each of a thousand training steps fetches a manifest of a million rows over the network several times."""
    names = _classes(sample, 2)
    tuning = Tuning(batch=4, image_size=32) if method == "finetune" else None
    training = Training(
        weights="none", method=method, steps=2, seeds=2 if method == "probe" else 1, tuning=tuning, test_distances=(10,)
    )
    counting = _CountingStore(store.root)
    request = request_for([(n, 4) for n in names], [(n, 2) for n in names], distances=(8,), training=training)
    job = selected_job(counting, request)
    counting.reads.clear()
    steps = [
        (Kind.FEATURES, {"8.parquet": 1, "evaluation.parquet": 2}),  # a step each for the variant and both test sets
        (Kind.TRAIN, {"8.parquet": 1, "evaluation.parquet": 1, "index.json": 1}),
        (Kind.COMPARE, {}),
    ]
    if method == "finetune":
        steps[0] = Kind.TUNE, {"8.parquet": 1, "evaluation.parquet": 1, "index.json": 1}
    for kind, reads in steps:
        do_steps(kind, job, counting, scratch)
        assert counting.tables_read() == reads, kind
    assert counting.exists(layout.comparison(job.id, job.request.training_id))
