"""Requests beside a job's own (a subset, a training, advice; or an estimate, which has no job): the request, its error
and its result in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar, cast

from keepmore.answers import ErrorAnswer
from keepmore.compression.index import Summary
from keepmore.errors import (
    AdviceNotFound,
    JobNotReady,
    KeepmoreError,
    NotFound,
    NotTrainable,
    SubsetNotFound,
    TrainingNotFound,
    from_dict,
)
from keepmore.jobs.job import Job, State, new_id, reading_record
from keepmore.jobs.stage import require
from keepmore.jobs.step import Kind, Step
from keepmore.spec import pilot_grid
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import SubsetRequest, training_id
from keepmore.spec.training import TrainingRequest
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind

LONGEST_ID = 64
Record = TypeVar("Record")


class RequestState(StrEnum):
    RUNNING = "running"  # no answer yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RequestRef:
    """Identifies a request by its kind, its job and its id. An estimate's id also stands in for its job."""

    kind: RequestKind
    job: str
    id: str

    @staticmethod
    def of_step(step: Step) -> RequestRef | None:
        """The request that `step` answers; None for steps of a job's own that answer none."""
        kind = step.kind.spec.request_kind
        return None if kind is None else RequestRef(kind, step.job, step.request or step.job)

    @property
    def key(self) -> str:
        return layout.request(self.kind, self.job, self.id)

    @property
    def error_key(self) -> str:
        return layout.request_error(self.kind, self.job, self.id)

    @property
    def result_key(self) -> str:
        match self.kind:
            case RequestKind.SUBSET:
                return layout.subset(self.job, self.id)
            case RequestKind.TRAINING:
                return layout.comparison(self.job, self.id)
            case RequestKind.ADVICE:
                return layout.advice(self.job, self.id)
            case RequestKind.ESTIMATE:
                return layout.estimate(self.id)


