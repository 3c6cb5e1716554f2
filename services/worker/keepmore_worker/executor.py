"""What one worker process does with a message: run the step, say that it is alive, tell the foreman how it went."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType

from keepmore.codec.malloc import return_large_blocks
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.config import Site
from keepmore.errors import Cancelled, JobNotFound, KeepmoreError, QueueUnavailable, Stopping, StoreError
from keepmore.jobs.graph import Kind, Lane, Step
from keepmore.jobs.job import JobBook
from keepmore.jobs.requests import is_wanted
from keepmore.pipeline.runner import Workshop, attempt
from keepmore.progress import Progress, Report
from keepmore.scheduling import metrics
from keepmore.scheduling.queue import TRIES, Queue, lost
from keepmore.scheduling.scheduler import Foreman
from keepmore.scheduling.tracker import Board
from keepmore.storage.folder import Store
from keepmore_services.logs import about
from keepmore_services.tracing import Tracer

log = logging.getLogger(__name__)

PULSE_S = 2.0
TELL_EVERY_S = 0.5
STOPPING = "this worker was asked to stop"
RESUMED = (Kind.COMPRESS, Kind.FIT, Kind.PILOT, Kind.TUNE)  # what is written of them is found again
# A fine-tuning may take longer than any worker may be at one step. Its turn begins when its images are decoded: those
# are decoded again elsewhere, so that turns without a step would follow each other for ever.
LONGEST_TURN_S = 3600.0


class Relay:
    """A queue that keeps a lone step of the control lane for whoever has just finished the one before it.

    Else every one of a small job's last steps would wait for a worker to finish a chunk of a huge one.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._kept: Step | None = None
        self._keeps = False

    def submit(self, steps: Iterable[Step]) -> None:
        found = list(steps)
        if self._keeps and len(found) == 1 and found[0].kind.lane is Lane.CONTROL and self._kept is None:
            self._kept = found[0]
        else:
            self._queue.submit(found)

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

    def taken(self) -> Step | None:
        """The step that was kept, once."""
        kept, self._kept = self._kept, None
        return kept


@dataclass(slots=True)
class Crew:
    """The parts that a worker process keeps from one step to the next."""

    site: Site
    store: Store
    board: Board
    relay: Relay
    decoder: IsolatedDecoder
    stopping: Callable[[], bool]
    tracer: Tracer
    foreman: Foreman = field(init=False)

    def __post_init__(self) -> None:
        return_large_blocks()
        self.foreman = Foreman(self.store, self.board, self.relay)

    def do(self, step: Step) -> None:
        """Run `step` to its end, and what follows it alone. Raises only errors that may pass: try `step` later."""
        self._do(step)
        while following := self.relay.taken():
            try:
                self._do(following)
            except KeepmoreError as error:
                self._hand_on(following, error.message)

    def _do(self, step: Step) -> None:
        with about(step):
            if self.stopping():
                self._hand_on(step, STOPPING)
                return
            if self.board.busy(step):
                log.info("step left alone: another worker is at it")
                return
            tries = self.foreman.began(step)
            if tries > TRIES:
                self.foreman.failed(step, lost(step, "killed each time, often for lack of memory"))
                return
            log.info("step begins", extra={"try": tries})
            try:
                with self.tracer.of(step, tries), _Pulse(self.store, self.board, step, self.stopping) as pulse:
                    report = pulse.report(self.foreman)
                    attempt(step, self.store, Workshop.at(self.site, self.decoder, report, tries > 1))
            except Stopping as error:
                self._hand_on(step, error.message)
            except Cancelled:
                log.info("step abandoned: nobody waits for it")
                self.foreman.abandoned(step)
            except KeepmoreError as error:
                if error.transient:
                    log.warning("step put off", extra={"code": error.code, "reason": error.message})
                    with suppress(QueueUnavailable):
                        self.board.count(metrics.of_delay(step, error.code))
                    raise
                self.fail(step, error)
            else:
                log.info("step done")
                with self.relay.keeping():
                    self.foreman.finished(step)

    def _hand_on(self, step: Step, reason: str) -> None:
        """Have another process do the step; what is written of it already is found again."""
        log.warning("step handed on", extra={"handed_on": str(step), "reason": reason})
        with suppress(QueueUnavailable):
            self.board.count(metrics.of_step(step, "handed_on", Progress(), None))
        self.put_off(step)
        with suppress(QueueUnavailable):  # the reconciler finds it
            self.relay.submit([step])

    def fail(self, step: Step, error: KeepmoreError) -> None:
        log.error("step failed", extra={"code": error.code, "reason": error.message})
        self.foreman.failed(step, error)

    def put_off(self, step: Step) -> None:
        """The step is tried again later, and that is no death of a worker."""
        with suppress(QueueUnavailable):  # then the board has forgotten the try anyway, or will count one too many
            self.board.finish(step)
            self.board.push(step)


class _Pulse:
    """While a step runs: tells the board every few seconds that it is alive, and watches whether anybody waits for it.

    Two threads, because the store may not answer for longer than a silent worker counts as alive.
    """

    def __init__(self, store: Store, board: Board, step: Step, stopping: Callable[[], bool]) -> None:
        self._store = store
        self._board = board
        self._step = step
        self._stopping = stopping
        self._over = threading.Event()
        self._wanted = True
        self._foreman: Foreman | None = None
        self._untold = Progress()
        self._told_at = 0.0
        self._first_image_at: float | None = None
        self._beating = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> _Pulse:
        self._beating.start()
        self._watching.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._beating.join()  # a sign of life that came after the step is finished would bring it back
        if self._foreman and self._untold != Progress():
            self._tell(self._foreman)

    def report(self, foreman: Foreman) -> Report:
        """Takes the progress of every image, and passes it on now and then; the last of it when the step is over."""

        def tell(progress: Progress) -> None:
            if not self._wanted:
                raise Cancelled(f"nobody waits for step {self._step} of job {self._step.job} any more")
            if self._step.kind in RESUMED and self._stopping():  # others would begin from nothing again
                raise Stopping(STOPPING)
            if self._step.kind is Kind.TUNE and progress.images and self._turn_is_over():
                raise Stopping("its turn is over, others wait; it goes on from its checkpoint")
            self._untold += progress
            if time.monotonic() - self._told_at > TELL_EVERY_S:
                self._tell(foreman)

        self._foreman = foreman
        return tell

    def _turn_is_over(self) -> bool:
        now = time.monotonic()
        if self._first_image_at is None:
            self._first_image_at = now
        return now - self._first_image_at > LONGEST_TURN_S

    def _tell(self, foreman: Foreman) -> None:
        progress, self._untold, self._told_at = self._untold, Progress(), time.monotonic()
        try:
            foreman.progressed(self._step, progress)
        except QueueUnavailable as error:  # progress is for looking at: the step goes on without it
            log.warning("no progress noted", extra={"reason": error.message})

    def _beat(self) -> None:
        while not self._over.wait(PULSE_S):
            try:
                self._board.seen(self._step)
            except QueueUnavailable as error:
                log.warning("no sign of life given", extra={"reason": error.message})

    def _watch(self) -> None:
        book = JobBook(self._store)
        while self._step.kind is not Kind.ESTIMATE and not self._over.wait(PULSE_S):
            try:
                self._wanted = is_wanted(self._step, book.get(self._step.job), self._store)
            except JobNotFound:
                self._wanted = False
            except StoreError as error:
                log.warning("could not look at the job", extra={"reason": error.message})
