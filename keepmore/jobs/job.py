"""Jobs in the store: the record, its states, and the repository that keeps them."""

from __future__ import annotations

import json
import posixpath
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from keepmore import __version__
from keepmore.answers import ErrorAnswer, JobRecordAnswer
from keepmore.errors import InternalError, InvalidRequest, JobNotFound, KeepmoreError, NotFound, RecordUnreadable
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.base import Store

FORMAT = 1
UNREADABLE = "unreadable"  # shown in lists for a record that is damaged, or that a later release wrote
ID = re.compile(r"[0-9a-z-]{1,64}")


class State(StrEnum):
    """The state of a job. Work in progress is not a state: it is what the store does not hold yet."""

    ACCEPTED = "accepted"  # recorded; its steps run or wait to be resumed
    SUCCEEDED = "succeeded"  # every step is done
    FAILED = "failed"  # a step could not be done; `error` says why; it can be resumed
    CANCELLED = "cancelled"  # its caller stopped it; it can be resumed


@dataclass(frozen=True, slots=True)
class Job:
    """A request and everything made for it, under one id; ids sort by time of creation (UTC)."""

    id: str
    request: Request
    created_at: str
    keepmore: str = __version__
    state: State = State.ACCEPTED
    error: ErrorAnswer | None = None
    ended_at: str | None = None
    attempt: int = 0
    trace: str | None = None  # W3C traceparent of the request that started it

    def ended(self, state: State, error: KeepmoreError | None = None) -> Job:
        """The job as it ends now."""
        return replace(
            self, state=state, error=error.as_dict() if error else None, ended_at=timestamp(datetime.now(UTC))
        )

    def again(self) -> Job:
        """The next attempt at the job, which continues from what the earlier ones finished."""
        return replace(self, state=State.ACCEPTED, error=None, ended_at=None, attempt=self.attempt + 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "id": self.id,
            "created_at": self.created_at,
            "ended_at": self.ended_at,
            "keepmore": self.keepmore,
            "attempt": self.attempt,
            "state": self.state.value,
            "error": self.error,
            "trace": self.trace,
            "request": self.request.as_json(),
        }


class JobRepository:
    """The jobs that a store holds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, request: Request, job_id: str | None = None) -> Job:
        """A new job. Raises InternalError where there is one of that id already."""
        job, is_new = self.find_or_create(request, job_id or new_id(datetime.now(UTC)))
        if not is_new:
            raise InternalError(f"job {job.id} exists already: two jobs drew one id")
        return job

    def find_or_create(self, request: Request, job_id: str, trace: str | None = None) -> tuple[Job, bool]:
        """The job that was created under `job_id` before, or a new one; and whether it is new."""
        job = Job(id=job_id, request=request, created_at=timestamp(datetime.now(UTC)), trace=trace)
        if self._store.create(layout.job(job.id), _to_bytes(job)):
            return job, True
        return self.get(job_id), False

    def get(self, job_id: str) -> Job:
        """The job; raises JobNotFound."""
        try:
            if ID.fullmatch(job_id):
                return _read(layout.job(job_id), self._store.get(layout.job(job_id)))
        except NotFound:
            pass
        raise JobNotFound(
            f"job {job_id[:64]}: no such job in this store; list the jobs (`keepmore show`, GET /v1/jobs)"
        )

    def record_for_list(self, job_id: str) -> JobRecordAnswer:
        """The job's record, for a list; of one that cannot be read its id, the state `unreadable`, and why. Raises
        JobNotFound."""
        try:
            return cast(JobRecordAnswer, self.get(job_id).as_json())
        except RecordUnreadable as error:
            return {"id": job_id, "state": UNREADABLE, "error": error.as_dict()}

    def save(self, job: Job) -> None:
        self._store.put(layout.job(job.id), _to_bytes(job))

    def end(self, job: Job, state: State, error: KeepmoreError | None = None) -> Job:
        """Record that this attempt at `job` ended, and return the ended job: if several end it, the first decides."""
        ended = job.ended(state, error)
        if not self._store.create(layout.ending(job.id, job.attempt), _to_bytes(ended)):
            ended = self._ending(job)
        self._save_ended(ended)
        return ended

    def settled(self, job: Job) -> Job:
        """`job`; or, if it has ended but whoever ended it died before updating its record, the ended job."""
        if job.state is not State.ACCEPTED or not self.has_ended(job):
            return job
        ended = self._ending(job)
        self._save_ended(ended)
        return ended

    def _ending(self, job: Job) -> Job:
        key = layout.ending(job.id, job.attempt)
        return _read(key, self._store.get(key))

    def _save_ended(self, ended: Job) -> None:
        if self.get(ended.id).attempt == ended.attempt:  # else it has been retried meanwhile
            self.save(ended)

    def retry(self, job: Job) -> Job:
        """The next attempt at `job`, saved."""
        again = job.again()
        self.save(again)
        return again

    def has_ended(self, job: Job) -> bool:
        """Whether this attempt at `job` has ended, even if its record does not say so yet."""
        return job.state is not State.ACCEPTED or self._store.exists(layout.ending(job.id, job.attempt))

    def ids(self, after: str = "") -> Iterator[str]:
        """Ids of the jobs created after job `after`, oldest first."""
        for key in self._store.keys(layout.jobs_prefix(), layout.job(after) if after else ""):
            job_id, suffix = posixpath.splitext(key.removeprefix(layout.jobs_prefix()))
            if suffix == ".json" and ID.fullmatch(job_id):  # else it is a file of somebody else's
                yield job_id


def new_id(now: datetime) -> str:
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond:06d}{secrets.token_hex(2)}"


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _to_bytes(job: Job) -> bytes:
    return json.dumps(job.as_json(), indent=1).encode()


@contextmanager
def reading_record(key: str, kind: str) -> Iterator[None]:
    """Raises RecordUnreadable for what the block raises about the record of `kind` under `key`: damage, or values that
    a later release may write. Nobody who calls is to blame for them."""
    try:
        yield
    except RecordUnreadable:
        raise
    except (InvalidRequest, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        reason = str(error) if isinstance(error, InvalidRequest) else repr(error)
        raise RecordUnreadable(
            f"{key} is not {kind} of this release ({reason}); use the release that wrote it, or restore a back-up of it"
        ) from error


def _read(key: str, data: bytes) -> Job:
    with reading_record(key, "a job record"):
        record = json.loads(data)
        if record["format"] > FORMAT:
            raise RecordUnreadable(
                f"{key} is of format {record['format']}, which a later release wrote: use that one again"
            )
        return Job(
            id=record["id"],
            request=Request.from_json(record["request"]),
            created_at=record["created_at"],
            keepmore=record["keepmore"],
            state=State(record["state"]),
            error=record["error"],
            ended_at=record.get("ended_at"),
            attempt=record.get("attempt", 0),
            trace=record.get("trace"),
        )
