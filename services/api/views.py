"""Jobs as the API shows them: made from the store at most twice a second each, however many callers poll."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool

from keepmore.jobs import JobBook, State
from keepmore.status import status
from services.api.backend import Backend

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

    async def get(self, job_id: str) -> View:
        """The job as JSON; raises JobNotFound."""
        known = self._known.get(job_id)
        if known is None or time.monotonic() - known.made_at > FRESH_S:
            known = await run_in_threadpool(self._make, job_id)
            self._known[job_id] = known
            self._known.move_to_end(job_id)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return known

    def forget(self, job_id: str) -> None:
        self._known.pop(job_id, None)

    def _make(self, job_id: str) -> View:
        job = JobBook(self._backend.store).get(job_id)
        found = status(job, self._backend.store, self._backend.board)
        found["links"] = links(found)
        if found["report"]:
            found["report"] = found["links"]["report"]
        body = json.dumps(found, ensure_ascii=False).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return View(body, etag, job.state is not State.ACCEPTED, time.monotonic())


def links(found: dict[str, Any]) -> dict[str, Any]:
    """Where to go on from a job, as paths below the service's address."""
    own = f"/v1/jobs/{found['job']}"
    made: dict[str, Any] = {name: f"{own}/{name}" for name in ("events", "errors", "cancel", "retry", "report")}
    made |= {"self": own, "subsets": f"{own}/subsets", "trainings": f"{own}/trainings", "manifests": {}}
    if found["subset"]:
        made["manifests"] = manifests(found["job"], found["subset"])
    return made


def manifests(job_id: str, subset: dict[str, Any]) -> dict[str, str]:
    return {name: f"/v1/jobs/{job_id}/subsets/{subset['subset']}/{name}" for name in subset["distances"]}
