"""Jobs: accept, list, show, follow, cancel, retry; the images that failed; the report."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from keepmore.answers import JobRecordAnswer
from keepmore.compression import index
from keepmore.errors import InvalidRequest, InvalidUri, JobNotFound, QueueUnavailable
from keepmore.jobs.job import ID, JobRepository, State, new_id
from keepmore.jobs.stage import require
from keepmore.jobs.step import Kind
from keepmore.net import uri as uris
from keepmore.net.http import public_addresses
from keepmore.spec.job import Request as JobRequest
from keepmore.storage import layout
from keepmore_api import idempotency
from keepmore_api.auth import READ
from keepmore_api.backend.base import Backend
from keepmore_api.content_negotiation import preferred
from keepmore_api.dependencies import (
    MOST_WAIT_S,
    SCHEME,
    BackendDep,
    IdempotencyKey,
    Reader,
    RepositoryDep,
    StoreDep,
    ViewsDep,
    Writer,
    admitted,
)
from keepmore_api.job_views import View, Views
from keepmore_api.schemas.answers import JobOut, JobsOut, described
from keepmore_api.schemas.requests import JobIn
from keepmore_services import tracing

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_AGAIN_S = 2
LOOK_EVERY_S = 0.5
# The most records that a page with a state filter reads, so that one call cannot read a million.
SCANNED_A_PAGE = 1000


async def get_view(job_id: str, views: ViewsDep) -> View:
    return await views.get(job_id)


# As a dependency, because an unknown job has to be reported before a stream begins.
ViewDep = Annotated[View, Depends(get_view)]


@router.post(
    "",
    status_code=202,
    response_model=JobOut,
    responses={202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
async def post_job(
    body: JobIn, caller: Writer, backend: BackendDep, views: ViewsDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Compress a dataset at every distance, fit the budget, train, report. Poll `Location` for how it goes."""
    request = body.record()
    for field, uri in request.datasets():
        backend.config.check_dataset(field, uri)
    backend.config.check_training(request.training)
    if request.webhook is not None:
        await run_in_threadpool(_check_webhook, backend, request.webhook)
    job_id = await run_in_threadpool(_accept, backend, caller.name, idempotency_key, request)
    view = await views.get(job_id)
    return _answer(view, 202, {"Location": f"/v1/jobs/{job_id}"})


def _check_webhook(backend: Backend, url: str) -> None:
    if backend.config.webhook_secret is None:
        raise InvalidRequest(
            "this service cannot sign calls; set KEEPMORE_WEBHOOK_SECRET, or poll instead", field="webhook"
        )
    try:
        place = uris.parse(url)
    except InvalidUri as error:
        raise InvalidUri(error.reason, field="webhook") from error
    if place.scheme not in uris.DEFAULT_PORTS:
        raise InvalidRequest(f"{url} is not a web address; write https://...", field="webhook")
    if not backend.config.access.private_addresses:
        with suppress(socket.gaierror):  # a name that does not resolve now is tried again when the job ends
            public_addresses(place.host, place.port or uris.DEFAULT_PORTS[place.scheme])


def _accept(backend: Backend, caller: str, key: str | None, request: JobRequest) -> str:
    if key is None:
        job_id = new_id(datetime.now(UTC))
    else:
        job_id = idempotency.job_id(backend.store, caller, key, request.as_json())
    # Before the job itself: if this process died now, a job that nobody looks after would never end.
    backend.store.put(layout.active(job_id), b"")
    job, is_new = JobRepository(backend.store).find_or_create(request, job_id, tracing.current())
    if is_new:
        _written_at_least(backend.scheduler.start_new, job.id)
    elif job.state is State.ACCEPTED:
        _written_at_least(backend.scheduler.start, job.id)
    return job.id


def _written_at_least(change: Callable[[str], object], job_id: str) -> None:
    """Change a job. The store comes first: while the queue is away that is enough, and the reconciler does the rest."""
    try:
        change(job_id)
    except QueueUnavailable as error:
        log.warning("written down while the queue is away", extra={"job": job_id, "reason": error.message})


@router.get("", response_model=JobsOut)
def list_jobs(
    caller: Reader,
    repository: RepositoryDep,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(max_length=64, pattern=r"^[0-9a-z-]*$", description="A page's `next`.")] = "",
) -> Mapping[str, object]:
    """Jobs, oldest first. A page of a state may be short, or empty, and still have a next one."""
    page: list[JobRecordAnswer] = []
    last = after
    for scanned, job_id in enumerate(filter(ID.fullmatch, repository.ids(after))):
        if len(page) == limit or scanned == SCANNED_A_PAGE:
            return {"jobs": page, "next": last}
        with suppress(JobNotFound):  # deleted since its key was listed, or never a job's record
            record = repository.record_for_list(job_id)
            if state in (None, record["state"]):
                page.append(record)
        last = job_id
    return {"jobs": page, "next": None}


