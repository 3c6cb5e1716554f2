"""The client where the service is not as it should be; what it does with a good one is in the tests of the service."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3

from keepmore.client import RETRIES, Client
from keepmore.errors import (
    Cancelled,
    InternalError,
    InvalidRequest,
    JobNotReady,
    ServiceError,
    ServiceUnavailable,
    StoreFull,
)
from tests.servers import free_ports

QUICK = RETRIES.new(total=3, backoff_factor=0.01)

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def _answering(*answers: Answer) -> Iterator[tuple[Client, list[Any]]]:
    """A server that gives these answers in turn, the last for ever; the requests that it got are kept."""
    requests: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            requests.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            status, headers, body = answers[min(len(requests), len(answers)) - 1]
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 the name that http.server looks for

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", free_ports(1)[0]), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Client(f"http://127.0.0.1:{server.server_port}/", retries=QUICK), requests
        server.shutdown()


def _json(status: int, value: Any, **headers: str) -> Answer:
    return status, headers, json.dumps(value).encode()


def _job(state: str, error: dict[str, Any] | None = None) -> Answer:
    return _json(200, {"job": "j", "state": state, "error": error}, ETag=f'"{state}"')


def test_an_address_where_nobody_answers_is_named() -> None:
    """Else a mistyped port ends in a traceback of a library."""
    port = free_ports(1)[0]
    with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port} does not answer"):
        Client(f"http://127.0.0.1:{port}", retries=urllib3.Retry(0)).job("j")


def test_an_address_that_is_none_is_refused() -> None:
    """Else a host without a scheme fails deep inside."""
    with pytest.raises(InvalidRequest, match="http://host:port"):
        Client("localhost:8000")


def test_another_kind_of_server_is_recognised() -> None:
    """Else a proxy's login page is taken for an answer."""
    with (
        _answering((404, {}, b"<html>nginx</html>")) as (client, _),
        pytest.raises(ServiceError, match="is that a Keepmore service"),
    ):
        client.job("j")


def test_a_page_that_is_no_answer_is_recognised() -> None:
    """Else any web server that says 200, or sends its callers elsewhere, ends in a traceback of the JSON reader."""
    pages: list[Answer] = [(200, {}, b"<html>welcome</html>"), (302, {"Location": "/login"}, b"")]
    for page in pages:
        with _answering(page) as (client, _), pytest.raises(ServiceError, match="is that a Keepmore service"):
            client.job("j")


def test_an_id_stays_one_part_of_the_path() -> None:
    """Else a mistyped id asks for another page, and its answer is taken for the job's."""
    with _answering(_job("accepted")) as (client, requests):
        client.job("a/../b?wait=1")
        assert requests[0][1] == "/v1/jobs/a%2F..%2Fb%3Fwait%3D1?wait=0"
        for name in ("", ".", ".."):
            with pytest.raises(InvalidRequest, match="names nothing"):
                client.job(name)
    assert len(requests) == 1


def test_a_job_that_failed_without_a_reason_has_failed() -> None:
    """Else whoever waits for it asks the service without end."""
    with _answering(_job("failed")) as (client, _), pytest.raises(InternalError, match="does not say why"):
        client.wait("j", timeout_s=5)


def test_problems_become_the_errors_that_they_name() -> None:
    """Else a caller has to read HTTP statuses."""
    not_ready = {"code": "job_not_ready", "detail": "wait", "stage": "compress", "status": 409, "title": "x"}
    with _answering(_json(409, not_ready)) as (client, _), pytest.raises(JobNotReady, match="wait") as excinfo:
        client.report("j")
    assert excinfo.value.details == {"stage": "compress"}
    unknown = {"code": "from_the_future", "detail": "new", "status": 418}
    with _answering(_json(418, unknown)) as (client, _), pytest.raises(ServiceError, match="from_the_future"):
        client.job("j")


def test_a_busy_service_is_asked_again_with_the_same_key(caplog: pytest.LogCaptureFixture) -> None:
    """Else a restart of the service fails a pipeline, a retried POST starts two jobs or estimates, or a person waits
    for minutes without a word."""
    busy = _json(503, {"code": "store_unavailable", "detail": "soon"})
    with _answering(busy, busy, _json(202, {"job": "j"})) as (client, requests):
        assert client.start({"dataset": "s3://x/y", "distances": [4]})["job"] == "j"
    said = [record.getMessage() for record in caplog.records if record.name == "keepmore.client"]
    assert said == ["the service answers 503; trying again"]
    assert len(requests) == 3
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in requests}) == 1
    with _answering(busy, _json(200, {"estimate": "e", "state": "succeeded"})) as (client, requests):
        assert client.estimate({"dataset": "s3://x/y", "distances": [4]})["estimate"] == "e"
    assert len(requests) == 2
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in requests}) == 1


def test_waiting_tells_of_changes_and_ends_with_the_job() -> None:
    """Else a progress bar stands still, or a failed job looks like one that goes on."""
    states: list[str] = []
    unchanged: Answer = (304, {}, b"")
    with _answering(_job("accepted"), unchanged, _job("succeeded")) as (client, requests):
        job = client.wait("j", lambda job: states.append(job["state"]))
    assert job["state"] == "succeeded"
    assert states == ["accepted", "succeeded"]
    assert requests[1][2]["If-None-Match"] == '"accepted"'
    full = {"code": "store_full", "message": "no room", "retryable": True}
    with _answering(_job("failed", full)) as (client, _), pytest.raises(StoreFull, match="no room"):
        client.wait("j")
    with _answering(_job("cancelled")) as (client, _), pytest.raises(Cancelled, match="retry"):
        client.wait("j")
    with _answering(_job("accepted"), unchanged) as (client, _), pytest.raises(TimeoutError, match="it continues"):
        client.wait("j", timeout_s=0.3)


def test_a_stream_that_breaks_off_is_no_shorter_manifest() -> None:
    """Else a retention system deletes every image that stood behind the break."""
    cut: Answer = (200, {"Content-Length": "1000"}, b'{"path": "a"}\n{"path": "b"}\n{"pa')
    with _answering(cut) as (client, _):
        rows = client.manifest("j", "10")
        with pytest.raises(ServiceUnavailable, match="broke off"):
            list(rows)
