"""Idempotency keys: which requests they make one."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepmore.errors import IdempotencyConflict
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore_api import idempotency
from tests.services.api.conftest import Ask
from tests.services.api.routes.jobs import job_body as _body


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