@router.get(
    "/{job_id}",
    response_model=JobOut,
    responses={304: {"description": "Nothing changed."}},
    openapi_extra={
        "security": [{SCHEME: []}],
        "parameters": [
            {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
            {
                "name": "wait",
                "in": "query",
                "description": "Seconds to wait for the job's end, or for a change.",
                "schema": {"type": "number", "minimum": 0, "maximum": MOST_WAIT_S, "default": 0},
            },
        ],
    },
)
async def show_job(job_id: str, request: Request) -> Response:
    """The status of a job. `wait` answers when the job has ended, or with `If-None-Match` when anything has changed."""
    # The parameters are read from the request by hand: every caller polls this route, and each declared parameter or
    # dependency costs as much as the answer itself.
    admitted(request, READ)
    views: Views = request.app.state.views
    if_none_match = request.headers.get("if-none-match")
    deadline = time.monotonic() + _seconds(request.query_params.get("wait", "0"))
    view = await views.get(job_id)
    while time.monotonic() < deadline and (_fits(if_none_match, view.etag) if if_none_match else not view.ended):
        await asyncio.sleep(LOOK_EVERY_S)
        view = await views.get(job_id)
    if _fits(if_none_match, view.etag):
        return Response(status_code=304, headers=_headers(view))
    return _answer(view, 200, {})


def _seconds(wait: str) -> float:
    try:
        seconds = float(wait)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_WAIT_S:
        raise InvalidRequest(f"{wait[:20]!r} is not possible; give 0 to {MOST_WAIT_S} seconds", field="wait")
    return seconds


def _fits(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list, compared weakly, because proxies that compress turn ETags into weak ones."""
    etags = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return etag in etags or etags == ["*"]


def _answer(view: View, status: int, headers: dict[str, str]) -> Response:
    return Response(view.body, status, {**_headers(view), **headers}, "application/json")


def _headers(view: View) -> dict[str, str]:
    headers = {"ETag": view.etag, "Cache-Control": "no-cache"}
    return headers if view.ended else {**headers, "Retry-After": str(POLL_AGAIN_S)}


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def follow_job(
    job_id: str, request: Request, caller: Reader, views: ViewsDep, view: ViewDep
) -> AsyncIterator[ServerSentEvent]:
    """The job each time that it changes, as events `progress`; the last is `end`."""
    sent_etag = None
    while not await request.is_disconnected():
        if view.etag != sent_etag:
            name = "end" if view.ended else "progress"
            yield ServerSentEvent(raw_data=view.body.decode(), event=name, id=view.etag.strip('"'), retry=2000)
            sent_etag = view.etag
        if view.ended:
            return
        await asyncio.sleep(LOOK_EVERY_S)
        view = await views.get(job_id)


@router.post("/{job_id}/cancel", response_model=JobOut)
async def cancel_job(job_id: str, caller: Writer, backend: BackendDep, views: ViewsDep) -> Response:
    """Stop a job within seconds. What is done is kept; `retry` continues it."""
    await run_in_threadpool(_written_at_least, backend.scheduler.cancel, job_id)
    return await _changed(job_id, views)


@router.post("/{job_id}/retry", status_code=202, response_model=JobOut)
async def retry_job(job_id: str, caller: Writer, backend: BackendDep, views: ViewsDep) -> Response:
    """Continue a job that failed or was cancelled: only missing steps run."""
    await run_in_threadpool(_written_at_least, backend.scheduler.retry, job_id)
    changed = await _changed(job_id, views)
    changed.status_code = 202
    return changed


async def _changed(job_id: str, views: Views) -> Response:
    views.forget(job_id)
    return _answer(await views.get(job_id), 200, {})


@router.get(
    "/{job_id}/errors",
    response_class=StreamingResponse,
    responses={200: described("application/x-ndjson")},
)
def show_errors(job_id: str, caller: Reader, repository: RepositoryDep, store: StoreDep) -> StreamingResponse:
    """Every image that failed and why: one JSON object per line."""
    job = repository.get(job_id)
    require(job, store, Kind.INDEX)
    images = index.errors(store, layout.index(job.id), layout.evaluation(job.id))
    lines = (json.dumps(image.as_json(), ensure_ascii=False) + "\n" for image in images)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get(
    "/{job_id}/report",
    response_class=Response,
    responses={
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}, "text/html": {"schema": {"type": "string"}}}
        }
    },
)
def show_report(
    job_id: str,
    caller: Reader,
    repository: RepositoryDep,
    store: StoreDep,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """The report, as JSON or, by `Accept`, as the page with its plots."""
    kind: Literal["application/json", "text/html"] | str = preferred(accept, ("application/json", "text/html"))
    job = repository.get(job_id)
    require(job, store, Kind.REPORT)
    key = layout.report(job.id) if kind == "application/json" else layout.report_page(job.id)
    return Response(store.get(key), media_type=kind, headers={"Vary": "Accept"})