class RequestRepository:
    """The requests that a store holds. Anybody may ask for the same again: a failed one is tried again then."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, ref: RequestRef, request: Mapping[str, Any]) -> None:
        """Save the request, and forget an earlier failure of it."""
        self._store.put(ref.key, json.dumps(request, indent=1, ensure_ascii=False).encode())
        self._store.delete(ref.error_key)

    def get(self, ref: RequestRef) -> Mapping[str, Any]:
        """The request as saved; raises NotFound."""
        if not (ref.id.isascii() and ref.id.replace("-", "").isalnum() and len(ref.id) <= LONGEST_ID):
            raise NotFound(f"{ref.id[:LONGEST_ID]!r} is not an id")  # ids also come from callers, and are part of keys
        request: Mapping[str, Any] = json.loads(self._store.get(ref.key))
        return request

    def exists(self, ref: RequestRef) -> bool:
        return self._store.exists(ref.key)

    def fail(self, ref: RequestRef, error: KeepmoreError) -> None:
        self._store.put(ref.error_key, json.dumps(error.as_dict()).encode())

    def result(self, ref: RequestRef) -> Mapping[str, Any] | None:
        """The answer; None if there is none yet. Raises the error if the request failed."""
        result = read_json(self._store, ref.result_key)
        if result is None and (error := self.error(ref)):
            raise from_dict(error)
        return result

    def error(self, ref: RequestRef) -> ErrorAnswer | None:
        return cast(ErrorAnswer | None, read_json(self._store, ref.error_key))

    def is_answered(self, ref: RequestRef) -> bool:
        return self._store.exists(ref.result_key) or self._store.exists(ref.error_key)


def read_json(store: Store, key: str) -> Mapping[str, Any] | None:
    """The JSON under `key`; None if there is nothing."""
    try:
        record: Mapping[str, Any] = json.loads(store.get(key))
    except NotFound:
        return None
    return record


def subset_request(job: Job, name: str, store: Store) -> SubsetRequest:
    """The request for the subset `name`; raises SubsetNotFound."""
    if name == job.request.subset_id:
        return job.request.subset
    try:
        return _read(store, RequestRef(RequestKind.SUBSET, job.id, name), SubsetRequest.from_json)
    except NotFound:
        raise SubsetNotFound(
            f"job {job.id} has no subset {name[:LONGEST_ID]!r}; list them (`keepmore show {job.id}`, "
            f"GET /v1/jobs/{job.id}/subsets)"
        ) from None


def training_request(job: Job, name: str, store: Store) -> TrainingRequest:
    """The subset that the training `name` is on, and how it trains; raises TrainingNotFound."""
    if job.request.training and name == job.request.training_id:
        return TrainingRequest(job.request.subset_id, job.request.training)
    try:
        return _read(store, RequestRef(RequestKind.TRAINING, job.id, name), TrainingRequest.from_json)
    except NotFound:
        raise TrainingNotFound(f"job {job.id} has no training {name[:LONGEST_ID]!r}") from None


def advice_request(job: Job, name: str, store: Store) -> AdviceRequest:
    """The request for the advice `name`; raises AdviceNotFound."""
    try:
        return _read(store, RequestRef(RequestKind.ADVICE, job.id, name), AdviceRequest.from_json)
    except NotFound:
        raise AdviceNotFound(
            f"job {job.id} has no advice {name[:LONGEST_ID]!r}; ask for it with POST, or `keepmore advise`"
        ) from None


def estimate_request(estimate_id: str, store: Store) -> EstimateRequest:
    """The request for an estimate; raises NotFound."""
    return _read(store, RequestRef(RequestKind.ESTIMATE, estimate_id, estimate_id), EstimateRequest.from_json)


def _read(store: Store, ref: RequestRef, from_json: Callable[[Mapping[str, Any]], Record]) -> Record:
    """The request of `ref`; raises NotFound and RecordUnreadable."""
    with reading_record(ref.key, "a request"):
        return from_json(RequestRepository(store).get(ref))


def is_wanted(step: Step, job: Job, store: Store) -> bool:
    """Whether `step` is still needed, by its job or by a request beside it."""
    if job.state is State.ACCEPTED or step.kind is Kind.NOTIFY:
        return True
    ref = RequestRef.of_step(step)
    return ref is not None and store.exists(ref.key)


def request_subset(job: Job, store: Store, request: SubsetRequest) -> Step:
    """Save a request for another subset; returns the step that makes it, after those of its fits.

    Raises JobNotReady, and InvalidRequest for a budget that this job cannot have.
    """
    require(job, store, Kind.INDEX)
    if request.budget:
        request.budget.bytes(dict.fromkeys(job.request.compressed, 0))
    job.request.check_budget(request.budget)
    RequestRepository(store).put(RequestRef(RequestKind.SUBSET, job.id, request.id), request.as_json())
    return Step(job.id, Kind.SELECT, request.id)


def request_training(job: Job, store: Store, request: TrainingRequest) -> str:
    """Save a request to train a model on a job's subsets; returns the training's id.

    Raises JobNotReady, SubsetNotFound, or NotTrainable where there are no labels or nothing to test on.
    """
    require(job, store, Kind.INDEX)
    subset_request(job, request.subset, store)
    if not store.exists(layout.subset(job.id, request.subset)):
        raise JobNotReady(f"subset {request.subset} of job {job.id} is not made yet; ask again soon", stage="select")
    _trainable(job, store)
    name = training_id(request.subset, request.training, job.request.evaluation)
    # The job's own training is the job's to do, unless that has been stopped.
    if name != job.request.training_id or job.state is not State.ACCEPTED:
        RequestRepository(store).put(RequestRef(RequestKind.TRAINING, job.id, name), request.as_json())
    return name


def request_advice(job: Job, store: Store, request: AdviceRequest) -> str:
    """Save a request for advice; returns its id. Raises JobNotReady, NotTrainable as for a training, and
    PilotsInsufficient where there are too few pilots for any."""
    require(job, store, Kind.INDEX)
    summary = _trainable(job, store)
    for budget in request.budgets:
        budget.bytes(summary.pool_bytes)
    classes = len(summary.classes)
    images = pilot_grid.count(summary.pool - summary.unlabelled, classes, request.images)
    pilot_grid.check(len(pilot_grid.sizes(images, classes)), len(request.distances), summary.evaluation)
    RequestRepository(store).put(RequestRef(RequestKind.ADVICE, job.id, request.id), request.as_json())
    return request.id


def _trainable(job: Job, store: Store) -> Summary:
    """What the job's index holds. Raises NotTrainable where there are no labels or nothing to test on."""
    summary = Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))
    if not summary.classes:
        raise NotTrainable(
            f"job {job.id}: no image of the pool has a label; a dataset with one folder per class has them"
        )
    if not summary.evaluation:
        raise NotTrainable(
            f"job {job.id} has no images to test on; start one with an evaluation dataset or a hold-out (`evaluation`; "
            "in the command --evaluate or --holdout)"
        )
    return summary


def new_estimate_id() -> str:
    return f"estimate-{new_id(datetime.now(UTC))}"


def request_estimate(store: Store, request: EstimateRequest, estimate_id: str) -> Step:
    """Save an estimate's request; returns the step that answers it."""
    RequestRepository(store).put(RequestRef(RequestKind.ESTIMATE, estimate_id, estimate_id), request.as_json())
    return Step(estimate_id, Kind.ESTIMATE)
