"""The stage that a job is in: what it does now, or would do next."""

from __future__ import annotations

from keepmore.errors import JobNotReady
from keepmore.jobs.graph import training_steps
from keepmore.jobs.job import Job, State
from keepmore.jobs.step import Kind, Step
from keepmore.storage.base import Store

# Their outputs mark the stages, in the order of their inputs.
_ENDS = (Kind.LIST, Kind.INDEX, Kind.SELECT, Kind.TRAIN, Kind.REPORT)
_NAMES = {Kind.INDEX: "index", Kind.SELECT: "manifests"}


def stage(job: Job, store: Store) -> str | None:
    """What a job does now, or would do next: list, compress, select, train, report; None when all is done.

    A few calls of the store, however many chunks there are.
    """
    for kind in _ENDS:
        if not all(store.exists(step.output) for step in _steps(job, kind)):
            return kind.spec.stage
    return None


def _steps(job: Job, kind: Kind) -> list[Step]:
    if kind is Kind.TRAIN:
        training = job.request.training
        return list(training_steps(job, job.request.training_id, training, kind)) if training else []
    return [Step(job.id, kind, job.request.subset_id if kind is Kind.SELECT else "")]


def require(job: Job, store: Store, kind: Kind) -> None:
    """Raises JobNotReady, with the stage that the job is in, unless the one step of `kind` is done."""
    (step,) = _steps(job, kind)
    if store.exists(step.output):
        return
    now = stage(job, store)
    if job.state is State.ACCEPTED:
        why = f"it is at the stage {now}; wait for it, or resume it"
    else:
        cause = f" ({job.error['code']}: {job.error['message']})" if job.error else ""
        ended = "failed" if job.state is State.FAILED else f"was {job.state}"
        why = f"it {ended} at the stage {now}{cause}; fix that, and resume it"
    what = _NAMES.get(kind, kind.value)
    how = f"`keepmore resume {job.id}` with the same --store or --server, or POST /v1/jobs/{job.id}/retry"
    raise JobNotReady(f"job {job.id} has no {what} yet: {why} ({how})", stage=now)
