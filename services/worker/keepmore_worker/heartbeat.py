"""While a step runs: reports that its worker is alive, reports progress, and watches whether the step is still
needed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from keepmore.errors import Cancelled, JobNotFound, QueueUnavailable, Stopping, StoreError
from keepmore.jobs.job import JobRepository
from keepmore.jobs.requests import is_wanted
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress, Report
from keepmore.scheduling.scheduler import Scheduler
from keepmore.scheduling.tracker import StepTracker
from keepmore.storage.base import Store

log = logging.getLogger(__name__)


HEARTBEAT_S = 2.0


REPORT_EVERY_S = 0.5


STOPPING = "this worker was asked to stop"


# A fine-tuning may take longer than a worker may spend on one step. Its turn begins only once its images are decoded:
# another worker has to decode them again, and if that time counted, turns without any training step could follow each
# other forever.
LONGEST_TURN_S = 3600.0


class Heartbeat:
    """While a step runs: tells the tracker every few seconds that it is alive, and watches whether anybody waits for
    it.

    Two threads, because the store may not answer for longer than a silent worker counts as alive.
    """

    def __init__(
        self, store: Store, tracker: StepTracker, step: Step, stopping: Callable[[], bool], longest_turn_s: float
    ) -> None:
        self._store = store
        self._tracker = tracker
        self._step = step
        self._stopping = stopping
        self._longest_turn_s = longest_turn_s
        self._over = threading.Event()
        self._is_wanted = True
        self._scheduler: Scheduler | None = None
        self._unreported = Progress()
        self._reported_at = 0.0
        self._first_image_at: float | None = None
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beating.start()
        self._watching.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._beating.join()  # a sign of life after the end of the step would bring it back
        if self._scheduler and self._unreported != Progress():
            self._tell(self._scheduler)

    def report(self, scheduler: Scheduler) -> Report:
        """Takes the progress of every image, and passes it on from time to time; the rest when the step is over."""

        def tell(progress: Progress) -> None:
            if not self._is_wanted:
                raise Cancelled(f"nobody waits for step {self._step} of job {self._step.job} any more")
            if self._step.kind.spec.resumable and self._stopping():  # other steps would start over elsewhere
                raise Stopping(STOPPING)
            if self._step.kind is Kind.TUNE and progress.images:
                now = time.monotonic()
                self._first_image_at = self._first_image_at or now
                if now - self._first_image_at > self._longest_turn_s:
                    raise Stopping("its turn is over, others wait; it continues from its checkpoint")
            self._unreported += progress
            if time.monotonic() - self._reported_at > REPORT_EVERY_S:
                self._tell(scheduler)

        self._scheduler = scheduler
        return tell

    def _tell(self, scheduler: Scheduler) -> None:
        progress, self._unreported, self._reported_at = self._unreported, Progress(), time.monotonic()
        try:
            scheduler.on_progress(self._step, progress)
        except QueueUnavailable as error:  # progress is for display only: the step continues without it
            log.warning("no progress noted", extra={"reason": error.message})

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            try:
                self._tracker.leases.renew(self._step)
            except QueueUnavailable as error:
                log.warning("no sign of life given", extra={"reason": error.message})

    def _watch(self) -> None:
        repository = JobRepository(self._store)
        while self._step.kind is not Kind.ESTIMATE and not self._over.wait(HEARTBEAT_S):
            try:
                self._is_wanted = is_wanted(self._step, repository.get(self._step.job), self._store)
            except JobNotFound:
                self._is_wanted = False
            except StoreError as error:
                log.warning("could not look at the job", extra={"reason": error.message})
