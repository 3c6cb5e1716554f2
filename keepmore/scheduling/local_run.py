"""Runs a job to its end in local processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from keepmore.config import RuntimeConfig
from keepmore.errors import Cancelled, KeepmoreError, StoreError
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import is_wanted
from keepmore.jobs.step import Step
from keepmore.progress import Progress
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.storage.base import Store

OnProgress = Callable[[Step, Progress], None]
OnStep = Callable[[Step], None]

LOOK_EVERY_S = 1.0


def run_job(
    job: Job, config: RuntimeConfig, store: Store, processes: int, on_progress: OnProgress, on_done: OnStep
) -> Job:
    """Run the missing steps of `job`; returns the job as it ended. Raises the error of a step that failed, after saving
    it."""
    repository = JobRepository(store)
    if repository.has_ended(job):
        repository.retry(job)
    run_missing(job.id, config, store, processes, on_progress, on_done)
    return repository.get(job.id)


def run_missing(
    job_id: str, config: RuntimeConfig, store: Store, processes: int, on_progress: OnProgress, on_done: OnStep
) -> None:
    """Run all missing steps of a job and of the requests beside it. Raises the error of a step that failed."""
    with LocalQueue(config, processes) as queue:
        scheduler = Scheduler(store, InMemoryStepTracker(processes), queue)
        scheduler.advance(job_id)
        queue.run(FailFastListener(scheduler, store, on_progress, on_done), until_idle=True)


class FailFastListener:
    """A listener for one job at a terminal: shows what the scheduler is notified of, and stops at the first failure."""

    def __init__(self, scheduler: Scheduler, store: Store, on_progress: OnProgress, on_done: OnStep) -> None:
        self._scheduler = scheduler
        self._store = store
        self._looked_at = time.monotonic()
        self._on_progress = on_progress
        self._on_done = on_done

    def on_start(self, step: Step) -> int:
        return self._scheduler.on_start(step)

    def on_progress(self, step: Step, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            # `keepmore cancel` in another terminal ends the job in the store alone.
            if not is_wanted(step, JobRepository(self._store).get(step.job), self._store):
                raise _cancelled(step.job)
        self._scheduler.on_progress(step, progress)
        self._on_progress(step, progress)

    def on_finish(self, step: Step) -> None:
        self._on_done(step)
        self._scheduler.on_finish(step)

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        try:
            self._scheduler.on_failure(step, error)
        except StoreError:
            raise error from None  # the store is what failed: the error itself is on its way to the user
        raise error

    def on_abandon(self, step: Step) -> None:
        self._scheduler.on_abandon(step)
        raise _cancelled(step.job)


def _cancelled(job: str) -> Cancelled:
    return Cancelled(f"job {job} was cancelled; what is done is kept")
