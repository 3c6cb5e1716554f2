"""Jobs, subsets, manifests and reports over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import urllib3

from keepmore.errors import IdempotencyConflict
from keepmore.jobs.job import JobRepository, State
from keepmore.jobs.requests import RequestRef
from keepmore.selection import manifest
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from keepmore_api import idempotency
from keepmore_api.content_negotiation import preferred
from keepmore_api.polling import result_of
from keepmore_api.problems import Refused
from tests.service import Service
from tests.services.api.conftest import Ask


def _body(sample: Path, **more: object) -> dict[str, object]:
    return {"dataset": (sample / "test").as_uri(), "distances": [4], **more}


def _wait_for_end(ask: Ask, job: str) -> dict[str, Any]:
    view: dict[str, Any] = ask("GET", f"/v1/jobs/{job}?wait=60").json
    assert view["state"] != "accepted"
    return view


def test_a_post_is_answered_with_where_to_poll(ask: Ask, sample: Path) -> None:
    """Else a pipeline has to guess the address of the job that it started."""
    reply = ask("POST", "/v1/jobs", _body(sample))
    assert reply.status == 202
    assert reply.headers["location"] == f"/v1/jobs/{reply.json['job']}" == reply.json["links"]["self"]
    assert int(reply.headers["retry-after"]) > 0
    ended = ask("GET", reply.headers["location"] + "?wait=60")
    assert (ended.json["state"], ended.json["stage"]) == ("succeeded", None)
    assert ended.json["images"] == {"listed": 24, "done": 24, "failed": 0}
    assert ended.json["bytes"]["out"] < ended.json["bytes"]["in"]
    assert "retry-after" not in ended.headers
    for path in (*ended.json["links"]["manifests"].values(), ended.json["report"]):
        assert ask("GET", path).status == 200


def test_polling_costs_nothing_while_nothing_changes(ask: Ask, job: str) -> None:
    """Else a thousand pollers of a job of a month move gigabytes."""
    reply = ask("GET", f"/v1/jobs/{job}")
    again = ask("GET", f"/v1/jobs/{job}", If_None_Match=reply.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == reply.headers["etag"]
    started_at = time.monotonic()
    assert ask("GET", f"/v1/jobs/{job}?wait=2", If_None_Match=reply.headers["etag"]).status == 304
    assert time.monotonic() - started_at > 1.5
    assert ask("GET", f"/v1/jobs/{job}", If_None_Match='"another"').status == 200
    assert ask("GET", f"/v1/jobs/{job}", If_None_Match=f'"another", W/{reply.headers["etag"]}').status == 304


def test_an_idempotency_key_names_one_job(ask: Ask, sample: Path) -> None:
    """Else a retried POST pays for the same job twice; or hides that another one was meant."""
    first = ask("POST", "/v1/jobs", _body(sample), Idempotency_Key="nightly-1")
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda _: ask("POST", "/v1/jobs", _body(sample), Idempotency_Key="nightly-1"), range(8))
        )
    assert {(reply.status, reply.json["job"]) for reply in replies} == {(202, first.json["job"])}
    other = ask("POST", "/v1/jobs", _body(sample, effort=2), Idempotency_Key="nightly-1")
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    assert first.json["job"] in other.json["detail"]
    assert ask("POST", "/v1/jobs", _body(sample), Idempotency_Key="nightly-2").json["job"] != first.json["job"]


def test_an_idempotency_key_is_forgotten_after_a_day(store: FolderStore) -> None:
    """Else a key such as a weekday starts no job the week after."""
    first = idempotency.job_id(store, "me", "monday", {"a": 1})
    assert idempotency.job_id(store, "me", "monday", {"a": 1}) == first
    assert idempotency.job_id(store, "you", "monday", {"a": 1}) != first
    with pytest.raises(IdempotencyConflict):
        idempotency.job_id(store, "me", "monday", {"a": 2})
    place = layout.idempotency(hashlib.sha256(json.dumps(["me", "monday"]).encode()).hexdigest())
    record = json.loads(store.get(place))
    store.put(place, json.dumps(record | {"at": "2020-01-01T00:00:00+00:00"}).encode())
    second = idempotency.job_id(store, "me", "monday", {"a": 2})
    assert second != first
    assert idempotency.job_id(store, "me", "monday", {"a": 2}) == second
    with pytest.raises(IdempotencyConflict):
        idempotency.job_id(store, "me", "monday", {"a": 1})


def test_an_idempotency_key_that_expires_under_many_callers_names_one_job(store: FolderStore) -> None:
    """Else a nightly POST that is retried while yesterday's key expires pays for the same job twice."""
    callers = 8
    for night in range(20):
        place = layout.idempotency(hashlib.sha256(json.dumps(["me", str(night)]).encode()).hexdigest())
        old = {"job": "old", "body": "other", "at": "2020-01-01T00:00:00+00:00"}
        store.put(place, json.dumps(old).encode())
        together = threading.Barrier(callers)

        def ask(_: int, night: int = night, together: threading.Barrier = together) -> str:
            together.wait()
            return idempotency.job_id(store, "me", str(night), {"a": 1})

        with ThreadPoolExecutor(callers) as pool:
            ids = set(pool.map(ask, range(callers)))
        assert len(ids) == 1
        assert {idempotency.job_id(store, "me", str(night), {"a": 1})} == ids != {"old"}


