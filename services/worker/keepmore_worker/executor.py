"""What one worker process does with a message: run the step, report that it is alive, and tell the scheduler the
outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from keepmore.codec.malloc import return_large_blocks
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.config import RuntimeConfig
from keepmore.errors import Cancelled, KeepmoreError, QueueUnavailable, Stopping, StoreError
from keepmore.jobs.step import Lane, Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import attempt
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.queue import TRIES, Queue, lost
from keepmore.scheduling.scheduler import Scheduler
from keepmore.scheduling.tracker import StepTracker
from keepmore.storage.base import Store
from keepmore_services.logs import about
from keepmore_services.tracing import Tracer
from keepmore_worker.heartbeat import LONGEST_TURN_S, STOPPING, Heartbeat, log


class ChainingQueue:
    """A queue that keeps a single step of the control lane for the process that has just finished the step before it.

    Otherwise each of a small job's last steps would wait until a worker has finished a chunk of a large job.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._next: Step | None = None
        self._keeps = False

    def submit(self, steps: Iterable[Step]) -> None:
        batch = list(steps)
        if self._keeps and len(batch) == 1 and batch[0].kind.lane is Lane.CONTROL and self._next is None:
            self._next = batch[0]
        else:
            self._queue.submit(batch)

    def cancel(self, job: str) -> None:
        self._queue.cancel(job)

    def depths(self) -> dict[str, int]:
        return self._queue.depths()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False

    def pop(self) -> Step | None:
        """The step that was kept, once."""
        step, self._next = self._next, None
        return step


@dataclass(slots=True)
class StepExecutor:
    """The objects that a worker process keeps from one step to the next."""

    config: RuntimeConfig
    store: Store
    tracker: StepTracker
    chaining_queue: ChainingQueue
    decoder: IsolatedDecoder
    stopping: Callable[[], bool]
    tracer: Tracer
    longest_turn_s: float = LONGEST_TURN_S
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        return_large_blocks()
        self.scheduler = Scheduler(self.store, self.tracker, self.chaining_queue)

    def do(self, step: Step) -> None:
        """Run `step` to its end, and then the steps that follow it one by one. Raises only transient errors: retry
        `step` later."""
        self._do(step)
        while following := self.chaining_queue.pop():
            try:
                self._do(following)
            except KeepmoreError as error:
                self._hand_on(following, error.message)

    def _do(self, step: Step) -> None:
        with about(step):
            if self.stopping():
                self._hand_on(step, STOPPING)
                return
            if self.tracker.leases.busy(step):
                log.info("step left alone: another worker is at it")
                return
            tries = self.scheduler.on_start(step)
            if tries > TRIES:
                self.fail(step, lost(step, "killed each time, often for lack of memory"))
                return
            log.info("step begins", extra={"try": tries})
            try:
                with (
                    self.tracer.span(step, tries),
                    Heartbeat(self.store, self.tracker, step, self.stopping, self.longest_turn_s) as heartbeat,
                ):
                    report = heartbeat.report(self.scheduler)
                    attempt(step, self.store, StepContext.at(self.config, self.decoder, report, tries > 1))
            except Stopping as error:
                self._hand_on(step, error.message)
            except Cancelled:
                log.info("step abandoned: nobody waits for it")
                self.scheduler.on_abandon(step)
            except KeepmoreError as error:
                if error.transient:
                    log.warning("step put off", extra={"code": error.code, "reason": error.message})
                    with suppress(QueueUnavailable):
                        self.tracker.counters.count(metrics.of_delay(step, error.code))
                    raise
                self.fail(step, error)
            else:
                log.info("step done")
                with self.chaining_queue.keeping():
                    self.scheduler.on_finish(step)

    def _hand_on(self, step: Step, reason: str) -> None:
        """Let another process run the step; it continues from what is already written."""
        log.warning("step handed on", extra={"handed_on": str(step), "reason": reason})
        with suppress(QueueUnavailable):
            self.tracker.counters.count(metrics.of_step(step, "handed_on", Progress(), None))
        self.put_off(step)
        with suppress(QueueUnavailable):  # the reconciler finds it
            self.chaining_queue.submit([step])

    def fail(self, step: Step, error: KeepmoreError) -> None:
        log.error("step failed", extra={"code": error.code, "reason": error.message})
        try:
            self.scheduler.on_failure(step, error)
        except StoreError as unsaved:
            if unsaved.transient:
                raise
            log.error("its failure could not be saved", extra={"code": unsaved.code, "reason": unsaved.message})
            self.put_off(step)  # to a process that may write to the store

    def put_off(self, step: Step) -> None:
        """The step is tried again later, and this does not count as the death of a worker."""
        with suppress(QueueUnavailable):  # then the tracker has forgotten the try anyway, or will count one too many
            self.tracker.leases.finish(step)
            self.tracker.leases.push(step)
