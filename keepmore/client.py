"""A client of the HTTP API: answers as plain data, errors as the library's own, retried where that is safe."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote, urlencode

import urllib3
from urllib3.connectionpool import ConnectionPool
from urllib3.response import BaseHTTPResponse

from keepmore.answers import (
    AdviceAnswer,
    ErrorAnswer,
    EstimateAnswer,
    FailedImageAnswer,
    JobAnswer,
    JobRecordAnswer,
    ReportAnswer,
    SubsetAnswer,
    TrainingAnswer,
)
from keepmore.errors import (
    Cancelled,
    InternalError,
    InvalidRequest,
    KeepmoreError,
    ServiceError,
    ServiceUnavailable,
    from_dict,
    is_known,
)
from keepmore.spec.budget import Budget
from keepmore.spec.job import OWN, Request

PARQUET, NDJSON, HTML = "application/vnd.apache.parquet", "application/x-ndjson", "text/html"
LONGEST_WAIT_S = 30.0
CONNECT_S, READ_S = 10.0, 120.0
BLOCK_BYTES = 1 << 20

log = logging.getLogger(__name__)

# A failed job of a service that gives no reason.
_NO_REASON: ErrorAnswer = {
    "code": InternalError.code,
    "message": "the job failed, and the service does not say why; see its log",
    "retryable": True,
}


class _Retry(urllib3.Retry):
    """Says that it tries again, once per request: all tries together take minutes."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        again = super().increment(method, url, response, error, _pool, _stacktrace)
        if not self.history:
            log.warning("%s; trying again", f"the service answers {response.status}" if response else "no answer yet")
        return again


# POSTs of this API may be sent twice: jobs and estimates carry an idempotency key, the others ask for something that
# then exists (a second `retry` may be answered by nothing_to_retry: the first one worked).
RETRIES = _Retry(
    total=6,
    backoff_factor=0.5,
    backoff_jitter=0.3,
    backoff_max=10,
    status_forcelist=(429, 503, 504),
    allowed_methods=None,
    redirect=False,
    raise_on_status=False,
)


OnProgress = Callable[[JobAnswer], None]


