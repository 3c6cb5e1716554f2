"""Whether the service lives, whether it can work, and what it has done: for orchestrators and Prometheus, keyless."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepmore import __version__
from keepmore.errors import QueueUnavailable
from keepmore.jobs.graph import Lane
from keepmore.scheduling import metrics as totals
from keepmore_api.backend.base import Backend
from keepmore_api.dependencies import Parts
from keepmore_api.schemas import Health

router = APIRouter(tags=["health"])

# What the board counts, what it means, and its labels.
TOTALS = {
    "steps": ("Steps by kind and outcome.", ("kind", "outcome")),
    "failures": ("Steps that failed for good, by the code of their error.", ("code", "kind")),
    "delays": ("Steps put off because store, source or Redis did not answer, by code.", ("code", "kind")),
    "images": ("Images that steps have handled, by kind.", ("kind",)),
    "images_failed": ("Images that could not be read, by code, as indexes were finished.", ("code",)),
    "bytes_in": ("Bytes of source images read, by kind.", ("kind",)),
    "bytes_out": ("Bytes of encoded images, by kind.", ("kind",)),
    "bytes_saved": ("Bytes that pools are smaller by at a distance, as indexes were finished.", ("distance",)),
    "encode_s": ("Seconds spent encoding, by kind.", ("kind",)),
    "redis_errors": ("Calls of workers to Redis that failed.", ()),
}


UP = "Whether the queue can be reached."


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
        self.problems = Counter(
            "keepmore_problems", "Requests refused or failed, by code.", ("code",), registry=self.registry
        )
        Info("keepmore_build", "What runs here.", registry=self.registry).info({"version": __version__})


class _Shared(Collector):
    def __init__(self, parts: Backend) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        board = self._parts.board
        try:
            counts, depths, loads, processes = board.counts(), self._parts.depths(), board.loads(), board.processes()
        except QueueUnavailable:
            yield _gauge("queue_up", UP, 0)
            return
        yield _gauge("queue_up", UP, 1)
        yield _gauge("compress_processes", "Processes that compress, those heard of lately.", processes)
        for name, (meaning, labels) in TOTALS.items():
            exposed = name.replace("encode_s", "encode_seconds")
            family = CounterMetricFamily(f"keepmore_{exposed}", meaning, labels=labels)
            for (counted, found), amount in counts.items():
                if counted == name:
                    family.add_metric([dict(found)[label] for label in labels], amount)
            yield family
        seconds = HistogramMetricFamily("keepmore_step_seconds", "Seconds that steps took, by kind.", labels=["kind"])
        for kind, (buckets, total) in totals.histogram(counts).items():
            seconds.add_metric([kind], buckets, total)
        yield seconds
        yield _by_lane("queue_depth", "Messages that wait for a worker, by lane.", depths)
        outstanding = {lane: load.waiting + load.under_way for lane, load in loads.items()}
        yield _by_lane("steps_outstanding", "Steps that wait or are under way, by lane.", outstanding)
        oldest = {lane: load.oldest_s for lane, load in loads.items()}
        yield _by_lane("queue_age_seconds", "For how long a step has been waiting for a worker, by lane.", oldest)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"keepmore_{name}", meaning, value)


def _by_lane(name: str, meaning: str, values: Mapping[Lane, float] | Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"keepmore_{name}", meaning, labels=["lane"])
    for lane, value in values.items():
        family.add_metric([str(lane)], value)
    return family


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
