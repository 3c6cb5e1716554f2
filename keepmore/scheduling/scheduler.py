"""Says what comes next, whoever does the steps: starts jobs, follows them to their end, stops and resumes them.

Any number of schedulers may look after one job at once, each with its own idea of what is done: the worst that comes of
it is a step that is done twice, which writes the same bytes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator

from keepmore.compression.index import Summary
from keepmore.errors import JobEnded, JobNotFound, KeepmoreError, NothingToRetry, QueueUnavailable
from keepmore.jobs import webhooks
from keepmore.jobs.graph import Kind, Step, error_key, is_asked, ready_steps
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.snapshot import asked_trainings, chunk_count
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.metrics import Amounts
from keepmore.scheduling.queue import Queue
from keepmore.scheduling.status import parts_progress
from keepmore.scheduling.tracker import StepTracker
from keepmore.storage import layout
from keepmore.storage.base import Store

log = logging.getLogger(__name__)

# A worker says every two seconds that it is alive; a step that nobody speaks of for this long is handed out again.
SILENT_S = 20.0
# And so is one whose message may still wait in a queue that is never empty.
FORGOTTEN_S = 3600.0


class Scheduler:
    """Implements `keepmore.scheduling.queue.StepListener`."""

    def __init__(self, store: Store, tracker: StepTracker, queue: Queue) -> None:
        self._store = store
        self._tracker = tracker
        self._queue = queue
        self._repository = JobRepository(store)
        self._totals: dict[Step, Progress] = {}
        self._begun: dict[Step, float] = {}

    def start(self, job_id: str) -> None:
        """Have the job's steps done, from whatever there is of it; it is looked after until it ends."""
        self._store.put(layout.active(job_id), b"")
        self.advance(job_id)

    def ask(self, step: Step) -> None:
        """Have one step done past all that waits: a caller waits for its answer."""
        self._store.put(layout.active(step.job), b"")
        if self._tracker.push(step):
            self._queue.submit([step])

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what is done is kept. Raises JobEnded if it has ended otherwise."""
        job = self._known(job_id)
        if job.state is State.ACCEPTED:
            job = self._repository.end(job, State.CANCELLED)
        if job.state is not State.CANCELLED:
            raise JobEnded(f"job {job.id} is {job.state} already: there is nothing to cancel", state=job.state.value)
        self._tracker.drop(job.id)
        self._queue.cancel(job.id)
        self._tell(job)
        return job

    def retry(self, job_id: str) -> Job:
        """Go on with a job that failed, was cancelled, or that nobody looks after; raises NothingToRetry for others."""
        job = self._known(job_id)
        orphaned = job.state is State.ACCEPTED and not self._store.exists(layout.active(job.id))
        if not (orphaned or job.state in (State.FAILED, State.CANCELLED)):
            raise NothingToRetry(
                f"job {job.id} is {job.state}; only a failed or cancelled job can be retried. Images that failed are "
                "wrong in themselves: mend them and start a new job, which finds the encoded ones again",
                state=job.state.value,
            )
        job = self._repository.retry(job)
        self.start(job.id)
        return job

    def reconcile(self) -> None:
        """Look at every job that still has work: hand out again what was lost, and go on where nothing is under way.

        One that cannot be looked after holds up no other. Raises QueueUnavailable.
        """
        for key in self._store.keys(layout.active_prefix()):
            job_id = key.removeprefix(layout.active_prefix())
            try:
                self._look_after(job_id)
            except QueueUnavailable:
                raise
            except KeepmoreError as error:
                log.error("job not looked after", extra={"job": job_id, "code": error.code, "reason": error.message})

    def _look_after(self, job_id: str) -> None:
        lost = self._lost(job_id)
        for step in lost:
            self._tracker.push(step)
        self._queue.submit(lost)
        self._restore(job_id)
        self.advance(job_id)

    def _lost(self, job_id: str) -> list[Step]:
        """Steps whose worker has fallen silent, and steps whose message must be gone because none is waiting."""
        silent = self._tracker.lost(job_id, SILENT_S)
        forgotten = set(self._tracker.lost(job_id, FORGOTTEN_S))
        depths = self._queue.depths() if silent else {}
        return [
            step
            for step in silent
            if step in forgotten or self._tracker.tries(step) or not depths.get(step.kind.lane.value)
        ]

    def on_start(self, step: Step) -> int:
        self._totals.pop(step, None)
        self._begun[step] = time.monotonic()
        return self._tracker.begin(step)

    def on_progress(self, step: Step, progress: Progress) -> None:
        total = self._totals.get(step, Progress()) + progress
        self._totals[step] = total
        self._tracker.note(step, total)

    def on_finish(self, step: Step) -> None:
        more = {}
        if step.kind is Kind.INDEX and self._store.exists(step.output):
            more = metrics.of_index(Summary.from_json(json.loads(self._store.get(step.output))))
        self._count(step, "done", more)
        self.advance(step.job)

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        """Write down what cannot be done, as the failure of the job or of the question that it belongs to."""
        if not (step.kind is Kind.NOTIFY or self._store.exists(step.output)):  # else another worker has done it
            self._write_down(step, error)
        self._count(step, "failed", metrics.of_failure(step, error.code))
        if step.kind is not Kind.NOTIFY:  # that is tried again in its own time
            self.advance(step.job)

    def _write_down(self, step: Step, error: KeepmoreError) -> None:
        if step.kind is Kind.ESTIMATE:
            self._store.put(layout.estimate_error(step.job), json.dumps(error.as_dict()).encode())
            return
        job = self._job(step.job)
        if job and job.state is State.ACCEPTED and not is_asked(job, step):
            self._repository.end(job, State.FAILED, error)
        elif job and (key := error_key(step)):
            self._store.put(key, json.dumps(error.as_dict()).encode())
        self._tracker.drop(step.job)

    def on_abandon(self, step: Step) -> None:
        self._count(step, "cancelled", {})
        self._tracker.drop(step.job)  # what is still wanted of it is offered again
        self.advance(step.job)

    def _count(self, step: Step, outcome: str, more: Amounts) -> None:
        done, begun = self._totals.pop(step, Progress()), self._begun.pop(step, None)
        self._tracker.finish(step)
        seconds = None if begun is None else time.monotonic() - begun
        self._tracker.count({**metrics.of_step(step, outcome, done, seconds), **more})

    def advance(self, job_id: str) -> None:
        """Hand out the job's share of what waits; if nothing does and nothing is under way, see what is missing."""
        steps = self._tracker.take(job_id)
        while not steps and self._tracker.idle(job_id):
            job = self._job(job_id)
            missing = self._missing(job_id, job)
            if not missing:
                self._end(job_id, job)
                return
            self._tracker.offer(missing)
            if self._job(job_id) != job:  # it ended while we looked, and whoever ended it dropped what waited then
                self._tracker.drop(job_id)
            else:
                steps = self._tracker.take(job_id)
        self._queue.submit(steps)

    def _missing(self, job_id: str, job: Job | None) -> list[Step]:
        if job is None:
            return list(self._missing_estimate(job_id))
        self._restore(job_id)
        done = self._done(job_id)
        asked = asked_trainings(job, done, self._store)
        return list(ready_steps(job, done, chunk_count(self._store, job_id), asked))

    def _done(self, job_id: str) -> set[str]:
        """The keys that `ready_steps` looks for. A listing of all there is would pass over every chunk and part again
        for each of the steps that follow the index.
        """
        single = (layout.listing, layout.codec_check, layout.index_summary, layout.report)
        done = {key for key in (name(job_id) for name in single) if self._store.exists(key)}
        asked = [layout.subsets_prefix(job_id), layout.trainings_prefix(job_id), layout.advice_prefix(job_id)]
        parts = [] if layout.index_summary(job_id) in done else [layout.parts_prefix(job_id)]
        return done.union(*(self._store.keys(prefix) for prefix in asked + parts))

    def _restore(self, job_id: str) -> None:
        """Tell the tracker what was done before it began, or before it was lost, while anybody asks for it."""
        if self._tracker.restored(job_id, Kind.COMPRESS) or self._store.exists(layout.index_summary(job_id)):
            return
        if chunk_count(self._store, job_id) is not None:
            self._tracker.restore(job_id, Kind.COMPRESS, parts_progress(self._store, job_id))

    def _missing_estimate(self, estimate_id: str) -> Iterator[Step]:
        answers = (layout.estimate(estimate_id), layout.estimate_error(estimate_id))
        if self._store.exists(layout.estimate_request(estimate_id)) and not any(map(self._store.exists, answers)):
            yield Step(estimate_id, Kind.ESTIMATE)

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._known(job_id)
        except JobNotFound:
            return None

    def _known(self, job_id: str) -> Job:
        return self._repository.settled(self._repository.get(job_id))

    def _end(self, job_id: str, job: Job | None) -> None:
        """Nothing is left to do: write down that the job succeeded, tell its caller, and look after it no more.

        `job` is the record as it was before anybody looked what is missing: what has changed since (it was retried,
        say) was not part of that look, and another one will follow.
        """
        if job and job.state is State.ACCEPTED:
            job = self._repository.end(job, State.SUCCEEDED)
        if job and self._tell(job):
            return
        self._store.delete(layout.active(job_id))
        job = self._job(job_id)
        if left := self._missing(job_id, job):  # asked for since we looked
            self._store.put(layout.active(job_id), b"")
            self._tracker.offer(left)
            self._queue.submit(self._tracker.take(job_id))

    def _tell(self, job: Job) -> bool:
        """Have the webhook called if it is time to; says whether it still has to be, now or later."""
        if webhooks.is_due(job, self._store):
            self.ask(Step(job.id, Kind.NOTIFY))
        return webhooks.next_at(job, self._store) is not None
