"""The steps of a training: what they read from the store, ask of the trainer, and write back. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from keepmore.codec import jpegxl
from keepmore.compression import index
from keepmore.compression.compressor import encodings
from keepmore.datasets.reader import SourceReader
from keepmore.errors import DatasetChanged, ImageError, NotFound, NotTrainable
from keepmore.jobs.graph import EVALUATION, evaluation_part
from keepmore.jobs.job import Job
from keepmore.jobs.requests import training_request
from keepmore.net.access import Access
from keepmore.progress import Report
from keepmore.selection import manifest
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.job import Request
from keepmore.spec.training import PROBE, Training
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.scratch import Scratch
from keepmore.training.results import Artifact, Comparisons, Features, Run, VariantResult, all_classes
from keepmore.training.trainer import EVENTS, WEIGHTS, Images, Trainer, TrainerContext

COLUMNS = ["path", "label", "sha256", "object_uri", "bytes"]
EVALUATION_COLUMNS = ["path", "label", "source_sha256", "source_uri", "source_bytes"]
ARTIFACT_KEYS = {WEIGHTS: layout.weights, EVENTS: layout.events}


@dataclass(frozen=True, slots=True)
class RunContext(TrainerContext):
    """The context of the runs of one variant, which leave artifacts in the store, and a checkpoint of `seed`."""

    job_id: str
    training: str
    variant: str
    seed: int

    def save_artifact(self, kind: str, seed: int, file: Path) -> Artifact:
        key = ARTIFACT_KEYS[kind](self.job_id, self.training, self.variant, seed)
        self._copy_in(file, key)
        with file.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        return Artifact(self.store.uri(key), file.stat().st_size, sha256)

    def save_checkpoint(self, file: Path) -> None:
        self._copy_in(file, layout.checkpoint(self.job_id, self.training, self.variant, self.seed))

    def load_checkpoint(self, file: Path) -> bool:
        key = layout.checkpoint(self.job_id, self.training, self.variant, self.seed)
        try:
            with self.store.open(key) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        except NotFound:
            file.unlink(missing_ok=True)
            return False
        return True

    def _copy_in(self, file: Path, key: str) -> None:
        with file.open("rb") as source, self.store.writer(key) as target:
            shutil.copyfileobj(source, target)


@dataclass(frozen=True, slots=True)
class _Tables:
    """The images to train and to test on, with COLUMNS, and the classes that a model is built for."""

    variant: str
    train: pa.Table
    tested: pa.Table
    classes: list[str]

    @property
    def train_labels(self) -> list[str]:
        labels: list[str] = self.train["label"].to_pylist()
        return labels

    @property
    def test_labels(self) -> list[str]:
        labels: list[str] = self.tested["label"].to_pylist()
        return labels

    def check(self) -> None:
        """Raises NotTrainable where a set has no labels, or its labels leave nothing to learn or to test."""
        _require_labels(self.train, self.variant)
        _require_labels(self.tested, EVALUATION)
        trained, tested = sorted(set(self.train_labels)), sorted(set(self.test_labels))
        if len(trained) < 2:
            raise NotTrainable(
                f"distance {self.variant}: a classifier needs two classes or more; the {len(self.train):,} images kept "
                f"there have {len(trained)}: {', '.join(trained)}; name the folder that "
                "holds a folder per class, raise the budget, or fill the classes in turn (--balance)"
            )
        if not set(trained) & set(tested):
            raise NotTrainable(
                f"evaluation images: none of their labels ({', '.join(tested[:5])}) is among the classes "
                f"of the pool ({', '.join(trained[:5])}); give both the same names"
            )


@dataclass(frozen=True, slots=True)
class TrainingSteps:
    """A training of a job, and what its steps work with."""

    job: Job
    store: Store
    access: Access
    scratch: Scratch
    report: Report
    name: str
    subset: str
    training: Training

    @staticmethod
    def of(job: Job, name: str, store: Store, access: Access, scratch: Scratch, report: Report) -> TrainingSteps:
        request = training_request(job, name, store)
        return TrainingSteps(job, store, access, scratch, report, name, request.subset, request.training)

    def features(self, part: str, trainer: Trainer) -> Features:
        """Features of a variant, or of the evaluation images as `part` names them."""
        table = self._table(part.partition("@")[0])
        _require_labels(table, part)
        with self._images(table, part) as images:
            return trainer.features(images, self.training, self._context(part, 0))

    def tune(self, variant: str, seed: int, trainer: Trainer) -> Run:
        """One run of a fine-tuning."""
        (run,) = self._train(self._tables(variant), [seed], trainer)
        return run

    def results(self, variant: str, trainer: Trainer) -> VariantResult:
        """The accuracy of a variant. Its predictions are in the store on return."""
        from keepmore.training import evaluation  # SciPy: half a second and 60 MB that no other step needs

        tables, seeds = self._tables(variant), range(self.training.seeds)
        if self.training.method == PROBE:
            runs = self._train(tables, seeds, trainer)
        else:
            keys = [layout.run(self.job.id, self.name, variant, seed) for seed in seeds]
            runs = [Run.from_bytes(self.store.get(key)) for key in keys]
        predictions = evaluation.write_predictions(runs, tables.test_labels, tables.classes)
        self.store.put(layout.predictions(self.job.id, self.name, variant), predictions)
        if self.training.method != PROBE:  # its runs are over
            for seed in seeds:
                self.store.delete(layout.checkpoint(self.job.id, self.name, variant, seed))
        return evaluation.evaluate(runs, tables.train_labels, tables.test_labels, tables.classes, self.training)

    def comparison(self, variants: Sequence[str]) -> Comparisons:
        """The variants against each other, as far as there are predictions of them."""
        from keepmore.training import evaluation

        correct = {}
        for variant in variants:
            try:
                data = self.store.get(layout.predictions(self.job.id, self.name, variant))
            except NotFound:  # trained by a release that stored no predictions
                continue
            correct[variant] = evaluation.read_correct(data)
        return evaluation.compare_all(correct)

    def _train(self, tables: _Tables, seeds: Sequence[int], trainer: Trainer) -> list[Run]:
        tables.check()
        parts = [evaluation_part(distance) for distance in (ORIGINAL, *self.training.test_distances)]
        with ExitStack() as stack:
            images = stack.enter_context(self._images(tables.train, tables.variant))
            tests = [stack.enter_context(self._images(tables.tested, part)) for part in parts]
            context = self._context(tables.variant, seeds[0])
            return list(trainer.train(images, tests, tables.classes, self.training, seeds, context))

    def _tables(self, variant: str) -> _Tables:
        tested = self._table(EVALUATION)
        pool = json.loads(self.store.get(layout.index_summary(self.job.id)))["classes"]
        return _Tables(variant, self._table(variant), tested, all_classes(list(pool), tested["label"].to_pylist()))

    def _table(self, group: str) -> pa.Table:
        if group == EVALUATION:
            return evaluation_table(self.store, self.job.id)
        return manifest_table(self.store, layout.manifest(self.job.id, self.subset, group))

    def _images(self, table: pa.Table, part: str) -> AbstractContextManager[Images]:
        access = self.access.trusting(self.store.uri(layout.objects()))
        group, _, at = part.partition("@")
        try:
            record = json.loads(self.store.get(layout.features(self.job.id, self.name, part)))
        except NotFound:
            record = None
        return open_images(table, self.job.request, access, group, at, record and Features.from_json(record))

    def _context(self, variant: str, seed: int) -> RunContext:
        return RunContext(self.store, self.access, self.scratch, self.report, self.job.id, self.name, variant, seed)


def _require_labels(table: pa.Table, part: str) -> None:
    if not len(table):
        if part.startswith(EVALUATION):
            raise NotTrainable(
                "evaluation images: there is none with a label; name a dataset that holds images, those of each class "
                "in a folder of its own (a hold-out takes nothing from a class of one image)"
            )
        raise NotTrainable(
            f"distance {part}: no image with a label is kept; put the images of each class into a folder of its own, "
            "or raise the budget (an image that is among the test images too is never kept)"
        )


def evaluation_table(store: Store, job_id: str) -> pa.Table:
    """The good evaluation images with a label, with COLUMNS."""
    batches = index.rows(store, layout.evaluation(job_id), [*EVALUATION_COLUMNS, "error_code"])
    good = (batch.filter(batch["error_code"].is_null()).select(EVALUATION_COLUMNS) for batch in batches)
    return _labelled(batch.rename_columns(COLUMNS) for batch in good)


def manifest_table(store: Store, key: str) -> pa.Table:
    """The images of a manifest with a label, with COLUMNS."""
    with manifest.open_manifest(store.get(key)) as parquet:
        return _labelled(batch.select(COLUMNS) for batch in manifest.batches(parquet))


def _labelled(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    schema = pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS])
    table = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
    return table.filter(table["label"].is_valid()).combine_chunks()


@contextmanager
def open_images(
    table: pa.Table, request: Request, access: Access, group: str, at: str = "", features: Features | None = None
) -> Iterator[Images]:
    """The images of `table`, as they are or, with a distance `at`, encoded at it."""
    with SourceReader(request.limits.max_bytes, access) as reader:
        read = partial(_read, table, reader)
        if not at:
            yield Images(table, read, group, features=features)
            return

        def encode(data: bytes) -> bytes:
            image = jpegxl.decode(data, request.limits.max_pixels)
            ((_, stored),) = encodings(image, data, [float(at)], request.effort)
            return stored.data

        yield Images(table, read, group, f"{at}-e{request.effort}", encode, features)


def _read(table: pa.Table, reader: SourceReader, row: int) -> bytes:
    """The bytes of a row; raises DatasetChanged where they do not match its checksum."""
    uri, size, sha256 = (table[name][row].as_py() for name in ("object_uri", "bytes", "sha256"))
    try:
        data = reader.read(uri, size)
    except ImageError as error:
        raise DatasetChanged(f"{uri}: {error.message}; put it back and resume the job") from error
    if difference := manifest.check_bytes(data, size, sha256):
        raise DatasetChanged(f"{uri} {difference}; put it back as it was and resume the job")
    return data