def test_an_idempotency_key_names_one_estimate(ask: Ask, sample: Path) -> None:
    """Else a client that asks again after a lost answer has a dataset sampled twice."""
    body = _body(sample, images=4)
    first = ask("POST", "/v1/estimates", body, Idempotency_Key="estimate-1")
    again = ask("POST", "/v1/estimates", body, Idempotency_Key="estimate-1")
    assert (again.status, again.json) == (200, first.json)
    assert ask("POST", "/v1/estimates", body).json["estimate"] != first.json["estimate"]
    other = ask("POST", "/v1/estimates", _body(sample, images=5), Idempotency_Key="estimate-1")
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    assert other.json["estimate"] == first.json["estimate"]
    assert ask("POST", "/v1/jobs", _body(sample), Idempotency_Key="estimate-1").status == 202


class _Counted(FolderStore):
    """Counts what is read."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


@pytest.mark.alone
def test_who_waits_long_for_an_answer_looks_less_often(tmp_path: Path) -> None:
    """Else forty waiting callers keep the store from the workers; or an answer comes long after it is there."""
    store, ref = _Counted(tmp_path), RequestRef(RequestKind.ESTIMATE, "a", "a")
    started_at = time.monotonic()
    assert asyncio.run(result_of(store, ref, 2)) is None
    assert 2 <= time.monotonic() - started_at < 2.5
    assert store.reads <= 2 * 12
    threading.Timer(1, store.put, (ref.result_key, b"{}")).start()
    started_at = time.monotonic()
    assert asyncio.run(result_of(store, ref, 10)) == {}
    assert time.monotonic() - started_at < 2


def test_the_list_comes_in_pages(ask: Ask, sample: Path, job: str) -> None:
    """Else a list of many jobs does not fit an answer, or a page misses some."""
    for _ in range(3):
        _wait_for_end(ask, ask("POST", "/v1/jobs", _body(sample)).json["job"])
    whole = [record["id"] for record in ask("GET", "/v1/jobs?limit=1000").json["jobs"]]
    page_ids: list[str] = []
    after: str | None = ""
    while after is not None:
        page = ask("GET", f"/v1/jobs?limit=2&after={after}").json
        assert len(page["jobs"]) <= 2
        page_ids += [record["id"] for record in page["jobs"]]
        after = page["next"]
    assert page_ids == whole == sorted(whole)
    succeeded = ask("GET", "/v1/jobs?state=succeeded&limit=1000").json["jobs"]
    assert job in [record["id"] for record in succeeded]
    assert {record["state"] for record in succeeded} == {"succeeded"}


def test_the_list_leaves_out_what_is_no_job(ask: Ask, service: Service, job: str) -> None:
    """Else one stray file in the store, or a job deleted at the wrong moment, hides every other job."""
    store = FolderStore(Path(service.environment["KEEPMORE_STORE"]))
    strays = ("jobs/0 a copy.json", "jobs/0/deeper.json", "jobs/README", "jobs/0-without-suffix")
    for key in strays:
        store.put(key, b"")
    after: str | None = ""
    ids: list[str] = []
    while after is not None:
        page = ask("GET", f"/v1/jobs?limit=1&after={after}")
        assert page.status == 200
        ids += [record["id"] for record in page.json["jobs"]]
        after = page.json["next"]
    for key in strays:
        store.delete(key)
    assert job in ids
    assert ids == [record["id"] for record in ask("GET", "/v1/jobs?limit=1000").json["jobs"]]


def test_the_list_names_a_record_that_cannot_be_read(ask: Ask, service: Service, job: str) -> None:
    """Else one damaged record, or one of a later release after a rollback, hides every other job."""
    store = FolderStore(Path(service.environment["KEEPMORE_STORE"]))
    record = json.loads(store.get(f"jobs/{job}.json"))
    store.put("jobs/0-later.json", json.dumps(record | {"format": 99}).encode())
    first = ask("GET", "/v1/jobs?limit=1000").json["jobs"]
    assert (first[0]["id"], first[0]["state"]) == ("0-later", "unreadable")
    assert first[0]["error"]["code"] == "record_unreadable"
    assert job in [record["id"] for record in first]
    alone = ask("GET", "/v1/jobs/0-later")
    store.delete("jobs/0-later.json")
    assert (alone.status, alone.json["code"]) == (503, "record_unreadable")


def test_events_tell_of_progress_until_the_end(ask: Ask, service: Service, sample: Path) -> None:
    """Else a page that shows progress has to poll."""
    job = ask("POST", "/v1/jobs", {"dataset": (sample / "train").as_uri(), "distances": [2, 4, 6, 8]}).json["job"]
    answer = urllib3.request("GET", f"{service.url}/v1/jobs/{job}/events", preload_content=False, timeout=60)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    text = b"".join(answer.stream()).decode()
    events = [block.split("\n") for block in text.strip().split("\n\n") if not block.startswith(":")]
    names = [line.removeprefix("event: ") for block in events for line in block if line.startswith("event: ")]
    assert names[-1] == "end"
    assert "progress" in names
    last = next(line for line in events[-1] if line.startswith("data: ")).removeprefix("data: ")
    assert json.loads(last)["state"] == "succeeded"


def test_a_manifest_comes_in_three_forms_with_the_same_rows(ask: Ask, job: str) -> None:
    """Else what is deleted depends on the format that was asked for."""
    path = f"/v1/jobs/{job}/subsets/own/10"
    parquet = ask("GET", path)
    rows = list(manifest.rows(parquet.body))
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert ".parquet" in parquet.headers["content-disposition"]
    with manifest.open_manifest(parquet.body) as file:
        digest = manifest.metadata(file).totals.digest
    assert digest == ask("GET", f"/v1/jobs/{job}").json["subset"]["distances"]["10"]["digest"]
    lines = ask("GET", path, Accept="application/x-ndjson").body.decode().splitlines()
    assert [json.loads(line) for line in lines] == rows
    csv = ask("GET", path, Accept="text/csv;q=0.9, application/x-ndjson;q=0.1")
    assert csv.headers["content-type"].startswith("text/csv")
    table = pa_csv.read_csv(io.BytesIO(csv.body))
    assert table["path"].to_pylist() == [row["path"] for row in rows]
    assert table["bytes"].to_pylist() == [row["bytes"] for row in rows]
    link = ask("GET", f"/v1/jobs/{job}").json["links"]["manifests"]["10"]
    assert pq.read_table(io.BytesIO(ask("GET", link).body)).to_pylist() == rows


def test_the_report_is_json_for_programs_and_a_page_for_people(ask: Ask, job: str) -> None:
    """Else a browser shows raw JSON, or a pipeline has to parse HTML."""
    assert ask("GET", f"/v1/jobs/{job}/report").json["job"] == job
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = ask("GET", f"/v1/jobs/{job}/report", Accept=browser)
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["vary"] == "Accept"
    assert b"<!doctype html>" in page.body


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "a/x"),
        ("*/*", "a/x"),
        ("b/y", "b/y"),
        ("b/*", "b/y"),
        ("a/x;q=0.1, b/y;q=0.2", "b/y"),
        ("a/x;q=0, */*", "b/y"),
        ("B/Y", "b/y"),
        ("b/y;q=oops, a/x", "a/x"),
        ("c/z", None),
        ("*/*;q=0", None),
    ],
)
def test_negotiation(accept: str | None, expected: str | None) -> None:
    """Else a caller that states what it can read gets something else."""
    if expected is None:
        with pytest.raises(Refused, match="a/x, b/y"):
            preferred(accept, ("a/x", "b/y"))
    else:
        assert preferred(accept, ("a/x", "b/y")) == expected


def test_another_budget_is_answered_at_once(ask: Ask, job: str) -> None:
    """Else trying budgets is as slow as compressing."""
    body = {"budget": "150kB", "selection": {"order": "smallest", "balance": False}}
    reply = ask("POST", f"/v1/jobs/{job}/subsets", body)
    assert reply.status == 201
    assert reply.headers["location"] == reply.json["links"]["self"]
    assert all(row["bytes"] <= 150_000 for row in reply.json["distances"].values())
    assert ask("POST", f"/v1/jobs/{job}/subsets", body).json == reply.json
    assert ask("GET", reply.headers["location"]).json == reply.json
    subsets = ask("GET", f"/v1/jobs/{job}/subsets").json["subsets"]
    assert subsets[0]["subset"] == ask("GET", f"/v1/jobs/{job}").json["subset"]["subset"]
    assert reply.json["subset"] in [subset["subset"] for subset in subsets]
    own = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": {"as_distance": 10}})
    assert own.json["subset"] == subsets[0]["subset"]


def test_rules_are_requested_and_served_like_distances(ask: Ask, sample: Path) -> None:
    """Else what the command can do a pipeline cannot."""
    distances = [4, {"fit": 10}, {"spread": [0.5, 15]}]
    body = _body(sample, distances=distances, budget="120kB")
    job = ask("POST", "/v1/jobs", body).json["job"]
    view = _wait_for_end(ask, job)
    assert view["state"] == "succeeded"
    assert view["request"]["distances"] == [4, {"spread": [0.5, 15]}, {"fit": 10}]
    assert list(view["links"]["manifests"]) == ["4", "spread-0.5-15", "fit-10"]
    for variant, path in view["links"]["manifests"].items():
        lines = ask("GET", path, accept="application/x-ndjson").body.splitlines()
        rows = [json.loads(line) for line in lines]
        assert sum(row["bytes"] for row in rows) <= 120_000
        assert len(rows) == view["subset"]["distances"][variant]["images"]
    assert view["subset"]["distances"]["fit-10"]["images"] == 10
    assert ask("GET", f"/v1/jobs/{job}/subsets/own/fit-11").status == 404
    report = ask("GET", f"/v1/jobs/{job}/report").json
    assert [row["distance"] for row in report["distances"]] == ["4", "spread-0.5-15", "fit-10"]
    alone = ask("POST", "/v1/jobs", _body(sample, distances={"spread": [0.5, 15]}))
    assert alone.json["request"]["distances"] == [{"spread": [0.5, 15]}]


def test_another_budget_of_a_job_with_rules_is_fitted_again(ask: Ask, sample: Path) -> None:
    """Else a second budget is never answered, or with what fits the first; or a wrong one is found out by a worker."""
    job = ask("POST", "/v1/jobs", _body(sample, distances=[{"fit": 10}], budget="120kB")).json["job"]
    own = _wait_for_end(ask, job)["subset"]["distances"]["fit-10"]
    reply = ask("POST", f"/v1/jobs/{job}/subsets?wait=60", {"budget": "60kB"})
    assert reply.status == 201
    row = reply.json["distances"]["fit-10"]
    assert (row["images"], row["bytes"] <= 60_000) == (10, True)
    assert row["levels"]["distance"] > own["levels"]["distance"]
    refused = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": None})
    assert (refused.status, refused.json["code"]) == (422, "invalid_request")
    small = ask("POST", f"/v1/jobs/{job}/subsets?wait=60", {"budget": "1kB"})
    assert (small.status, small.json["code"]) == (422, "budget_too_small")


def test_an_estimate_takes_numbers_alone(ask: Ask, sample: Path) -> None:
    """Else a sample's answer is taken for one about all images."""
    reply = ask("POST", "/v1/estimates", _body(sample, distances=[4, {"spread": [0.5, 15]}]))
    assert (reply.status, reply.json["code"]) == (422, "invalid_request")
    assert "give only fixed distances" in reply.json["detail"]


