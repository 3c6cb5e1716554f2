"""The service in one process: its own pool does the steps."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from opentelemetry.sdk.trace import TracerProvider

from keepmore.errors import KeepmoreError, QueueUnavailable, StoreError
from keepmore.jobs.step import Step
from keepmore.progress import Progress
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.storage import layout
from keepmore.storage.open import check_writable
from keepmore_api.backend.base import Backend
from keepmore_services.settings import Settings
from keepmore_services.tracing import Tracer

log = logging.getLogger(__name__)


class Embedded:
    """Steps go to a pool of local processes, looked after by two threads: one for the pool, one that reconciles.

    On entry it continues the jobs that an earlier run left unfinished.
    """

    def __init__(self, settings: Settings, tracing: TracerProvider | None = None) -> None:
        self.config = settings.config
        self.store = settings.config.store()
        try:
            check_writable(self.store)
        except StoreError as error:
            if next(self.store.keys(""), None) is None:  # of no use; else, what is in it can be read
                raise
            log.warning("nothing can be written", extra={"code": error.code, "reason": error.message})
        self.tracker = InMemoryStepTracker(settings.processes)
        self._queue = LocalQueue(self.config, settings.processes)
        self.scheduler = Scheduler(self.store, self.tracker, self._queue)
        self._tracer = Tracer(tracing, self.store)
        self._every_s = settings.reconcile_s
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="queue", daemon=True),
            threading.Thread(target=self._reconcile, name="reconcile", daemon=True),
        ]

    def __enter__(self) -> Backend:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._queue.stop()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        self.store.exists(layout.job("readyz"))
        check_writable(self.store)
        if not all(thread.is_alive() for thread in self._threads):
            raise QueueUnavailable("the pool of local processes has stopped; see the log, and start the service again")

    def depths(self) -> dict[str, int]:
        return self._queue.depths()

    def _run(self) -> None:
        with self._ending_too(), self._queue:
            self._queue.run(ResilientListener(self.scheduler, self._tracer), until_idle=False)

    def _reconcile(self) -> None:
        with self._ending_too():
            while True:
                try:
                    self.scheduler.reconcile()
                except KeepmoreError as error:
                    log.error("could not look after the jobs", extra={"code": error.code, "reason": error.message})
                if self._over.wait(self._every_s):
                    return

    @contextmanager
    def _ending_too(self) -> Iterator[None]:
        """A service whose thread died of a defect only looks alive: the process ends, and its supervisor starts it
        again."""
        try:
            yield
        finally:
            if not self._over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)


class ResilientListener:
    """A listener that survives a failing store: the reconciler later does what it could not do."""

    def __init__(self, scheduler: Scheduler, tracer: Tracer) -> None:
        self._scheduler = scheduler
        self._tracer = tracer

    def on_start(self, step: Step) -> int:
        tries = self._scheduler.on_start(step)
        self._tracer.start(step, tries)
        return tries

    def on_progress(self, step: Step, progress: Progress) -> None:
        self._scheduler.on_progress(step, progress)

    def on_finish(self, step: Step) -> None:
        self._tracer.end(step)
        log.info("step done", extra={"job": step.job, "step": str(step)})
        try:
            self._scheduler.on_finish(step)
        except KeepmoreError as error:
            self._put_off(step, error)

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        self._tracer.end(step, error)
        log.error(
            "step failed", extra={"job": step.job, "step": str(step), "code": error.code, "reason": error.message}
        )
        try:
            self._scheduler.on_failure(step, error)
        except KeepmoreError as another:
            self._put_off(step, another)

    def on_abandon(self, step: Step) -> None:
        self._tracer.end(step)
        try:
            self._scheduler.on_abandon(step)
        except KeepmoreError as error:
            self._put_off(step, error)

    def _put_off(self, step: Step, error: KeepmoreError) -> None:
        log.error("not written down yet", extra={"job": step.job, "step": str(step), "reason": error.message})
