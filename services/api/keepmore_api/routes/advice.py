"""Advice on a job: the distance to store at for any budget, from small trainings on a part of its pool."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.jobs.requests import advice_request, request_advice
from keepmore.spec.advice import AdviceRequest
from keepmore.storage import layout
from keepmore_api.content_negotiation import preferred
from keepmore_api.dependencies import Book, Objects, Parts, Reader, Wait, Writer
from keepmore_api.polling import answer
from keepmore_api.schemas import AdviceIn, AdviceOut, described

router = APIRouter(prefix="/v1/jobs/{job_id}/advice", tags=["advice"])

JSON, HTML = "application/json", "text/html"


@router.post("", status_code=202, response_model=AdviceOut, responses={200: {"model": AdviceOut}})
async def post_advice(
    job_id: str, body: AdviceIn, caller: Writer, repository: Book, parts: Parts, wait: Wait = 0
) -> Response:
    """The distance to store at for each budget, with predicted accuracy. It takes minutes: poll `Location`."""
    request = body.record()
    parts.config.check_training(request.training)

    def ask() -> tuple[str, str]:
        job = repository.get(job_id)
        name = request_advice(job, parts.store, request)
        parts.scheduler.start(job.id)
        return job.id, name

    job, name = await run_in_threadpool(ask)
    return _shown(job, name, request, await _made(parts.store, job, name, wait))


@router.get("/{advice}", response_model=AdviceOut, responses={200: described(JSON, HTML)})
async def show_advice(
    job_id: str,
    advice: str,
    caller: Reader,
    repository: Book,
    store: Objects,
    wait: Wait = 0,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Advice that was asked for, as JSON or, by `Accept`, as a page with its plots. The error, if there is none."""
    kind = preferred(accept, (JSON, HTML))
    job = await run_in_threadpool(repository.get, job_id)
    request = await run_in_threadpool(advice_request, job, advice, store)
    made = await _made(store, job.id, advice, wait)
    if made and kind == HTML:
        page = await run_in_threadpool(store.get, layout.advice_page(job.id, advice))
        return Response(page, media_type=HTML, headers={"Vary": "Accept"})
    return _shown(job.id, advice, request, made)


async def _made(store: Objects, job: str, name: str, wait: float) -> dict[str, Any] | None:
    return await answer(store, layout.advice(job, name), layout.advice_error(job, name), wait)


def _shown(job: str, name: str, request: AdviceRequest, made: dict[str, Any] | None) -> JSONResponse:
    said = {"advice": name, "job": job, "state": "succeeded" if made else "running", "request": request.as_json()}
    headers = {"Location": f"/v1/jobs/{job}/advice/{name}", "Vary": "Accept"}
    return JSONResponse((made or {}) | said, 200 if made else 202, headers)