def test_a_cancelled_job_says_so_and_goes_on_when_retried(ask: Ask, sample: Path) -> None:
    """Else stopping a job that was started by mistake takes a restart of the service."""
    job = ask("POST", "/v1/jobs", {"dataset": (sample / "train").as_uri(), "distances": [2, 4, 6, 8]}).json["job"]
    cancelled = ask("POST", f"/v1/jobs/{job}/cancel")
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    assert ask("GET", f"/v1/jobs/{job}?wait=5").json["state"] == "cancelled"
    assert ask("POST", f"/v1/jobs/{job}/cancel").status == 200
    again = ask("POST", f"/v1/jobs/{job}/retry")
    assert (again.status, again.json["state"]) == (202, "accepted")
    assert _wait_for_end(ask, job)["state"] == "succeeded"


def test_a_failed_job_goes_on_once_its_cause_is_fixed(ask: Ask, tmp_path: Path, jpeg: bytes) -> None:
    """Else a dataset that was not there yet costs a new job and its idempotency key."""
    job = ask("POST", "/v1/jobs", {"dataset": (tmp_path / "later").as_uri(), "distances": [4]}).json["job"]
    failed = _wait_for_end(ask, job)
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "dataset_not_found"
    (tmp_path / "later" / "cat").mkdir(parents=True)
    (tmp_path / "later" / "cat" / "1.jpg").write_bytes(jpeg)
    assert ask("POST", f"/v1/jobs/{job}/retry").status == 202
    assert _wait_for_end(ask, job)["state"] == "succeeded"


