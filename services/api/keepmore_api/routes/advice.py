"""Advice on a job: the distance to store at for any budget, from small trainings on a part of its pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.jobs.requests import RequestRef, advice_request, request_advice
from keepmore.spec.advice import AdviceRequest
from keepmore.storage import layout
from keepmore.storage.layout import RequestKind
from keepmore_api.content_negotiation import preferred
from keepmore_api.dependencies import BackendDep, Reader, RepositoryDep, StoreDep, Wait, Writer
from keepmore_api.polling import result_of
from keepmore_api.schemas.answers import AdviceOut, described
from keepmore_api.schemas.requests import AdviceIn

router = APIRouter(prefix="/v1/jobs/{job_id}/advice", tags=["advice"])

JSON, HTML = "application/json", "text/html"


@router.post("", status_code=202, response_model=AdviceOut, responses={200: {"model": AdviceOut}})
async def post_advice(
    job_id: str, body: AdviceIn, caller: Writer, repository: RepositoryDep, backend: BackendDep, wait: Wait = 0
) -> Response:
    """The distance to store at for each budget, with predicted accuracy. It takes minutes: poll `Location`."""
    request = body.record()
    backend.config.check_training(request.training)

    def ask() -> RequestRef:
        job = repository.get(job_id)
        name = request_advice(job, backend.store, request)
        backend.scheduler.start(job.id)
        return RequestRef(RequestKind.ADVICE, job.id, name)

    ref = await run_in_threadpool(ask)
    return _answer(ref, request, await result_of(backend.store, ref, wait))


@router.get("/{advice}", response_model=AdviceOut, responses={200: described(JSON, HTML)})
async def show_advice(
    job_id: str,
    advice: str,
    caller: Reader,
    repository: RepositoryDep,
    store: StoreDep,
    wait: Wait = 0,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Requested advice, as JSON or, by `Accept`, as a page with its plots. The error, if there is none."""
    kind = preferred(accept, (JSON, HTML))
    job = await run_in_threadpool(repository.get, job_id)
    request = await run_in_threadpool(advice_request, job, advice, store)
    ref = RequestRef(RequestKind.ADVICE, job.id, advice)
    result = await result_of(store, ref, wait)
    if result and kind == HTML:
        page = await run_in_threadpool(store.get, layout.advice_page(job.id, advice))
        return Response(page, media_type=HTML, headers={"Vary": "Accept"})
    return _answer(ref, request, result)


def _answer(ref: RequestRef, request: AdviceRequest, result: Mapping[str, Any] | None) -> JSONResponse:
    state = "succeeded" if result else "running"
    about = {"advice": ref.id, "job": ref.job, "state": state, "request": request.as_json()}
    headers = {"Location": f"/v1/jobs/{ref.job}/advice/{ref.id}", "Vary": "Accept"}
    return JSONResponse({**(result or {}), **about}, 200 if result else 202, headers)
