"""Views of jobs: made once for all who ask at the same time, and again for who asks after a change."""

from __future__ import annotations

import asyncio
from pathlib import Path

from keepmore.jobs.job import JobRepository
from keepmore.spec.job import Request
from keepmore_api.backend.embedded import Embedded
from keepmore_api.job_views import Views
from keepmore_services.settings import load


def test_a_job_that_many_poll_at_once_is_looked_up_once(tmp_path: Path) -> None:
    """Else twenty pollers of a job of many parts read all of them twenty times, and the service stands still."""
    parts = Embedded(load(store=str(tmp_path)))  # not entered: nothing runs
    job = JobRepository(parts.store).create(Request("file:///d", (4,))).id

    async def poll() -> None:
        views = Views(parts)
        results = await asyncio.gather(*(views.get(job) for _ in range(20)))
        assert len(set(map(id, results))) == 1
        stale = asyncio.create_task(views.get(job))
        views.forget(job)
        fresh = await views.get(job)
        assert fresh is not results[0]
        await stale
        assert await views.get(job) is fresh

    asyncio.run(poll())
