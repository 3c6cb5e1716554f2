"""Idempotency keys: within a day, the same key and body name the same job; another body is refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from keepmore import keys
from keepmore.errors import IdempotencyConflict
from keepmore.jobs import new_id
from keepmore.store import Store

KEPT = timedelta(hours=24)


def job_id(store: Store, caller: str, key: str, request: dict[str, Any]) -> str:
    """The id of the job that `caller` asks for under `key`, drawn by whoever asked first. Raises IdempotencyConflict.

    The key is remembered before the job is made, so a caller that never got its answer gets the same id again.
    """
    place = keys.idempotency(hashlib.sha256(json.dumps([caller, key]).encode()).hexdigest())
    body = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC)
    record = {"job": new_id(now), "body": body, "at": now.isoformat()}
    while not store.create(place, json.dumps(record).encode()):
        known = json.loads(store.get(place))
        if now - datetime.fromisoformat(known["at"]) > KEPT:
            store.delete(place)
        elif known["body"] != body:
            raise IdempotencyConflict(
                f"Idempotency-Key {key!r} came with another body at {known['at']}, for job {known['job']}; "
                "send a new key with a new request",
                job=known["job"],
            )
        else:
            return str(known["job"])
    return str(record["job"])
