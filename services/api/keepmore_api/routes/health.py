"""Whether the service is alive, whether it can work, and what it has done: for orchestrators and Prometheus, without a
key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from keepmore_api.dependencies import BackendDep
from keepmore_api.metrics import Meter
from keepmore_api.schemas.answers import Health

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=Health)
async def readyz(backend: BackendDep) -> Health:
    """Store and queue can be reached."""
    await run_in_threadpool(backend.check)
    return Health(status="ok")


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
def metrics(request: Request) -> Response:
    """Everything that is counted, in Prometheus' text format."""
    meter: Meter = request.app.state.meter
    return Response(generate_latest(meter.registry), media_type=CONTENT_TYPE_LATEST)
