"""The status of a job, read from what its store holds and, while it runs, from the step tracker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from keepmore.answers import AdviceAnswer, ErrorAnswer, JobAnswer, SubsetAnswer, TrainingAnswer
from keepmore.compression.index import Summary
from keepmore.compression.listing import Listing
from keepmore.errors import Cancelled, QueueUnavailable, StoreError
from keepmore.jobs.graph import training_steps
from keepmore.jobs.job import Job, State
from keepmore.jobs.requests import (
    RequestRef,
    RequestRepository,
    RequestState,
    advice_request,
    read_json,
    training_request,
)
from keepmore.jobs.stage import stage
from keepmore.jobs.step import Kind, Step
from keepmore.prefetch import ahead
from keepmore.progress import Progress
from keepmore.scheduling.tracker import Pace, StepProgress
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.training import NO_WEIGHTS, PROBE, Training, Tuning
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind

# Parts that are requested ahead of the one being read: over a network, each takes two requests.
PARTS_AHEAD = 8


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job. `image_count` (how many images the dataset has) and `progress` are None before the job is
    listed; `rate` in images per second, `eta_s` until all are compressed; `subset` and `index`: the records of the
    store, once they are there."""

    job: Job
    stage: str | None
    image_count: int | None = None
    progress: Progress | None = None
    rate: float | None = None
    eta_s: int | None = None
    warnings: tuple[str, ...] = ()
    subset: SubsetAnswer | None = None
    report: str | None = None
    index: Summary | None = None

    def as_json(self) -> JobAnswer:
        progress = self.progress
        images = progress and {"listed": self.image_count, "done": progress.images, "failed": progress.failed}
        answer = {
            "job": self.job.id,
            "state": self.job.state.value,
            "stage": self.stage,
            "created_at": self.job.created_at,
            "ended_at": self.job.ended_at,
            "error": self.job.error,
            "request": self.job.request.as_json(),
            "images": images,
            "bytes": progress and {"in": progress.bytes_in, "out": progress.bytes_out},
            "rate": self.rate,
            "eta_s": self.eta_s,
            "warnings": list(self.warnings),
            "subset": self.subset,
            "report": self.report,
            **({"index": self.index.as_json()} if self.index else {}),
        }
        return cast(JobAnswer, answer)


def status(job: Job, store: Store, tracked: StepProgress | None = None) -> JobStatus:
    """State, the stage that is next or under way, counts, and the results so far."""
    now = stage(job, store)
    check = read_json(store, layout.codec_check(job.id))
    warnings = tuple(check["warnings"]) if check else ()
    if now == "list":
        return JobStatus(job, now, warnings=warnings)
    if now == "compress":
        return _compressing(job, store, tracked, warnings)
    summary = Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))
    encoded_bytes = sum(size for distance, size in summary.pool_bytes.items() if distance != ORIGINAL)
    return JobStatus(
        job,
        now,
        summary.listed,
        Progress(summary.listed, summary.failed, summary.source_bytes, encoded_bytes),
        warnings=warnings,
        subset=None if now == "select" else json.loads(store.get(layout.subset(job.id, job.request.subset_id))),
        report=store.uri(layout.report_page(job.id)) if now is None else None,
        index=summary,
    )


def _compressing(job: Job, store: Store, tracked: StepProgress | None, warnings: tuple[str, ...]) -> JobStatus:
    pace = None
    if tracked:
        with suppress(QueueUnavailable):  # the store says the same, only slower and without a rate
            pace = tracked.pace(job.id, Kind.COMPRESS)
    pace = pace or Pace(sum(parts_progress(store, job.id).values(), Progress()), 0, 0.0)
    image_count = Listing.read(store, job.id).images
    rate = pace.rate if job.state is State.ACCEPTED else None
    return JobStatus(
        job,
        "compress",
        image_count,
        pace.done,
        rate=round(rate, 2) if rate else None,
        eta_s=round((image_count - pace.done.images) / rate) if rate else None,
        warnings=warnings,
    )


