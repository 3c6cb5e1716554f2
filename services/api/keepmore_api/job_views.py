"""Jobs as the API shows them: made from the store at most twice a second each, however many callers poll."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool

from keepmore.jobs.job import JobRepository, State
from keepmore.scheduling.status import status
from keepmore_api.backend.base import Backend

FRESH_S = 0.5
MOST = 1000


@dataclass(frozen=True, slots=True)
class View:
    body: bytes
    etag: str
    ended: bool
    made_at: float


class Views:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: OrderedDict[str, View] = OrderedDict()
        self._making: dict[str, asyncio.Task[View]] = {}

    async def get(self, job_id: str) -> View:
        """The job as JSON; raises JobNotFound."""
        known = self._known.get(job_id)
        if known is None or time.monotonic() - known.made_at > FRESH_S:
            making = self._making.get(job_id)
            if making is None:
                making = self._making[job_id] = asyncio.create_task(run_in_threadpool(self._make, job_id))
                making.add_done_callback(lambda made: self._keep(job_id, made))
            known = await asyncio.shield(making)  # others wait for it too
        return known

    def _keep(self, job_id: str, made: asyncio.Task[View]) -> None:
        if self._making.get(job_id) is not made:
            return  # forgotten while it was made
        del self._making[job_id]
        if not made.cancelled() and made.exception() is None:
            self._known[job_id] = made.result()
            self._known.move_to_end(job_id)
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    def forget(self, job_id: str) -> None:
        """Make the job's view anew for whoever asks from now on: it has been changed."""
        self._known.pop(job_id, None)
        self._making.pop(job_id, None)

    def _make(self, job_id: str) -> View:
        begun = time.monotonic()
        job = JobRepository(self._backend.store).get(job_id)
        record = status(job, self._backend.store, self._backend.tracker.progress).as_json()
        record["links"] = links(job.id, record["subset"])
        if record["report"]:
            record["report"] = record["links"]["report"]
        body = json.dumps(record, ensure_ascii=False).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return View(body, etag, job.state is not State.ACCEPTED, begun)


def links(job_id: str, subset: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where to go on from a job, as paths below the service's address; `subset`: the record of its own, once there."""
    own = f"/v1/jobs/{job_id}"
    return {
        **{name: f"{own}/{name}" for name in ("events", "errors", "cancel", "retry", "report")},
        "self": own,
        "subsets": f"{own}/subsets",
        "trainings": f"{own}/trainings",
        "advice": f"{own}/advice",
        "manifests": manifests(job_id, subset) if subset else {},
    }


def manifests(job_id: str, subset: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"/v1/jobs/{job_id}/subsets/{subset['subset']}/{name}" for name in subset["distances"]}
