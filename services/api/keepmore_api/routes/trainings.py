"""Trainings on a job's subsets, beside the one that the job itself asked for."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.jobs.job import Job
from keepmore.jobs.requests import request_training
from keepmore.scheduling import status
from keepmore.spec.job import OWN
from keepmore_api.dependencies import Book, Objects, Parts, Reader, Writer
from keepmore_api.schemas import TrainingAskedIn, TrainingOut

router = APIRouter(prefix="/v1/jobs/{job_id}/trainings", tags=["trainings"])


@router.post("", status_code=202, response_model=TrainingOut)
async def post_training(job_id: str, body: TrainingAskedIn, caller: Writer, repository: Book, parts: Parts) -> Response:
    """Train a model on the subsets of every distance. Poll `Location` for its results."""
    training = body.record()
    parts.config.check_training(training)

    def ask() -> tuple[Job, str]:
        job = repository.get(job_id)
        subset = job.request.subset_id if body.subset in (None, OWN) else body.subset
        name = request_training(job, parts.store, subset, training)
        parts.scheduler.start(job.id)
        return job, name

    job, name = await run_in_threadpool(ask)
    headers = {"Location": f"/v1/jobs/{job.id}/trainings/{name}"}
    return JSONResponse(await run_in_threadpool(status.training, job, name, parts.store), 202, headers)


@router.get("/{training}", response_model=TrainingOut)
def show_training(job_id: str, training: str, caller: Reader, repository: Book, store: Objects) -> JSONResponse:
    """A training: its accuracy by distance, as far as it is, and at its end which distances differ."""
    job = repository.get(job_id)
    return JSONResponse(status.training(job, training, store))