def subsets(job: Job, store: Store) -> list[SubsetAnswer]:
    """The records of all subsets that were made of a job, its own first."""
    prefix = layout.requests_prefix(RequestKind.SUBSET, job.id)
    results = [key for key in store.keys(prefix) if key.endswith("/subset.json")]
    own = layout.subset(job.id, job.request.subset_id)
    return [json.loads(store.get(key)) for key in sorted(results, key=lambda key: (key != own, key))]


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """The status of a training; `results` by variant, as far as they are there."""

    id: str
    subset: str
    training: Training
    state: RequestState
    error: ErrorAnswer | None
    results: dict[str, Mapping[str, Any]]
    comparison: Mapping[str, Any] | None

    def as_json(self) -> TrainingAnswer:
        return {
            "training": self.id,
            "subset": self.subset,
            "state": self.state.value,
            "error": self.error,
            "request": self.training.as_json(),
            "distances": self.results,
            "comparison": self.comparison,
        }


def training_status(job: Job, name: str, store: Store) -> TrainingStatus:
    """A training on a job's subsets, as far as it is done. Raises TrainingNotFound."""
    request = training_request(job, name, store)
    ref, requests = RequestRef(RequestKind.TRAINING, job.id, name), RequestRepository(store)
    by_variant = {variant: read_json(store, layout.training(job.id, name, variant)) for variant in job.request.variants}
    results = {variant: result for variant, result in by_variant.items() if result}
    error = requests.error(ref)
    own = job.request.training is not None and name == job.request.training_id
    if own and job.state is not State.ACCEPTED and not requests.exists(ref):
        error = error or job.error or Cancelled(f"job {job.id} was {job.state} before it was trained").as_dict()
    comparison = read_json(store, ref.result_key)
    # Results of a release without comparisons are complete without one.
    compared = comparison or not any("format" in result for result in results.values())
    whole = compared and len(results) == len(by_variant)
    state = RequestState.SUCCEEDED if whole else RequestState.FAILED if error else RequestState.RUNNING
    return TrainingStatus(name, request.subset, request.training, state, error, results, comparison)


def advice_status(job: Job, name: str, store: Store) -> AdviceAnswer:
    """Advice on a job as JSON, or how far it is. Raises AdviceNotFound."""
    request = advice_request(job, name, store)
    ref = RequestRef(RequestKind.ADVICE, job.id, name)
    advice, error = read_json(store, ref.result_key), RequestRepository(store).error(ref)
    state = RequestState.SUCCEEDED if advice else RequestState.FAILED if error else RequestState.RUNNING
    about = {"advice": name, "job": job.id, "state": state.value, "error": None if advice else error}
    return cast(AdviceAnswer, {**(advice or {"request": request.as_json()}), **about})


def training_images(job: Job, name: str, store: Store) -> dict[Step, int]:
    """How many images each step of a training has to pass through a model, once there is the subset it is on."""
    request = training_request(job, name, store)
    training = request.training
    rows = json.loads(store.get(layout.subset(job.id, request.subset)))["distances"]
    labelled = {variant: sum(row["classes"].values()) for variant, row in rows.items()}
    if training.method == PROBE:
        tested = json.loads(store.get(layout.index_summary(job.id)))["evaluation"]
        features = training_steps(job, name, training, Kind.FEATURES)
        return {step: labelled.get(step.variant, tested) for step in features}
    runs = training_steps(job, name, training, Kind.TUNE)
    return {step: _tuned_images(training, labelled[step.variant]) for step in runs}


def _tuned_images(training: Training, images: int) -> int:
    """How many images one run on `images` images passes: those of its steps and, where the head starts from a probe,
    all of them once before."""
    tuning = training.tuning or Tuning()
    batch = min(tuning.batch, images)
    steps = training.steps if training.epochs is None else -(-training.epochs * images // max(1, batch))
    probed = images if tuning.head == PROBE and training.weights != NO_WEIGHTS else 0
    return steps * batch + probed


def parts_progress(store: Store, job_id: str) -> dict[str, Progress]:
    """The progress of every finished compress step, by part. Reads only the footers of the parts."""
    prefix = layout.parts_prefix(job_id)
    parts = list(store.keys(prefix))
    progress = {}
    with ThreadPoolExecutor(PARTS_AHEAD) as threads:
        for key, part in ahead(parts, lambda key: threads.submit(_part_progress, store, key), PARTS_AHEAD):
            progress[str(int(key.removeprefix(prefix).removesuffix(".parquet")))] = part.result()
    return progress


def _part_progress(store: Store, key: str) -> Progress:
    try:
        with store.open(key) as file:
            metadata = pq.read_metadata(file)
        return Progress.from_metadata(metadata.metadata)
    except (pa.ArrowInvalid, KeyError) as error:
        raise StoreError(f"{key} is damaged ({error}); delete it and resume the job, which makes it again") from error
