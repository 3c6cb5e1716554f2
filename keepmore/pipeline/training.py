"""The steps of a training: what they read from the store, ask of the trainer, and write back. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from keepmore.training.feature_cache import FeatureCache
from keepmore.training.trainer import EVENTS, WEIGHTS, Images, Run, Trainer, TrainerContext
from keepmore.training.weights import weights_file

COLUMNS = ("path", "label", "sha256", "object_uri", "bytes")
IN_EVALUATION = {"path": "path", "label": "label", "sha256": "source_sha256", "object_uri": "source_uri"}
IN_EVALUATION |= {"bytes": "source_bytes"}
PLACES = {WEIGHTS: layout.weights, EVENTS: layout.events}


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

    def features(self, part: str, trainer: Trainer) -> dict[str, Any]:
        """Features of a variant, or of the evaluation images as `part` names them."""
        with self._images(part) as images:
            self._require_labels(images, part)
            return {"images": len(images), **trainer.features(images, self.training, self._trainer_context(part, 0))}

    def tune(self, variant: str, seed: int, trainer: Trainer) -> Run:
        """One run of a fine-tuning."""
        (run,) = self._runs(variant, [seed], trainer)
        return run

    def results(self, variant: str, trainer: Trainer) -> dict[str, Any]:
        """The accuracy of a variant. Its predictions are in the store on return."""
        from keepmore.training import results  # SciPy: half a second and 60 MB that no other step needs

        seeds = range(self.training.seeds)
        runs = self._runs(variant, seeds, trainer) if self.training.method == PROBE else self._tuned(variant, seeds)
        tested, classes = self._labels(EVALUATION), self._classes()
        data = results.write_predictions(runs, tested, classes)
        self.store.put(layout.predictions(self.job.id, self.name, variant), data)
        if self.training.method != PROBE:  # its runs are over
            for seed in seeds:
                self.store.delete(layout.checkpoint(self.job.id, self.name, variant, seed))
        return results.of_arm(runs, self._labels(variant), tested, classes, self.training)

    def comparison(self, variants: Sequence[str]) -> dict[str, Any]:
        """The variants against each other, as far as their predictions were kept."""
        from keepmore.training import results

        found = {}
        for variant in variants:
            try:
                data = self.store.get(layout.predictions(self.job.id, self.name, variant))
            except NotFound:  # trained by a release that kept none
                continue
            found[variant] = results.read_correct(data)
        return results.compared(found)

    def _runs(self, variant: str, seeds: Sequence[int], trainer: Trainer) -> list[Run]:
        wanted = [evaluation_part(distance) for distance in (ORIGINAL, *self.training.test_distances)]
        with ExitStack() as stack:
            images, *tests = [stack.enter_context(self._images(part)) for part in (variant, *wanted)]
            self._require_labels(images, variant)
            self._require_labels(tests[0], EVALUATION)
            self._check_classes(images, tests[0], variant)
            context = self._trainer_context(variant, seeds[0])
            return list(trainer.train(images, tests, self._classes(), self.training, seeds, context))

    def _tuned(self, variant: str, seeds: Sequence[int]) -> list[Run]:
        return [Run.from_bytes(self.store.get(layout.run(self.job.id, self.name, variant, seed))) for seed in seeds]

    def _require_labels(self, images: Images, part: str) -> None:
        if not len(images):
            more = "" if part.startswith(EVALUATION) else ", or raise the budget"
            raise NotTrainable(
                f"{_named(part)}: no image with a label; put the images of each class into a folder of its own{more}"
            )

    def _check_classes(self, images: Images, test: Images, variant: str) -> None:
        seen, tested = sorted(set(images.labels)), sorted(set(test.labels))
        if len(seen) < 2:
            raise NotTrainable(
                f"{_named(variant)}: a classifier needs two classes or more; the {len(images):,} images kept there "
                f"have {len(seen)}: {', '.join(seen)}; raise the budget, or keep --balance"
            )
        if not set(seen) & set(tested):
            raise NotTrainable(
                f"evaluation images: none of their labels ({', '.join(tested[:5])}) is among the classes "
                f"of the pool ({', '.join(seen[:5])}); name both alike"
            )

    def _classes(self) -> list[str]:
        from keepmore.training.results import all_classes

        pool = json.loads(self.store.get(layout.index_summary(self.job.id)))["classes"]
        return all_classes(list(pool), self._labels(EVALUATION))

    def _labels(self, part: str) -> list[str]:
        found: list[str] = self._table(part)["label"].to_pylist()
        return found

    def _images(self, part: str) -> AbstractContextManager[Images]:
        access = self.access.trusting(self.store.uri(layout.objects()))
        group, _, at = part.partition("@")
        return opened(self._table(group), self.job.request, access, group, at, self._made(part))

    def _table(self, group: str) -> pa.Table:
        if group == EVALUATION:
            return evaluation_table(self.store, self.job.id)
        return manifest_table(self.store, layout.manifest(self.job.id, self.subset, group))

    def _made(self, part: str) -> dict[str, Any] | None:
        key = layout.features(self.job.id, self.name, part)
        return json.loads(self.store.get(key)) if self.store.exists(key) else None

    def _trainer_context(self, variant: str, seed: int) -> TrainerContext:
        job, name, store = self.job.id, self.name, self.store

        def save_artifact(kind: str, of_seed: int, file: Path) -> dict[str, Any]:
            return kept(store, PLACES[kind](job, name, variant, of_seed), file)

        checkpoint = layout.checkpoint(job, name, variant, seed)
        return TrainerContext(
            scratch=self.scratch,
            report=self.report,
            file=lambda uri: weights_file(uri, self.access, self.scratch),
            feature_cache=lambda backbone, group: FeatureCache(store, layout.feature_cache(backbone, group)),
            save_artifact=save_artifact,
            checkpoint=lambda file: copy_in(store, checkpoint, file),
            load_checkpoint=lambda file: copy_out(store, checkpoint, file),
        )


def _named(part: str) -> str:
    return "evaluation images" if part.startswith(EVALUATION) else f"distance {part}"


def evaluation_table(store: Store, job_id: str) -> pa.Table:
    """The good evaluation images with a label."""
    wanted = [*IN_EVALUATION.values(), "error_code"]
    batches = [batch.select(list(IN_EVALUATION.values())) for batch in _good(store, layout.evaluation(job_id), wanted)]
    found = [batch.rename_columns(list(IN_EVALUATION)) for batch in batches]
    return _labelled(found)


def _good(store: Store, key: str, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in index.rows(store, key, wanted):
        yield batch.filter(batch["error_code"].is_null())


def manifest_table(store: Store, key: str) -> pa.Table:
    """The images of a manifest with a label."""
    with manifest.opened(store.get(key)) as parquet:
        return _labelled([batch.select(list(COLUMNS)) for batch in manifest.batches(parquet)])


def _labelled(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    schema = pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS])
    table = pa.Table.from_batches([batch.select(list(COLUMNS)).cast(schema) for batch in batches], schema)
    return table.filter(table["label"].is_valid()).combine_chunks()


@contextmanager
def opened(
    table: pa.Table, request: Request, access: Access, group: str, at: str = "", made: dict[str, Any] | None = None
) -> Iterator[Images]:
    """The images of `table`, as they are or, with `at` a distance, as an encoding at it shows them."""
    with SourceReader(request.limits.max_bytes, access) as reader:

        def read(row: int) -> bytes:
            wanted = {name: table[name][row].as_py() for name in COLUMNS}
            try:
                data = reader.read(wanted["object_uri"], wanted["bytes"])
            except ImageError as error:
                raise DatasetChanged(
                    f"{wanted['object_uri']}: {error.message}; put it back and resume the job"
                ) from error
            if wrong := manifest.check_bytes(wanted, data):
                raise DatasetChanged(f"{wanted['object_uri']} {wrong}; put it back as it was and resume the job")
            return data

        def encoded(data: bytes) -> bytes:
            image = jpegxl.decode(data, request.limits.max_pixels)
            ((_, stored),) = encodings(image, data, [float(at)], request.effort)
            return stored.data

        said = f"{at}-e{request.effort}" if at else ""
        yield Images(table, read, group, said, encoded, made) if at else Images(table, read, group, made=made)


def kept(store: Store, key: str, file: Path) -> dict[str, Any]:
    """Keep `file` under `key`; gives its address, size and checksum."""
    copy_in(store, key, file)
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    return {"uri": store.uri(key), "bytes": file.stat().st_size, "sha256": sha256}


def copy_in(store: Store, key: str, file: Path) -> None:
    with file.open("rb") as source, store.writer(key) as target:
        shutil.copyfileobj(source, target)


def copy_out(store: Store, key: str, file: Path) -> bool:
    """Whether there was anything under `key` to write to `file`."""
    try:
        with store.open(key) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
    except NotFound:
        file.unlink(missing_ok=True)
        return False
    return True
