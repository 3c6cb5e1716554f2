"""Jobs over HTTP: started, listed, followed, cancelled and retried."""

from __future__ import annotations

import json
from pathlib import Path

import urllib3

from keepmore.storage.folder import FolderStore
from tests.service import Service
from tests.services.api.conftest import Ask
from tests.services.api.routes.jobs import job_body as _body
from tests.services.api.routes.jobs import wait_for_end as _wait_for_end


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
