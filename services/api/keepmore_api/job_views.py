"""Jobs as the API shows them: each is built from the store at most twice a second, however many callers poll."""

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
        self._views: OrderedDict[str, View] = OrderedDict()
        self._making: dict[str, asyncio.Task[View]] = {}

    async def get(self, job_id: str) -> View:
        """The job as JSON; raises JobNotFound."""
        view = self._views.get(job_id)
        if view is None or time.monotonic() - view.made_at > FRESH_S:
            making = self._making.get(job_id)
            if making is None:
                making = self._making[job_id] = asyncio.create_task(run_in_threadpool(self._make, job_id))
                making.add_done_callback(lambda task: self._keep(job_id, task))
            view = await asyncio.shield(making)  # others wait for it too
        return view

    def _keep(self, job_id: str, task: asyncio.Task[View]) -> None:
        if self._making.get(job_id) is not task:
            return  # forgotten while it was being built
        del self._making[job_id]
        if not task.cancelled() and task.exception() is None:
            self._views[job_id] = task.result()
            self._views.move_to_end(job_id)
            if len(self._views) > MOST:
                self._views.popitem(last=False)

    def forget(self, job_id: str) -> None:
        """Forget the view of a job that was changed, so that the next caller gets a new one."""
        self._views.pop(job_id, None)
        self._making.pop(job_id, None)

    def _make(self, job_id: str) -> View:
        started_at = time.monotonic()
        job = JobRepository(self._backend.store).get(job_id)
        record = status(job, self._backend.store, self._backend.tracker.progress).as_json()
        record["links"] = links(job.id, record["subset"])
        if record["report"]:
            record["report"] = record["links"]["report"]
        body = json.dumps(record, ensure_ascii=False).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return View(body, etag, job.state is not State.ACCEPTED, started_at)


def links(job_id: str, subset: Mapping[str, Any] | None) -> dict[str, Any]:
    """The links of a job, as paths below the service's address; `subset`: the record of its own, once there."""
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
