"""Estimates: what a dataset would take, from a sample of it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.errors import EstimateNotFound
from keepmore.jobs.requests import ask
from keepmore.spec.estimate import EstimateRequest
from keepmore.storage import layout
from keepmore_api import idempotency
from keepmore_api.backend.base import Backend
from keepmore_api.dependencies import IdempotencyKey, Objects, Parts, Reader, Wait, Writer
from keepmore_api.polling import answer
from keepmore_api.schemas import EstimateIn, EstimateOut, remote_uri

router = APIRouter(prefix="/v1/estimates", tags=["estimates"])


@router.post("", response_model=EstimateOut, responses={202: {"model": EstimateOut}})
async def post_estimate(
    body: EstimateIn, caller: Writer, parts: Parts, wait: Wait = 30, idempotency_key: IdempotencyKey = None
) -> Response:
    """Compress a sample: bytes and counts by distance, each with an interval. 202 if it takes longer than `wait`."""
    question = EstimateRequest(
        dataset=remote_uri("dataset", body.dataset),
        distances=tuple(body.distances),
        effort=body.effort,
        budget=body.budget,
        selection=body.selection.record(),
        limits=body.limits.record(),
        images=body.images,
        seed=body.seed,
    )
    parts.config.check_dataset("dataset", question.dataset)

    name = await run_in_threadpool(_submit, parts, caller.name, idempotency_key, question)
    return await _answer(parts.store, name, wait)


def _submit(parts: Backend, caller: str, key: str | None, question: EstimateRequest) -> str:
    name = None if key is None else idempotency.estimate_id(parts.store, caller, key, question.as_json())
    step = ask(parts.store, question, name)
    if not any(map(parts.store.exists, (layout.estimate(step.job), layout.estimate_error(step.job)))):
        parts.scheduler.ask(step)
    return step.job


@router.get("/{estimate}", response_model=EstimateOut)
async def show_estimate(estimate: str, caller: Reader, store: Objects, wait: Wait = 0) -> Response:
    """An estimate that was asked for; the error, if it could not be made."""
    known = estimate.replace("-", "").isalnum() and estimate.isascii()
    if not known or not await run_in_threadpool(store.exists, layout.estimate_request(estimate)):
        raise EstimateNotFound(f"there is no estimate {estimate[:64]!r}; POST /v1/estimates makes one")
    return await _answer(store, estimate, wait)


async def _answer(store: Objects, name: str, wait: float) -> Response:
    made = await answer(store, layout.estimate(name), layout.estimate_error(name), wait)
    shown = {"estimate": name, "state": "succeeded" if made else "running"} | (made or {})
    return JSONResponse(shown, 200 if made else 202, {"Location": f"/v1/estimates/{name}"})
