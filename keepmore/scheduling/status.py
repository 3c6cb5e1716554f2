"""How a job stands, read from what its store holds and, while it runs, from the tracker."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from keepmore.compression.listing import Listing
from keepmore.errors import Cancelled, NotFound, QueueUnavailable, StoreError
from keepmore.jobs.graph import Kind, Step, training_steps
from keepmore.jobs.job import Job, State
from keepmore.jobs.requests import advice_request, stage, training_request
from keepmore.prefetch import ahead
from keepmore.progress import Progress
from keepmore.scheduling.tracker import Pace, StepTracker
from keepmore.spec.distance import ORIGINAL
from keepmore.spec.training import NO_WEIGHTS, PROBE, Training, Tuning
from keepmore.storage import layout
from keepmore.storage.base import Store

# Parts that are asked for while one is looked at: over a network, each takes two answers.
PARTS_AHEAD = 8


def status(job: Job, store: Store, tracker: StepTracker | None = None) -> dict[str, Any]:
    """State, the stage that is next or under way, counts, and what there is to fetch."""
    now = stage(job, store)
    found: dict[str, Any] = {
        "job": job.id,
        "state": job.state.value,
        "stage": now,
        "created_at": job.created_at,
        "ended_at": job.ended_at,
        "error": job.error,
        "request": job.request.as_json(),
        "images": None,
        "bytes": None,
        "rate": None,
        "eta_s": None,
        "warnings": [],
        "subset": None,
        "report": store.uri(layout.report_page(job.id)) if now is None else None,
    }
    if now == "compress":
        pace = _pace(job, store, tracker)
        listed = Listing.read(store, job.id).images
        found["images"] = {"listed": listed, "done": pace.done.images, "failed": pace.done.failed}
        found["bytes"] = {"in": pace.done.bytes_in, "out": pace.done.bytes_out}
        if job.state is State.ACCEPTED and pace.rate:
            found["rate"] = round(pace.rate, 2)
            found["eta_s"] = round((listed - pace.done.images) / pace.rate)
    if now not in ("list", "compress"):
        found["index"] = summary = json.loads(store.get(layout.index_summary(job.id)))
        found["images"] = {"listed": summary["listed"], "done": summary["listed"], "failed": summary["failed"]}
        encoded = (size for distance, size in summary["pool_bytes"].items() if float(distance) != ORIGINAL)
        found["bytes"] = {"in": summary["source_bytes"], "out": sum(encoded)}
    if now not in ("list", "compress", "select"):
        found["subset"] = json.loads(store.get(layout.subset(job.id, job.request.subset_id)))
    if checked := read_json(store, layout.codec_check(job.id)):
        found["warnings"] = checked["warnings"]
    return found


def subsets(job: Job, store: Store) -> list[dict[str, Any]]:
    """The records of all subsets that were made of a job, its own first."""
    prefix = layout.subsets_prefix(job.id)
    made = [key for key in store.keys(prefix) if key.endswith("/subset.json")]
    own = layout.subset(job.id, job.request.subset_id)
    return [json.loads(store.get(key)) for key in sorted(made, key=lambda key: (key != own, key))]


def training(job: Job, name: str, store: Store) -> dict[str, Any]:
    """A training on a job's subsets: its results by distance, as far as it is. Raises TrainingNotFound."""
    subset, asked = training_request(job, name, store)
    found = {variant: read_json(store, layout.training(job.id, name, variant)) for variant in job.request.variants}
    results = {distance: result for distance, result in found.items() if result}
    own = job.request.training is not None and name == job.request.training_id
    asked_anew = store.exists(layout.training_request(job.id, name))
    error = read_json(store, layout.training_error(job.id, name))
    if own and not asked_anew and job.state is not State.ACCEPTED:
        error = error or job.error or Cancelled(f"job {job.id} was {job.state} before it was trained").as_dict()
    compared = read_json(store, layout.comparison(job.id, name))
    # Results of a release that compared nothing are whole without.
    whole = len(results) == len(found) and (compared or not any("format" in result for result in results.values()))
    state = "succeeded" if whole else "failed" if error else "running"
    return {
        "training": name,
        "subset": subset,
        "state": state,
        "error": error,
        "request": asked.as_json(),
        "distances": results,
        "comparison": compared,
    }


def advice(job: Job, name: str, store: Store) -> dict[str, Any]:
    """Advice on a job, or how far it is. Raises AdviceNotFound."""
    question = advice_request(job, name, store)
    made, error = read_json(store, layout.advice(job.id, name)), read_json(store, layout.advice_error(job.id, name))
    state = "succeeded" if made else "failed" if error else "running"
    said = {"advice": name, "job": job.id, "state": state, "error": None if made else error}
    return (made or {"request": question.as_json()}) | said


def training_images(job: Job, name: str, store: Store) -> dict[Step, int]:
    """How many images each step of a training has to pass through a model, once there is the subset it is on."""
    subset, training = training_request(job, name, store)
    made = json.loads(store.get(layout.subset(job.id, subset)))["distances"]
    labelled = {variant: sum(found["classes"].values()) for variant, found in made.items()}
    tested = json.loads(store.get(layout.index_summary(job.id)))["evaluation"]
    if training.method == PROBE:
        steps = training_steps(job, Kind.FEATURES, name, training)
        return {step: labelled.get(step.part.split("/")[1], tested) for step in steps}
    steps = training_steps(job, Kind.TUNE, name, training)
    return {step: _tuned_images(training, labelled[step.part.split("/")[1]]) for step in steps}


def _tuned_images(training: Training, images: int) -> int:
    """Of one run on so many images: those of its steps and, where the head starts from a probe, all of them before."""
    tuning = training.tuning or Tuning()
    batch = min(tuning.batch, images)
    steps = training.steps if training.epochs is None else -(-training.epochs * images // max(1, batch))
    probed = images if tuning.head == PROBE and training.weights != NO_WEIGHTS else 0
    return steps * batch + probed


def read_json(store: Store, key: str) -> dict[str, Any] | None:
    """The JSON under `key`; None if there is nothing."""
    try:
        found: dict[str, Any] = json.loads(store.get(key))
    except NotFound:
        return None
    return found


def _pace(job: Job, store: Store, tracker: StepTracker | None) -> Pace:
    try:
        known = tracker.pace(job.id, Kind.COMPRESS) if tracker else None
    except QueueUnavailable:
        known = None  # the store says the same, only slower and without a rate
    return known or Pace(sum(parts_progress(store, job.id).values(), Progress()), 0, 0.0)


def parts_progress(store: Store, job_id: str) -> dict[str, Progress]:
    """What every compress step that is done has done, by part. Reads all of their footers, and nothing else of them."""
    prefix = layout.parts_prefix(job_id)
    parts = list(store.keys(prefix))
    found = {}
    with ThreadPoolExecutor(PARTS_AHEAD) as threads:
        for key, done in ahead(parts, lambda key: threads.submit(_part_progress, store, key), PARTS_AHEAD):
            found[str(int(key.removeprefix(prefix).removesuffix(".parquet")))] = done.result()
    return found


def _part_progress(store: Store, key: str) -> Progress:
    try:
        with store.open(key) as file:
            metadata = pq.read_metadata(file)
        return Progress.from_metadata(metadata.metadata)
    except (pa.ArrowInvalid, KeyError) as error:
        raise StoreError(f"{key} is damaged ({error}); delete it and resume the job, which makes it again") from error
