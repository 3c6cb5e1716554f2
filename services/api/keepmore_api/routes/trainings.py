"""Trainings on a job's subsets, beside the one in the job's own request."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.jobs.requests import request_training
from keepmore.scheduling.status import TrainingStatus, training_status
from keepmore.spec.job import OWN
from keepmore.spec.training import TrainingRequest
from keepmore_api.dependencies import BackendDep, Reader, RepositoryDep, StoreDep, Writer
from keepmore_api.schemas.answers import TrainingOut
from keepmore_api.schemas.requests import TrainingAskedIn

router = APIRouter(prefix="/v1/jobs/{job_id}/trainings", tags=["trainings"])


@router.post("", status_code=202, response_model=TrainingOut)
async def post_training(
    job_id: str, body: TrainingAskedIn, caller: Writer, repository: RepositoryDep, backend: BackendDep
) -> Response:
    """Train a model on the subsets of every variant. Poll `Location` for its results."""
    training = body.record()
    backend.config.check_training(training)

    def ask() -> TrainingStatus:
        job = repository.get(job_id)
        subset = job.request.subset_id if body.subset in (None, OWN) else body.subset
        name = request_training(job, backend.store, TrainingRequest(subset, training))
        backend.scheduler.start(job.id)
        return training_status(job, name, backend.store)

    status = await run_in_threadpool(ask)
    return JSONResponse(status.as_json(), 202, {"Location": f"/v1/jobs/{job_id}/trainings/{status.id}"})


@router.get("/{training}", response_model=TrainingOut)
def show_training(
    job_id: str, training: str, caller: Reader, repository: RepositoryDep, store: StoreDep
) -> JSONResponse:
    """A training: its accuracy by variant, as far as it is, and at its end which variants differ."""
    return JSONResponse(training_status(repository.get(job_id), training, store).as_json())
