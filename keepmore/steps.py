"""The steps of a job, and which of them are ready: a small makefile over a store.

A step is ready when its inputs exist and its output does not; it writes its output last. Whoever finishes a step asks
`ready_steps` what to do next, so a crash, a redelivery and a restart are the same case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from keepmore import budget as budgets
from keepmore import check, codec, index, keys, listing, manifest, subset
from keepmore import distance as distances
from keepmore.budget import Budget
from keepmore.compress import Compressor, Report
from keepmore.datasets import SourceReader
from keepmore.errors import DatasetChanged, JobNotReady, NotFound, NotTrainable, TrainerMissing
from keepmore.index import Summary
from keepmore.isolation import IsolatedDecoder
from keepmore.jobs import Job
from keepmore.request import Limits, Request, Selection, Training, subset_id
from keepmore.store import Store

EVALUATION = "evaluation"


class Kind(StrEnum):
    LIST = "list"  # dataset -> chunks
    CHECK = "check"  # a few images at every distance: warn of a distance that makes no sense
    COMPRESS = "compress"  # a chunk -> objects and a part
    INDEX = "index"  # parts -> index
    SELECT = "select"  # index -> manifests
    FEATURES = "features"  # a manifest, or the evaluation images -> features
    TRAIN = "train"  # features -> accuracy
    REPORT = "report"  # everything -> the report

    @property
    def needs_torch(self) -> bool:
        return self in (Kind.FEATURES, Kind.TRAIN)


@dataclass(frozen=True, slots=True)
class Step:
    """The smallest unit of work. `part` names which: a chunk's number, a subset, a distance."""

    job: str
    kind: Kind
    part: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a trainer gets it."""

    path: str
    label: str
    data: bytes


class Trainer(Protocol):
    """What the trainer service gives the steps. Features and results are bytes and plain data: no torch outside."""

    def features(self, samples: Iterator[Sample], training: Training, report: Report) -> bytes:
        """Features and labels of `samples`, as the bytes of an .npz file."""
        ...

    def train(self, train: bytes, test: bytes, classes: list[str], training: Training) -> dict[str, Any]:
        """Train on one set of features and test on another; gives the accuracy, per seed and together."""
        ...


@cache
def load_trainer(method: str) -> Trainer:
    """The installed trainer for a method, one a process, so that it keeps its model; raises TrainerMissing."""
    for point in entry_points(group="keepmore.trainers", name=method):
        try:
            trainer: Trainer = point.load()()
        except ImportError as error:
            raise TrainerMissing(
                f"training needs PyTorch ({error}); pip install 'keepmore[trainer]', then resume the job"
            ) from error
        return trainer
    raise TrainerMissing(f"no trainer for method {method!r} is installed; pip install 'keepmore[trainer]'")


@dataclass(slots=True)
class Workshop:
    """What a process that runs steps adds to them. `isolate`: trust no decoder, because a worker died on this step."""

    decoder: IsolatedDecoder
    report: Report
    isolate: bool = False
    trainer: Callable[[str], Trainer] = load_trainer


def output(job: Job, step: Step) -> str:
    """The key that a step writes last."""
    match step.kind:
        case Kind.LIST:
            return keys.listing(job.id)
        case Kind.CHECK:
            return keys.codec_check(job.id)
        case Kind.COMPRESS:
            return keys.part(job.id, int(step.part))
        case Kind.INDEX:
            return keys.index_summary(job.id)
        case Kind.SELECT:
            return keys.subset(job.id, step.part)
        case Kind.FEATURES:
            return keys.features(job.id, job.request.training_id, step.part)
        case Kind.TRAIN:
            return keys.training(job.id, job.request.training_id, float(step.part))
        case Kind.REPORT:
            return keys.report(job.id)


def ready_steps(job: Job, done: Container[str], chunks: int | None) -> Iterator[Step]:
    """The steps whose inputs are done and whose output is not. Pure: no store, no clock.

    `done` holds the keys that exist; `chunks` is how many the listing counted, None before there is one.
    """
    unchecked = False
    for stage in _stages(job.request, chunks):
        if stage is Kind.REPORT and unchecked:
            return
        missing = [step for step in _steps(job, stage, chunks) if output(job, step) not in done]
        yield from missing
        if stage is Kind.CHECK:
            unchecked = bool(missing)
        elif missing:
            return


def _stages(request: Request, chunks: int | None) -> Iterator[Kind]:
    """Kinds in the order of their inputs. The check holds nobody up: only the report reads it."""
    yield Kind.LIST
    if chunks is None:
        return
    yield from (Kind.CHECK, Kind.COMPRESS, Kind.INDEX, Kind.SELECT)
    if request.training:
        yield from (Kind.FEATURES, Kind.TRAIN)
    yield Kind.REPORT


def _steps(job: Job, kind: Kind, chunks: int | None) -> Iterator[Step]:
    request = job.request
    match kind:
        case Kind.COMPRESS:
            yield from (Step(job.id, kind, str(number)) for number in range(chunks or 0))
        case Kind.SELECT:
            yield Step(job.id, kind, request.subset_id)
        case Kind.FEATURES:
            yield Step(job.id, kind, EVALUATION)
            yield from (Step(job.id, kind, distances.text(d)) for d in request.distances)
        case Kind.TRAIN:
            yield from (Step(job.id, kind, distances.text(d)) for d in request.distances)
        case _:
            yield Step(job.id, kind)


def chunk_count(store: Store, job_id: str) -> int | None:
    try:
        return int(json.loads(store.get(keys.listing(job_id)))["chunks"])
    except NotFound:
        return None


def run_step(job: Job, step: Step, store: Store, workshop: Workshop) -> None:
    """Do one step unless its output exists. Any number of processes may do it at once: they write the same bytes."""
    key = output(job, step)
    if not store.exists(key):
        store.put(key, _RUN[step.kind](job, step, store, workshop))


def _list(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    return _json(listing.write_listing(store, job.id, job.request) | {"codec": codec.CODEC})


def _check(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    chunks = chunk_count(store, job.id) or 0
    return _json(check.run(store, job.id, chunks, _compressor(job, store, workshop), job.request.distances))


def _compress(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    rows = index.read_chunk(store.get(keys.chunk(job.id, int(step.part))))
    return index.to_parquet(_compressor(job, store, workshop).chunk(rows, workshop.report))


def _compressor(job: Job, store: Store, workshop: Workshop) -> Compressor:
    begun_with = json.loads(store.get(keys.listing(job.id)))["codec"]
    if begun_with != codec.CODEC:
        raise JobNotReady(
            f"job {job.id} began with the codec {begun_with} and {codec.CODEC} is installed now; "
            "one job cannot mix them: install the former again and resume, or start a new job"
        )
    request = job.request
    return Compressor(store, request.distances, request.effort, request.limits, workshop.decoder, workshop.isolate)


def _index(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    listed = json.loads(store.get(keys.listing(job.id)))
    parts = [keys.part(job.id, number) for number in range(listed["chunks"])]
    summary = index.merge(
        store, parts, listed["images"], job.request.distances, keys.index(job.id), keys.evaluation(job.id)
    )
    return _json(summary.as_json())


def _select(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    budget, selection = _subset_request(job, step, store)
    return _json(
        subset.write_subsets(
            store,
            job.id,
            job.request.distances,
            job.request.effort,
            budget,
            selection,
            step.part,
            Summary.from_json(json.loads(store.get(keys.index_summary(job.id)))),
        )
    )


def _subset_request(job: Job, step: Step, store: Store) -> tuple[Budget | None, Selection]:
    request = job.request
    if step.part == request.subset_id:
        return request.budget, request.selection
    written = json.loads(store.get(keys.subset_request(job.id, step.part)))
    return budgets.from_json(written["budget"]), Selection(**written["selection"])


def ask_for_subset(job: Job, store: Store, budget: Budget | None, selection: Selection) -> Step:
    """Write down another question to a job's index; gives the step that answers it. Raises JobNotReady."""
    if not store.exists(keys.index_summary(job.id)):
        raise JobNotReady(f"job {job.id} has no index yet; let it finish first: keepmore resume {job.id}")
    name = subset_id(budget, selection)
    question = {"budget": budgets.as_json(budget), "selection": asdict(selection)}
    store.put(keys.subset_request(job.id, name), _json(question))
    return Step(job.id, Kind.SELECT, name)


