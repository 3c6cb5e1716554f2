"""What the loop of a worker or of the clock reports: that it runs, and that it is asked to stop."""

from __future__ import annotations

import mmap
import threading
from typing import Any

from celery import bootsteps
from celery.beat import Scheduler

from keepmore_services import liveness


class Stop:
    """Whether this worker was asked to stop; shared with the processes that it forks."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def ask(self) -> None:
        self._shared[0] = 1

    def is_set(self) -> bool:
        return self._shared[0] == 1


class Marking(bootsteps.StartStopStep):  # type: ignore[misc]
    """Marks that the loop runs. While Redis is away the loop waits, as it should: a thread marks instead."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._connected = threading.Event()
        self._timed: Any = None
        threading.Thread(target=self._meanwhile, name="marking", daemon=True).start()

    def start(self, consumer: Any) -> None:
        liveness.mark()
        self._timed = consumer.timer.call_repeatedly(liveness.EVERY_S, liveness.mark)
        self._connected.set()

    def stop(self, consumer: Any) -> None:
        self._connected.clear()
        if self._timed:
            self._timed.cancel()
            self._timed = None

    def _meanwhile(self) -> None:
        never = threading.Event()
        while not never.wait(liveness.EVERY_S):
            if not self._connected.is_set():
                liveness.mark()


class Clock(Scheduler):  # type: ignore[misc]
    """Beat's schedule, kept in memory: it has one entry, and does not need a file."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        liveness.mark()
        return float(super().tick(*args, **kwargs))