class Client:
    """Talks to one service. Safe to share between threads.

    Raises the error that the service names, `ServiceError` where the library has no such error (for a missing key, for
    example), and `ServiceUnavailable` when there is no answer.
    """

    def __init__(self, url: str, api_key: str | None = None, retries: urllib3.Retry = RETRIES) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest(f"server {url}: write it as http://host:port or https://host")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        self._http = urllib3.PoolManager(maxsize=4, retries=retries, timeout=timeout)

    def start(self, request: Request | Mapping[str, Any], idempotency_key: str | None = None) -> JobAnswer:
        """POST a job. Without `idempotency_key` a random one is used, so that a retry after a lost answer starts no
        second job."""
        body = posted(request) if isinstance(request, Request) else request
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        return cast(JobAnswer, self._json("POST", "/v1/jobs", body, headers=headers))

    def job(self, job: str, wait_s: float = 0) -> JobAnswer:
        """The status of a job; with `wait_s` (60 at most) once it has ended, or after this many seconds."""
        return cast(JobAnswer, self._json("GET", f"/v1/jobs/{_part(job)}", query={"wait": f"{wait_s:g}"}))

    def jobs(self, state: str | None = None) -> Iterator[JobRecordAnswer]:
        """The records of all jobs, oldest first."""
        after: str | None = ""
        while after is not None:
            query = {"after": after} | ({"state": state} if state else {})
            page = self._json("GET", "/v1/jobs", query=query)
            yield from page["jobs"]
            after = page["next"]

    def wait(self, job: str, on_progress: OnProgress | None = None, timeout_s: float | None = None) -> JobAnswer:
        """The job once it has succeeded; `on_progress` is called whenever something has changed.

        Raises the error that made it fail, Cancelled, or TimeoutError; the job itself continues after a timeout.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        etag = ""  # the first request returns at once, so that `on_progress` is called from the job's start
        while True:
            remaining_s = LONGEST_WAIT_S if deadline is None else min(LONGEST_WAIT_S, deadline - time.monotonic())
            if remaining_s <= 0:
                raise TimeoutError(f"job {job} has not ended within {timeout_s:g} s; it continues: wait again")
            answer = self._ask(
                "GET",
                f"/v1/jobs/{_part(job)}",
                query={"wait": f"{remaining_s:g}" if etag else "0"},
                headers={"If-None-Match": etag} if etag else {},
            )
            if answer.status == 304:
                continue
            status = cast(JobAnswer, answer.json())
            etag = answer.headers.get("ETag", "")
            if on_progress:
                on_progress(status)
            if status["state"] == "failed":
                raise from_dict(status["error"] or _NO_REASON)
            if status["state"] == "cancelled":
                raise Cancelled(f"job {job} was cancelled; retry continues it")
            if status["state"] == "succeeded":
                return status

    def cancel(self, job: str) -> JobAnswer:
        return cast(JobAnswer, self._json("POST", f"/v1/jobs/{_part(job)}/cancel"))

    def retry(self, job: str) -> JobAnswer:
        return cast(JobAnswer, self._json("POST", f"/v1/jobs/{_part(job)}/retry"))

    def errors(self, job: str) -> Iterator[FailedImageAnswer]:
        """Every image that failed and why, streamed."""
        yield from self._rows(f"/v1/jobs/{_part(job)}/errors")

    def report(self, job: str) -> ReportAnswer:
        return cast(ReportAnswer, self._json("GET", f"/v1/jobs/{_part(job)}/report"))

    def report_page(self, job: str) -> bytes:
        """The report as a page of HTML."""
        return self._ask("GET", f"/v1/jobs/{_part(job)}/report", headers={"Accept": HTML}).data

    def select(
        self, job: str, budget: Budget | Any | None = None, selection: Mapping[str, Any] | None = None
    ) -> SubsetAnswer:
        """The subset for another budget or order, once it is there. `budget` as in requests, or a record of it."""
        body = {"budget": budget.as_json() if isinstance(budget, Budget) else budget}
        if selection:
            body["selection"] = dict(selection)
        subset = self._json("POST", f"/v1/jobs/{_part(job)}/subsets", body)
        return cast(SubsetAnswer, self._finished(subset, f"/v1/jobs/{_part(job)}/subsets/{subset['subset']}"))

    def subsets(self, job: str) -> list[SubsetAnswer]:
        return list(self._json("GET", f"/v1/jobs/{_part(job)}/subsets")["subsets"])

    def manifest(self, job: str, distance: str, subset: str | None = None) -> Iterator[Mapping[str, Any]]:
        """The rows of a manifest, streamed. `subset` None: the job's own."""
        yield from self._rows(self._manifest_path(job, distance, subset))

    def download_manifest(self, job: str, distance: str, file: BinaryIO, subset: str | None = None) -> None:
        """The manifest as Parquet, written to `file`."""
        with self._stream(self._manifest_path(job, distance, subset), PARQUET) as answer:
            for block in answer.stream(BLOCK_BYTES):
                file.write(block)

    def train(self, job: str, training: Mapping[str, Any], subset: str | None = None) -> TrainingAnswer:
        """Ask for a training on a job's subsets; `training` returns its status."""
        body = {**training, "subset": subset}
        return cast(TrainingAnswer, self._json("POST", f"/v1/jobs/{_part(job)}/trainings", body))

    def training(self, job: str, training: str) -> TrainingAnswer:
        return cast(TrainingAnswer, self._json("GET", f"/v1/jobs/{_part(job)}/trainings/{_part(training)}"))

    def advise(self, job: str, request: Mapping[str, Any]) -> AdviceAnswer:
        """Advice on a job, once it is there; `request` is the body of POST /v1/jobs/{id}/advice."""
        advice = self._json("POST", f"/v1/jobs/{_part(job)}/advice", dict(request))
        return cast(AdviceAnswer, self._finished(advice, f"/v1/jobs/{_part(job)}/advice/{advice['advice']}"))

    def advice_page(self, job: str, advice: str) -> bytes:
        """Finished advice, as a page of HTML."""
        return self._ask("GET", f"/v1/jobs/{_part(job)}/advice/{_part(advice)}", headers={"Accept": HTML}).data

    def estimate(self, request: Mapping[str, Any], idempotency_key: str | None = None) -> EstimateAnswer:
        """The estimate of a dataset's size, once it is there; `request` is the body of POST /v1/estimates."""
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        estimate = self._json("POST", "/v1/estimates", dict(request), headers=headers)
        return cast(EstimateAnswer, self._finished(estimate, f"/v1/estimates/{_part(estimate['estimate'])}"))

    def _finished(self, answer: Mapping[str, Any], path: str) -> Mapping[str, Any]:
        while answer["state"] == "running":
            answer = self._json("GET", path, query={"wait": f"{LONGEST_WAIT_S:g}"})
        return answer

    def _manifest_path(self, job: str, distance: str, subset: str | None) -> str:
        return f"/v1/jobs/{_part(job)}/subsets/{_part(subset or OWN)}/{_part(distance)}"

    def _rows(self, path: str) -> Iterator[Any]:
        with self._stream(path, NDJSON) as answer:
            rest = b""
            for block in answer.stream(BLOCK_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                yield from map(json.loads, lines)

    @contextmanager
    def _stream(self, path: str, kind: str) -> Iterator[BaseHTTPResponse]:
        answer = self._ask("GET", path, headers={"Accept": kind}, preload=False)
        try:
            yield answer
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnavailable(f"{self.url}{path} broke off ({error}); ask again") from error
        finally:
            answer.close()

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        answer = self._ask(method, path, body, query, headers)
        try:
            return cast(Mapping[str, Any], answer.json())
        except ValueError:
            raise _error(answer, self.url + path) from None

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        preload: bool = True,
    ) -> BaseHTTPResponse:
        all_headers = {**self._headers, **(headers or {})}
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        address = self.url + path + ("?" + urlencode(query) if query else "")
        try:
            answer = self._http.request(
                method,
                address,
                body=None if body is None else json.dumps(body).encode(),
                headers=all_headers,
                preload_content=preload,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnavailable(f"{self.url} does not answer ({error}); is the service running there?") from error
        if answer.status >= 400 or answer.get_redirect_location():
            raise _error(answer, address)
        return answer


def _part(name: str) -> str:
    """`name` as one part of a path. Raises InvalidRequest for a name that would lead to another page."""
    if name in ("", ".", ".."):
        raise InvalidRequest(f"{name!r} names nothing; give the id that the service gave")
    return quote(name, safe="")


def posted(request: Request) -> Mapping[str, Any]:
    """A request as the API takes it."""
    return {name: value for name, value in request.as_json().items() if value is not None}


def _error(answer: BaseHTTPResponse, address: str) -> KeepmoreError:
    try:
        problem = json.loads(answer.data)
        code, message = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"{address} answered {answer.status} {answer.reason}: is that a Keepmore service?")
    if not is_known(code):
        return ServiceError(f"{message} ({address}: {answer.status} {code})")
    standard = ("type", "title", "status", "code", "detail", "retryable", "errors")
    details = {name: value for name, value in problem.items() if name not in standard}
    fields = [str(item["field"]) for item in problem.get("errors", [])]
    field = fields[0] if len(fields) == 1 else None
    record: ErrorAnswer = {"code": code, "message": message, "retryable": False, "details": details}
    if field:
        record["field"] = field
    return from_dict(record)
