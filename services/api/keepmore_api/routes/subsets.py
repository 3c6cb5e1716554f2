"""Subsets of a job's index for other budgets, and manifests in several forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from keepmore.errors import JobNotReady, SubsetNotFound, from_dict
from keepmore.jobs.graph import Kind, subset_steps
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.requests import request_subset, require, stage, subset_request
from keepmore.scheduling.status import read_json, subsets
from keepmore.selection import manifest
from keepmore.spec.job import OWN
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore_api.content_negotiation import preferred
from keepmore_api.dependencies import Book, Objects, Parts, Reader, Wait, Writer
from keepmore_api.job_views import manifests
from keepmore_api.polling import answer
from keepmore_api.schemas import SubsetIn, SubsetOut, SubsetsOut

router = APIRouter(prefix="/v1/jobs/{job_id}/subsets", tags=["subsets"])

# Media types of a manifest and the suffixes that `keepmore.selection.manifest` knows them by; the first is the default.
FORMS = {"application/vnd.apache.parquet": ".parquet", "application/x-ndjson": ".ndjson", "text/csv": ".csv"}


@router.post("", status_code=201, response_model=SubsetOut, responses={202: {"model": SubsetOut}})
async def post_subset(
    job_id: str, body: SubsetIn, caller: Writer, repository: Book, parts: Parts, wait: Wait = 10
) -> Response:
    """Another budget or order over the same index; nothing is compressed again. 202 if it takes longer than `wait`."""
    budget, selection = body.budget, body.selection.record()

    def ask() -> tuple[Job, str]:
        job = repository.get(job_id)
        step = request_subset(job, parts.store, budget, selection)
        if not parts.store.exists(step.output):
            for one in [*subset_steps(job, Kind.FIT, step.part)] or [step]:  # the step follows its fits by itself
                parts.scheduler.ask(one)
        return job, step.part

    job, subset = await run_in_threadpool(ask)
    made = await answer(parts.store, layout.subset(job.id, subset), layout.subset_error(job.id, subset), wait)
    headers = {"Location": f"/v1/jobs/{job.id}/subsets/{subset}"}
    return JSONResponse(_shown(job.id, subset, made), 201 if made else 202, headers)


def _shown(job_id: str, subset: str, made: dict[str, Any] | None) -> dict[str, Any]:
    links = {"self": f"/v1/jobs/{job_id}/subsets/{subset}", "manifests": manifests(job_id, made) if made else {}}
    return {"subset": subset, "state": "succeeded" if made else "running", "links": links} | (made or {})


@router.get("", response_model=SubsetsOut)
def list_subsets(job_id: str, caller: Reader, repository: Book, store: Objects) -> JSONResponse:
    """All subsets that were made of a job, its own first."""
    job = repository.get(job_id)
    return JSONResponse({"subsets": [_shown(job.id, made["subset"], made) for made in subsets(job, store)]})


@router.get("/{subset}", response_model=SubsetOut)
async def show_subset(
    job_id: str, subset: str, caller: Reader, repository: Book, store: Objects, wait: Wait = 0
) -> Response:
    """One subset: counts, bytes and digests by distance. The error, if it could not be made."""
    job, subset = await run_in_threadpool(_known, repository.get, job_id, subset, store)
    made = await answer(store, layout.subset(job.id, subset), layout.subset_error(job.id, subset), wait)
    if made is None and subset == job.request.subset_id:
        await run_in_threadpool(_require_own, repository, job.id, store)
    return JSONResponse(_shown(job.id, subset, made))


def _require_own(repository: JobRepository, job_id: str, store: Store) -> None:
    """Raises JobNotReady for a job that ended before it made its own subset: nobody is making it."""
    job = repository.get(job_id)
    if job.state is not State.ACCEPTED and not store.exists(layout.subset_request(job.id, job.request.subset_id)):
        require(job, store, Kind.SELECT)


def _known(get: Callable[[str], Job], job_id: str, subset: str, store: Store) -> tuple[Job, str]:
    """The job, and the id of its subset; raises SubsetNotFound."""
    job = get(job_id)
    if subset == OWN:
        return job, job.request.subset_id
    subset_request(job, subset, store)
    return job, subset


@router.get(
    "/{subset}/{distance}",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in FORMS}}},
)
def show_manifest(
    job_id: str,
    subset: str,
    distance: str,
    caller: Reader,
    repository: Book,
    store: Objects,
    accept: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The manifest: which images are kept at a distance or level. Parquet, or by `Accept` NDJSON or CSV, streamed."""
    kind = preferred(accept, tuple(FORMS))
    job, subset = _known(repository.get, job_id, subset, store)
    key = layout.manifest(job.id, subset, _variant(job, distance))
    if not store.exists(layout.subset(job.id, subset)):
        if subset == job.request.subset_id:
            require(job, store, Kind.SELECT)
        if failed := read_json(store, layout.subset_error(job.id, subset)):
            raise from_dict(failed)
        raise JobNotReady(f"subset {subset} of job {job.id} is not made yet; ask again soon", stage=stage(job, store))
    streamed = manifest.EXPORTS[FORMS[kind]](store.open(key))
    name = f"{job.id}-{subset}-{distance}{FORMS[kind]}"
    headers = {"Vary": "Accept", "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(streamed, media_type=kind, headers=headers)


def _variant(job: Job, written: str) -> str:
    if written in job.request.variants:
        return written
    known = ", ".join(job.request.variants)
    raise SubsetNotFound(f"job {job.id} has no distance {written[:20]!r}; it has {known}")
