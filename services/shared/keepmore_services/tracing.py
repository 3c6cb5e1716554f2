"""Traces from a request to the steps of its job, sent over OTLP where an endpoint is set; without one there are no
traces.

A job's record holds the trace of the request that started it (W3C traceparent), so that every step of it, on any
machine and after any restart, is part of that trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from keepmore import __version__
from keepmore.errors import KeepmoreError
from keepmore.jobs.job import JobRepository
from keepmore.jobs.step import Kind, Step
from keepmore.storage.base import Store

PATH = "/v1/traces"
HEADER = "traceparent"


def provider(endpoint: str | None, service: str) -> TracerProvider | None:
    """Where spans go: to `endpoint`, http(s)://host:port of a collector, in batches of a few seconds; None without."""
    if not endpoint:
        return None
    tracer_provider = TracerProvider(resource=Resource({SERVICE_NAME: service, SERVICE_VERSION: __version__}))
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint.rstrip("/") + PATH)))
    return tracer_provider


def current() -> str | None:
    """The trace that the caller's work belongs to, to be stored; None where there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get(HEADER)


class Tracer:
    """Spans of steps, one per try. `provider` None: there are no spans, and the store is not read."""

    def __init__(self, provider: TracerProvider | None, store: Store) -> None:
        self._tracer = provider.get_tracer(__name__) if provider else None
        self._repository = JobRepository(store)
        self._spans: dict[Step, Span] = {}

    def start(self, step: Step, tries: int) -> None:
        if self._tracer:
            parent = None
            if step.kind is not Kind.ESTIMATE:  # it belongs to no job, and so to no trace
                with suppress(KeepmoreError):  # if the store does not answer, only the parent is lost
                    parent = self._repository.get(step.job).trace
            context = propagate.extract({HEADER: parent} if parent else {})
            span = self._tracer.start_span(f"step {step.kind}", context, SpanKind.CONSUMER)
            span.set_attributes({"keepmore.job": step.job, "keepmore.step": str(step), "keepmore.try": tries})
            self._spans[step] = span

    def end(self, step: Step, error: KeepmoreError | None = None) -> None:
        if span := self._spans.pop(step, None):
            if error:
                span.set_status(Status(StatusCode.ERROR, f"{error.code}: {error.message}"))
            span.end()

    @contextmanager
    def span(self, step: Step, tries: int) -> Iterator[None]:
        """The block runs as a span, which fails with the error that is raised."""
        self.start(step, tries)
        try:
            yield
        except KeepmoreError as error:
            self.end(step, error)
            raise
        finally:
            self.end(step)
