"""Runs a job to its end in local processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from keepmore.config import Site
from keepmore.errors import Cancelled, KeepmoreError, StoreError
from keepmore.jobs.graph import Step
from keepmore.jobs.job import Job, JobBook
from keepmore.jobs.requests import is_wanted
from keepmore.progress import Progress
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Foreman
from keepmore.scheduling.tracker import MemoryBoard
from keepmore.storage.folder import Store

OnProgress = Callable[[Step, Progress], None]
OnStep = Callable[[Step], None]

LOOK_EVERY_S = 1.0


def run_job(job: Job, site: Site, store: Store, processes: int, on_progress: OnProgress, on_done: OnStep) -> Job:
    """Do what the store lacks of `job`; gives the job as it ended. Raises what failed, after writing it down."""
    book = JobBook(store)
    if book.has_ended(job):
        book.retry(job)
    run_missing(job.id, site, store, processes, on_progress, on_done)
    return book.get(job.id)


def run_missing(
    job_id: str, site: Site, store: Store, processes: int, on_progress: OnProgress, on_done: OnStep
) -> None:
    """Do all that was asked of a job, and beside it, and is not there yet. Raises what failed."""
    with LocalQueue(site, processes) as queue:
        foreman = Foreman(store, MemoryBoard(processes), queue)
        foreman.carry_on(job_id)
        queue.run(_Overseer(foreman, store, on_progress, on_done), until_idle=True)


class _Overseer:
    """A witness for one job at a terminal: shows what the foreman hears, and gives up at the first failure."""

    def __init__(self, foreman: Foreman, store: Store, on_progress: OnProgress, on_done: OnStep) -> None:
        self._foreman = foreman
        self._store = store
        self._looked_at = time.monotonic()
        self._on_progress = on_progress
        self._on_done = on_done

    def began(self, step: Step) -> int:
        return self._foreman.began(step)

    def _raise_if_cancelled(self, step: Step) -> None:
        """`keepmore cancel` in another terminal ends the job in the store alone."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            if not is_wanted(step, JobBook(self._store).get(step.job), self._store):
                raise _cancelled(step.job)

    def progressed(self, step: Step, progress: Progress) -> None:
        self._raise_if_cancelled(step)
        self._foreman.progressed(step, progress)
        self._on_progress(step, progress)

    def finished(self, step: Step) -> None:
        self._on_done(step)
        self._foreman.finished(step)

    def failed(self, step: Step, error: KeepmoreError) -> None:
        try:
            self._foreman.failed(step, error)
        except StoreError:
            raise error from None  # the store is what failed: the error itself is on its way to the user
        raise error

    def abandoned(self, step: Step) -> None:
        self._foreman.abandoned(step)
        raise _cancelled(step.job)


def _cancelled(job: str) -> Cancelled:
    return Cancelled(f"job {job} was cancelled; what is done is kept")
