"""Decides which steps come next, for any kind of worker: starts jobs, follows them to their end, stops and resumes
them.

Any number of schedulers may look after one job at once, each with its own view of what is done: at worst a step is done
twice, which writes the same bytes.
"""

from __future__ import annotations

import json
import logging
import time

from keepmore.compression.index import Summary
from keepmore.errors import JobEnded, JobNotFound, KeepmoreError, NotFound, NothingToRetry, QueueUnavailable
from keepmore.jobs import webhooks
from keepmore.jobs.graph import is_beside
from keepmore.jobs.job import ID, Job, JobRepository, State
from keepmore.jobs.requests import RequestRef, RequestRepository
from keepmore.jobs.snapshot import chunk_count, take_snapshot
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.metrics import Amounts
from keepmore.scheduling.queue import Queue
from keepmore.scheduling.status import parts_progress
from keepmore.scheduling.tracker import StepTracker
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind

log = logging.getLogger(__name__)

# A worker reports every two seconds that it is alive; a step without a report for this long is handed out again.
SILENT_S = 20.0
# The same for a step whose message may still wait in a queue that is never empty.
FORGOTTEN_S = 3600.0


class Scheduler:
    """Implements `keepmore.scheduling.queue.StepListener`."""

    def __init__(self, store: Store, tracker: StepTracker, queue: Queue) -> None:
        self._store = store
        self._tracker = tracker
        self._queue = queue
        self._repository = JobRepository(store)
        self._requests = RequestRepository(store)
        self._progress: dict[Step, Progress] = {}
        self._started_at: dict[Step, float] = {}

    def start(self, job_id: str) -> None:
        """Start the job, or continue it from what is done; it is looked after until it ends."""
        self._store.put(layout.active(job_id), b"")
        self.advance(job_id)

    def start_new(self, job_id: str) -> None:
        """`start` for a job that has no output yet: all its steps are missing.

        Marks it as active again, because the reconciler may have removed a mark that was older than the job's record.
        """
        self._store.put(layout.active(job_id), b"")
        self._submit_now(Step(job_id, Kind.LIST))

    def ask(self, step: Step) -> None:
        """Run one step before all that wait: a caller waits for its answer."""
        self._store.put(layout.active(step.job), b"")
        self._submit_now(step)

    def _submit_now(self, step: Step) -> None:
        if self._tracker.leases.push(step):
            self._queue.submit([step])

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what is done is kept. Raises JobEnded if it has ended otherwise."""
        job = self._get_settled(job_id)
        if job.state is State.ACCEPTED:
            job = self._repository.end(job, State.CANCELLED)
        if job.state is not State.CANCELLED:
            raise JobEnded(
                f"job {job.id} has ended already ({job.state}): there is nothing to cancel", state=job.state.value
            )
        self._tracker.leases.drop(job.id)
        self._queue.cancel(job.id)
        self._call_webhook(job)
        return job

    def retry(self, job_id: str) -> Job:
        """Continue a job that failed, was cancelled, or that nobody looks after; raises NothingToRetry for others."""
        job = self._get_settled(job_id)
        orphaned = job.state is State.ACCEPTED and not self._store.exists(layout.active(job.id))
        if not (orphaned or job.state in (State.FAILED, State.CANCELLED)):
            raise NothingToRetry(
                f"job {job.id} is {job.state}; only a failed or cancelled job can be retried. Images that failed are "
                "wrong in themselves: fix them and start a new job, which finds the encoded ones again",
                state=job.state.value,
            )
        job = self._repository.retry(job)
        self.start(job.id)
        return job

    def reconcile(self) -> None:
        """Look at every job that still has work: hand out lost steps again, and continue where nothing is under way.

        A job that cannot be looked after does not hold up the others. Raises QueueUnavailable.
        """
        for key in self._store.keys(layout.active_prefix()):
            job_id = key.removeprefix(layout.active_prefix())
            if not ID.fullmatch(job_id):  # a file of somebody else's
                continue
            try:
                lost = self._lost(job_id)
                for step in lost:
                    self._tracker.leases.push(step)
                self._queue.submit(lost)
                self._restore_progress(job_id)
                self.advance(job_id)
            except QueueUnavailable:
                raise
            except KeepmoreError as error:
                log.error("job not looked after", extra={"job": job_id, "code": error.code, "reason": error.message})

    def _lost(self, job_id: str) -> list[Step]:
        """Steps whose worker no longer reports, and steps whose message must be lost because none is waiting."""
        silent = self._tracker.leases.lost(job_id, SILENT_S)
        forgotten = set(self._tracker.leases.lost(job_id, FORGOTTEN_S))
        depths = self._queue.depths() if silent else {}
        return [
            step
            for step in silent
            if step in forgotten or self._tracker.leases.tries(step) or not depths.get(step.kind.lane.value)
        ]

    def on_start(self, step: Step) -> int:
        self._progress.pop(step, None)
        self._started_at[step] = time.monotonic()
        return self._tracker.leases.begin(step)

    def on_progress(self, step: Step, progress: Progress) -> None:
        total = self._progress.get(step, Progress()) + progress
        self._progress[step] = total
        self._tracker.progress.note(step, total)

    def on_finish(self, step: Step) -> None:
        more = {}
        if step.kind is Kind.INDEX and self._store.exists(step.output):
            more = metrics.of_index(Summary.from_json(json.loads(self._store.get(step.output))))
        self._count(step, "done", more)
        self.advance(step.job)

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        """Save the error as the failure of the job, or of the request that the step belongs to."""
        if not (step.kind is Kind.NOTIFY or self._store.exists(step.output)):  # else another worker has done it
            job = None if step.kind is Kind.ESTIMATE else self._job(step.job)
            if job and job.state is State.ACCEPTED and not is_beside(job, step):
                self._repository.end(job, State.FAILED, error)
            elif (ref := RequestRef.of_step(step)) and (job or step.kind is Kind.ESTIMATE):
                self._requests.fail(ref, error)
            if step.kind is not Kind.ESTIMATE:
                self._tracker.leases.drop(step.job)
        self._count(step, "failed", metrics.of_failure(step, error.code))
        if step.kind is not Kind.NOTIFY:  # it is tried again when it is due
            self.advance(step.job)

    def on_abandon(self, step: Step) -> None:
        self._count(step, "cancelled", {})
        self._tracker.leases.drop(step.job)  # its steps that are still needed are offered again
        self.advance(step.job)

    def _count(self, step: Step, outcome: str, more: Amounts) -> None:
        progress, started_at = self._progress.pop(step, Progress()), self._started_at.pop(step, None)
        self._tracker.leases.finish(step)
        seconds = None if started_at is None else time.monotonic() - started_at
        self._tracker.counters.count({**metrics.of_step(step, outcome, progress, seconds), **more})

    def advance(self, job_id: str) -> None:
        """Hand out the job's share of what waits; if nothing waits and nothing is under way, find the missing steps."""
        steps = self._tracker.leases.take(job_id)
        while not steps and self._tracker.leases.idle(job_id):
            job = self._job(job_id)
            missing = self._missing(job_id, job)
            if not missing:
                self._end(job_id, job)
                return
            self._tracker.leases.offer(missing)
            if self._job(job_id) != job:  # it ended while we looked, and whoever ended it dropped what waited then
                self._tracker.leases.drop(job_id)
            else:
                steps = self._tracker.leases.take(job_id)
        self._queue.submit(steps)

    def _missing(self, job_id: str, job: Job | None) -> list[Step]:
        if job is None:  # an estimate, or nothing at all
            ref = RequestRef(RequestKind.ESTIMATE, job_id, job_id)
            is_open = self._requests.exists(ref) and not self._requests.is_answered(ref)
            return [Step(job_id, Kind.ESTIMATE)] if is_open else []
        self._restore_progress(job_id)
        return list(take_snapshot(job, self._store).ready())

    def _restore_progress(self, job_id: str) -> None:
        """Give the tracker the progress from before it started, or before it lost its data."""
        progress = self._tracker.progress
        if progress.restored(job_id, Kind.COMPRESS) or self._store.exists(layout.index_summary(job_id)):
            return
        if chunk_count(self._store, job_id) is not None:
            progress.restore(job_id, Kind.COMPRESS, parts_progress(self._store, job_id))

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._get_settled(job_id)
        except JobNotFound:
            return None

    def _get_settled(self, job_id: str) -> Job:
        return self._repository.settled(self._repository.get(job_id))

    def _end(self, job_id: str, job: Job | None) -> None:
        """Nothing is left to do: save that the job succeeded, notify its caller, and stop looking after it.

        `job` is the record from before the search for missing steps: that search did not see later changes (a retry,
        for example), and another one will follow.
        """
        if job and job.state is State.ACCEPTED:
            job = self._repository.end(job, State.SUCCEEDED)
        if job and self._call_webhook(job):
            return
        if job is None:
            try:
                if self._store.get(layout.active(job_id)):  # a mark is empty: this is a file of somebody else's
                    return
            except NotFound:
                return
        self._store.delete(layout.active(job_id))
        job = self._job(job_id)
        if missing := self._missing(job_id, job):  # requested since we looked
            self._store.put(layout.active(job_id), b"")
            self._tracker.leases.offer(missing)
            self._queue.submit(self._tracker.leases.take(job_id))

    def _call_webhook(self, job: Job) -> bool:
        """Queue the webhook call if it is due; returns whether it is still pending, now or later."""
        if webhooks.is_due(job, self._store):
            self.ask(Step(job.id, Kind.NOTIFY))
        return webhooks.next_at(job, self._store) is not None
