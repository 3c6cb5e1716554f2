"""Idempotency keys: within a day, the same key and body name the same job or estimate; another body is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from keepmore.errors import IdempotencyConflict
from keepmore.jobs.job import new_id
from keepmore.jobs.requests import new_estimate_id
from keepmore.storage import layout
from keepmore.storage.base import Store

KEPT = timedelta(hours=24)


def job_id(store: Store, caller: str, key: str, request: Mapping[str, Any]) -> str:
    """The id of the job that `caller` asks for under `key`, as generated for the first request. Raises
    IdempotencyConflict.

    The key is remembered before the job is made, so a caller that never got its answer gets the same id again.
    """
    return _claim(store, "job", [caller, key], request, new_id(datetime.now(UTC)))


def estimate_id(store: Store, caller: str, key: str, question: Mapping[str, Any]) -> str:
    """As `job_id`, for an estimate; a job may have the same key."""
    return _claim(store, "estimate", [caller, key, "estimate"], question, new_estimate_id())


def _claim(store: Store, kind: str, scope: list[str], request: Mapping[str, Any], id_: str) -> str:
    """The id that was claimed first for `scope` (caller, key, ...) within the last day; `id_` if there is none."""
    place = hashlib.sha256(json.dumps(scope).encode()).hexdigest()
    body = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC)
    record = {kind: id_, "body": body, "at": now.isoformat()}
    first = _first(store, layout.idempotency(place), record)
    while now - datetime.fromisoformat(first["at"]) > KEPT:
        # The next record is written under the name of the expired one, where only one caller can be the first. If the
        # old record were deleted instead, each of two callers might delete what the other has just written.
        first = _first(store, layout.idempotency(f"{place}-{first[kind]}"), record)
        store.put(layout.idempotency(place), json.dumps(first).encode())
    if first["body"] != body:
        raise IdempotencyConflict(
            f"Idempotency-Key {scope[1]!r} came with another body at {first['at']}, for {kind} {first[kind]}; "
            "send a new key with a new request",
            **{kind: first[kind]},
        )
    return str(first[kind])


def _first(store: Store, key: str, record: dict[str, str]) -> dict[str, str]:
    """`record`, written under `key`, or the record that is there already."""
    if store.create(key, json.dumps(record).encode()):
        return record
    earlier: dict[str, str] = json.loads(store.get(key))
    return earlier
