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

from keepmore.errors import KeepmoreError, QueueUnavailable
from keepmore.jobs.graph import Step
from keepmore.progress import Progress
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Foreman
from keepmore.scheduling.tracker import MemoryBoard
from keepmore.storage import layout
from keepmore_api.backend.base import Backend
from keepmore_services.settings import Settings
from keepmore_services.tracing import Tracer

log = logging.getLogger(__name__)


class Embedded:
    """Steps go to a pool of local processes, looked after by two threads: one for the pool, one that reconciles.

    On entry it goes on with the jobs that an earlier run left unfinished.
    """

    def __init__(self, settings: Settings, tracing: TracerProvider | None = None) -> None:
        self.site = settings.site
        self.store = settings.site.store()
        self.board = MemoryBoard(settings.processes)
        self._queue = LocalQueue(self.site, settings.processes)
        self.foreman = Foreman(self.store, self.board, self._queue)
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
        if not all(thread.is_alive() for thread in self._threads):
            raise QueueUnavailable("the pool of local processes has stopped; see the log, and start the service again")

    def depths(self) -> dict[str, int]:
        return self._queue.depths()

    def _run(self) -> None:
        with self._ending_too(), self._queue:
            self._queue.run(_Careful(self.foreman, self._tracer), until_idle=False)

    def _reconcile(self) -> None:
        with self._ending_too():
            while True:
                try:
                    self.foreman.reconcile()
                except KeepmoreError as error:
                    log.error("could not look after the jobs", extra={"code": error.code, "reason": error.message})
                if self._over.wait(self._every_s):
                    return

    @contextmanager
    def _ending_too(self) -> Iterator[None]:
        """A service whose thread died of a defect only looks alive: it ends, and whoever runs it starts it again."""
        try:
            yield
        finally:
            if not self._over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)


class _Careful:
    """A witness that outlives a store which fails: the reconciler makes up for what it could not do."""

    def __init__(self, foreman: Foreman, tracer: Tracer) -> None:
        self._foreman = foreman
        self._tracer = tracer

    def began(self, step: Step) -> int:
        tries = self._foreman.began(step)
        self._tracer.began(step, tries)
        return tries

    def progressed(self, step: Step, progress: Progress) -> None:
        self._foreman.progressed(step, progress)

    def finished(self, step: Step) -> None:
        self._tracer.ended(step)
        log.info("step done", extra={"job": step.job, "step": str(step)})
        try:
            self._foreman.finished(step)
        except KeepmoreError as error:
            self._put_off(step, error)

    def failed(self, step: Step, error: KeepmoreError) -> None:
        self._tracer.ended(step, error)
        log.error(
            "step failed", extra={"job": step.job, "step": str(step), "code": error.code, "reason": error.message}
        )
        try:
            self._foreman.failed(step, error)
        except KeepmoreError as another:
            self._put_off(step, another)

    def abandoned(self, step: Step) -> None:
        self._tracer.ended(step)
        try:
            self._foreman.abandoned(step)
        except KeepmoreError as error:
            self._put_off(step, error)

    def _put_off(self, step: Step, error: KeepmoreError) -> None:
        log.error("not written down yet", extra={"job": step.job, "step": str(step), "reason": error.message})
