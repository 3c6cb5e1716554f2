"""Traces as a collector gets them: over HTTP, from the processes of a service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from keepmore.errors import InvalidRequest
from keepmore_services.settings import load
from tests.servers import serving
from tests.service import Service, distributed, embedded, upload

SPANS_S = 30


class Collector:
    """Takes spans at `url`, as OpenTelemetry's collector does: (name of the service, span)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.url = ""
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (name,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            with self._lock:
                self.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]

    def wait_for(self, name: str) -> list[tuple[str, Span]]:
        """All spans so far, once one called `name` is among them."""
        deadline = time.monotonic() + SPANS_S
        while not any(span.name == name for _, span in self.spans):
            assert time.monotonic() < deadline, [span.name for _, span in self.spans]
            time.sleep(0.2)
        return list(self.spans)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            return None

    with serving(Handler) as url:
        collector.url = url
        yield collector


def _trace(service: Service, dataset: str, collector: Collector) -> dict[str, tuple[str, Span]]:
    job = service.client.start({"dataset": dataset, "distances": [0, 6]})["job"]
    service.client.wait(job, timeout_s=120)
    spans = collector.wait_for("step report")
    assert not [span.name for _, span in spans if "healthz" in span.name or "readyz" in span.name]
    (request,) = [span for _, span in spans if span.name == "POST /v1/jobs"]
    return {span.name: (name, span) for name, span in spans if span.trace_id == request.trace_id}


def test_the_steps_of_a_job_belong_to_the_request_that_started_it(
    tmp_path: Path, sample: Path, collector: Collector
) -> None:
    """Else nobody sees where the time of a slow job went."""
    with distributed(tmp_path, workers=1, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        spans = _trace(service, upload(service, sample / "test", "traced"), collector)
    assert {"step list", "step compress", "step index", "step report"} <= set(spans)
    (api, request), (worker, step) = spans["POST /v1/jobs"], spans["step compress"]
    assert (api, worker) == ("keepmore-api", "keepmore-worker")
    assert step.parent_span_id == request.span_id
    attributes = {one.key: one.value.string_value for one in step.attributes}
    assert attributes["keepmore.step"].startswith("compress:")
    assert step.end_time_unix_nano > step.start_time_unix_nano > request.start_time_unix_nano


def test_the_service_in_one_process_traces_too(tmp_path: Path, sample: Path, collector: Collector) -> None:
    """Else a service must be distributed before anybody sees why it is slow."""
    with embedded(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        spans = _trace(service, f"file://{sample / 'test'}", collector)
    assert spans["step compress"][1].parent_span_id == spans["POST /v1/jobs"][1].span_id


def test_a_caller_finds_the_job_in_its_own_trace(tmp_path: Path, sample: Path, collector: Collector) -> None:
    """Else the time that a pipeline waits for a job is a hole in its trace."""
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    with embedded(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        body = {"dataset": f"file://{sample / 'test'}", "distances": [0, 6]}
        headers = {"traceparent": f"00-{theirs}-00f067aa0ba902b7-01"}
        assert urllib3.request("POST", f"{service.url}/v1/jobs", json=body, headers=headers).status == 202
        spans = collector.wait_for("step report")
    steps = {span.name for _, span in spans if span.trace_id == bytes.fromhex(theirs)}
    assert {"POST /v1/jobs", "step compress", "step report"} <= steps


def test_a_collector_that_does_not_answer_stops_no_job(tmp_path: Path, sample: Path) -> None:
    """Else an outage of whoever watches is one of the service."""
    with embedded(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as service:
        job = service.client.start({"dataset": f"file://{sample / 'test'}", "distances": [0, 6]})["job"]
        assert service.client.wait(job, timeout_s=120)["state"] == "succeeded"


def test_an_endpoint_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a misspelled endpoint is found out when the first trace is missed."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    with pytest.raises(InvalidRequest, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load()
