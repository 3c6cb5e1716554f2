"""What can be asked of a job beside its own request: other subsets, trainings on them, and how far the job is."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from keepmore.compression.index import Summary
from keepmore.errors import (
    AdviceNotFound,
    JobNotReady,
    KeepmoreError,
    NotFound,
    NotTrainable,
    SubsetNotFound,
    TrainingNotFound,
)
from keepmore.jobs.graph import Kind, Step, request_key
from keepmore.jobs.job import Job, State, new_id
from keepmore.spec import budget as budgets
from keepmore.spec import pilot_grid
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Selection, subset_id, training_id
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store

LONGEST_ID = 64


def subset_request(job: Job, name: str, store: Store) -> tuple[Budget | None, Selection]:
    """What the subset `name` was asked to be; raises SubsetNotFound."""
    if name == job.request.subset_id:
        return job.request.budget, job.request.selection
    unknown = SubsetNotFound(f"job {job.id} has no subset {name[:64]!r}; `keepmore show {job.id}` lists them")
    if not _may_be_id(name):
        raise unknown
    written = _asked(store, layout.subset_request(job.id, name), unknown)
    return budgets.from_json(written["budget"]), Selection(**written["selection"])


def training_request(job: Job, name: str, store: Store) -> tuple[str, Training]:
    """The subset that the training `name` is on, and how it trains; raises TrainingNotFound."""
    if job.request.training and name == job.request.training_id:
        return job.request.subset_id, job.request.training
    unknown = TrainingNotFound(f"job {job.id} has no training {name[:64]!r}")
    if not _may_be_id(name):
        raise unknown
    written = _asked(store, layout.training_request(job.id, name), unknown)
    return written["subset"], Training.from_json(written["training"])


def advice_request(job: Job, name: str, store: Store) -> AdviceRequest:
    """What the advice `name` was asked for; raises AdviceNotFound."""
    unknown = AdviceNotFound(f"job {job.id} has no advice {name[:64]!r}; ask for it with POST, or `keepmore advise`")
    if not _may_be_id(name):
        raise unknown
    return AdviceRequest.from_json(_asked(store, layout.advice_request(job.id, name), unknown))


def _may_be_id(name: str) -> bool:
    """Whether `name` may stand in a key: ids come from callers, too."""
    return name.isascii() and name.isalnum() and len(name) <= LONGEST_ID


def _asked(store: Store, key: str, unknown: KeepmoreError) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(store.get(key))
    except NotFound:
        raise unknown from None
    return found


def is_wanted(step: Step, job: Job, store: Store) -> bool:
    """Whether anybody still waits for `step`: its job, or who asked a question beside it."""
    if job.state is State.ACCEPTED or step.kind is Kind.NOTIFY:
        return True
    key = request_key(step)
    return key is not None and store.exists(key)


def request_subset(job: Job, store: Store, budget: Budget | None, selection: Selection) -> Step:
    """Write down another question to a job's index; gives the step that answers it, behind those of its levels.

    Raises JobNotReady.
    """
    require(job, store, Kind.INDEX)
    if budget:
        budget.bytes(dict.fromkeys(job.request.compressed, 0))
    job.request.check_budget(budget)
    name = subset_id(budget, selection)
    question = {"budget": budgets.as_json(budget), "selection": asdict(selection)}
    store.put(layout.subset_request(job.id, name), _json(question))
    store.delete(layout.subset_error(job.id, name))
    return Step(job.id, Kind.SELECT, name)


def request_advice(job: Job, store: Store, question: AdviceRequest) -> str:
    """Write down that advice is wanted; gives its id. Raises JobNotReady, NotTrainable as for a training, and
    PilotsInsufficient where what there is cannot support any."""
    require(job, store, Kind.INDEX)
    summary = _trainable(job, store)
    for budget in question.budgets:
        budget.bytes(summary.pool_bytes)
    classes = len(summary.classes)
    images = pilot_grid.count(summary.pool - summary.unlabelled, classes, question.images)
    pilot_grid.check(len(pilot_grid.sizes(images, classes)), len(question.distances), summary.evaluation)
    store.put(layout.advice_request(job.id, question.id), _json(question.as_json()))
    store.delete(layout.advice_error(job.id, question.id))
    return question.id


def _trainable(job: Job, store: Store) -> Summary:
    """What the job's index holds. Raises NotTrainable where there are no labels or nothing to test on."""
    summary = Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))
    if not summary.classes:
        raise NotTrainable(
            f"job {job.id}: no image of the pool has a label; a dataset with one folder a class has them"
        )
    if not summary.evaluation:
        raise NotTrainable(f"job {job.id} has no images to test on; start one with an evaluation dataset or a hold-out")
    return summary


def request_training(job: Job, store: Store, subset: str, training: Training) -> str:
    """Write down that a model is to be trained on the subsets `subset`; gives the training's id.

    Raises JobNotReady, SubsetNotFound, or NotTrainable where there are no labels or nothing to test on.
    """
    require(job, store, Kind.INDEX)
    subset_request(job, subset, store)
    if not store.exists(layout.subset(job.id, subset)):
        raise JobNotReady(f"subset {subset} of job {job.id} is not made yet; ask again soon", stage="select")
    _trainable(job, store)
    name = training_id(subset, training, job.request.evaluation)
    # The job's own training is the job's to do, unless that has been stopped.
    if name != job.request.training_id or job.state is not State.ACCEPTED:
        store.put(layout.training_request(job.id, name), _json({"subset": subset, "training": training.as_json()}))
        store.delete(layout.training_error(job.id, name))
    return name


def require(job: Job, store: Store, kind: Kind) -> None:
    """Raises JobNotReady, with the stage that the job is in, unless the one step of `kind` is done."""
    part = job.request.subset_id if kind is Kind.SELECT else ""
    if not store.exists(Step(job.id, kind, part).output):
        now = stage(job, store)
        what = {Kind.INDEX: "index", Kind.SELECT: "manifests"}.get(kind, kind.value)
        if job.state is State.ACCEPTED:
            why = f"it is at the stage {now}; wait for it, or let it go on"
        else:
            cause = f" ({job.error['code']}: {job.error['message']})" if job.error else ""
            why = f"it is {job.state} at the stage {now}{cause}; mend that, and let it go on"
        raise JobNotReady(f"job {job.id} has no {what} yet: {why}: keepmore resume {job.id}", stage=now)


def stage(job: Job, store: Store) -> str | None:
    """What a job does now, or would do next: list, compress, select, train, report; None when all is done.

    A few questions to the store, however many chunks there are.
    """
    request = job.request
    if not store.exists(layout.listing(job.id)):
        return "list"
    if not store.exists(layout.index_summary(job.id)):
        return "compress"
    if not store.exists(layout.subset(job.id, request.subset_id)):
        return "select"
    if request.training and not all(
        store.exists(layout.training(job.id, request.training_id, variant)) for variant in request.variants
    ):
        return "train"
    return None if store.exists(layout.report(job.id)) else "report"


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def new_name() -> str:
    return f"estimate-{new_id(datetime.now(UTC))}"


def ask(store: Store, question: EstimateRequest, name: str | None = None) -> Step:
    """Write a question down, as `name` if it has one already; gives the step that answers it."""
    name = name or new_name()
    store.put(layout.estimate_request(name), json.dumps(question.as_json()).encode())
    return Step(name, Kind.ESTIMATE)