def test_every_failed_image_is_reported(ask: Ask, tmp_path: Path, jpeg: bytes) -> None:
    """Else an image is missing from a manifest and nobody can say why."""
    (tmp_path / "d" / "cat").mkdir(parents=True)
    (tmp_path / "d" / "cat" / "good.jpg").write_bytes(jpeg)
    (tmp_path / "d" / "cat" / "bad.jpg").write_bytes(b"no image")
    job = ask("POST", "/v1/jobs", {"dataset": (tmp_path / "d").as_uri(), "distances": [4]}).json["job"]
    assert _wait_for_end(ask, job)["images"] == {"listed": 2, "done": 2, "failed": 1}
    reply = ask("GET", f"/v1/jobs/{job}/errors")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in reply.body.splitlines()]
    assert [(row["path"], row["error_code"]) for row in rows] == [("cat/bad.jpg", "unreadable_image")]


def test_readiness_and_metrics(service: Service, ask: Ask, job: str) -> None:
    """Else an orchestrator sends work to a service that cannot do any."""
    assert ask("GET", "/readyz").json == {"status": "ok"}
    repository = JobRepository(FolderStore(Path(service.environment["KEEPMORE_STORE"])))
    assert {repository.get(name).state for name in repository.ids()} <= set(State)
    text = ask("GET", "/metrics").body.decode()
    assert 'keepmore_queue_depth{lane="compress"}' in text
    assert 'keepmore_requests_total{method="GET",route="/readyz",status="200"}' in text
    assert job not in text, "one series a route, not one a job"


@pytest.mark.alone
def test_polling_does_not_wait_for_long_polls(ask: Ask, job: str) -> None:
    """Else a hundred waiting pipelines block the hundred-and-first."""
    etag = ask("GET", f"/v1/jobs/{job}").headers["etag"]
    waiting = [
        threading.Thread(target=ask, args=("GET", f"/v1/jobs/{job}?wait=3"), kwargs={"If_None_Match": etag})
        for _ in range(100)
    ]
    for thread in waiting:
        thread.start()
    started_at = time.monotonic()
    assert ask("GET", f"/v1/jobs/{job}").status == 200
    assert time.monotonic() - started_at < 2
    for thread in waiting:
        thread.join()
