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
    """The id of the job that `caller` asks for under `key`, drawn by whoever asked first. Raises IdempotencyConflict.

    The key is remembered before the job is made, so a caller that never got its answer gets the same id again.
    """
    return _named(store, "job", [caller, key], request, new_id(datetime.now(UTC)))


def estimate_id(store: Store, caller: str, key: str, question: Mapping[str, Any]) -> str:
    """As `job_id`, for an estimate; a job may have the same key."""
    return _named(store, "estimate", [caller, key, "estimate"], question, new_estimate_id())


def _named(store: Store, kind: str, asked: list[str], request: Mapping[str, Any], drawn: str) -> str:
    """What was drawn first for `asked` (caller, key, ...) within the last day; `drawn` if nothing was."""
    place = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    body = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC)
    record = {kind: drawn, "body": body, "at": now.isoformat()}
    known = _first(store, layout.idempotency(place), record)
    while now - datetime.fromisoformat(known["at"]) > KEPT:
        # What follows is written under the name of what expired, where only one caller is the first. Were the old
        # record deleted instead, each of two callers might delete what the other has just written.
        known = _first(store, layout.idempotency(f"{place}-{known[kind]}"), record)
        store.put(layout.idempotency(place), json.dumps(known).encode())
    if known["body"] != body:
        raise IdempotencyConflict(
            f"Idempotency-Key {asked[1]!r} came with another body at {known['at']}, for {kind} {known[kind]}; "
            "send a new key with a new request",
            **{kind: known[kind]},
        )
    return str(known[kind])


def _first(store: Store, key: str, record: dict[str, str]) -> dict[str, str]:
    """`record`, written under `key`, or what somebody else wrote there before."""
    if store.create(key, json.dumps(record).encode()):
        return record
    found: dict[str, str] = json.loads(store.get(key))
    return found
