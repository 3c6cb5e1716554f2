"""Whether the service lives, whether it can work, and what it has done: for orchestrators and Prometheus, keyless."""

from __future__ import annotations

import time
from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepmore.errors import QueueUnavailable
from services.api.backend import Backend
from services.api.deps import Parts
from services.api.schemas import Health

router = APIRouter(tags=["health"])

# What the board counts, and what it means.
TOTALS = {
    "steps": "Steps by kind and outcome.",
    "images": "Images that steps have handled, by kind.",
    "bytes_in": "Bytes of source images read, by kind.",
    "bytes_out": "Bytes of encoded images, by kind.",
    "encode_s": "Seconds spent encoding, by kind.",
}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=Health)
async def readyz(parts: Parts) -> Health:
    """Store and queue can be reached."""
    await run_in_threadpool(parts.check)
    return Health(status="ok")


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
def metrics(request: Request) -> Response:
    """Everything that is counted, in Prometheus' text format."""
    meter: Meter = request.app.state.meter
    return Response(generate_latest(meter.registry), media_type=CONTENT_TYPE_LATEST)


class Meter:
    """What one API process measures, beside the totals that all workers share by way of the board."""

    def __init__(self, parts: Backend) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Shared(parts))
        names = ("method", "route", "status")
        self.requests = Counter("keepmore_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "keepmore_request_seconds", "Seconds until an answer began.", ("method", "route"), registry=self.registry
        )


class _Shared(Collector):
    def __init__(self, parts: Backend) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        reachable = GaugeMetricFamily("keepmore_queue_up", "Whether the queue can be reached.")
        try:
            counts, depths = self._parts.board.counts(), self._parts.depths()
        except QueueUnavailable:
            reachable.add_metric((), 0)
            yield reachable
            return
        reachable.add_metric((), 1)
        yield reachable
        for name, meaning in TOTALS.items():
            found = {labels: amount for (counted, labels), amount in counts.items() if counted == name}
            exposed = name.replace("encode_s", "encode_seconds")
            family = CounterMetricFamily(
                f"keepmore_{exposed}", meaning, labels=[key for key, _ in next(iter(found), ())]
            )
            for labels, amount in found.items():
                family.add_metric([value for _, value in labels], amount)
            yield family
        waiting = GaugeMetricFamily("keepmore_queue_depth", "Steps that wait, by lane.", labels=["lane"])
        for lane, depth in depths.items():
            waiting.add_metric([lane], depth)
        yield waiting


class Measured:
    """Counts and times every request by its route, not by its path, of which there is no end."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                requests, seconds = self._of(scope["method"], route, message["status"])
                requests.inc()
                seconds.observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, answer)

    def _of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        key = (method, route, status)
        if key not in self._series:
            requests = self._meter.requests.labels(method, route, str(status))
            self._series[key] = (requests, self._meter.seconds.labels(method, route))
        return self._series[key]
