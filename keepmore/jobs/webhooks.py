"""Telling a caller that its job ended, as Standard Webhooks describe: signed, and under one id for all tries.

https://www.standardwebhooks.com: the signature is HMAC-SHA256 over "id.timestamp.body", in base64 behind "v1,".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import urllib3

from keepmore.errors import InvalidRequest, KeepmoreError, NotFound, StoreError
from keepmore.jobs.job import Job, State, timestamp
from keepmore.net.http import guarded_http
from keepmore.storage import layout
from keepmore.storage.base import Store

SECRET_PREFIX = "whsec_"
TIMEOUT_S = 15.0
# Seconds before each try after the first: over a day in all; after that the caller has to poll.
BACK_OFF_S = (5, 30, 120, 600, 3600, 4 * 3600, 8 * 3600, 16 * 3600)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to notify a caller: the status of its server's answer, or why there was none."""

    at: str
    status: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> Mapping[str, str | int]:
        values = {"at": self.at, "status": self.status, "error": self.error}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Deliveries:
    """All tries to report one end of a job; `next_at` None: there is no further try."""

    next_at: datetime | None
    tries: tuple[Delivery, ...]


class Notifier:
    """Calls webhooks. `secret` is base64 behind "whsec_", as the receiver has it; None: nothing can be signed."""

    def __init__(self, secret: str | None, private_addresses: bool) -> None:
        self._key = None if secret is None else secret_bytes(secret)
        self._http = guarded_http(private_addresses)

    def __call__(self, job: Job, store: Store) -> bytes:
        """Try once to report the end of `job`; returns the record of all tries so far."""
        earlier, moment = _deliveries(job, store), datetime.now(UTC)
        last = self._call(job, moment)
        tries = [*(earlier.tries if earlier else ()), last]
        wait = None if last.delivered or len(tries) > len(BACK_OFF_S) else timedelta(seconds=BACK_OFF_S[len(tries) - 1])
        record = {
            "ended_at": job.ended_at,
            "delivered": last.delivered,
            "next_at": wait and (moment + wait).isoformat(),
            "tries": [one.as_json() for one in tries],
        }
        return json.dumps(record, indent=1).encode()

    def _call(self, job: Job, moment: datetime) -> Delivery:
        at = timestamp(moment)
        if self._key is None:
            return Delivery(at, error="no secret to sign with is set on this worker (KEEPMORE_WEBHOOK_SECRET)")
        body = json.dumps(payload(job)).encode()
        headers = {"Content-Type": "application/json"} | signed(self._key, message_id(job), moment, body)
        try:
            answer = self._http.request(
                "POST",
                job.request.webhook or "",
                body=body,
                headers=headers,
                timeout=TIMEOUT_S,
                retries=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, KeepmoreError) as error:
            return Delivery(at, error=str(error))
        answer.close()  # unread: the body is not needed, and it may never end
        return Delivery(at, answer.status)


def next_at(job: Job, store: Store) -> datetime | None:
    """When to try next to report the end of `job`; None if it was reported, was tried often enough, or has no
    webhook."""
    if job.request.webhook is None:
        return None
    deliveries = _deliveries(job, store)
    return datetime.now(UTC) if deliveries is None else deliveries.next_at


def is_due(job: Job, store: Store) -> bool:
    """Whether to report the end of `job` now: it may have been retried, or reported, since this was scheduled."""
    at = next_at(job, store)
    return job.state is not State.ACCEPTED and at is not None and at <= datetime.now(UTC)


def _deliveries(job: Job, store: Store) -> Deliveries | None:
    """The record of reporting this end of `job`: a retried job ends again."""
    try:
        record = json.loads(store.get(layout.webhook(job.id)))
        if record["ended_at"] != job.ended_at:
            return None
        next_at = datetime.fromisoformat(record["next_at"]) if record["next_at"] else None
        return Deliveries(next_at, tuple(Delivery(**one) for one in record["tries"]))
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{layout.webhook(job.id)} is damaged ({error!r}); delete it, and the end is reported again"
        ) from error


def payload(job: Job) -> Mapping[str, object]:
    return {
        "type": f"job.{job.state}",
        "timestamp": job.ended_at,
        "data": {"job": job.id, "state": job.state.value, "error": job.error},
    }


def message_id(job: Job) -> str:
    """The same for every try to report one end of a job, so that a receiver recognises a repetition."""
    return f"msg_{hashlib.sha256(f'{job.id} {job.ended_at}'.encode()).hexdigest()[:24]}"


def signed(key: bytes, identifier: str, moment: datetime, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks."""
    seconds = str(int(moment.timestamp()))
    mac = hmac.new(key, f"{identifier}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": seconds,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


def secret_bytes(secret: str) -> bytes:
    """The key behind a secret such as "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"; raises InvalidRequest."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not (secret.startswith(SECRET_PREFIX) and 24 <= len(key) <= 64):
        raise InvalidRequest('KEEPMORE_WEBHOOK_SECRET: write "whsec_" and the base64 of 24 to 64 random bytes')
    return key
