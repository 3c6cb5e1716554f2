"""Subsets of a job's index for other budgets, and manifests in several forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from keepmore.errors import JobNotReady, SubsetNotFound, from_dict
from keepmore.jobs.graph import subset_steps
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.requests import RequestRef, RequestRepository, request_subset, subset_request
from keepmore.jobs.stage import require, stage
from keepmore.jobs.step import Kind
from keepmore.scheduling.status import subsets
from keepmore.selection import manifest
from keepmore.spec.job import OWN
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind
from keepmore_api.content_negotiation import preferred
from keepmore_api.dependencies import BackendDep, Reader, RepositoryDep, StoreDep, Wait, Writer
from keepmore_api.job_views import manifests
from keepmore_api.polling import result_of
from keepmore_api.schemas.answers import SubsetOut, SubsetsOut
from keepmore_api.schemas.requests import SubsetIn

router = APIRouter(prefix="/v1/jobs/{job_id}/subsets", tags=["subsets"])

# The suffix of each media type of a manifest.
SUFFIXES = {export.media_type: suffix for suffix, export in manifest.EXPORTS.items()}


@router.post("", status_code=201, response_model=SubsetOut, responses={202: {"model": SubsetOut}})
async def post_subset(
    job_id: str, body: SubsetIn, caller: Writer, repository: RepositoryDep, backend: BackendDep, wait: Wait = 10
) -> Response:
    """Another budget or order over the same index; nothing is compressed again. 202 if it takes longer than `wait`."""
    request = body.record()

    def ask() -> RequestRef:
        job = repository.get(job_id)
        select = request_subset(job, backend.store, request)
        if not backend.store.exists(select.output):
            for step in [*subset_steps(job, request.id, Kind.FIT)] or [select]:  # it follows its fits by itself
                backend.scheduler.ask(step)
        return RequestRef(RequestKind.SUBSET, job.id, request.id)

    ref = await run_in_threadpool(ask)
    result = await result_of(backend.store, ref, wait)
    headers = {"Location": f"/v1/jobs/{ref.job}/subsets/{ref.id}"}
    return JSONResponse(_record(ref, result), 201 if result else 202, headers)


def _record(ref: RequestRef, result: Mapping[str, Any] | None) -> Mapping[str, Any]:
    links = {
        "self": f"/v1/jobs/{ref.job}/subsets/{ref.id}",
        "manifests": manifests(ref.job, result) if result else {},
    }
    return {"subset": ref.id, "state": "succeeded" if result else "running", "links": links, **(result or {})}


@router.get("", response_model=SubsetsOut)
def list_subsets(job_id: str, caller: Reader, repository: RepositoryDep, store: StoreDep) -> JSONResponse:
    """All subsets that were made of a job, its own first."""
    job = repository.get(job_id)
    records = [
        _record(RequestRef(RequestKind.SUBSET, job.id, record["subset"]), record) for record in subsets(job, store)
    ]
    return JSONResponse({"subsets": records})


@router.get("/{subset}", response_model=SubsetOut)
async def show_subset(
    job_id: str, subset: str, caller: Reader, repository: RepositoryDep, store: StoreDep, wait: Wait = 0
) -> Response:
    """One subset: counts, bytes and digests by variant. The error, if it could not be made."""
    job, ref = await run_in_threadpool(_find, repository, job_id, subset, store)
    result = await result_of(store, ref, wait)

    def require_own() -> None:
        """Raises JobNotReady for a job that ended before its own subset was there: it will not be made."""
        now = repository.get(ref.job)
        if now.state is not State.ACCEPTED and not store.exists(ref.key):
            require(now, store, Kind.SELECT)

    if result is None and ref.id == job.request.subset_id:
        await run_in_threadpool(require_own)
    return JSONResponse(_record(ref, result))


def _find(repository: JobRepository, job_id: str, subset: str, store: Store) -> tuple[Job, RequestRef]:
    """The job, and its subset of that id, or its own; raises SubsetNotFound."""
    job = repository.get(job_id)
    name = job.request.subset_id if subset == OWN else subset
    subset_request(job, name, store)
    return job, RequestRef(RequestKind.SUBSET, job.id, name)


@router.get(
    "/{subset}/{distance}",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in SUFFIXES}}},
)
def show_manifest(
    job_id: str,
    subset: str,
    distance: str,
    caller: Reader,
    repository: RepositoryDep,
    store: StoreDep,
    accept: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The manifest: which images are kept in a variant. Parquet, or by `Accept` NDJSON or CSV, streamed."""
    kind = preferred(accept, tuple(SUFFIXES))
    job, ref = _find(repository, job_id, subset, store)
    if distance not in job.request.variants:
        variants = ", ".join(job.request.variants)
        raise SubsetNotFound(f"job {job.id} has no distance {distance[:20]!r}; it has {variants}")
    if not store.exists(ref.result_key):
        if ref.id == job.request.subset_id:
            require(job, store, Kind.SELECT)
        if error := RequestRepository(store).error(ref):
            raise from_dict(error)
        raise JobNotReady(f"subset {ref.id} of job {job.id} is not made yet; ask again soon", stage=stage(job, store))
    rows = manifest.EXPORTS[SUFFIXES[kind]].write(store.open(layout.manifest(job.id, ref.id, distance)))
    name = f"{job.id}-{ref.id}-{distance}{SUFFIXES[kind]}"
    headers = {"Vary": "Accept", "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(rows, media_type=kind, headers=headers)
