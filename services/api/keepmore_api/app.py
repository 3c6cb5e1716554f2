"""The HTTP API as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider

from keepmore import __version__
from keepmore_api import metrics, middleware, problems
from keepmore_api.auth import Gate
from keepmore_api.backend.base import Backend
from keepmore_api.job_views import Views
from keepmore_api.middleware import BodyLimit, LocalOnly
from keepmore_api.routes import advice, estimates, health, jobs, subsets, trainings
from keepmore_api.schemas.answers import Problem

DESCRIPTION = """Keeps more training images in the same storage: compresses datasets as JPEG XL at chosen Butteraugli
distances, works out which images fit a budget at each, trains a classifier on each subset, and reports."""


REFUSALS = {
    400: "The body is not JSON, or the host is not one of this service.",
    401: "An API key is needed.",
    403: "The key lacks the scope.",
    404: "There is no such thing.",
    405: "Not with this method.",
    406: "None of the requested forms is available.",
    409: "Not now: the problem names the stage or state that the job is in.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The request is wrong; the problem names the field, the value and the remedy.",
    500: "A defect of the service.",
    502: "The dataset cannot be read.",
    503: "Store or queue cannot be reached.",
}


def create_app(
    backend: Backend, gate: Gate, max_body_bytes: int, local_only: bool, tracing: TracerProvider | None = None
) -> FastAPI:
    """`local_only`: answer only to requests that name this machine as their host. `tracing`: where spans go."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with backend:
            yield

    described: dict[int | str, dict[str, Any]] = {
        status: {
            "description": why,
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, why in REFUSALS.items()
    }
    app = FastAPI(
        title="Keepmore",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        responses=described,
        telemetry={
            "tracer_provider": tracing,
            "tracing": tracing is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            # Monitoring makes hundreds of requests an hour that are not worth a trace.
            "exclude": lambda scope: scope.get("path") in ("/healthz", "/readyz", "/metrics"),
        },
        redirect_slashes=False,  # behind a proxy a redirect would bypass its TLS
    )
    app.state.backend, app.state.gate = backend, gate
    app.state.views, app.state.meter = Views(backend), metrics.Meter(backend)
    problems.install(app)
    for part in (jobs, subsets, trainings, advice, estimates, health):
        app.include_router(part.router)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes)
    if local_only:
        app.add_middleware(LocalOnly)
    app.add_middleware(middleware.Measured, meter=app.state.meter)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the schema of problems where the descriptions of all errors refer to it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