def _features(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    request = job.request
    if request.training is None:
        raise NotTrainable(f"job {job.id} asks for no training")
    if step.part == EVALUATION:
        rows = _evaluation_rows(store, job.id)
    else:
        rows = manifest.rows(store.get(keys.manifest(job.id, request.subset_id, float(step.part))))
    samples = _samples(rows, request.limits)
    return workshop.trainer(request.training.method).features(samples, request.training, workshop.report)


def _evaluation_rows(store: Store, job_id: str) -> Iterator[dict[str, Any]]:
    names = {"path": "path", "label": "label", "source_uri": "object_uri", "source_bytes": "bytes"}
    names["source_sha256"] = "sha256"
    for batch in index.rows(store, keys.evaluation(job_id), [*names, "error_code"]):
        for row in batch.to_pylist():
            if row["error_code"] is None:
                yield {new: row[old] for old, new in names.items()}


def _samples(rows: Iterator[dict[str, Any]], limits: Limits) -> Iterator[Sample]:
    """The labelled images of manifest rows, each checked against its checksum."""
    with SourceReader(limits.max_bytes) as reader:
        for row in rows:
            if row["label"] is None:
                continue
            data = reader.read(row["object_uri"], row["bytes"])
            wrong = manifest.check_bytes(row, data)
            if wrong:
                raise DatasetChanged(f"{row['object_uri']} {wrong}; put it back as it was and resume the job")
            yield Sample(row["path"], row["label"], data)


def _train(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    request = job.request
    if request.training is None:
        raise NotTrainable(f"job {job.id} asks for no training")
    classes = json.loads(store.get(keys.index_summary(job.id)))["classes"]
    sets = [store.get(keys.features(job.id, request.training_id, part)) for part in (step.part, EVALUATION)]
    trainer = workshop.trainer(request.training.method)
    return _json(trainer.train(sets[0], sets[1], list(classes), request.training))


def _report(job: Job, step: Step, store: Store, workshop: Workshop) -> bytes:
    # Imported here because matplotlib would cost every worker of every kind 40 MB.
    from keepmore import report

    figures = report.figures(job, store)
    store.put(keys.report_page(job.id), report.page(job, store, figures).encode())
    return _json(figures)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


_RUN: dict[Kind, Callable[[Job, Step, Store, Workshop], bytes]] = {
    Kind.LIST: _list,
    Kind.CHECK: _check,
    Kind.COMPRESS: _compress,
    Kind.INDEX: _index,
    Kind.SELECT: _select,
    Kind.FEATURES: _features,
    Kind.TRAIN: _train,
    Kind.REPORT: _report,
}
