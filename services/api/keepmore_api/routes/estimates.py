"""Estimates: what a dataset would take, from a sample of it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from keepmore.errors import EstimateNotFound, NotFound
from keepmore.jobs.requests import RequestRef, RequestRepository, new_estimate_id, request_estimate
from keepmore.storage.layout import RequestKind
from keepmore_api import idempotency
from keepmore_api.dependencies import BackendDep, IdempotencyKey, Reader, StoreDep, Wait, Writer
from keepmore_api.polling import result_of
from keepmore_api.schemas.answers import EstimateOut
from keepmore_api.schemas.requests import EstimateIn

router = APIRouter(prefix="/v1/estimates", tags=["estimates"])


@router.post("", response_model=EstimateOut, responses={202: {"model": EstimateOut}})
async def post_estimate(
    body: EstimateIn, caller: Writer, backend: BackendDep, wait: Wait = 30, idempotency_key: IdempotencyKey = None
) -> Response:
    """Compress a sample: bytes and counts by distance, each with an interval. 202 if it takes longer than `wait`."""
    request = body.record()
    backend.config.check_dataset("dataset", request.dataset)

    def submit() -> RequestRef:
        name = new_estimate_id()
        if idempotency_key is not None:
            name = idempotency.estimate_id(backend.store, caller.name, idempotency_key, request.as_json())
        ref = RequestRef(RequestKind.ESTIMATE, name, name)
        if not RequestRepository(backend.store).is_answered(ref):
            backend.scheduler.ask(request_estimate(backend.store, request, name))
        return ref

    ref = await run_in_threadpool(submit)
    return await _answer(backend.store, ref, wait)


@router.get("/{estimate}", response_model=EstimateOut)
async def show_estimate(estimate: str, caller: Reader, store: StoreDep, wait: Wait = 0) -> Response:
    """A requested estimate; the error, if it could not be made."""
    ref = RequestRef(RequestKind.ESTIMATE, estimate, estimate)
    try:
        await run_in_threadpool(RequestRepository(store).get, ref)
    except NotFound:
        raise EstimateNotFound(f"there is no estimate {estimate[:64]!r}; POST /v1/estimates makes one") from None
    return await _answer(store, ref, wait)


async def _answer(store: StoreDep, ref: RequestRef, wait: float) -> Response:
    result = await result_of(store, ref, wait)
    about = {"estimate": ref.id, "state": "succeeded" if result else "running"}
    return JSONResponse({**about, **(result or {})}, 200 if result else 202, {"Location": f"/v1/estimates/{ref.id}"})
